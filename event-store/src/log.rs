//! The handle of one service's log: its name, its database, its committer and its head.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgPool};

use crate::beside::Beside;
use crate::committer::Committer;
use crate::connections::Connections;
use crate::lease::Leases;
use crate::lookups::Lookups;
use crate::memory::Memory;
use crate::personal::PersonalKeys;
use crate::signal::Signal;
use crate::tail::{Follower, Tail};
use crate::timers::Workers;
use crate::{Result, migrations};

/// How long a transaction may wait for its next statement, by the database's clock. One whose process is frozen
/// would hold its locks for as long as that is frozen, and with them whoever takes over; so it is cut before the
/// leases of that process end. Transactions here take milliseconds.
const IDLE_IN_TRANSACTION: (&str, &str) = ("idle_in_transaction_session_timeout", "5s");
/// What is read here has an index, and plans are kept: one made while a table is short must not read all of it when
/// it has grown. Where there is no index, it is read all the same.
const ALONG_INDEXES: (&str, &str) = ("enable_seqscan", "off");
/// Statements here take less time than compiling one, which a server does by itself when it thinks one dear: as it
/// thinks of each that reads a table without an index, since it is told to use none such.
const NOT_COMPILED: (&str, &str) = ("jit", "off");

/// How many connections a log holds at most in its pool, and how many beside it for what runs often. On top come the
/// committer's two, and one each to listen, to notify and to hold leases.
const OWN_CONNECTIONS: u32 = 5;
/// The same for a log that is only read, that of another service.
const READING_CONNECTIONS: u32 = 2;

/// How long a database may take to answer that is asked whether it is there.
const REACHED_WITHIN: Duration = Duration::from_secs(1);

/// After how long without use a pooled connection is tried before it is handed out.
pub(crate) const PING_AFTER: Duration = Duration::from_secs(1);

/// One service's log. Cheap to clone; all clones share the pool, the committer and the listener.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    source: String,
    database: PgPool,
    connections: Connections,
    options: PgConnectOptions,
    committer: Committer,
    memory: Arc<Memory>,
    tail: Tail,
    signal: Signal,
    personal: PersonalKeys,
    leases: Leases,
    lookups: Lookups,
    workers: Workers,
    beside: Beside,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Log").field("source", &self.inner.source).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the log named `source` in the database at `url` and starts its committer and listener. The
    /// database is contacted when it is first needed, so that a service starts before its database does.
    ///
    /// `master_key` wraps the personal keys (32 bytes).
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn open(source: &str, url: &str, master_key: [u8; 32]) -> Result<Self> {
        Self::open_with(source, url, master_key, OWN_CONNECTIONS)
    }

    /// Opens the log of another service, to be read: with fewer connections.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_for_reading(source: &str, url: &str, master_key: [u8; 32]) -> Result<Self> {
        Self::open_with(source, url, master_key, READING_CONNECTIONS)
    }

    fn open_with(source: &str, url: &str, master_key: [u8; 32], connections: u32) -> Result<Self> {
        let options: PgConnectOptions = url.parse()?;
        let options = options.application_name(&format!("mart-{source}")).options([
            IDLE_IN_TRANSACTION,
            ALONG_INDEXES,
            NOT_COMPILED,
        ]);
        let database = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(3))
            .idle_timeout(Duration::from_secs(60))
            .test_before_acquire(false)
            .before_acquire(|connection, usage| {
                // A ping for each query would cost a round trip; one after a pause finds what a restart of
                // the server left behind.
                Box::pin(async move {
                    if usage.idle_for >= PING_AFTER {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options.clone());
        let often = Connections::new(options.clone(), connections);
        let signal = Signal::start(source, database.clone(), options.clone());
        let memory = Arc::new(Memory::default());
        let tail = Tail::default();
        let committer = Committer::start(options.clone(), signal.clone(), Arc::clone(&memory), tail.clone());
        let personal = PersonalKeys::new(often.clone(), master_key);
        let leases = Leases::start(database.clone(), options.clone());
        let lookups = Lookups::start(often.clone());
        Ok(Self {
            inner: Arc::new(Inner {
                source: source.to_owned(),
                database,
                connections: often,
                options,
                committer,
                memory,
                tail,
                signal,
                personal,
                leases,
                lookups,
                workers: Workers::default(),
                beside: Beside::default(),
            }),
        })
    }

    /// Brings the event store's tables to the newest version.
    ///
    /// # Errors
    /// As [`migrations::up`].
    pub async fn migrate(&self) -> Result<()> {
        migrations::up(&self.inner.database).await
    }

    /// The name of the log, part of every checkpoint, header and position token.
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// The database of the service.
    pub fn database(&self) -> &PgPool {
        &self.inner.database
    }

    /// Connections to that database for what runs often: queries on these take one round trip, and not two.
    pub fn connections(&self) -> &Connections {
        &self.inner.connections
    }

    /// As [`Log::connections`], for work that would take them from others for long; opened as they are needed, and
    /// closed with the last of what this gives.
    pub fn connections_apart(&self, at_most: u32) -> Connections {
        Connections::new(self.inner.options.clone(), at_most)
    }

    /// How to open a connection of one's own.
    pub fn connect_options(&self) -> &PgConnectOptions {
        &self.inner.options
    }

    /// Whether the database can be reached: asked only when it does not notify, and then on a connection of
    /// its own, because a pool goes on trying for as long as it has patience.
    pub async fn is_reachable(&self) -> bool {
        if self.inner.signal.is_listening() {
            return true;
        }
        let connecting = sqlx::PgConnection::connect_with(&self.inner.options);
        match tokio::time::timeout(REACHED_WITHIN, connecting).await {
            Ok(Ok(connection)) => connection.close().await.is_ok(),
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// The position of an aggregate's last event; none when nothing ever happened to it. Asked by many at once, it
    /// costs one query.
    ///
    /// # Errors
    /// When the database is unreachable.
    pub async fn last_of_stream(&self, aggregate_type: &str, aggregate_id: &str) -> Result<Option<i64>> {
        self.inner.lookups.last_of_stream(aggregate_type, aggregate_id).await
    }

    /// The group-commit coordinator.
    pub(crate) fn committer(&self) -> &Committer {
        &self.inner.committer
    }

    /// What this process has seen of the log.
    pub(crate) fn memory(&self) -> &Memory {
        &self.inner.memory
    }

    /// Keeps a value for whoever else uses this log, in place of the one of its type that had this name.
    pub fn keep_beside<T: Any + Send + Sync>(&self, name: &str, value: Arc<T>) {
        self.inner.beside.keep(name, value);
    }

    /// The value of this type that is kept under a name.
    pub fn beside<T: Any + Send + Sync>(&self, name: &str) -> Option<Arc<T>> {
        self.inner.beside.find(name)
    }

    /// Reads what this process commits from here on.
    pub fn follow(&self) -> Follower {
        self.inner.tail.follow()
    }

    /// Up to where the readers of this process were told what it commits.
    pub(crate) fn told(&self) -> Arc<AtomicI64> {
        self.inner.tail.upto()
    }

    /// The head of the log and the progress of its readers, as notified.
    pub fn signal(&self) -> &Signal {
        &self.inner.signal
    }

    /// The keys personal data is sealed with.
    pub fn personal(&self) -> &PersonalKeys {
        &self.inner.personal
    }

    /// The workers of this process that do its timed work.
    pub(crate) fn workers(&self) -> &Workers {
        &self.inner.workers
    }

    /// Who of the processes on this database does what must be done once.
    pub fn leases(&self) -> &Leases {
        &self.inner.leases
    }
}

/// Makes a database on a server unless it is there.
///
/// # Errors
/// When the server does not answer, or refuses.
pub async fn create_database(server_url: &str, name: &str) -> Result<()> {
    let options: PgConnectOptions = server_url.parse()?;
    let mut connection = sqlx::PgConnection::connect_with(&options).await?;
    let known: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(name)
        .fetch_one(&mut connection)
        .await?;
    if !known {
        let statement = format!("create database \"{}\"", name.replace('"', "\"\""));
        let made = sqlx::raw_sql(&statement).execute(&mut connection).await;
        // 42P04 and 23505: another process was first.
        let lost_race = made
            .as_ref()
            .err()
            .and_then(|error| error.as_database_error()?.code())
            .is_some_and(|code| code == "42P04" || code == "23505");
        if !lost_race {
            made?;
        }
    }
    connection.close().await?;
    Ok(())
}

/// Whether a database server answers.
pub async fn answers(server_url: &str) -> bool {
    let Ok(options) = server_url.parse::<PgConnectOptions>() else { return false };
    let connecting = sqlx::PgConnection::connect_with(&options);
    match tokio::time::timeout(Duration::from_secs(3), connecting).await {
        Ok(Ok(connection)) => connection.close().await.is_ok(),
        Ok(Err(_)) | Err(_) => false,
    }
}
