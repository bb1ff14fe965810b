//! The ways in for users of cqrs-es: its `EventStore` on our log, and postgres-es's repository.
//!
//! cqrs-es's own snapshot and aggregate stores are not for use here: they apply events twice (once when
//! the sink writes them, once at commit), which a test of this crate shows.

use std::collections::HashMap;

use cqrs_es::persist::PersistedEventStore;
use cqrs_es::{Aggregate, AggregateContext, AggregateError, EventEnvelope, EventStore};
use postgres_es::PostgresEventRepository;

use crate::append::{Append, Outcome};
use crate::execute::{CommandBus, Loaded};
use crate::log::Log;
use crate::{Error, feed};

/// How many events of a stream are read at once.
const PAGE_EVENTS: i64 = 10_000;

/// postgres-es's repository on our log. What it writes gets its position and partition from a trigger; a
/// cqrs-es application can move over without moving its data.
pub fn stock_repository(log: &Log) -> PostgresEventRepository {
    PostgresEventRepository::new(log.database().clone())
        .with_tables("event_store.events", "event_store.snapshots")
}

/// cqrs-es's event-sourced store over [`stock_repository`].
pub fn stock_store<A: Aggregate>(log: &Log) -> PersistedEventStore<PostgresEventRepository, A> {
    PersistedEventStore::new_event_store(stock_repository(log))
}

/// An aggregate on its way through cqrs-es's framework.
pub struct LogContext<A> {
    aggregate_id: String,
    loaded: Loaded<A>,
}

impl<A: Aggregate> AggregateContext<A> for LogContext<A> {
    fn aggregate(&mut self) -> &mut A {
        &mut self.loaded.aggregate
    }
}

/// The log as cqrs-es's `EventStore`, so that `CqrsFramework` runs on it, group commit included.
impl<A> EventStore<A> for CommandBus<A>
where
    A: Aggregate + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    type AC = LogContext<A>;

    async fn load_events(
        &self,
        aggregate_id: &str,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        let mut envelopes: Vec<EventEnvelope<A>> = Vec::new();
        loop {
            let after = envelopes.last().map_or(0, |last| last.sequence as i64);
            let page = feed::read_stream(self.log().database(), A::TYPE, aggregate_id, after, PAGE_EVENTS)
                .await
                .map_err(failure)?;
            let complete = (page.len() as i64) < PAGE_EVENTS;
            for mut recorded in page {
                recorded.open(self.log().personal()).await.map_err(failure)?;
                let payload = self.decode(&recorded).map_err(failure)?;
                envelopes.push(EventEnvelope {
                    aggregate_id: recorded.aggregate_id,
                    sequence: recorded.sequence as usize,
                    payload,
                    metadata: strings(&recorded.metadata),
                });
            }
            if complete {
                return Ok(envelopes);
            }
        }
    }

    async fn load_aggregate(&self, aggregate_id: &str) -> Result<LogContext<A>, AggregateError<A::Error>> {
        let loaded = self.load(aggregate_id).await.map_err(failure)?;
        Ok(LogContext { aggregate_id: aggregate_id.to_owned(), loaded })
    }

    async fn commit(
        &self,
        events: Vec<A::Event>,
        context: LogContext<A>,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let id = context.aggregate_id;
        let serialised = self.serialise(&id, &events, &metadata).await.map_err(failure)?;
        let append = Append {
            aggregate_type: A::TYPE,
            aggregate_id: id.clone(),
            expected: context.loaded.version,
            events: serialised,
            claims: Vec::new(),
            key: None,
            refused: false,
            answer: None,
        };
        let outcome =
            self.log().committer().append(context.loaded.life, vec![append]).await.map_err(failure)?.pop();
        match outcome {
            Some(Outcome::Appended { .. }) => {
                let version = context.loaded.version as usize;
                let envelopes = events.into_iter().enumerate().map(|(offset, payload)| EventEnvelope {
                    aggregate_id: id.clone(),
                    sequence: version + 1 + offset,
                    payload,
                    metadata: metadata.clone(),
                });
                Ok(envelopes.collect())
            }
            Some(Outcome::Conflict | Outcome::Duplicate(_) | Outcome::ClaimTaken { .. }) | None => {
                Err(AggregateError::AggregateConflict)
            }
        }
    }
}

fn failure<E: std::error::Error>(error: Error) -> AggregateError<E> {
    match error {
        Error::Unavailable(_) | Error::Database(_) => {
            AggregateError::DatabaseConnectionError(Box::new(error))
        }
        Error::Decode { .. } => AggregateError::DeserializationError(Box::new(error)),
        _ => AggregateError::UnexpectedError(Box::new(error)),
    }
}

fn strings(metadata: &crate::Metadata) -> HashMap<String, String> {
    serde_json::to_value(metadata)
        .ok()
        .and_then(|value| serde_json::from_value(value).ok())
        .unwrap_or_default()
}
