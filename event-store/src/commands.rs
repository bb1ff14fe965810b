//! The rows of idempotent commands: found by copies, completed once the answer is known, purged in time.

use std::time::Duration;

use sqlx::{PgExecutor, PgPool, Row};
use uuid::Uuid;

use crate::Result;
use crate::append::{CommandKey, FirstCopy};

/// How long the rows of requests are kept.
pub const KEPT_REQUESTS: Duration = Duration::from_secs(48 * 3600);
/// How long the rows of derived commands are kept.
pub const KEPT_DERIVED: Duration = Duration::from_secs(30 * 24 * 3600);
/// How many rows one purge deletes at most, so that it never holds its locks for long.
const PURGED_AT_ONCE: i64 = 10_000;

// The time is that of the transaction: one that goes on while the statement runs fits no index.
const PURGE_REQUESTS: &str = "delete from event_store.commands where command_id in ( \
       select command_id from event_store.commands \
       where not derived and created_at < now() - make_interval(secs => $1) \
       order by created_at limit $2 for update skip locked)";
/// The ids of derived commands begin with a time in milliseconds, that of what they were derived from: a command that
/// was given long after it is kept for as long as any.
const PURGE_DERIVED: &str = "delete from event_store.commands where command_id in ( \
       select command_id from event_store.commands \
       where derived and created_at < now() - make_interval(secs => $1) and command_id < rpad(lpad(to_hex( \
             (extract(epoch from now() - make_interval(secs => $1)) * 1000)::bigint), 12, '0'), 32, '0')::uuid \
       order by command_id limit $2 for update skip locked)";

/// What an earlier copy of a command left, if there was one.
///
/// # Errors
/// When the database is unreachable.
pub async fn find(database: impl PgExecutor<'_>, command_id: Uuid) -> Result<Option<FirstCopy>> {
    let row = sqlx::query(
        "select aggregate_type, aggregate_id, sequence, position, refused, fingerprint, answer::text as answer \
         from event_store.commands where command_id = $1",
    )
    .bind(command_id)
    .fetch_optional(database)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(FirstCopy {
        aggregate_type: row.try_get("aggregate_type")?,
        aggregate_id: row.try_get("aggregate_id")?,
        sequence: row.try_get("sequence")?,
        position: row.try_get("position")?,
        refused: row.try_get("refused")?,
        fingerprint: row.try_get("fingerprint")?,
        answer: row.try_get("answer")?,
    }))
}

/// Which answer is kept after one was offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The one that was offered.
    Offered,
    /// The one that a copy of the command offered before.
    Earlier(String),
    /// That of another request which used the same identity first: it is nobody else's.
    OfAnother,
}

/// Keeps the answer to a command. The first one to come wins. A command that never reached an aggregate gets its row
/// here; one whose identity stands for another request keeps nothing.
///
/// # Errors
/// When the database is unreachable.
pub async fn complete(database: impl PgExecutor<'_>, key: &CommandKey, answer: &str) -> Result<Kept> {
    let row = sqlx::query(
        "insert into event_store.commands as c \
         (command_id, principal, fingerprint, aggregate_type, aggregate_id, sequence, position, refused, answer, \
          derived, created_at) \
         values ($1, $2, $3, '', '', 0, 0, true, $4::json, $5, clock_timestamp()) \
         on conflict (command_id) do update set answer = \
             case when c.fingerprint = excluded.fingerprint then coalesce(c.answer, excluded.answer) else c.answer end \
         returning c.fingerprint = $3 as is_ours, c.answer::text as answer",
    )
    .bind(key.command_id)
    .bind(&key.principal)
    .bind(&key.fingerprint)
    .bind(answer)
    .bind(key.derived)
    .fetch_one(database)
    .await?;
    if !row.try_get::<bool, _>("is_ours")? {
        return Ok(Kept::OfAnother);
    }
    let kept: String = row.try_get("answer")?;
    Ok(if kept == answer { Kept::Offered } else { Kept::Earlier(kept) })
}

/// Forgets what was answered to a person who was erased, and what was answered about that person. Copies of those
/// requests are still known as such. It reads all rows of requests that are kept, for which an index that each request
/// writes would be too dear: few are erased.
///
/// # Errors
/// When the database is unreachable.
pub async fn forget_answers(database: impl PgExecutor<'_>, person: Uuid) -> Result<()> {
    sqlx::query(
        "update event_store.commands set answer = null \
         where not derived and answer is not null and $1 in (principal, aggregate_id)",
    )
    .bind(person.to_string())
    .execute(database)
    .await?;
    Ok(())
}

/// Deletes all rows that have been kept long enough; says how many. What another process is deleting is left to it.
///
/// # Errors
/// When the database is unreachable: what was deleted until then stays so.
pub async fn purge(database: &PgPool) -> Result<u64> {
    let mut purged = 0;
    for (statement, kept) in [(PURGE_REQUESTS, KEPT_REQUESTS), (PURGE_DERIVED, KEPT_DERIVED)] {
        loop {
            let gone = sqlx::query(statement)
                .bind(kept.as_secs() as f64)
                .bind(PURGED_AT_ONCE)
                .execute(database)
                .await?
                .rows_affected();
            purged += gone;
            if gone < PURGED_AT_ONCE as u64 {
                break;
            }
        }
    }
    Ok(purged)
}
