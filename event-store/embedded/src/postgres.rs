//! A private PostgreSQL server, started from binaries on the machine and stopped with its owner.
//!
//! In the data folder it keeps:
//!
//! | name | what |
//! |---|---|
//! | `mart.lock` | held while a mart runs on the folder, so that a second one is refused |
//! | `postgres/` | the cluster; or `postgres.location`, which names the folder it had to be put in |
//! | `postgres.password` | the password of the TCP port, readable to the owner alone |
//! | `postgres.log` | what the server says |
//!
//! The server listens on a Unix socket in a folder that only its user may enter, and on a TCP port of
//! 127.0.0.1 with the generated password. A server that outlived its mart (kill -9) is found by its pid
//! file and adopted.

mod account;
mod binaries;
mod cluster;
mod process;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, Connection, postgres::PgConnectOptions};

use account::Account;
use binaries::Binaries;
use cluster::{Cluster, Workspace};
use process::{Address, Server};

/// The database user that owns everything in the cluster.
const USER: &str = "mart";

/// How long a server may take to answer, also when it has to replay its log after a crash.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The pause between two attempts to connect.
const READY_POLL: Duration = Duration::from_millis(20);

/// How often a start is tried anew when the last server's remains, or a taken port, stand in the way.
const START_ATTEMPTS: u32 = 40;

/// The pause between two such attempts.
const START_PAUSE: Duration = Duration::from_millis(500);

/// Where and from what a private server is started.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The folder that keeps the cluster; made when missing.
    pub data_dir: PathBuf,
    /// The folder with `postgres` and `initdb`; found or fetched when `None`.
    pub bin: Option<PathBuf>,
    /// The TCP port on 127.0.0.1; any free one when `None`.
    pub port: Option<u16>,
    /// Whether binaries may be fetched when the machine has none.
    pub may_fetch: bool,
}

impl PostgresOptions {
    /// Options for a server in `data_dir`: binaries from `MART_POSTGRES_BIN` or the machine, any free port.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let bin = std::env::var_os("MART_POSTGRES_BIN").filter(|value| !value.is_empty()).map(PathBuf::from);
        Self { data_dir: data_dir.into(), bin, port: None, may_fetch: true }
    }
}

/// Why a private PostgreSQL could not be started; each says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// A file or folder could not be made, read or handed over.
    #[error("cannot use {path}: check that it is writable, or choose another folder with --data-dir")]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another mart holds the folder.
    #[error("another mart is running on {0}: stop it first, or choose another folder with --data-dir")]
    InUse(PathBuf),
    /// The folder named by `MART_POSTGRES_BIN` holds no usable server.
    #[error(
        "no PostgreSQL server of version 15 or newer in {0}: let MART_POSTGRES_BIN name the folder with `postgres` and `initdb`"
    )]
    NotBinaries(PathBuf),
    /// No server on the machine and none may be fetched.
    #[error(
        "no PostgreSQL server of version 15 or newer on this machine: install one, or name its folder with MART_POSTGRES_BIN"
    )]
    NoBinaries,
    /// Fetching the binaries failed.
    #[error(
        "PostgreSQL could not be fetched: install version 15 or newer, name its folder with MART_POSTGRES_BIN, or give a server with MART_DATABASE_URL"
    )]
    Fetch(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The cluster belongs to a major version that is not on the machine.
    #[error(
        "the database in {path} was made by PostgreSQL {version}, which is not on this machine: install it, name its folder with MART_POSTGRES_BIN, or move {path} away to begin anew"
    )]
    OtherVersion {
        /// The cluster.
        path: PathBuf,
        /// Its major version.
        version: u32,
    },
    /// Run as root, and no unprivileged user is known.
    #[error(
        "PostgreSQL does not run as root and there is no user `nobody` here: run mart as another user, or give a server with MART_DATABASE_URL"
    )]
    NoAccount,
    /// The folder for the socket belongs to somebody else.
    #[error("{0} belongs to another user or is open to others: remove it and start again")]
    ForeignFolder(PathBuf),
    /// `initdb` failed.
    #[error("no database could be made in {path}: {message}")]
    Initialise {
        /// The cluster that was to be made.
        path: PathBuf,
        /// The last words of `initdb`.
        message: String,
    },
    /// The server ended at once.
    #[error("PostgreSQL did not start: {message} (all of it is in {log})")]
    Start {
        /// The last words of the server.
        message: String,
        /// Its log.
        log: PathBuf,
    },
    /// The server runs and does not answer.
    #[error("PostgreSQL does not answer after {} s: its log is {log}", READY_WITHIN.as_secs())]
    NotReady {
        /// Its log.
        log: PathBuf,
        /// The last refusal.
        #[source]
        source: Option<sqlx::Error>,
    },
}

/// A running private server. Dropping it stops it as well; [`stop`](Self::stop) says when it is done.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    server: Option<Server>,
    address: Address,
    password: String,
    adopted: bool,
    /// Released last: the folder is ours until the server is down.
    _workspace: Workspace,
}

impl EmbeddedPostgres {
    /// Finds binaries, makes the cluster where there is none, starts the server and waits until it answers.
    ///
    /// # Errors
    /// See [`PostgresError`]; nothing is left running after one.
    pub async fn start(options: PostgresOptions) -> Result<Self, PostgresError> {
        let workspace = Workspace::open(&options.data_dir)?;
        let account = Account::for_server(workspace.path())?;
        let location = Cluster::locate(&workspace, &account)?;
        let binaries = Binaries::find(&options, &account, location.version(), location.path()).await?;
        let opened = blocking({
            let (workspace_path, account) = (workspace.path().to_owned(), account.clone());
            move || location.open(&binaries, &account, &workspace_path)
        });
        let cluster = opened.await?;

        if let Some(server) = Server::running(&cluster) {
            let address = server.address().clone();
            let mut postgres = Self {
                server: Some(server),
                address,
                password: cluster.password().to_owned(),
                adopted: true,
                _workspace: workspace,
            };
            postgres.wait_until_ready(&cluster).await?;
            tracing::info!(
                port = postgres.address.port,
                "found the PostgreSQL of an earlier mart still running"
            );
            return Ok(postgres);
        }
        Self::launch(&options, workspace, &cluster, &account).await
    }

    /// Starts a new server, again when what is left of the last one still holds memory or the port.
    async fn launch(
        options: &PostgresOptions,
        workspace: Workspace,
        cluster: &Cluster,
        account: &Account,
    ) -> Result<Self, PostgresError> {
        let mut postgres = Self {
            server: None,
            address: Address::default(),
            password: cluster.password().to_owned(),
            adopted: false,
            _workspace: workspace,
        };
        let mut attempt = 1;
        loop {
            let server = Server::spawn(cluster, account, options.port)?;
            postgres.address = server.address().clone();
            postgres.server = Some(server);
            match postgres.wait_until_ready(cluster).await {
                Ok(()) => return Ok(postgres),
                Err(PostgresError::Start { message, .. })
                    if attempt < START_ATTEMPTS && process::passes_by_itself(&message, options.port) =>
                {
                    attempt += 1;
                    tokio::time::sleep(START_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Tries to connect until it works, the server ends or the time is over.
    async fn wait_until_ready(&mut self, cluster: &Cluster) -> Result<(), PostgresError> {
        let deadline = Instant::now() + READY_WITHIN;
        let connect = self.connect_options("postgres").disable_statement_logging();
        let mut refusal = None;
        while Instant::now() < deadline {
            match sqlx::PgConnection::connect_with(&connect).await {
                Ok(connection) => {
                    let _ = connection.close().await;
                    return Ok(());
                }
                Err(error) => refusal = Some(error),
            }
            if let Some(message) = self.server.as_mut().and_then(|server| server.ended(cluster)) {
                self.server = None;
                return Err(PostgresError::Start { message, log: cluster.log_path().to_owned() });
            }
            tokio::time::sleep(READY_POLL).await;
        }
        Err(PostgresError::NotReady { log: cluster.log_path().to_owned(), source: refusal })
    }

    fn connect_options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.address.socket_dir)
            .port(self.address.port)
            .username(USER)
            .database(database)
    }

    /// The URL of the server over its Unix socket, with the database `postgres`; [`database_url`] changes
    /// the database.
    pub fn server_url(&self) -> String {
        self.url("postgres")
    }

    /// The URL of one database over the Unix socket.
    pub fn url(&self, database: &str) -> String {
        let socket = encode(&self.address.socket_dir.to_string_lossy());
        format!("postgres://{USER}@localhost:{}/{database}?host={socket}", self.address.port)
    }

    /// The URL of one database over TCP on 127.0.0.1, with the password: for programs that take no socket.
    pub fn tcp_url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.address.port)
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port
    }

    /// The process id of the server, 0 once it is stopped.
    pub fn process_id(&self) -> u32 {
        self.server.as_ref().map_or(0, Server::process_id)
    }

    /// Whether this server was left running by an earlier mart.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Stops the server: open transactions are rolled back; after 20 s it is stopped without ceremony, which
    /// loses nothing that was acknowledged.
    pub async fn stop(mut self) {
        if let Some(server) = self.server.take() {
            blocking(move || server.stop()).await;
        }
    }

    /// Stops the server as a crash would: connections are cut, nothing is written that was not before. What was
    /// acknowledged is found again by the next start.
    pub async fn crash(mut self) {
        if let Some(server) = self.server.take() {
            blocking(move || server.crash()).await;
        }
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

/// The URL of `database` on the server that `server_url` names, with everything else kept.
pub fn database_url(server_url: &str, database: &str) -> String {
    let (address, parameters) = match server_url.split_once('?') {
        Some((address, parameters)) => (address, format!("?{parameters}")),
        None => (server_url, String::new()),
    };
    let authority_start = address.find("://").map_or(0, |index| index + 3);
    let authority_end =
        address[authority_start..].find('/').map_or(address.len(), |index| authority_start + index);
    format!("{}/{database}{parameters}", &address[..authority_end])
}

/// Percent-encodes what has a meaning in the query of a URL.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Runs file and process work off the threads that serve requests.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::process::abort(),
        },
    }
}

fn folder_error(path: &Path) -> impl FnOnce(std::io::Error) -> PostgresError + '_ {
    move |source| PostgresError::Folder { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_changed_and_the_rest_kept() {
        assert_eq!(database_url("postgres://u:p@h:1/postgres?host=/x", "a"), "postgres://u:p@h:1/a?host=/x");
        assert_eq!(database_url("postgres://u@h", "a"), "postgres://u@h/a");
        assert_eq!(database_url("postgres://u@h/", "a"), "postgres://u@h/a");
    }
}
