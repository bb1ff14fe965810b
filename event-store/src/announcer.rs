//! Tells other processes that the log has grown: after the commit, and one notification for all commits that were
//! made since the last. Nobody is told while no other process is there.
//!
//! A transaction that notifies holds one lock of the whole server from before its commit until after its flush. So
//! appends do not notify; this does, in commits that need no flush. Should the process end in between, the next
//! append tells it too, and listeners look for themselves each second.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tokio::sync::watch;

use crate::signal::{LOG_CHANNEL, Signal, raise};
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
    pub(crate) fn start(signal: &Signal, options: PgConnectOptions) -> Self {
        let (head, heads) = watch::channel(0);
        tokio::spawn(run(signal.source().to_owned(), options, heads, signal.alone()));
        Self { head }
    }

    /// Tells that the log reaches this far, soon.
    pub(crate) fn committed(&self, position: i64) {
        raise(&self.head, position);
    }
}

/// Runs until no writer is left.
async fn run(
    source: String,
    options: PgConnectOptions,
    mut heads: watch::Receiver<i64>,
    mut alone: watch::Receiver<bool>,
) {
    let mut connection = None;
    let mut told = 0;
    loop {
        let changed = tokio::select! {
            changed = heads.changed() => changed,
            // Who has just come has heard nothing yet.
            changed = alone.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        let head = *heads.borrow_and_update();
        if *alone.borrow_and_update() || head <= told {
            continue;
        }
        let announced =
            tokio::time::timeout(ANNOUNCED_WITHIN, announce(&options, &mut connection, head)).await;
        if let Err(error) = announced.unwrap_or(Err(Error::Unavailable(sqlx::Error::PoolTimedOut))) {
            tracing::debug!(%error, source, head, "others will find out by themselves how far the log reaches");
            connection = None;
            tokio::time::sleep(PAUSE).await;
        } else {
            told = head;
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
