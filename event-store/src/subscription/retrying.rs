//! Putting parked streams back in order.

use super::{ApplyError, Delivered, Effects, Source, Subscriber};
use crate::log::Log;
use crate::{Error, Result, feed, panics, parked, timers};

/// What became of the waiting room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retried {
    /// How many events were applied.
    pub applied: u64,
    /// The streams that still cannot go on, with the reason.
    pub stuck: Vec<(String, String)>,
}

/// Applies what waits for a subscription, stream by stream and in order, each event in a transaction of its own.
/// A stream that still fails stays.
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
        let mut connection = home.database().acquire().await?;
        let Some((source_name, aggregate_type, aggregate_id, positions)) =
            parked::first_stream(&mut connection, subscription, &skip).await?
        else {
            return Ok(retried);
        };
        drop(connection);
        let Some(source) = sources.iter().find(|source| source.log.source() == source_name) else {
            return Err(Error::Malformed(format!("{subscription} does not read {source_name}")));
        };
        let waiting = feed::read_positions(source.log.database(), &positions).await?;
        if waiting.is_empty() {
            return Err(Error::Malformed(format!("{source_name} has no event at position {positions:?}")));
        }
        for recorded in waiting {
            let mut event = Delivered::stored(source_name.as_str(), recorded);
            if source.personal {
                event.open(&source.log).await?;
            }
            match one(home, subscription, subscriber, &event).await {
                Ok(true) => retried.applied += 1,
                // Somebody else puts the stream back in order at the same time: what waits now is looked up anew.
                Ok(false) => break,
                Err(ApplyError::Engine(error)) => return Err(error),
                Err(ApplyError::Event(error)) => {
                    retried.stuck.push((format!("{aggregate_type} {aggregate_id}"), error));
                    skip.push((source_name, aggregate_type, aggregate_id));
                    break;
                }
            }
        }
    }
}

/// Applies one event that waits; says whether it still did. Whoever parks an event behind it waits for this
/// transaction, and so for no more than one event.
async fn one(
    home: &Log,
    subscription: &str,
    subscriber: &dyn Subscriber,
    event: &Delivered,
) -> std::result::Result<bool, ApplyError> {
    let effects = panics::blamed(subscriber.prepare(std::slice::from_ref(event))).await?;
    let mut transaction = home.database().begin().await?;
    parked::lock(&mut transaction, subscription).await?;
    if !parked::unpark(&mut transaction, subscription, &event.source, event.position).await? {
        return Ok(false);
    }
    match effects {
        Effects::Rows | Effects::Changes(_) => {
            subscriber.write(std::slice::from_ref(event), &mut transaction).await?
        }
        Effects::Timers(changes) => timers::change(&mut transaction, &changes).await?,
    }
    transaction.commit().await?;
    Ok(true)
}
