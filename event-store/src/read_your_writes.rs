//! Waiting until a reader has come as far as a write. One listener per process serves all who wait.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::Instant;

use crate::Result;
use crate::log::Log;
use crate::signal::Mover;

/// How long a waiter trusts notifications before it looks for itself.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A place in a log that a reader may have to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The log.
    pub source: String,
    /// The partition of the event; none when only the position is known.
    pub partition: Option<i16>,
    /// The position of the event.
    pub position: i64,
}

/// Waits until all the `subscriptions` kept in `home` have applied everything up to `place`. Says whether
/// they did within `limit`.
///
/// A place without a partition, as a client sends it, is resolved by asking the source's log for the last
/// event of each partition up to it: `source` must then be given.
///
/// # Errors
/// When the database is unreachable.
pub async fn wait(
    home: &Log,
    subscriptions: &[&str],
    place: &Place,
    source: Option<&PgPool>,
    limit: Duration,
) -> Result<bool> {
    let wanted: Vec<(i16, i64)> = match (place.partition, source) {
        (Some(partition), _) => vec![(partition, place.position)],
        (None, Some(source)) => crate::feed::last_of_partitions(source, place.position).await?,
        (None, None) => return Ok(true),
    };
    let deadline = Instant::now() + limit;
    // One after the other: each is woken by its own progress only, and none goes back.
    for subscription in subscriptions {
        if !reached(home, subscription, &place.source, &wanted, deadline).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Waits until one subscription has come to all of `wanted`.
async fn reached(
    home: &Log,
    subscription: &str,
    source: &str,
    wanted: &[(i16, i64)],
    deadline: Instant,
) -> Result<bool> {
    let progress = home.signal().progress(subscription);
    let mut changes = progress.changes();
    loop {
        changes.mark_unchanged();
        if progress.has_reached(source, wanted) {
            return Ok(true);
        }
        progress.ask();
        let pause = LOOK_AGAIN.min(deadline.saturating_duration_since(Instant::now()));
        if pause.is_zero() {
            return Ok(false);
        }
        if tokio::time::timeout(pause, changes.changed()).await.is_err() {
            look(home, subscription, source).await?;
        }
    }
}

async fn look(home: &Log, subscription: &str, source: &str) -> Result<()> {
    use sqlx::Row;
    let life = home.signal().life();
    let rows = sqlx::query(
        "select partition, position from event_store.checkpoints \
         where subscription = $1 and source = $2 order by partition",
    )
    .bind(subscription)
    .bind(source)
    .fetch_all(home.connections())
    .await?;
    let found = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let found: Vec<(i16, i64)> = found.collect::<Result<_>>()?;
    home.signal().progressed(life, subscription, source, &found, Mover::Any);
    Ok(())
}
