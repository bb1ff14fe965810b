//! Waiting for the read models of a service.

use std::time::Duration;

use async_trait::async_trait;
use event_store::read_your_writes::Place;
use event_store::{Log, Result};
use projections::projector::Sources;
use projections::registry::Readers;

use crate::service::Reads;

/// The read models of one service.
pub struct ServiceReads {
    readers: Readers,
    sources: Sources,
}

impl ServiceReads {
    /// Those in the database of `log`, made of `sources`.
    pub fn new(log: &Log, sources: Sources) -> Self {
        Self { readers: Readers::new(log.source(), log), sources }
    }
}

#[async_trait]
impl Reads for ServiceReads {
    async fn wait(&self, place: &Place, limit: Duration) -> Result<bool> {
        let source = self.sources.logs.get(place.source.as_str()).map(Log::database);
        self.readers.wait_all(place, source, limit).await
    }

    async fn hear(&self, source: &str, limit: Duration) -> Result<bool> {
        let Some(log) = self.sources.logs.get(source) else { return Ok(true) };
        let position = log.signal().refresh().await?;
        let place = Place { source: source.to_owned(), partition: None, position };
        self.wait(&place, limit).await
    }
}
