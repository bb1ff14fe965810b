//! Tells other processes that the log has grown: after the commit, and one notification for all commits that were
//! made since the last.
//!
//! A transaction that notifies holds one lock of the whole server from before its commit until after its flush. So
//! appends do not notify; this does, in commits that need no flush. Should the process end in between, the next
//! append tells it too, and listeners look for themselves each second.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tokio::sync::watch;

use crate::signal::{LOG_CHANNEL, raise};
use crate::{Error, Result};

/// How long it lets commits come together.
const PACE: Duration = Duration::from_millis(2);
/// How long a notification may take: on a connection that hangs nothing would be told any more.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(3);
/// How long it pauses after a failure.
const PAUSE: Duration = Duration::from_millis(250);

/// What writers tell the announcer.
#[derive(Debug)]
pub(crate) struct Announcer {
    head: watch::Sender<i64>,
}

impl Announcer {
    pub(crate) fn start(source: &str, options: PgConnectOptions) -> Self {
        let (head, heads) = watch::channel(0);
        tokio::spawn(run(source.to_owned(), options, heads));
        Self { head }
    }

    /// Tells that the log reaches this far, soon.
    pub(crate) fn committed(&self, position: i64) {
        raise(&self.head, position);
    }
}

/// Runs until no writer is left.
async fn run(source: String, options: PgConnectOptions, mut heads: watch::Receiver<i64>) {
    let mut connection = None;
    while heads.changed().await.is_ok() {
        let head = *heads.borrow_and_update();
        let announced =
            tokio::time::timeout(ANNOUNCED_WITHIN, announce(&options, &mut connection, head)).await;
        if let Err(error) = announced.unwrap_or(Err(Error::Unavailable(sqlx::Error::PoolTimedOut))) {
            tracing::debug!(%error, source, head, "others will find out by themselves how far the log reaches");
            connection = None;
            tokio::time::sleep(PAUSE).await;
        }
        tokio::time::sleep(PACE).await;
    }
}

async fn announce(
    options: &PgConnectOptions,
    connection: &mut Option<PgConnection>,
    head: i64,
) -> Result<()> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(options.connect().await?),
    };
    sqlx::query("select set_config('synchronous_commit', 'off', true), pg_notify($1, $2)")
        .bind(LOG_CHANNEL)
        .bind(head.to_string())
        .execute(open)
        .await?;
    Ok(())
}
