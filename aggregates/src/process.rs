//! Process managers: events of some contexts in, commands and timed work of one context out.
//!
//! They keep nothing. All that a process must remember lives in the aggregates, time comes from the event, and
//! ids are derived from it, so that a redelivered event gives the same commands again.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::identifiers::{self, MalformedId};

/// What a process manager is told beside the event itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The event's id.
    pub event_id: Uuid,
    /// The service whose log holds it.
    pub source: &'static str,
    /// The aggregate it happened to.
    pub aggregate_id: String,
    /// Its place in the aggregate's stream, from 1.
    pub sequence: i64,
    /// Its place in the service's log.
    pub position: i64,
    /// When it was recorded: the only clock a process manager has.
    pub recorded_at: DateTime<Utc>,
    /// Who caused it, where a person did.
    pub actor: Option<Uuid>,
}

/// What is to be done about an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Reaction<C, J> {
    /// Give a command to an aggregate. The step names it within its cause: the command's id is
    /// [`command_id`] of both.
    Command {
        /// Unique among the reactions to one event.
        step: String,
        /// The aggregate and its command.
        target: C,
    },
    /// Have durable work done, once, with retries.
    Schedule {
        /// The work's id: scheduling it again changes nothing.
        id: Uuid,
        /// When it is due; at once when absent.
        due_at: Option<DateTime<Utc>>,
        /// What is to be done.
        job: J,
    },
    /// Work that is not needed any more.
    Unschedule {
        /// The id it was scheduled by.
        id: Uuid,
    },
}

/// A stateless, pure and deterministic reaction to events.
pub trait ProcessManager {
    /// The name of the process, also of its subscription.
    const NAME: &'static str;
    /// What it listens to.
    type Event;
    /// The commands it may give: those of its own service's aggregates.
    type Command;
    /// The durable work it may ask for.
    type Job: Serialize + DeserializeOwned;

    /// What is to be done about an event.
    ///
    /// # Errors
    /// [`MalformedId`] when the cause's aggregate id cannot be one of that aggregate; such an event must be
    /// parked, not skipped.
    fn react(&self, cause: &Cause, event: &Self::Event) -> Reactions<Self>;

    /// The aggregate whose commands of a batch may be merged; none where they are given one by one.
    fn merges_for(_command: &Self::Command) -> Option<Uuid> {
        None
    }

    /// Lets an earlier command to the same aggregate say what a later one says as well, and tells whether it does.
    ///
    /// Only for commands that change nothing when they are given a second time, whatever their id: redelivered events
    /// may come in other batches, and so in commands with other ids.
    fn merge(_earlier: &mut Self::Command, _later: &Self::Command) -> bool {
        false
    }
}

/// The answer of a process manager.
pub type Reactions<P> =
    Result<Vec<Reaction<<P as ProcessManager>::Command, <P as ProcessManager>::Job>>, MalformedId>;

/// The id of the command that a step gives because of an event.
#[must_use]
pub fn command_id(event_id: Uuid, step: &str) -> Uuid {
    identifiers::derive(event_id, step.as_bytes())
}
