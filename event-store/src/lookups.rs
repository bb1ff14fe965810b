//! Where streams end: asked for by many at once, and answered together.
//!
//! Each question is answered by a query that began after it was asked. While one is under way, those that come wait
//! for the next.

use std::time::Duration;

use sqlx::Row;
use tokio::sync::{mpsc, oneshot};

use crate::connections::Connections;
use crate::{Error, Result};

/// How many questions one query answers at most.
const BATCH_LOOKUPS: usize = 512;
/// How many questions wait at most.
const QUEUED_LOOKUPS: usize = 16_384;

/// How long a query may take: behind one that hangs nothing would be answered any more.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// The last events of streams.
#[derive(Debug)]
pub(crate) struct Lookups {
    queue: mpsc::Sender<Lookup>,
}

#[derive(Debug)]
struct Lookup {
    aggregate_type: String,
    aggregate_id: String,
    reply: oneshot::Sender<Result<Option<i64>>>,
}

impl Lookups {
    /// Runs until the last of its users is gone.
    pub(crate) fn start(connections: Connections) -> Self {
        let (queue, mut asked) = mpsc::channel(QUEUED_LOOKUPS);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while asked.recv_many(&mut batch, BATCH_LOOKUPS).await > 0 {
                answer(&connections, std::mem::take(&mut batch)).await;
            }
        });
        Self { queue }
    }

    /// The position of an aggregate's last event; none when nothing ever happened to it.
    ///
    /// # Errors
    /// When the database is unreachable.
    pub(crate) async fn last_of_stream(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
    ) -> Result<Option<i64>> {
        let (aggregate_type, aggregate_id) = (aggregate_type.to_owned(), aggregate_id.to_owned());
        let (reply, answer) = oneshot::channel();
        let lookup = Lookup { aggregate_type, aggregate_id, reply };
        self.queue.send(lookup).await.map_err(|_| Error::ShuttingDown)?;
        answer.await.map_err(|_| Error::ShuttingDown)?
    }
}

async fn answer(connections: &Connections, batch: Vec<Lookup>) {
    let answered = tokio::time::timeout(ANSWERED_WITHIN, last_of_streams(connections, &batch)).await;
    match answered.unwrap_or(Err(Error::Unavailable(sqlx::Error::PoolTimedOut))) {
        Ok(positions) => {
            for (lookup, position) in batch.into_iter().zip(positions) {
                // Who asked may have gone away.
                let _ = lookup.reply.send(Ok(position));
            }
        }
        Err(error) => {
            let count = batch.len();
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                count,
                "ends of streams could not be looked up"
            );
            for lookup in batch {
                let _ = lookup.reply.send(Err(error.again()));
            }
        }
    }
}

/// Of how many subscripts there are the planner knows nothing, of an array that is unnested it does: and so it plans
/// this once, and not anew for each batch.
const LAST: &str = "select (select position from event_store.events \
    where aggregate_type = ($1::text[])[i] and aggregate_id = ($2::text[])[i] order by sequence desc limit 1) \
    from generate_subscripts($1::text[], 1) as i order by i";

/// The positions in the order of the questions.
async fn last_of_streams(connections: &Connections, batch: &[Lookup]) -> Result<Vec<Option<i64>>> {
    let (types, ids): (Vec<&str>, Vec<&str>) =
        batch.iter().map(|lookup| (lookup.aggregate_type.as_str(), lookup.aggregate_id.as_str())).unzip();
    let rows = sqlx::query(LAST).bind(types).bind(ids).fetch_all(connections).await?;
    let positions = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<_>>>()?;
    if positions.len() < batch.len() {
        return Err(Error::Malformed("fewer ends of streams than were asked for".to_owned()));
    }
    Ok(positions)
}
