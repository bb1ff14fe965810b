//! Connections for what runs often.
//!
//! sqlx's pool asks the server after each use whether the connection is still good: a second round trip for each
//! query, as dear as most queries here. These are given back only by whoever has read the last of its answer, and
//! need not be asked; whatever fails, or is given up half way, closes its connection.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sqlx::postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Connection, Describe, Either, Execute, Executor, PgConnection, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::log::PING_AFTER;

/// How long one waits for a connection, for a free one and for one to open together.
const PATIENCE: Duration = Duration::from_secs(3);
/// After how long without use a connection is closed, when another one is taken or given back.
const IDLE_AT_MOST: Duration = Duration::from_secs(60);
/// The first and the longest pause between two tries to reach a server that is starting, or has no room.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(320));

/// A bounded number of connections to one database, opened when they are needed. Cheap to clone.
#[derive(Clone)]
pub struct Connections {
    shared: Arc<Shared>,
}

struct Shared {
    options: PgConnectOptions,
    slots: Arc<Semaphore>,
    /// Those that nobody uses, and since when: the one used last is behind.
    idle: Mutex<Vec<(PgConnection, Instant)>>,
}

/// A connection in use. It is closed unless it is [given back](Taken::give_back).
pub struct Taken {
    connection: PgConnection,
    shared: Arc<Shared>,
    _slot: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl Connections {
    pub(crate) fn new(options: PgConnectOptions, at_most: u32) -> Self {
        let slots = Arc::new(Semaphore::new(at_most as usize));
        Self { shared: Arc::new(Shared { options, slots, idle: Mutex::default() }) }
    }

    /// A connection that nobody else uses.
    ///
    /// # Errors
    /// When the server does not answer, or all connections stay in use, for 3 seconds.
    pub async fn take(&self) -> sqlx::Result<Taken> {
        tokio::time::timeout(PATIENCE, self.free()).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn free(&self) -> sqlx::Result<Taken> {
        let slot = Arc::clone(&self.shared.slots).acquire_owned().await;
        let slot = slot.map_err(|_| sqlx::Error::PoolClosed)?;
        while let Some((mut connection, since)) = self.shared.used_last() {
            // One that has not been used for a while may have been cut by a restart of the server.
            if since.elapsed() < PING_AFTER || connection.ping().await.is_ok() {
                return Ok(Taken { connection, shared: Arc::clone(&self.shared), _slot: slot });
            }
        }
        let connection = self.shared.open().await?;
        Ok(Taken { connection, shared: Arc::clone(&self.shared), _slot: slot })
    }
}

impl Shared {
    fn used_last(&self) -> Option<(PgConnection, Instant)> {
        let mut idle = self.idle.lock().ok()?;
        idle.retain(|(_, since)| since.elapsed() < IDLE_AT_MOST);
        idle.pop()
    }

    async fn open(&self) -> sqlx::Result<PgConnection> {
        let (mut pause, longest) = PAUSES;
        loop {
            match PgConnection::connect_with(&self.options).await {
                Err(error) if will_pass(&error) => tokio::time::sleep(pause).await,
                opened => return opened,
            }
            pause = (pause * 2).min(longest);
        }
    }
}

/// Whether a server refuses because it is starting, or has too many connections for the moment.
fn will_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(refusal) => {
            refusal.code().is_some_and(|code| matches!(&*code, "53300" | "57P03"))
        }
        _ => false,
    }
}

impl Taken {
    /// Leaves the connection to the next. Only for one with nothing under way: no transaction is open, and every
    /// answer was read to its end.
    pub fn give_back(self) {
        let Self { connection, shared, _slot } = self;
        if let Ok(mut idle) = shared.idle.lock() {
            idle.push((connection, Instant::now()));
        }
    }
}

impl Deref for Taken {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Taken {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl<'c> Executor<'c> for &Connections {
    type Database = Postgres;

    /// The answer is given when all of it is there: its connection is free by then.
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let connections = self.clone();
        let answer = async move {
            let mut taken = connections.take().await?;
            let answer: Vec<_> = taken.fetch_many(query).try_collect().await?;
            taken.give_back();
            Ok::<_, sqlx::Error>(stream::iter(answer).map(Ok))
        };
        Box::pin(stream::once(answer).try_flatten())
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let connections = self.clone();
        Box::pin(async move {
            let mut taken = connections.take().await?;
            let row = taken.fetch_optional(query).await?;
            taken.give_back();
            Ok(row)
        })
    }

    fn prepare_with<'e, 'q: 'e>(
        self,
        sql: &'q str,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, sqlx::Result<PgStatement<'q>>>
    where
        'c: 'e,
    {
        let connections = self.clone();
        Box::pin(async move {
            let mut taken = connections.take().await?;
            let statement = taken.prepare_with(sql, parameters).await?;
            taken.give_back();
            Ok(statement)
        })
    }

    fn describe<'e, 'q: 'e>(self, sql: &'q str) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'c: 'e,
    {
        let connections = self.clone();
        Box::pin(async move {
            let mut taken = connections.take().await?;
            let described = taken.describe(sql).await?;
            taken.give_back();
            Ok(described)
        })
    }
}
