//! Snapshots of long streams, taken in the background and never needed: the events tell the same.
//!
//! The state of an aggregate that holds personal data is sealed whole with its person's key.

use cqrs_es::Aggregate;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use uuid::Uuid;

use crate::log::Log;
use crate::{Error, Result};

/// After how many events a new snapshot is taken.
const SNAPSHOT_EVERY: i64 = 100;
/// Which part of a long stream may lie behind its snapshot: a state that grows with its stream is not stored again
/// and again for a few events more.
const UNSNAPPED_PART: i64 = 8;

/// Whether an aggregate at a version is to have another snapshot than that of an earlier one.
pub(crate) fn is_due(version: i64, snapshot: i64) -> bool {
    version - snapshot >= SNAPSHOT_EVERY.max(version / UNSNAPPED_PART)
}

pub(crate) struct Snapshot {
    pub(crate) state: String,
    pub(crate) sequence: i64,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    person: Uuid,
    sealed: String,
}

/// The newest snapshots of the given shape, by aggregate id.
pub(crate) async fn load(
    log: &Log,
    aggregate_type: &str,
    ids: &[&str],
    shape: i64,
) -> Result<Vec<(String, Snapshot)>> {
    let rows = sqlx::query(
        "select aggregate_id, last_sequence, payload::text as payload from event_store.snapshots \
         where aggregate_type = $1 and aggregate_id = any($2) and current_snapshot = $3",
    )
    .bind(aggregate_type)
    .bind(ids)
    .bind(shape)
    .fetch_all(log.connections())
    .await?;
    let mut snapshots = Vec::with_capacity(rows.len());
    for row in rows {
        let payload: String = row.try_get("payload")?;
        let state = match serde_json::from_str::<Sealed>(&payload) {
            Err(_) => Some(payload),
            Ok(sealed) => match log.personal().open_text(sealed.person, &sealed.sealed).await {
                Ok(text) => text.map(|text| text.as_str().to_owned()),
                Err(error) if error.is_transient() => return Err(error),
                // One that cannot be opened is passed over: the events tell the same, if anything does.
                Err(error) => {
                    tracing::warn!(%error, "a snapshot cannot be opened");
                    None
                }
            },
        };
        if let Some(state) = state {
            snapshots.push((
                row.try_get("aggregate_id")?,
                Snapshot { state, sequence: row.try_get("last_sequence")? },
            ));
        }
    }
    Ok(snapshots)
}

/// Stores a snapshot, unless a newer one is there.
pub(crate) async fn store<A: Aggregate>(
    log: &Log,
    aggregate_id: &str,
    state: &A,
    sequence: i64,
    shape: i64,
    person: Option<Uuid>,
) -> Result<()> {
    let encode = |source| Error::Decode { what: format!("the state of {} {aggregate_id}", A::TYPE), source };
    let mut payload = serde_json::to_string(state).map_err(encode)?;
    if let Some(person) = person {
        let Some(sealed) = log.personal().seal_text(person, &payload).await? else { return Ok(()) };
        payload = serde_json::to_string(&Sealed { person, sealed }).map_err(encode)?;
    }
    sqlx::query(
        "insert into event_store.snapshots as s (aggregate_type, aggregate_id, last_sequence, current_snapshot, payload) \
         values ($1, $2, $3, $4, $5::json) \
         on conflict (aggregate_type, aggregate_id) do update \
         set last_sequence = excluded.last_sequence, current_snapshot = excluded.current_snapshot, \
             payload = excluded.payload \
         where s.last_sequence < excluded.last_sequence or s.current_snapshot <> excluded.current_snapshot",
    )
    .bind(A::TYPE)
    .bind(aggregate_id)
    .bind(sequence)
    .bind(shape)
    .bind(payload)
    .execute(log.connections())
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_streams_have_one_every_hundred_events_and_long_ones_not_more_than_they_need() {
        assert!(!is_due(99, 0));
        assert!(is_due(100, 0));
        assert!(is_due(800, 700));
        assert!(!is_due(17_900, 16_000));
        assert!(is_due(18_286, 16_000));
    }
}
