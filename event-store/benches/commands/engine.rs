//! The two that carry commands out: this engine and the stock one.

use std::sync::Arc;

use cqrs_es::AggregateError;
use event_store::append::CommandKey;
use event_store::execute::Answer;
use event_store::{Behaviour, CommandBus, Context, Log, Target};
use postgres_es::{PostgresCqrs, postgres_cqrs};
use sqlx::PgPool;
use uuid::Uuid;

use crate::parcel::{Parcel, ScanParcel};

/// How many aggregates the bus keeps in memory: more than a row spreads over.
pub(crate) const CACHED: usize = 20_000;

/// One of the two. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Engine {
    Mart(CommandBus<Parcel>),
    /// As [`Engine::Mart`], with an idempotency key and a stored answer for each command, as over HTTP.
    MartKeyed(CommandBus<Parcel>, Answer<Parcel>),
    Stock(Arc<PostgresCqrs<Parcel>>),
}

impl Engine {
    pub(crate) fn mart(log: &Log) -> Self {
        Self::mart_with(log, CACHED)
    }

    /// One that keeps so many aggregates in memory.
    pub(crate) fn mart_with(log: &Log, cached: usize) -> Self {
        Self::Mart(CommandBus::new(log.clone(), (), Behaviour::default(), cached))
    }

    pub(crate) fn mart_keyed(log: &Log) -> Self {
        let answer: Answer<Parcel> = Arc::new(|_| {
            Some(
                r#"{"status":201,"headers":{"etag":"\"1\""},"body":{"id":"parcel","sequence":1}}"#.to_owned(),
            )
        });
        Self::MartKeyed(CommandBus::new(log.clone(), (), Behaviour::default(), CACHED), answer)
    }

    pub(crate) fn stock(pool: PgPool) -> Self {
        Self::Stock(Arc::new(postgres_cqrs(pool, Vec::new(), ())))
    }

    /// Carries out one command. Stock has no answer to two writers of one aggregate but an error: the command
    /// is sent again until it is accepted, as this engine does by itself.
    ///
    /// # Panics
    /// When a command fails: figures of a broken run would mean nothing.
    pub(crate) async fn scan(&self, target: Target, depot: u32) {
        let command = ScanParcel { depot };
        match self {
            Self::Mart(bus) => {
                let done = bus.execute(target, command, Context::default()).await;
                assert!(done.is_ok(), "a command failed: {done:?}");
            }
            Self::MartKeyed(bus, answer) => {
                let key = CommandKey {
                    command_id: Uuid::now_v7(),
                    principal: "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
                    fingerprint: vec![7; 32],
                    derived: false,
                };
                let context =
                    Context { key: Some(key), answer: Some(Arc::clone(answer)), ..Context::default() };
                let done = bus.execute(target, command, context).await;
                assert!(done.is_ok(), "a command failed: {done:?}");
            }
            Self::Stock(framework) => {
                let (Target::New(id) | Target::Existing(id)) = target;
                loop {
                    match framework.execute(&id, command.clone()).await {
                        Ok(()) => return,
                        Err(AggregateError::AggregateConflict) => {}
                        Err(error) => panic!("a command of the stock framework failed: {error}"),
                    }
                }
            }
        }
    }
}
