//! The rows of timed work: statements that write, take, renew, put off and delete them.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row;
use uuid::Uuid;

use super::{Due, FIRST_PAUSE, HELD_FOR, LONGEST_PAUSE, LOOK_AGAIN, Lease, Queue, Timer};
use crate::Result;
use crate::checkpoints::Statement;
use crate::connections::Connections;

/// Sets the timers of its first parameters, those that were `taken` under a lease of as many seconds as the last of
/// them says.
pub(super) const PUT: &str = "insert into event_store.timers (id, queue, due_at, command, attempts) \
     select distinct on (id) id, queue, \
            case when taken then clock_timestamp() + make_interval(secs => $6) \
                 else coalesce(due_at, clock_timestamp()) end, command::json, taken::integer \
     from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::boolean[]) \
          as t(id, queue, due_at, command, taken) \
     on conflict (id) do update set due_at = excluded.due_at, command = excluded.command, \
                                    attempts = excluded.attempts \
     returning id, due_at";

pub(super) fn put<'q>(statement: Statement<'q>, timers: &[&Timer], taken: &[bool]) -> Statement<'q> {
    let ids: Vec<Uuid> = timers.iter().map(|timer| timer.id).collect();
    let queues: Vec<String> = timers.iter().map(|timer| timer.queue.clone()).collect();
    let due: Vec<Option<DateTime<Utc>>> = timers.iter().map(|timer| timer.due_at).collect();
    let commands: Vec<String> = timers.iter().map(|timer| timer.command.to_string()).collect();
    statement
        .bind(ids)
        .bind(queues)
        .bind(due)
        .bind(commands)
        .bind(taken.to_vec())
        .bind(HELD_FOR.as_secs_f64())
}

/// Whether somebody must be told that there is work due at once.
pub(super) fn is_to_be_told(timers: &[&Timer], taken: &[bool]) -> bool {
    timers.iter().zip(taken).any(|(timer, taken)| timer.due_at.is_none() && !taken)
}

/// Leaves to others what was not begun.
pub(super) async fn give_back(database: &Connections, left: &[Lease]) {
    if left.is_empty() {
        return;
    }
    let (ids, until): (Vec<Uuid>, Vec<DateTime<Utc>>) =
        left.iter().map(|lease| (lease.id, lease.until)).unzip();
    let given = sqlx::query(
        "update event_store.timers t set due_at = clock_timestamp(), attempts = 0 \
         from unnest($1::uuid[], $2::timestamptz[]) as h(id, until) where t.id = h.id and t.due_at = h.until",
    )
    .bind(ids)
    .bind(until)
    .execute(database)
    .await;
    if let Err(error) = given {
        tracing::debug!(%error, "timers could not be given back; their leases run out");
    }
}

// Neither what is taken nor what is done is flushed: after a crash of the server it is done again, as it is after one
// of the process. What is due is due at the time of the transaction: one that goes on while the statement runs ends no
// walk through the index, and all that is due later would be looked at.
pub(super) async fn take(database: &Connections, queue: Queue, room: i64) -> Result<Vec<(Lease, Due)>> {
    let rows = sqlx::query(
        "update event_store.timers set due_at = clock_timestamp() + make_interval(secs => $3), attempts = attempts + 1 \
         where id in (select id from event_store.timers where queue = $1 and due_at <= now() \
                      order by due_at limit $2 for update skip locked) \
         returning id, due_at, command, attempts, clock_timestamp() as now, \
                   set_config('synchronous_commit', 'off', true)",
    )
    .bind(queue.name)
    .bind(room)
    .bind(HELD_FOR.as_secs_f64())
    .fetch_all(database)
    .await?;
    rows.iter()
        .map(|row| {
            let lease = Lease { id: row.try_get("id")?, until: row.try_get("due_at")? };
            let due = Due {
                id: lease.id,
                command: row.try_get("command")?,
                attempts: row.try_get("attempts")?,
                now: Some(row.try_get("now")?),
            };
            Ok((lease, due))
        })
        .collect()
}

pub(super) async fn next(database: &Connections, queue: &str) -> Result<Duration> {
    let seconds: Option<f64> = sqlx::query_scalar(
        "select extract(epoch from min(due_at) - clock_timestamp())::float8 from event_store.timers where queue = $1",
    )
    .bind(queue)
    .fetch_one(database)
    .await?;
    Ok(seconds.map_or(LOOK_AGAIN, |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}

/// Renews leases; gives until when they last now. What was set anew or taken up by somebody else is not touched.
pub(super) async fn renew(
    database: &Connections,
    leases: &[Lease],
) -> sqlx::Result<HashMap<Lease, DateTime<Utc>>> {
    let (ids, until): (Vec<Uuid>, Vec<DateTime<Utc>>) =
        leases.iter().map(|lease| (lease.id, lease.until)).unzip();
    let rows = sqlx::query(
        "update event_store.timers t set due_at = clock_timestamp() + make_interval(secs => $3) \
         from unnest($1::uuid[], $2::timestamptz[]) as h(id, until) \
         where t.id = h.id and t.due_at = h.until returning t.id, h.until, t.due_at",
    )
    .bind(ids)
    .bind(until)
    .bind(HELD_FOR.as_secs_f64())
    .fetch_all(database)
    .await?;
    rows.iter()
        .map(|row| {
            let lease = Lease { id: row.try_get("id")?, until: row.try_get("until")? };
            Ok((lease, row.try_get("due_at")?))
        })
        .collect()
}

/// Puts off a piece of work that is to be done again, by a pause, or longer each time.
pub(super) async fn postpone(
    database: &Connections,
    lease: Lease,
    pause: Option<Duration>,
    error: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query(
        "update event_store.timers set last_error = $2, due_at = clock_timestamp() + make_interval(secs => \
         coalesce($3, least($4 * power(2, least(attempts, 16) - 1), $5))) \
         where id = $1 and due_at = $6",
    )
    .bind(lease.id)
    .bind(error)
    .bind(pause.map(|pause| pause.as_secs_f64()))
    .bind(FIRST_PAUSE.as_secs_f64())
    .bind(LONGEST_PAUSE.as_secs_f64())
    .bind(lease.until)
    .execute(database)
    .await?;
    Ok(())
}

/// Writes a piece of work that was tried once and is to be done again. If it was set anew meanwhile, that counts.
pub(super) async fn put_off(
    database: &Connections,
    timer: &Timer,
    pause: Option<Duration>,
    error: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into event_store.timers (id, queue, due_at, command, attempts, last_error) \
         values ($1, $2, clock_timestamp() + make_interval(secs => $4), $3::json, 1, $5) on conflict do nothing",
    )
    .bind(timer.id)
    .bind(&timer.queue)
    .bind(timer.command.to_string())
    .bind(pause.unwrap_or(FIRST_PAUSE).as_secs_f64())
    .bind(error)
    .execute(database)
    .await?;
    Ok(())
}

/// Deletes what is done.
pub(super) async fn delete(database: &Connections, finished: &mut Vec<Lease>) {
    if finished.is_empty() {
        return;
    }
    let (ids, leases): (Vec<Uuid>, Vec<DateTime<Utc>>) =
        finished.iter().map(|lease| (lease.id, lease.until)).unzip();
    let deleted = sqlx::query(
        "delete from event_store.timers t using unnest($1::uuid[], $2::timestamptz[]) as f(id, until) \
         where t.id = f.id and t.due_at = f.until returning set_config('synchronous_commit', 'off', true)",
    )
    .bind(ids)
    .bind(leases)
    .execute(database)
    .await;
    match deleted {
        Ok(_) => finished.clear(),
        Err(error) => tracing::debug!(%error, "finished timers could not be deleted yet"),
    }
}
