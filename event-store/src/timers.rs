//! Durable work that is due at a time: an order's expiry, a call of the payment gateway, a mail to send.
//!
//! Timers are set and cleared in the transaction that moves a process manager's checkpoint. A worker takes
//! what is due under a lease and renews it while it works, so that a crash delays a piece of work by seconds, however
//! long it may take, and never loses it; it must therefore be harmless to do it twice, which derived keys see to. All
//! times are the database's.

mod handing;

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::checkpoints::Statement;
use crate::connections::Connections;
use crate::log::Log;
use crate::signal::TIMER_CHANNEL;
use crate::{Result, crash_point};

use handing::Handed;
pub(crate) use handing::{Handover, Workers};

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
/// How long a worker rests that could take little, because most of its places are in use, before it takes more.
const RESTED: Duration = Duration::from_millis(10);
/// How long finished work may wait for more that is deleted with it.
const DELETED_WITHIN: Duration = Duration::from_millis(25);
/// How long a worker that stops waits for what is on its way to it.
const HANDED_WITHIN: Duration = Duration::from_secs(1);

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

/// Timers to set and to clear, in that order of effect: an id is in one of the two only.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TimerChanges {
    /// To be set.
    pub set: Vec<Timer>,
    /// To be cleared.
    pub clear: Vec<Uuid>,
}

impl TimerChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.clear.is_empty()
    }

    /// Sets a timer, whatever was said of it before.
    pub fn set(&mut self, timer: Timer) {
        self.clear.retain(|id| *id != timer.id);
        self.set.retain(|other| other.id != timer.id);
        self.set.push(timer);
    }

    /// Clears a timer, whatever was said of it before.
    pub fn clear(&mut self, id: Uuid) {
        self.set.retain(|timer| timer.id != id);
        self.clear.push(id);
    }
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

/// Sets and clears timers, to be taken up by whoever has time.
///
/// # Errors
/// When the database is unreachable.
pub async fn change(transaction: &mut PgConnection, changes: &TimerChanges) -> Result<()> {
    set(transaction, &changes.set).await?;
    clear(transaction, &changes.clear).await
}

/// Sets timers.
///
/// # Errors
/// When the database is unreachable.
pub async fn set(transaction: &mut PgConnection, timers: &[Timer]) -> Result<()> {
    if timers.is_empty() {
        return Ok(());
    }
    let taken = vec![false; timers.len()];
    put(sqlx::query(PUT), timers, &taken).execute(&mut *transaction).await?;
    if is_to_be_told(timers, &taken) {
        sqlx::query("select pg_notify($1, '')").bind(TIMER_CHANNEL).execute(transaction).await?;
    }
    Ok(())
}

/// Sets the timers of its first parameters, those that were `taken` under a lease of as many seconds as the last of
/// them says.
const PUT: &str = "insert into event_store.timers (id, queue, due_at, command, attempts) \
     select distinct on (id) id, queue, \
            case when taken then clock_timestamp() + make_interval(secs => $6) \
                 else coalesce(due_at, clock_timestamp()) end, command::json, taken::integer \
     from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::boolean[]) \
          as t(id, queue, due_at, command, taken) \
     on conflict (id) do update set due_at = excluded.due_at, command = excluded.command, \
                                    attempts = excluded.attempts \
     returning id, due_at";

fn put<'q>(statement: Statement<'q>, timers: &[Timer], taken: &[bool]) -> Statement<'q> {
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
fn is_to_be_told(timers: &[Timer], taken: &[bool]) -> bool {
    timers.iter().zip(taken).any(|(timer, taken)| timer.due_at.is_none() && !taken)
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
    let mut handed = Some(log.workers().join(queue));
    let mut worker = Worker { log, queue, handle, running: JoinSet::new(), held: HashMap::new() };
    let mut finished: Vec<Lease> = Vec::new();
    let mut delete_at: Option<Instant> = None;
    let mut changes = worker.log.signal().timers();
    let mut look_at = Instant::now();
    let mut renew_at = Instant::now();
    // Whether a piece of work is due at another time than was known.
    let mut put_off = false;
    loop {
        while let Some(ended) = worker.running.try_join_next_with_id() {
            put_off |= worker.settle(ended, &mut finished).await;
        }
        if std::mem::take(&mut put_off) {
            look_at = Instant::now();
        }
        if finished.is_empty() {
            delete_at = None;
        } else if stop.is_cancelled()
            || *delete_at.get_or_insert(Instant::now() + DELETED_WITHIN) <= Instant::now()
        {
            delete(&worker.log, &mut finished).await;
            delete_at = None;
        }
        if worker.held.is_empty() {
            renew_at = Instant::now() + RENEWED_EVERY;
        } else if renew_at <= Instant::now() {
            renew(&worker.log, queue, &mut worker.held).await;
            renew_at = Instant::now() + RENEWED_EVERY;
        }
        let room = worker.room();
        // Work that is finished is no reason to look for more, unless there was more than could be taken.
        if room > 0
            && !stop.is_cancelled()
            && (look_at <= Instant::now() || changes.has_changed().is_ok_and(|new| new))
        {
            changes.mark_unchanged();
            look_at = Instant::now() + worker.look(room).await;
        }
        if stop.is_cancelled()
            && let Some(handed) = handed.take()
        {
            leave(&worker.log, handed).await;
        }
        if stop.is_cancelled() && worker.running.is_empty() {
            delete(&worker.log, &mut finished).await;
            return;
        }
        let room = worker.room() > 0 && !stop.is_cancelled();
        tokio::select! {
            Some(ended) = worker.running.join_next_with_id(), if !worker.running.is_empty() => {
                put_off = worker.settle(ended, &mut finished).await;
            }
            Some(handed) = next_handed(&mut handed), if room => {
                // What lay for long may be taken up by somebody else soon: it is looked for like all else.
                if handed.is_stale() {
                    give_back(&worker.log, &[handed.lease]).await;
                    look_at = Instant::now();
                } else {
                    worker.begin(handed.lease, handed.due);
                }
            }
            changed = changes.changed(), if room => if changed.is_err() { return } else { look_at = Instant::now() },
            () = tokio::time::sleep_until(look_at), if room => {}
            () = tokio::time::sleep_until(renew_at), if !worker.held.is_empty() => {}
            () = tokio::time::sleep_until(delete_at.unwrap_or(renew_at)), if delete_at.is_some() => {}
            () = stop.cancelled(), if !stop.is_cancelled() => {}
        }
    }
}

/// The worker of a queue.
struct Worker<H> {
    log: Log,
    queue: Queue,
    handle: H,
    running: JoinSet<Done>,
    held: HashMap<Id, Held>,
}

impl<H, F> Worker<H>
where
    H: Fn(Due) -> F + Send + Sync + 'static,
    F: Future<Output = Done> + Send + 'static,
{
    /// How much more it can do at the same time.
    fn room(&self) -> usize {
        self.queue.concurrency - self.running.len()
    }

    fn begin(&mut self, lease: Lease, due: Due) {
        let task = self.running.spawn(done(self.queue.name, (self.handle)(due)));
        self.held.insert(task.id(), Held { lease, since: Instant::now() });
    }

    /// Takes up what is due; gives when to look again.
    async fn look(&mut self, room: usize) -> Duration {
        let database = self.log.connections();
        let due = match take(database, self.queue, room as i64).await {
            Ok(due) => due,
            Err(error) => {
                tracing::debug!(%error, queue = self.queue.name, "timers could not be read");
                return LOOK_AGAIN;
            }
        };
        let pause = if due.len() == room {
            // Under load places become free one by one, and each would be filled by a statement of its own.
            if room * 2 >= self.queue.concurrency { Duration::ZERO } else { RESTED }
        } else {
            next(database, self.queue.name).await.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)
        };
        for (lease, due) in due {
            self.begin(lease, due);
        }
        pause
    }

    /// Notes what became of a piece of work; says whether it is to be done again.
    async fn settle(
        &mut self,
        ended: std::result::Result<(Id, Done), JoinError>,
        finished: &mut Vec<Lease>,
    ) -> bool {
        let task = ended.as_ref().map_or_else(JoinError::id, |(task, _)| *task);
        // A piece of work that panicked is taken up again when its lease runs out.
        let (Some(Held { lease, .. }), Ok((_, done))) = (self.held.remove(&task), ended) else {
            return false;
        };
        match done {
            Done::Finished => {
                finished.push(lease);
                return false;
            }
            Done::Again(pause) => postpone(&self.log, lease, Some(pause), None).await,
            Done::Failed(error) => postpone(&self.log, lease, None, Some(error)).await,
        }
        true
    }
}

async fn next_handed(handed: &mut Option<mpsc::Receiver<Handed>>) -> Option<Handed> {
    match handed {
        Some(handed) => handed.recv().await,
        None => None,
    }
}

/// Leaves to others what was on its way to a worker that stops.
async fn leave(log: &Log, mut handed: mpsc::Receiver<Handed>) {
    handed.close();
    let mut left = Vec::new();
    let collect = async {
        while let Some(handed) = handed.recv().await {
            left.push(handed.lease);
        }
    };
    // Who has a place and does not use it is about to end as well.
    let _ = tokio::time::timeout(HANDED_WITHIN, collect).await;
    give_back(log, &left).await;
}

/// Leaves to others what was not begun.
async fn give_back(log: &Log, left: &[Lease]) {
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
    .execute(log.connections())
    .await;
    if let Err(error) = given {
        tracing::debug!(%error, "timers could not be given back; their leases run out");
    }
}

async fn done(queue: &str, work: impl Future<Output = Done>) -> Done {
    let done = work.await;
    crash_point!("timer-done", queue, Done::Failed("the work was done, and not marked".to_owned()));
    done
}

// Neither what is taken nor what is done is flushed: after a crash of the server it is done again, as it is after one
// of the process. What is due is due at the time of the transaction: one that goes on while the statement runs ends no
// walk through the index, and all that is due later would be looked at.
async fn take(database: &Connections, queue: Queue, room: i64) -> Result<Vec<(Lease, Due)>> {
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
                now: row.try_get("now")?,
            };
            Ok((lease, due))
        })
        .collect()
}

async fn next(database: &Connections, queue: &str) -> Result<Duration> {
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
    .fetch_all(log.connections())
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

/// Puts off a piece of work that is to be done again, by a pause, or longer each time.
async fn postpone(log: &Log, lease: Lease, pause: Option<Duration>, error: Option<String>) {
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
    .execute(log.connections())
    .await;
    if let Err(error) = postponed {
        tracing::debug!(%error, "a timer could not be postponed; its lease runs out");
    }
}

/// Deletes what is done.
async fn delete(log: &Log, finished: &mut Vec<Lease>) {
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
    .execute(log.connections())
    .await;
    match deleted {
        Ok(_) => finished.clear(),
        Err(error) => tracing::debug!(%error, "finished timers could not be deleted yet"),
    }
}
