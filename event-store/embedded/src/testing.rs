//! For tests: one PostgreSQL server per test process, and a fresh database for whoever asks; a [`broker`], embedded
//! or a [`RealKafka`].
//!
//! ```no_run
//! # async fn example() {
//! let database = embedded::testing::database("orders").await;
//! let connect_to = &database.url;
//! # let _ = connect_to;
//! # }
//! ```
//!
//! With `MART_TEST_DATABASE_URL` set, that server is used; `with-postgres <command>` sets it, so that many test
//! binaries share one server. Otherwise a private server is started in a temporary folder; it ends with the
//! process, however that ends.

mod broker;
mod command;
mod guard;
mod kafka;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rand::Rng;
use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;

pub use broker::{KAFKA_VARIABLE, TestBroker, broker, broker_apart, real_kafka, topic_prefix};
pub use command::run_with;
pub use kafka::{RealKafka, RealKafkaError};

use crate::postgres::{EmbeddedPostgres, PostgresOptions, database_url};
use guard::Guard;

/// Names a running server whose databases tests may make and drop.
pub const SERVER_VARIABLE: &str = "MART_TEST_DATABASE_URL";

/// What the guard does: stop the server and remove its folder.
const GUARD_SCRIPT: &str = r#"
while read -r named; do server=$named; done
kill -INT "$server" 2>/dev/null
for _ in $(seq 200); do
    test -e "$1/postgres/postmaster.pid" || break
    sleep 0.05
done
test -e "$1/postgres/postmaster.pid" && kill -KILL "$server" 2>/dev/null
rm -rf "$1"
"#;

/// A private server in a temporary folder. It ends when this is stopped or dropped, and also when the process
/// is killed: a guard process watches.
#[derive(Debug)]
pub struct TemporaryPostgres {
    server: Option<EmbeddedPostgres>,
    folder: TempDir,
    /// Where the server listened before it crashed.
    port: Option<u16>,
    // Dropped last, when there is nothing left to guard.
    guard: Guard,
}

impl TemporaryPostgres {
    /// Starts a server; durable like any other, so that tests see the times and orders of production.
    ///
    /// # Errors
    /// When no folder can be made or no server be started.
    pub async fn start() -> Result<Self, TestServerError> {
        let folder = tempfile::Builder::new()
            .prefix("mart-test-")
            .permissions(std::fs::Permissions::from_mode(0o711))
            .tempdir()?;
        let server = EmbeddedPostgres::start(PostgresOptions::new(folder.path())).await?;
        let mut guard = Guard::start(GUARD_SCRIPT, folder.path())?;
        guard.watch(Some(server.process_id()))?;
        Ok(Self { server: Some(server), folder, port: None, guard })
    }

    /// The server's URL.
    pub fn server_url(&self) -> String {
        self.server.as_ref().map(EmbeddedPostgres::server_url).unwrap_or_default()
    }

    /// Stops the server as a crash would, and keeps its folder.
    ///
    /// # Errors
    /// When the guard is gone.
    pub async fn crash(&mut self) -> Result<(), TestServerError> {
        if let Some(server) = self.server.take() {
            self.port = Some(server.port());
            server.crash().await;
            self.guard.watch(None)?;
        }
        Ok(())
    }

    /// Starts the server where it was before it crashed.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_again(&mut self) -> Result<(), TestServerError> {
        let options = PostgresOptions { port: self.port, ..PostgresOptions::new(self.folder.path()) };
        let server = EmbeddedPostgres::start(options).await?;
        self.guard.watch(Some(server.process_id()))?;
        self.server = Some(server);
        Ok(())
    }

    /// Stops the server and removes its folder.
    pub async fn stop(mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
            // Its number may be another process's by now.
            let _ = self.guard.watch(None);
        }
    }
}

/// Why a server for tests could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestServerError {
    /// No folder or no guard.
    #[error("no temporary server could be made")]
    System(#[from] io::Error),
    /// No server.
    #[error(transparent)]
    Postgres(#[from] crate::PostgresError),
}

/// The server that the tests of this process share.
#[derive(Debug)]
pub struct TestServer {
    /// Its URL, with some database to connect to.
    pub url: String,
    /// Kept for as long as the process lives; `None` for a server that was given.
    private: Option<TemporaryPostgres>,
}

/// A database of its own for one test; dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    /// Where to connect.
    pub url: String,
    /// The database's name.
    pub name: String,
    server: Arc<TestServer>,
}

/// The server for the tests of this process: given by `MART_TEST_DATABASE_URL`, or started now.
///
/// # Panics
/// When no server can be started: no test can go on then.
pub async fn postgres() -> Arc<TestServer> {
    static SERVER: OnceCell<Arc<TestServer>> = OnceCell::const_new();
    let server = SERVER.get_or_init(|| async {
        if let Some(url) = std::env::var(SERVER_VARIABLE).ok().filter(|url| !url.is_empty()) {
            return Arc::new(TestServer { url, private: None });
        }
        match TemporaryPostgres::start().await {
            Ok(private) => Arc::new(TestServer { url: private.server_url(), private: Some(private) }),
            Err(error) => panic!("no PostgreSQL for the tests: {error}"),
        }
    });
    Arc::clone(server.await)
}

/// Makes a fresh, empty database whose name begins with `prefix` (lower-case letters, digits and `_`).
///
/// # Panics
/// When it cannot be made: no test can go on then.
pub async fn database(prefix: &str) -> TestDatabase {
    let server = postgres().await;
    let name = format!("{prefix}_{:016x}", rand::rng().random::<u64>());
    if let Err(error) = execute(&server.url, &format!(r#"create database "{name}""#)).await {
        panic!("no database for the test: {error}");
    }
    TestDatabase { url: database_url(&server.url, &name), name, server }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (url, statement) =
            (self.server.url.clone(), format!(r#"drop database if exists "{}" with (force)"#, self.name));
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            // Best effort: a database that stays behind disturbs nobody.
            runtime.is_ok_and(|runtime| runtime.block_on(execute(&url, &statement)).is_ok())
        });
        // A private server takes its databases with it; from a given one they should be gone when the test is.
        if self.server.private.is_none() {
            let _ = dropping.join();
        }
    }
}

async fn execute(url: &str, statement: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(statement).await?;
    connection.close().await
}
