//! Putting parked streams back in order.

use super::{ApplyError, Delivered, Source, Subscriber};
use crate::log::Log;
use crate::{Error, Result, feed, parked};

/// What became of the waiting room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retried {
    /// How many events were applied.
    pub applied: u64,
    /// The streams that still cannot go on, with the reason.
    pub stuck: Vec<(String, String)>,
}

/// Applies what waits for a subscription, stream by stream and in order. A stream that still fails stays.
///
/// # Errors
/// When the plumbing fails; what was applied until then stays applied.
pub async fn retry_parked(
    home: &Log,
    subscription: &str,
    sources: &[Source],
    subscriber: &dyn Subscriber,
) -> Result<Retried> {
    let mut retried = Retried::default();
    let mut skip = Vec::new();
    loop {
        let mut transaction = home.database().begin().await?;
        parked::lock(&mut transaction, subscription).await?;
        let Some((source_name, aggregate_type, aggregate_id, positions)) =
            parked::first_stream(&mut transaction, subscription, &skip).await?
        else {
            return Ok(retried);
        };
        let Some(source) = sources.iter().find(|source| source.log.source() == source_name) else {
            return Err(Error::Malformed(format!("{subscription} does not read {source_name}")));
        };
        let mut stuck = None;
        for recorded in feed::read_positions(source.log.database(), &positions).await? {
            let mut event = Delivered::stored(&source_name, recorded);
            if source.personal {
                event.open(&source.log).await?;
            }
            let mut attempt = sqlx::Acquire::begin(&mut *transaction).await?;
            let applied = async {
                subscriber.prepare(std::slice::from_ref(&event)).await?;
                subscriber.write(std::slice::from_ref(&event), &mut attempt).await
            };
            match applied.await {
                Ok(()) => {
                    parked::unpark(&mut attempt, subscription, &source_name, event.position).await?;
                    attempt.commit().await?;
                    retried.applied += 1;
                }
                Err(ApplyError::Engine(error)) => return Err(error),
                Err(ApplyError::Event(error)) => {
                    attempt.rollback().await?;
                    stuck = Some(error);
                    break;
                }
            }
        }
        transaction.commit().await?;
        if let Some(error) = stuck {
            retried.stuck.push((format!("{aggregate_type} {aggregate_id}"), error));
            skip.push((source_name, aggregate_type, aggregate_id));
        }
    }
}
