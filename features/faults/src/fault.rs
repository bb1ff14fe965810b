//! What can be broken.

use std::fmt;

use clap::ValueEnum;

/// A kind of fault. Each is lifted again after the time that the schedule gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Fault {
    /// A process of the mart is killed (SIGKILL) and started again.
    Kill,
    /// A process of the mart is stopped in its tracks (SIGSTOP) and goes on (SIGCONT).
    Pause,
    /// PostgreSQL is shut down immediately, without a checkpoint, and started again.
    PostgresStop,
    /// The postmaster of PostgreSQL is killed (SIGKILL), and a server started again.
    PostgresKill,
    /// A backend of PostgreSQL is told to end.
    BackendEnd,
    /// A backend of PostgreSQL is killed (SIGKILL): the server throws all others out and recovers.
    BackendKill,
    /// The connection to PostgreSQL is cut when a commit is done and before its answer arrives.
    CommitCut,
    /// The broker takes no connections, and those that are open are cut.
    BrokerDown,
    /// The broker loses all records and topics.
    BrokerEmptied,
    /// The broker refuses all requests for records, to store or to give them.
    BrokerErrors,
    /// The connection to the broker is cut when records are stored and before the answer arrives.
    ProduceCut,
    /// Everything between a process and PostgreSQL or the broker takes longer.
    LinkDelay,
    /// Nothing passes between a process and PostgreSQL or the broker, and nobody is told.
    LinkStall,
    /// The connections between a process and PostgreSQL or the broker are cut, and no new ones are taken.
    LinkCut,
    /// Records come again, those of different partitions in another order.
    Repeat,
    /// Records that cannot be read take the places of those that come next.
    Poison,
    /// The gateway does what it is asked, and does not say so.
    GatewaySilent,
    /// The mail server takes letters and does not say so, or refuses them for now.
    MailFails,
    /// The clock of a process is wrong by an hour; it is started anew for that.
    Clock,
}

impl Fault {
    /// How often it is chosen, beside the others.
    pub(crate) fn weight(self) -> u32 {
        match self {
            Self::Kill => 12,
            Self::CommitCut => 8,
            Self::Pause | Self::LinkCut | Self::Poison | Self::Repeat | Self::GatewaySilent => 5,
            Self::BackendEnd | Self::ProduceCut | Self::LinkDelay | Self::LinkStall | Self::MailFails => 4,
            Self::BrokerDown | Self::BrokerErrors => 3,
            Self::PostgresStop | Self::PostgresKill | Self::BackendKill => 3,
            Self::BrokerEmptied | Self::Clock => 2,
        }
    }

    /// The shortest and the longest time until it is lifted, in milliseconds.
    pub(crate) fn lasting_ms(self) -> (u64, u64) {
        match self {
            Self::Kill => (50, 2_500),
            Self::Pause | Self::LinkStall => (500, 9_000),
            Self::PostgresStop | Self::PostgresKill => (100, 2_000),
            Self::BackendEnd | Self::BackendKill | Self::Repeat => (1, 50),
            Self::CommitCut | Self::ProduceCut => (1_000, 4_000),
            Self::BrokerDown | Self::BrokerErrors | Self::LinkDelay | Self::LinkCut => (300, 6_000),
            Self::BrokerEmptied => (50, 1_500),
            Self::Poison => (500, 2_500),
            Self::Clock => (3_000, 9_000),
            Self::GatewaySilent | Self::MailFails => (500, 5_000),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_possible_value() {
            Some(value) => formatter.write_str(value.get_name()),
            None => Ok(()),
        }
    }
}
