//! What can go wrong in the plumbing. Refusals of the domain are the aggregates' own types.

/// A failure of the engine itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL could not be reached, or closed the connection: nothing is known to have happened.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// PostgreSQL refused a statement.
    #[error("the database refused a statement")]
    Database(#[source] sqlx::Error),
    /// A migration failed or was edited after it had been applied.
    #[error("the migrations of the event store could not be applied")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// A stored event, snapshot or command could not be read or written as JSON.
    #[error("{what} could not be decoded")]
    Decode {
        /// What was being read, with its place in the log.
        what: String,
        /// Why it could not be.
        #[source]
        source: serde_json::Error,
    },
    /// A record of a topic or of the log does not say what it must.
    #[error("malformed record: {0}")]
    Malformed(String),
    /// A hole in a log whose positions must be dense.
    #[error("the log {source_name} has a hole: position {expected} is missing, {found} follows")]
    Hole {
        /// The log.
        source_name: String,
        /// The position that should have come.
        expected: i64,
        /// The position that came.
        found: i64,
    },
    /// A log ends before events that were dealt with: it was taken back to an earlier state, and what follows has positions
    /// that stood for something else.
    #[error(
        "the log of {source_name} ends at {head}, and events up to {position} were dealt with: restore this database to the \
         same moment"
    )]
    TakenBack {
        /// The log.
        source_name: String,
        /// Where it ends.
        head: i64,
        /// How far it was dealt with.
        position: i64,
    },
    /// Kafka refused a configuration or a call.
    #[error("kafka refused a call")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// Personal data could not be sealed or opened.
    #[error("personal data could not be {0}")]
    Cipher(&'static str),
    /// Too much is asked of one aggregate at the same time.
    #[error("too many commands at the same time")]
    Busy,
    /// A read model was built by another version of the program, and this one cannot read it.
    #[error("{0} was built by another version and is not rebuilt yet")]
    Rebuilding(String),
    /// The process is shutting down.
    #[error("the engine is shutting down")]
    ShuttingDown,
}

/// The result of an operation of the engine.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The same failure, for another who waited for the same.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Unavailable(_) => Self::Unavailable(sqlx::Error::PoolClosed),
            Self::Database(source) => Self::Database(sqlx::Error::Protocol(source.to_string())),
            Self::Decode { what, source } => Self::Malformed(format!("{what}: {source}")),
            Self::Malformed(text) => Self::Malformed(text.clone()),
            Self::Hole { source_name, expected, found } => {
                Self::Hole { source_name: source_name.clone(), expected: *expected, found: *found }
            }
            Self::TakenBack { source_name, head, position } => {
                Self::TakenBack { source_name: source_name.clone(), head: *head, position: *position }
            }
            Self::Cipher(what) => Self::Cipher(what),
            Self::Rebuilding(what) => Self::Rebuilding(what.clone()),
            Self::Busy => Self::Busy,
            Self::Migration(_) | Self::Kafka(_) | Self::ShuttingDown => Self::ShuttingDown,
        }
    }

    /// What went wrong, and why.
    pub(crate) fn with_source(&self) -> String {
        use std::error::Error as _;
        match self.source() {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }

    /// Whether the same call may succeed later without anything being changed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy | Self::ShuttingDown | Self::Kafka(_))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let gone = match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_) => true,
            // Class 08: connection; 57P0x: the server is going down or starting up; 53300: no free slot; 25P03: the
            // process was frozen in a transaction, which was cut.
            sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| {
                code.starts_with("08") || code.starts_with("57P0") || code == "53300" || code == "25P03"
            }),
            _ => false,
        };
        if gone { Self::Unavailable(error) } else { Self::Database(error) }
    }
}

impl From<sqlx::migrate::MigrateError> for Error {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self::Migration(error)
    }
}
