//! Events that could not be applied wait here with their streams; everybody else goes on.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, Row};

use crate::Result;

/// An event that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The subscription that could not apply it.
    pub subscription: String,
    /// The log it is from.
    pub source: String,
    /// Its place there.
    pub position: i64,
    /// The type of its aggregate.
    pub aggregate_type: String,
    /// Its aggregate, whose later events wait behind it.
    pub aggregate_id: String,
    /// Its type.
    pub event_type: String,
    /// Why it could not be applied; empty when it only waits behind another.
    pub error: String,
    /// How often it was tried.
    pub attempts: i32,
    /// When it was parked.
    pub parked_at: DateTime<Utc>,
}

/// The events that wait, at most `limit`, in order.
///
/// # Errors
/// When the database is unreachable.
pub async fn list(database: &PgPool, subscription: Option<&str>, limit: i64) -> Result<Vec<Parked>> {
    let rows = sqlx::query(
        "select subscription, source, position, aggregate_type, aggregate_id, event_type, error, attempts, parked_at \
         from event_store.parked where $1::text is null or subscription = $1 \
         order by subscription, source, position limit $2",
    )
    .bind(subscription)
    .bind(limit)
    .fetch_all(database)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Parked {
                subscription: row.try_get("subscription")?,
                source: row.try_get("source")?,
                position: row.try_get("position")?,
                aggregate_type: row.try_get("aggregate_type")?,
                aggregate_id: row.try_get("aggregate_id")?,
                event_type: row.try_get("event_type")?,
                error: row.try_get("error")?,
                attempts: row.try_get("attempts")?,
                parked_at: row.try_get("parked_at")?,
            })
        })
        .collect()
}

/// How many events wait for a subscription.
///
/// # Errors
/// When the database is unreachable.
pub async fn count(database: &PgPool, subscription: &str) -> Result<i64> {
    let count = sqlx::query_scalar("select count(*) from event_store.parked where subscription = $1")
        .bind(subscription)
        .fetch_one(database)
        .await?;
    Ok(count)
}

/// The streams of a source that wait, as (aggregate type, aggregate id).
pub(crate) async fn streams(
    transaction: &mut PgConnection,
    subscription: &str,
    source: &str,
) -> Result<Vec<(String, String)>> {
    let rows = sqlx::query(
        "select distinct aggregate_type, aggregate_id from event_store.parked \
         where subscription = $1 and source = $2 order by aggregate_type, aggregate_id limit 100000",
    )
    .bind(subscription)
    .bind(source)
    .fetch_all(transaction)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Serialises those who park into and take from one subscription's waiting room, until the transaction ends.
pub(crate) async fn lock(transaction: &mut PgConnection, subscription: &str) -> Result<()> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('parked ' || $1, 0))")
        .bind(subscription)
        .execute(transaction)
        .await?;
    Ok(())
}

pub(crate) async fn park(
    transaction: &mut PgConnection,
    subscription: &str,
    event: &crate::subscription::Delivered,
    error: &str,
    attempts: i32,
) -> Result<()> {
    sqlx::query(
        "insert into event_store.parked (subscription, source, position, partition, aggregate_type, aggregate_id, \
         event_type, error, attempts) values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict do nothing",
    )
    .bind(subscription)
    .bind(&*event.source)
    .bind(event.position)
    .bind(event.partition)
    .bind(&event.aggregate_type)
    .bind(&event.aggregate_id)
    .bind(&event.event_type)
    .bind(error)
    .bind(attempts)
    .execute(transaction)
    .await?;
    Ok(())
}

/// The positions that wait in the first waiting stream, in order.
pub(crate) async fn first_stream(
    transaction: &mut PgConnection,
    subscription: &str,
    skip: &[(String, String, String)],
) -> Result<Option<(String, String, String, Vec<i64>)>> {
    let rows = sqlx::query(
        "select source, aggregate_type, aggregate_id, array_agg(position order by position) as positions \
         from event_store.parked where subscription = $1 group by source, aggregate_type, aggregate_id \
         order by min(position) limit 10000",
    )
    .bind(subscription)
    .fetch_all(transaction)
    .await?;
    for row in rows {
        let stream: (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if !skip.contains(&stream) {
            return Ok(Some((stream.0, stream.1, stream.2, row.try_get("positions")?)));
        }
    }
    Ok(None)
}

/// Takes an event out of the waiting room; says whether it was there.
pub(crate) async fn unpark(
    transaction: &mut PgConnection,
    subscription: &str,
    source: &str,
    position: i64,
) -> Result<bool> {
    let taken = sqlx::query(
        "delete from event_store.parked where subscription = $1 and source = $2 and position = $3",
    )
    .bind(subscription)
    .bind(source)
    .bind(position)
    .execute(transaction)
    .await?;
    Ok(taken.rows_affected() == 1)
}
