//! What is running in a data folder, for the commands that join it: `mart replay` beside `mart up`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use embedded::postgres::{EmbeddedPostgres, PostgresOptions};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::config::{DatabaseUrls, StorageOptions};

const FILE: &str = "running.json";

/// What a running `mart up` says of itself, in a file only its user may read.
#[derive(Clone, Serialize, Deserialize)]
pub struct Running {
    /// The database server of its services.
    pub database_url: String,
    /// The broker it publishes to.
    pub kafka_brokers: String,
    /// Whether that broker is part of it.
    pub embedded_broker: bool,
    /// What the names of its topics begin with.
    pub topic_prefix: String,
}

impl Running {
    /// Writes it down.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn tell(&self, folder: &Path) -> anyhow::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join(FILE);
        let json = serde_json::to_vec_pretty(self).context("what runs cannot be written as JSON")?;
        std::fs::write(&path, json)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)))
            .with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Forgets it.
    pub fn end(folder: &Path) {
        // A file that is not there any more has been forgotten.
        let _ = std::fs::remove_file(folder.join(FILE));
    }

    /// What a running mart has written down.
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(FILE)).ok()?).ok()
    }
}

/// Databases to work with: those that were given, those of a running mart, or those of the data folder, whose
/// server then runs as long as this is held.
pub struct Databases {
    /// Where they are.
    pub urls: DatabaseUrls,
    server: Option<EmbeddedPostgres>,
}

impl Databases {
    /// Finds them.
    ///
    /// # Errors
    /// In one sentence, when there are none or their server cannot be started.
    pub async fn find(storage: &StorageOptions) -> anyhow::Result<Self> {
        let urls = storage.database_urls();
        if !urls.is_empty() {
            return Ok(Self { urls, server: None });
        }
        let folder = PathBuf::from(&storage.data_dir);
        if let Some(running) = Running::read(&folder) {
            let url = SecretString::from(running.database_url);
            if event_store::log::answers(url.expose_secret()).await {
                return Ok(Self { urls: urls.or_server(url.expose_secret().to_owned()), server: None });
            }
        }
        if !folder.join("postgres.log").exists() {
            bail!(
                "there is no mart in {}: start one with `mart up`, or set MART_DATABASE_URL",
                folder.display()
            );
        }
        let server = EmbeddedPostgres::start(PostgresOptions::new(&folder)).await?;
        Ok(Self { urls: urls.or_server(server.server_url()), server: Some(server) })
    }

    /// Stops a server that was started for this.
    pub async fn close(self) {
        if let Some(server) = self.server {
            server.stop().await;
        }
    }
}
