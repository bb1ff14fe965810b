//! Reading a log: by position, and stream by stream.

use sqlx::postgres::PgRow;
use sqlx::{PgExecutor, Row};

use crate::{Error, Metadata, Recorded, Result};

const COLUMNS: &str = "position, partition, aggregate_type, aggregate_id, sequence, event_type, event_version, \
                       payload::text as payload, metadata::text as metadata, recorded_at";

/// One row of the log as an event.
pub(crate) fn recorded(row: &PgRow) -> Result<Recorded> {
    let position = row.try_get("position")?;
    let metadata: &str = row.try_get("metadata")?;
    let metadata: Metadata = serde_json::from_str(metadata)
        .map_err(|source| Error::Decode { what: format!("the metadata at position {position}"), source })?;
    Ok(Recorded {
        position,
        partition: row.try_get("partition")?,
        aggregate_type: row.try_get("aggregate_type")?,
        aggregate_id: row.try_get("aggregate_id")?,
        sequence: row.try_get("sequence")?,
        event_type: row.try_get("event_type")?,
        event_version: row.try_get("event_version")?,
        payload: row.try_get("payload")?,
        metadata,
        recorded_at: row.try_get("recorded_at")?,
    })
}

/// The events after a position, in order, at most `limit`. As positions are dense and in commit order, a
/// hole would be a defect: it is reported, never passed over.
///
/// # Errors
/// When the database is unreachable, or the log has a hole.
pub async fn read(
    database: impl PgExecutor<'_>,
    source: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<Recorded>> {
    let rows = sqlx::query(&format!(
        "select {COLUMNS} from event_store.events where position > $1 order by position limit $2"
    ))
    .bind(after)
    .bind(limit)
    .fetch_all(database)
    .await?;
    let mut expected = after;
    rows.iter()
        .map(|row| {
            expected += 1;
            let event = recorded(row)?;
            if event.position != expected {
                return Err(Error::Hole { source_name: source.to_owned(), expected, found: event.position });
            }
            Ok(event)
        })
        .collect()
}

/// The events of some partitions between two positions (both exclusive and inclusive: `(after, upto]`), in
/// order, at most `limit`.
///
/// # Errors
/// When the database is unreachable.
pub async fn read_partitions(
    database: impl PgExecutor<'_>,
    partitions: &[i16],
    after: i64,
    upto: i64,
    limit: i64,
) -> Result<Vec<Recorded>> {
    let rows = sqlx::query(&format!(
        "select {COLUMNS} from event_store.events \
         where position > $1 and position <= $2 and partition = any($3) order by position limit $4"
    ))
    .bind(after)
    .bind(upto)
    .bind(partitions)
    .bind(limit)
    .fetch_all(database)
    .await?;
    rows.iter().map(recorded).collect()
}

/// Events by their positions, in order.
///
/// # Errors
/// When the database is unreachable.
pub async fn read_positions(database: impl PgExecutor<'_>, positions: &[i64]) -> Result<Vec<Recorded>> {
    let rows = sqlx::query(&format!(
        "select {COLUMNS} from event_store.events where position = any($1) order by position limit $2"
    ))
    .bind(positions)
    .bind(positions.len() as i64)
    .fetch_all(database)
    .await?;
    rows.iter().map(recorded).collect()
}

/// One aggregate's events after a sequence, in order, at most `limit`.
///
/// # Errors
/// When the database is unreachable.
pub async fn read_stream(
    database: impl PgExecutor<'_>,
    aggregate_type: &str,
    aggregate_id: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<Recorded>> {
    let rows = sqlx::query(&format!(
        "select {COLUMNS} from event_store.events \
         where aggregate_type = $1 and aggregate_id = $2 and sequence > $3 order by sequence limit $4"
    ))
    .bind(aggregate_type)
    .bind(aggregate_id)
    .bind(after)
    .bind(limit)
    .fetch_all(database)
    .await?;
    rows.iter().map(recorded).collect()
}

/// The highest position, 0 for an empty log.
///
/// # Errors
/// When the database is unreachable.
pub async fn head(database: impl PgExecutor<'_>) -> Result<i64> {
    let head: i64 = sqlx::query_scalar("select coalesce(max(position), 0) from event_store.events")
        .fetch_one(database)
        .await?;
    Ok(head)
}

/// The last position of each partition up to `upto`, for those that have one.
///
/// # Errors
/// When the database is unreachable.
pub async fn last_of_partitions(database: impl PgExecutor<'_>, upto: i64) -> Result<Vec<(i16, i64)>> {
    let rows = sqlx::query(
        "select p.partition, e.position from generate_series(0, $2::integer - 1) as p(partition), \
         lateral (select position from event_store.events \
                  where partition = p.partition and position <= $1 order by position desc limit 1) e",
    )
    .bind(upto)
    .bind(i32::from(crate::PARTITIONS))
    .fetch_all(database)
    .await?;
    rows.iter().map(|row| Ok((row.try_get::<i32, _>(0)? as i16, row.try_get(1)?))).collect()
}

/// Which aggregates the events after a position belong to, in order, at most `limit`.
///
/// # Errors
/// When the database is unreachable.
pub async fn touched(database: impl PgExecutor<'_>, after: i64, limit: i64) -> Result<Vec<(i64, String)>> {
    let rows = sqlx::query(
        "select position, aggregate_id from event_store.events where position > $1 order by position limit $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(database)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
