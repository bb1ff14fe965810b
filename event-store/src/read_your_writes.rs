//! Waiting until a reader has come as far as a write. One listener per process serves all who wait.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::Instant;

use crate::Result;
use crate::log::Log;

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
    let mut changes = home.signal().progress();
    loop {
        changes.mark_unchanged();
        if reached(home, subscriptions, &place.source, &wanted) {
            return Ok(true);
        }
        let pause = LOOK_AGAIN.min(deadline.saturating_duration_since(Instant::now()));
        if pause.is_zero() {
            return Ok(false);
        }
        if tokio::time::timeout(pause, changes.changed()).await.is_err() {
            look(home, subscriptions, &place.source).await?;
        }
    }
}

fn reached(home: &Log, subscriptions: &[&str], source: &str, wanted: &[(i16, i64)]) -> bool {
    subscriptions.iter().all(|subscription| {
        wanted.iter().all(|(partition, position)| {
            let checkpoint = ((*subscription).to_owned(), source.to_owned(), *partition);
            home.signal().checkpoint(&checkpoint).is_some_and(|reached| reached >= *position)
        })
    })
}

async fn look(home: &Log, subscriptions: &[&str], source: &str) -> Result<()> {
    use sqlx::Row;
    let rows = sqlx::query(
        "select subscription, partition, position from event_store.checkpoints \
         where source = $1 and subscription = any($2) order by subscription, partition limit 1000",
    )
    .bind(source)
    .bind(subscriptions)
    .fetch_all(home.database())
    .await?;
    for row in rows {
        let subscription: String = row.try_get("subscription")?;
        home.signal().progressed(
            &subscription,
            source,
            &[(row.try_get("partition")?, row.try_get("position")?)],
        );
    }
    Ok(())
}
