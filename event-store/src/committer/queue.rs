//! What waits for its batch to leave.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::Result;
use crate::append::{Append, Outcome};

/// How many commands leave in one batch at most.
const BATCH_COMMANDS: usize = 2_048;
/// How many bytes of events leave in one batch at most.
const BATCH_BYTES: usize = 4 << 20;

/// Commands of one aggregate, in the order of their decision.
pub(super) struct Group {
    pub(super) commands: Vec<Append>,
    /// The life of the log in which it was decided.
    pub(super) life: u64,
    pub(super) reply: oneshot::Sender<Result<Vec<Outcome>>>,
}

impl Group {
    pub(super) fn aggregate_id(&self) -> Option<&str> {
        self.commands.first().map(|command| command.aggregate_id.as_str())
    }

    fn bytes(&self) -> usize {
        self.commands.iter().map(Append::bytes).sum()
    }
}

/// Groups in the order in which they came, no more than may leave together.
#[derive(Default)]
pub(super) struct Queue {
    groups: VecDeque<Group>,
    commands: usize,
    bytes: usize,
}

impl Queue {
    /// How many commands wait.
    pub(super) fn commands(&self) -> usize {
        self.commands
    }

    pub(super) fn has_room(&self) -> bool {
        self.commands < BATCH_COMMANDS && self.bytes < BATCH_BYTES
    }

    pub(super) fn push(&mut self, group: Group) {
        self.commands += group.commands.len();
        self.bytes += group.bytes();
        self.groups.push_back(group);
    }

    /// The groups that came first, of so many commands or of a few more: a group is not parted.
    pub(super) fn take(&mut self, commands: usize) -> Batch {
        let mut batch = Batch::default();
        while batch.commands < commands
            && let Some(group) = self.groups.pop_front()
        {
            batch.commands += group.commands.len();
            self.bytes -= group.bytes();
            batch.groups.push(group);
        }
        self.commands -= batch.commands;
        batch
    }
}

/// What leaves together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) groups: Vec<Group>,
    pub(super) commands: usize,
}
