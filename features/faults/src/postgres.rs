//! The PostgreSQL of a run: a private server that can be ended as a power failure would, and comes back on the
//! same port with what it had promised to keep.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use embedded::postgres::{EmbeddedPostgres, PostgresOptions, database_url};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;

/// How long a server may take to come back.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// The pause between two tries to start it.
const PAUSE: Duration = Duration::from_millis(200);

/// How a server is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By its own immediate shutdown: no checkpoint, no farewell.
    Immediate,
    /// By SIGKILL of the postmaster; the others notice.
    Killed,
}

/// The server.
#[derive(Debug)]
pub struct Postgres {
    folder: PathBuf,
    port: u16,
    server_url: String,
    tcp_url: String,
    running: Mutex<Option<EmbeddedPostgres>>,
}

impl Postgres {
    /// Starts a server with its data in `folder`.
    ///
    /// # Errors
    /// When none can be started.
    pub async fn start(folder: &Path) -> Result<Self> {
        let running = EmbeddedPostgres::start(PostgresOptions::new(folder)).await?;
        Ok(Self {
            folder: folder.to_owned(),
            port: running.port(),
            server_url: running.server_url(),
            tcp_url: running.tcp_url("postgres"),
            running: Mutex::new(Some(running)),
        })
    }

    /// Where links lead.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The URL of the server as it is entered by a link.
    pub fn url_by(&self, link: SocketAddr) -> String {
        self.tcp_url.replace(&self.address().to_string(), &link.to_string())
    }

    /// A connection to the database of a service, past all links.
    ///
    /// # Errors
    /// When the server is down.
    pub async fn connect(&self, service: &str) -> Result<PgConnection> {
        let url = database_url(&self.server_url, &format!("mart_{service}"));
        let connecting = tokio::time::timeout(Duration::from_secs(5), PgConnection::connect(&url));
        Ok(connecting.await.context("PostgreSQL does not answer")??)
    }

    /// Ends the server hard, for a time.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn fail(&self, end: End, lasting: Duration) -> Result<()> {
        let mut running = self.running.lock().await;
        if let Some(server) = running.take() {
            let signal = match end {
                End::Immediate => Signal::SIGQUIT,
                End::Killed => Signal::SIGKILL,
            };
            if let Ok(pid @ 1..) = i32::try_from(server.process_id()) {
                kill(Pid::from_raw(pid), signal).context("PostgreSQL cannot be signalled")?;
            }
            server.stop().await;
        }
        tokio::time::sleep(lasting).await;
        let deadline = Instant::now() + BACK_WITHIN;
        let options = PostgresOptions { port: Some(self.port), ..PostgresOptions::new(&self.folder) };
        loop {
            match EmbeddedPostgres::start(options.clone()).await {
                Ok(server) => {
                    *running = Some(server);
                    return Ok(());
                }
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                // What is left of the old server holds memory or the port for a moment.
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Stops it.
    pub async fn stop(&self) {
        if let Some(server) = self.running.lock().await.take() {
            server.stop().await;
        }
    }
}
