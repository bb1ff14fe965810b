//! Durable work that is due at a time: an order's expiry, a call of the payment gateway, a mail to send.
//!
//! Timers are set and cleared in the transaction that moves a process manager's checkpoint. A worker takes
//! what is due under a lease and renews it while it works, so that a crash delays a piece of work by seconds, however
//! long it may take, and never loses it; it must therefore be harmless to do it twice, which derived keys see to. All
//! times are the database's.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, Row};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::log::Log;
use crate::signal::TIMER_CHANNEL;
use crate::{Result, crash_point};

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The first pause between two tries; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// How long a piece of work is left to a worker that is not heard of.
const HELD_FOR: Duration = Duration::from_secs(10);
/// How often the leases of what is under way are renewed: two renewals may fail.
const RENEWED_EVERY: Duration = Duration::from_secs(3);
/// How long the worker sleeps at most before it looks for what is due.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A piece of work to be done at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Timer {
    /// Its identity: setting it again moves it.
    pub id: Uuid,
    /// Which worker does it.
    pub queue: String,
    /// When; none for at once.
    pub due_at: Option<DateTime<Utc>>,
    /// What, as JSON.
    pub command: serde_json::Value,
}

/// A piece of work whose time has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// Its identity.
    pub id: Uuid,
    /// What is to be done.
    pub command: serde_json::Value,
    /// How often it has been tried, this time included.
    pub attempts: i32,
    /// The database's time when it was taken.
    pub now: DateTime<Utc>,
}

/// What became of a piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It is finished.
    Finished,
    /// It did not work out: try again, later each time.
    Failed(String),
    /// It is to be done again after a pause.
    Again(Duration),
}

/// A piece of work under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    lease: Lease,
    since: Instant,
}

/// A piece of work under lease. A timer that is due at another time by now was set anew meanwhile, or taken
/// up by somebody else: whoever held it before leaves it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Lease {
    id: Uuid,
    until: DateTime<Utc>,
}

/// Sets timers.
///
/// # Errors
/// When the database is unreachable.
pub async fn set(transaction: &mut PgConnection, timers: &[Timer]) -> Result<()> {
    if timers.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = timers.iter().map(|timer| timer.id).collect();
    let queues: Vec<&str> = timers.iter().map(|timer| timer.queue.as_str()).collect();
    let due: Vec<Option<DateTime<Utc>>> = timers.iter().map(|timer| timer.due_at).collect();
    let commands: Vec<String> = timers.iter().map(|timer| timer.command.to_string()).collect();
    sqlx::query(
        "insert into event_store.timers (id, queue, due_at, command) \
         select distinct on (id) id, queue, coalesce(due_at, clock_timestamp()), command::json \
         from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[]) as t(id, queue, due_at, command) \
         on conflict (id) do update set due_at = excluded.due_at, command = excluded.command, attempts = 0",
    )
    .bind(ids)
    .bind(queues)
    .bind(due)
    .bind(commands)
    .execute(&mut *transaction)
    .await?;
    if timers.iter().any(|timer| timer.due_at.is_none()) {
        sqlx::query("select pg_notify($1, '')").bind(TIMER_CHANNEL).execute(transaction).await?;
    }
    Ok(())
}

/// Clears timers; those that are not set are no error.
///
/// # Errors
/// When the database is unreachable.
pub async fn clear(transaction: &mut PgConnection, ids: &[Uuid]) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query("delete from event_store.timers where id = any($1)").bind(ids).execute(transaction).await?;
    Ok(())
}

/// How the work of a queue is taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: &'static str,
    /// How many pieces are done at the same time.
    pub concurrency: usize,
    /// How long a piece may take: one that hangs is left to somebody else.
    pub patience: Duration,
}

/// Does what is due in one queue until `stop`.
pub async fn work<H, F>(log: Log, queue: Queue, handle: H, stop: CancellationToken)
where
    H: Fn(Due) -> F + Send + Sync + 'static,
    F: Future<Output = Done> + Send + 'static,
{
    let handle = Arc::new(handle);
    let mut running: JoinSet<Done> = JoinSet::new();
    let mut held: HashMap<Id, Held> = HashMap::new();
    let mut finished: Vec<Lease> = Vec::new();
    let mut changes = log.signal().timers();
    let mut look_at = Instant::now();
    let mut renew_at = Instant::now();
    // Whether a piece of work is due at another time than was known.
    let mut put_off = false;
    loop {
        while let Some(ended) = running.try_join_next_with_id() {
            put_off |= settle(&log, ended, &mut held, &mut finished).await;
        }
        if std::mem::take(&mut put_off) {
            look_at = Instant::now();
        }
        flush(&log, &mut finished).await;
        if held.is_empty() {
            renew_at = Instant::now() + RENEWED_EVERY;
        } else if renew_at <= Instant::now() {
            renew(&log, queue, &mut held).await;
            renew_at = Instant::now() + RENEWED_EVERY;
        }
        let room = queue.concurrency - running.len();
        // Work that is finished is no reason to look for more, unless there was more than could be taken.
        if room > 0
            && !stop.is_cancelled()
            && (look_at <= Instant::now() || changes.has_changed().is_ok_and(|new| new))
        {
            changes.mark_unchanged();
            let mut pause = LOOK_AGAIN;
            match take(log.database(), queue, room as i64).await {
                Ok(due) => {
                    let full = due.len() == room;
                    for (lease, due) in due {
                        let handle = Arc::clone(&handle);
                        let task = running.spawn(async move { done(queue.name, handle(due)).await });
                        held.insert(task.id(), Held { lease, since: Instant::now() });
                    }
                    pause = if full {
                        Duration::ZERO
                    } else {
                        next(log.database(), queue.name).await.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)
                    };
                }
                Err(error) => tracing::debug!(%error, queue = queue.name, "timers could not be read"),
            }
            look_at = Instant::now() + pause;
        }
        if stop.is_cancelled() && running.is_empty() {
            return;
        }
        let room = running.len() < queue.concurrency && !stop.is_cancelled();
        tokio::select! {
            Some(ended) = running.join_next_with_id(), if !running.is_empty() => {
                put_off = settle(&log, ended, &mut held, &mut finished).await;
            }
            changed = changes.changed(), if room => if changed.is_err() { return } else { look_at = Instant::now() },
            () = tokio::time::sleep_until(look_at), if room => {}
            () = tokio::time::sleep_until(renew_at), if !held.is_empty() => {}
            () = stop.cancelled(), if !stop.is_cancelled() => {}
        }
    }
}

async fn done(queue: &str, work: impl Future<Output = Done>) -> Done {
    let done = work.await;
    crash_point!("timer-done", queue, Done::Failed("the work was done, and not marked".to_owned()));
    done
}

// Neither what is taken nor what is done is flushed: after a crash of the server it is done again, as it is after one
// of the process.
async fn take(database: &PgPool, queue: Queue, room: i64) -> Result<Vec<(Lease, Due)>> {
    let rows = sqlx::query(
        "update event_store.timers set due_at = clock_timestamp() + make_interval(secs => $3), attempts = attempts + 1 \
         where id in (select id from event_store.timers where queue = $1 and due_at <= clock_timestamp() \
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
                now: row.try_get("now")?,
            };
            Ok((lease, due))
        })
        .collect()
}

async fn next(database: &PgPool, queue: &str) -> Result<Duration> {
    let seconds: Option<f64> = sqlx::query_scalar(
        "select extract(epoch from min(due_at) - clock_timestamp())::float8 from event_store.timers where queue = $1",
    )
    .bind(queue)
    .fetch_one(database)
    .await?;
    Ok(seconds.map_or(LOOK_AGAIN, |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}

/// Renews the leases of what is under way and has not taken too long. What was set anew or taken up by somebody else
/// is not touched.
async fn renew(log: &Log, queue: Queue, held: &mut HashMap<Id, Held>) {
    let leases = held.values().filter(|held| held.since.elapsed() < queue.patience).map(|held| held.lease);
    let (ids, until): (Vec<Uuid>, Vec<DateTime<Utc>>) = leases.map(|lease| (lease.id, lease.until)).unzip();
    let rows = sqlx::query(
        "update event_store.timers t set due_at = clock_timestamp() + make_interval(secs => $3) \
         from unnest($1::uuid[], $2::timestamptz[]) as h(id, until) \
         where t.id = h.id and t.due_at = h.until returning t.id, h.until, t.due_at",
    )
    .bind(ids)
    .bind(until)
    .bind(HELD_FOR.as_secs_f64())
    .fetch_all(log.database())
    .await;
    let renewed = rows.and_then(|rows| {
        let renewed = rows.iter().map(|row| {
            let lease = Lease { id: row.try_get("id")?, until: row.try_get("until")? };
            Ok((lease, row.try_get("due_at")?))
        });
        renewed.collect::<sqlx::Result<HashMap<Lease, DateTime<Utc>>>>()
    });
    match renewed {
        Ok(renewed) => {
            for held in held.values_mut() {
                if let Some(until) = renewed.get(&held.lease) {
                    held.lease.until = *until;
                }
            }
        }
        Err(error) => tracing::debug!(%error, queue = queue.name, "leases of timers could not be renewed"),
    }
}

/// Notes what became of a piece of work; says whether it is to be done again.
async fn settle(
    log: &Log,
    ended: std::result::Result<(Id, Done), JoinError>,
    held: &mut HashMap<Id, Held>,
    finished: &mut Vec<Lease>,
) -> bool {
    let task = ended.as_ref().map_or_else(JoinError::id, |(task, _)| *task);
    // A piece of work that panicked is taken up again when its lease runs out.
    let (Some(Held { lease, .. }), Ok((_, done))) = (held.remove(&task), ended) else { return false };
    let (pause, error) = match done {
        Done::Finished => {
            finished.push(lease);
            return false;
        }
        Done::Again(pause) => (Some(pause), None),
        Done::Failed(error) => (None, Some(error)),
    };
    let postponed = sqlx::query(
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
    .execute(log.database())
    .await;
    if let Err(error) = postponed {
        tracing::debug!(%error, "a timer could not be postponed; its lease runs out");
    }
    true
}

async fn flush(log: &Log, finished: &mut Vec<Lease>) {
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
    .execute(log.database())
    .await;
    match deleted {
        Ok(_) => finished.clear(),
        Err(error) => tracing::debug!(%error, "finished timers could not be deleted yet"),
    }
}
