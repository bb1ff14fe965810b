//! Waiting for the read models of a service.

use std::time::Duration;

use async_trait::async_trait;
use event_store::event::partition_of;
use event_store::read_your_writes::{self, Place};
use event_store::{Log, Result};
use projections::projector::Sources;
use projections::registry::{self, Readers};
use tokio::time::Instant;

use crate::service::Reads;
use crate::work;

/// The read models of one service.
pub struct ServiceReads {
    home: Log,
    readers: Readers,
    sources: Sources,
}

impl ServiceReads {
    /// Those in the database of `log`, made of `sources`.
    pub fn new(log: &Log, sources: Sources) -> Self {
        Self { home: log.clone(), readers: Readers::new(log.source(), log), sources }
    }

    fn service(&self) -> &str {
        self.home.source()
    }
}

#[async_trait]
impl Reads for ServiceReads {
    async fn wait(&self, place: &Place, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        let log = self.sources.logs.get(place.source.as_str());
        // A position alone stands for all that was written up to it, which is less than was asked for as long
        // as the log has not come so far.
        if let (None, Some(log)) = (place.partition, log)
            && registry::services_needed(self.service()).contains(place.source.as_str())
            && !written(log, place.position, limit).await?
        {
            return Ok(false);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        self.readers.wait_all(place, log.map(Log::database), left).await
    }

    async fn wait_for_news(&self, place: &Place, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        let left = || deadline.saturating_duration_since(Instant::now());
        let listeners = work::listeners(self.service(), &place.source);
        if place.source != self.service()
            && !listeners.is_empty()
            && let Some(log) = self.sources.logs.get(place.source.as_str())
        {
            let is_heard = written(log, place.position, limit).await?
                && read_your_writes::wait(&self.home, &listeners, place, Some(log.database()), left()).await?
                // What they have done about it is in the log of this service by now.
                && self.hear(self.service(), left()).await?;
            if !is_heard {
                return Ok(false);
            }
        }
        self.wait(place, left()).await
    }

    async fn hear(&self, source: &str, limit: Duration) -> Result<bool> {
        let Some(log) = self.sources.logs.get(source) else { return Ok(true) };
        let position = log.signal().refresh().await?;
        let place = Place { source: source.to_owned(), partition: None, position };
        self.wait(&place, limit).await
    }

    async fn hear_of(
        &self,
        source: &str,
        aggregate_type: &str,
        aggregate_id: &str,
        limit: Duration,
    ) -> Result<bool> {
        let Some(log) = self.sources.logs.get(source) else { return Ok(true) };
        match log.last_of_stream(aggregate_type, aggregate_id).await? {
            Some(position) => {
                let partition = Some(partition_of(aggregate_id));
                self.wait(&Place { source: source.to_owned(), partition, position }, limit).await
            }
            None => Ok(true),
        }
    }
}

/// Waits until a log has come to a position; says whether it has within `limit`.
async fn written(log: &Log, position: i64, limit: Duration) -> Result<bool> {
    let mut head = log.signal().head();
    if log.signal().refresh().await? >= position {
        return Ok(true);
    }
    let reached = tokio::time::timeout(limit, head.wait_for(|head| *head >= position)).await;
    Ok(matches!(reached, Ok(Ok(_))))
}
