//! Waiting until a process manager has heard what another service wrote: settlement an order, checkout a
//! payment. One aggregate is one partition, so the wait is for that alone.

use std::time::Duration;

use event_store::event::partition_of;
use event_store::read_your_writes::{self, Place};
use event_store::{Log, Result};

/// A process manager and a log it listens to.
#[derive(Clone)]
pub struct Hearing {
    /// The database that keeps how far the process manager has come.
    home: Log,
    process: &'static str,
    source: Log,
}

impl Hearing {
    /// `process`, whose checkpoints `home` keeps, listening to `source`.
    pub fn new(home: Log, process: &'static str, source: Log) -> Self {
        Self { home, process, source }
    }

    /// Waits until it has dealt with all that has happened to an aggregate. None when nothing ever did, false
    /// when it took longer than `limit`.
    ///
    /// # Errors
    /// When a database is unreachable.
    pub async fn all_of(
        &self,
        aggregate_type: &str,
        aggregate_id: &str,
        limit: Duration,
    ) -> Result<Option<bool>> {
        match self.source.last_of_stream(aggregate_type, aggregate_id).await? {
            Some(position) => self.up_to(aggregate_id, position, limit).await.map(Some),
            None => Ok(None),
        }
    }

    /// Waits until it has dealt with an event of an aggregate, by its position. False when it took longer
    /// than `limit`.
    ///
    /// # Errors
    /// When a database is unreachable.
    pub async fn up_to(&self, aggregate_id: &str, position: i64, limit: Duration) -> Result<bool> {
        let partition = Some(partition_of(aggregate_id));
        let place = Place { source: self.source.source().to_owned(), partition, position };
        read_your_writes::wait(&self.home, &[self.process], &place, None, limit).await
    }
}
