//! The command bus: aggregates are taken from a cache or loaded, decide, and leave in the group commit.
//!
//! Commands on one aggregate queue in the process, each seeing the state its predecessors left, and go
//! out as one group: a hot product runs at the speed of batches, not of single commits. Commands on
//! different aggregates run side by side. What another process wrote is noticed by the append itself: the
//! cached state is dropped, the stream is loaded and the command decided again. A refusal made from
//! cached state is checked against the log in the same way before anyone hears of it.

mod cache;
mod contention;
#[cfg(feature = "failpoints")]
mod defects;
mod loader;
mod runner;

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use cqrs_es::Aggregate;
use cqrs_es::persist::EventUpcaster;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::append::{CommandKey, FirstCopy};
use crate::log::Log;
use crate::{Error, Result};

pub use loader::Loaded;

/// How many commands wait at most for one aggregate; further ones are turned away.
const QUEUED_COMMANDS: usize = 4_096;

/// A name an event takes or gives up, as the domain says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimChange {
    /// What kind of name it is, such as `email`.
    pub scope: &'static str,
    /// The name, normalised; it is hashed before it is stored.
    pub name: String,
    /// Whether it is taken or given up.
    pub take: bool,
}

/// The names an event takes or gives up, told from the state before the command and the event.
pub type Claims<A> = fn(&A, &<A as Aggregate>::Event) -> Vec<ClaimChange>;

/// What the engine must know of an aggregate beside cqrs-es's trait.
pub struct Behaviour<A: Aggregate> {
    /// The names its events take or give up.
    pub claims: Option<Claims<A>>,
    /// The personal fields of an event type.
    pub personal_fields: fn(&str) -> &'static [&'static str],
    /// Whose key seals the personal fields of an event.
    pub person_of: fn(&str, &A::Event) -> Option<Uuid>,
    /// Whose key seals a snapshot: for aggregates whose state holds personal data.
    pub person_of_state: fn(&str, &A) -> Option<Uuid>,
    /// Changes of meaning of stored events.
    pub upcasters: Vec<Box<dyn EventUpcaster>>,
    /// The shape of the state; snapshots of another shape are passed over.
    pub snapshot_shape: i64,
}

impl<A: Aggregate> Default for Behaviour<A> {
    fn default() -> Self {
        Self {
            claims: None,
            personal_fields: |_| &[],
            person_of: |_, _| None,
            person_of_state: |_, _| None,
            upcasters: Vec::new(),
            snapshot_shape: 1,
        }
    }
}

/// Which aggregate a command goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One that may have a history.
    Existing(String),
    /// One that has no history, as far as the caller knows: nothing is loaded before the command is decided. Should
    /// the log know better, it is loaded, and the command decided again.
    New(String),
}

/// What the answer kept for copies of a command is made from.
pub enum Decision<'a, A: Aggregate> {
    /// The command was accepted; the state and version after it.
    Accepted {
        /// The state after the command.
        aggregate: &'a A,
        /// The version after the command.
        sequence: i64,
    },
    /// The command was refused.
    Refused(&'a A::Error),
}

/// Makes the answer that is kept with the command row, if it follows from the decision.
pub type Answer<A> = Arc<dyn Fn(&Decision<'_, A>) -> Option<String> + Send + Sync>;

/// What comes with a command.
pub struct Context<A: Aggregate> {
    /// Identity, for commands that may be sent twice.
    pub key: Option<CommandKey>,
    /// The user who asks.
    pub actor: Option<Uuid>,
    /// The request all of this belongs to.
    pub correlation_id: Option<Uuid>,
    /// The event a process manager reacts to.
    pub causation_id: Option<Uuid>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The version the aggregate must have.
    pub expected: Option<i64>,
    /// Whether the caller wants the state after the command.
    pub with_state: bool,
    /// Makes the answer kept for copies.
    pub answer: Option<Answer<A>>,
}

impl<A: Aggregate> Default for Context<A> {
    fn default() -> Self {
        Self {
            key: None,
            actor: None,
            correlation_id: None,
            causation_id: None,
            traceparent: None,
            expected: None,
            with_state: false,
            answer: None,
        }
    }
}

/// A command that was accepted, and is durable.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed<A> {
    /// The aggregate; for a replayed command the one its first copy went to.
    pub aggregate_id: String,
    /// The version after the command.
    pub sequence: i64,
    /// The position of its last event; 0 when nothing had to change.
    pub position: i64,
    /// When it was committed.
    pub recorded_at: Option<DateTime<Utc>>,
    /// The state after it, when asked for and known.
    pub aggregate: Option<A>,
    /// What the first copy left, when this one is a repetition.
    pub replayed: Option<FirstCopy>,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError<E: std::error::Error> {
    /// The domain says no.
    #[error("{0}")]
    Refused(E),
    /// A name it wants belongs to another.
    #[error("the {scope} is taken")]
    ClaimTaken {
        /// The kind of name.
        scope: String,
    },
    /// The aggregate has another version than the caller expects.
    #[error("the version is {current}")]
    VersionMismatch {
        /// The version it has.
        current: i64,
    },
    /// The command id was used for another request.
    #[error("the command id was used for another request")]
    KeyReused,
    /// Other processes kept moving the aggregate on.
    #[error("too many concurrent changes")]
    Conflict,
    /// Too many commands wait for the aggregate.
    #[error("too many commands wait for this aggregate")]
    Busy,
    /// The plumbing failed.
    #[error(transparent)]
    Engine(#[from] Error),
}

/// The result of a command.
pub type Executed<A> = std::result::Result<Committed<A>, ExecuteError<<A as Aggregate>::Error>>;

/// A command waiting for its turn.
struct Pending<A: Aggregate> {
    command: A::Command,
    context: Context<A>,
    fresh: bool,
    contention: contention::Contention,
    reply: oneshot::Sender<Executed<A>>,
}

/// The command bus of one aggregate type on one log. Cheap to clone.
pub struct CommandBus<A: Aggregate> {
    inner: Arc<Inner<A>>,
}

impl<A: Aggregate> Clone for CommandBus<A> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<A: Aggregate> {
    log: Log,
    services: A::Services,
    behaviour: Arc<Behaviour<A>>,
    cache: cache::Cache<A>,
    loader: loader::Loader<A>,
    queues: DashMap<String, VecDeque<Pending<A>>, lru::DefaultHasher>,
}

impl<A> CommandBus<A>
where
    A: Aggregate + Clone + 'static,
    A::Command: Clone + Send + Sync,
    A::Error: Send + Sync + 'static,
{
    /// A bus for `A` on `log`, holding at most `cached` aggregates in memory.
    pub fn new(log: Log, services: A::Services, behaviour: Behaviour<A>, cached: usize) -> Self {
        let behaviour = Arc::new(behaviour);
        let loader = loader::Loader::start(log.clone(), Arc::clone(&behaviour));
        let inner = Inner {
            log,
            services,
            behaviour,
            cache: cache::Cache::new(cached),
            loader,
            queues: DashMap::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The log it writes to.
    pub fn log(&self) -> &Log {
        &self.inner.log
    }

    /// Carries out a command and answers when its events are durable. Whoever stops waiting for the answer
    /// does not undo the command: it may have been carried out or not.
    ///
    /// # Errors
    /// The refusal of the domain, or what kept the command from being decided; in both cases nothing was
    /// written, except after [`ExecuteError::Engine`], when that is unknown.
    pub async fn execute(&self, target: Target, command: A::Command, context: Context<A>) -> Executed<A> {
        let (aggregate_id, fresh) = match target {
            Target::Existing(id) => (id, false),
            Target::New(id) => (id, true),
        };
        let (reply, answer) = oneshot::channel();
        let pending =
            Pending { command, context, fresh, contention: contention::Contention::default(), reply };
        let first = match self.inner.queues.entry(aggregate_id.clone()) {
            Entry::Occupied(mut queue) => {
                if queue.get().len() >= QUEUED_COMMANDS {
                    return Err(ExecuteError::Busy);
                }
                queue.get_mut().push_back(pending);
                None
            }
            Entry::Vacant(slot) => {
                slot.insert(VecDeque::new());
                Some(pending)
            }
        };
        // Most commands meet nobody else at their aggregate: they run here, without a task of their own.
        if let Some(pending) = first {
            runner::run_first(&self.inner, aggregate_id, pending).await;
        }
        answer.await.unwrap_or(Err(ExecuteError::Engine(Error::ShuttingDown)))
    }

    /// The aggregate as it stands in the log, with its version (0: it has no history).
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn load(&self, aggregate_id: &str) -> Result<Loaded<A>> {
        let mut remembered = self.remembered(aggregate_id);
        if let Some(known) = &remembered
            && let Some(person) = (self.inner.behaviour.person_of_state)(aggregate_id, &known.aggregate)
            && self.inner.log.personal().is_forgotten(person).await?
        {
            // It was read while the person's key was there, and has in it what must not be read any more.
            drop(self.inner.cache.take(aggregate_id));
            remembered = None;
        }
        let loaded = self.inner.loader.load(aggregate_id, remembered).await?;
        if loaded.version > 0 {
            self.inner.cache.offer(aggregate_id, &loaded);
        }
        Ok(loaded)
    }

    /// The aggregate as this process last saw it, if it remembers it. Others may have changed it long since, so it
    /// tells only that something was so once.
    pub fn remembered(&self, aggregate_id: &str) -> Option<Loaded<A>> {
        let remembered = self.inner.cache.peek(aggregate_id)?;
        (remembered.life == self.inner.log.memory().life()).then_some(remembered)
    }

    /// The aggregate as the log has it, without a look at the log: as the last command left it, if no other process has
    /// worked on the database since and no command has the aggregate. None when it takes a look;
    /// [`CommandBus::load`] takes one. Only where no other bus of this process writes to these aggregates.
    pub fn current(&self, aggregate_id: &str) -> Option<Loaded<A>> {
        let period = self.inner.log.signal().period_alone()?;
        if self.is_at_work(aggregate_id) {
            return None;
        }
        self.remembered(aggregate_id).filter(|known| known.left_in == Some(period))
    }

    /// Whether a command of this process has the aggregate just now; if it is carried out, what the aggregate becomes is
    /// remembered afterwards.
    pub fn is_at_work(&self, aggregate_id: &str) -> bool {
        self.inner.queues.contains_key(aggregate_id)
    }

    /// An event of the log as the domain knows it today.
    pub(crate) fn decode(&self, recorded: &crate::Recorded) -> Result<A::Event> {
        loader::decode(recorded, &self.inner.behaviour)
    }

    /// New events as they are stored.
    pub(crate) async fn serialise(
        &self,
        id: &str,
        events: &[A::Event],
        metadata: &std::collections::HashMap<String, String>,
    ) -> Result<Vec<crate::NewEvent>> {
        let origin = serde_json::to_value(metadata).and_then(serde_json::from_value);
        let origin = origin
            .map_err(|source| Error::Decode { what: "the metadata of a command".to_owned(), source })?;
        runner::serialise(&self.inner.log, &self.inner.behaviour, id, events, &origin).await
    }
}
