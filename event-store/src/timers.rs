//! Durable work that is due at a time: an order's expiry, a call of the payment gateway, a mail to send.
//!
//! Timers are set and cleared in the transaction that moves a process manager's checkpoint; what is due at once goes to a
//! worker of the same process before that. A worker takes what is due under a lease and renews it while it works,
//! so that a crash delays a piece of work by seconds, however long it may take, and never loses it; it must therefore
//! be harmless to do it twice, which derived keys see to. All times are the database's.

mod handing;
mod holding;
mod rows;

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use sqlx::PgConnection;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::log::Log;
use crate::signal::TIMER_CHANNEL;
use crate::{Result, crash_point, panics};

use handing::Handed;
pub(crate) use handing::Workers;
use holding::Hold;
pub(crate) use holding::InHand;
use holding::PuttingOff;
use rows::{PUT, delete, give_back, is_to_be_told, next, postpone, put, put_off, renew, take};

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
/// The pause before it is asked again whether a row is written.
const WRITTEN_SOON: Duration = Duration::from_millis(2);
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
    /// The database's time when it was taken; none for what is due at once and was not written yet.
    pub now: Option<DateTime<Utc>>,
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

    /// Whether anything is said of a timer.
    fn concern(&self, id: Uuid) -> bool {
        self.set.iter().any(|timer| timer.id == id) || self.clear.contains(&id)
    }

    /// Takes in what is said later, whatever was said of the same timers before.
    fn extend(&mut self, later: &Self) {
        self.set.retain(|timer| !later.concern(timer.id));
        self.clear.retain(|id| !later.concern(*id));
        self.set.extend_from_slice(&later.set);
        self.clear.extend_from_slice(&later.clear);
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
#[derive(Debug)]
struct Held {
    id: Uuid,
    hold: Hold,
    /// What it is, where it may have no row.
    timer: Option<Arc<Timer>>,
    since: Instant,
}

impl Held {
    fn lease(&self) -> Option<Lease> {
        Some(Lease { id: self.id, until: self.hold.lease()? })
    }
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
    let (timers, taken): (Vec<&Timer>, Vec<bool>) = timers.iter().map(|timer| (timer, false)).unzip();
    put(sqlx::query(PUT), &timers, &taken).execute(&mut *transaction).await?;
    if is_to_be_told(&timers, &taken) {
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
            delete(worker.log.connections(), &mut finished).await;
            delete_at = None;
        }
        if worker.held.is_empty() {
            renew_at = Instant::now() + RENEWED_EVERY;
        } else if renew_at <= Instant::now() {
            worker.renew().await;
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
            delete(worker.log.connections(), &mut finished).await;
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
                    give_back(worker.log.connections(), &left([handed])).await;
                    look_at = Instant::now();
                } else {
                    worker.begin_handed(handed);
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

    fn begin(&mut self, due: Due, hold: Hold, timer: Option<Arc<Timer>>) {
        let id = due.id;
        // In a box, since a task is copied several times before it runs.
        let work = Box::pin((self.handle)(due));
        let task = self.running.spawn(done(self.queue.name, work));
        self.held.insert(task.id(), Held { id, hold, timer, since: Instant::now() });
    }

    fn begin_handed(&mut self, Handed { timer, hold, .. }: Handed) {
        let due = Due { id: timer.id, command: timer.command.clone(), attempts: 1, now: None };
        self.begin(due, hold, Some(timer));
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
            self.begin(due, Hold::leased(lease.until), None);
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
        // One that was ended with its runtime is taken up again when its lease runs out.
        let (Some(held), Ok((_, done))) = (self.held.remove(&task), ended) else {
            return false;
        };
        match done {
            Done::Finished => {
                finished.extend(held.hold.done().map(|until| Lease { id: held.id, until }));
                return false;
            }
            Done::Again(pause) => self.put_off(&held, Some(pause), None).await,
            Done::Failed(error) => self.put_off(&held, None, Some(&error)).await,
        }
        true
    }

    /// Puts off a piece of work that is to be done again, by a pause, or longer each time.
    async fn put_off(&self, held: &Held, pause: Option<Duration>, error: Option<&str>) {
        let database = self.log.connections();
        let put_off = loop {
            match (held.hold.putting_off(), &held.timer) {
                (PuttingOff::Leased(until), _) => {
                    let lease = Lease { id: held.id, until };
                    break postpone(database, lease, pause, error).await;
                }
                (PuttingOff::Unwritten, Some(timer)) => {
                    let put_off = put_off(database, timer, pause, error).await;
                    // The subscription may have begun to write it meanwhile: then its row is the one to put off.
                    if put_off.is_err() || held.hold.is_put_off() {
                        break put_off;
                    }
                }
                (PuttingOff::Writing, _) => tokio::time::sleep(WRITTEN_SOON).await,
                (PuttingOff::Unwritten, None) | (PuttingOff::Over, _) => return,
            }
        };
        if let Err(error) = put_off {
            // One without a row gets it with the checkpoint behind its event.
            tracing::debug!(%error, "a timer could not be postponed; its lease runs out");
        }
    }

    /// Renews the leases of what is under way and has not taken too long.
    async fn renew(&self) {
        let under_way = || self.held.values().filter(|held| held.since.elapsed() < self.queue.patience);
        let leases: Vec<Lease> = under_way().filter_map(Held::lease).collect();
        if leases.is_empty() {
            return;
        }
        match renew(self.log.connections(), &leases).await {
            Ok(renewed) => {
                for held in under_way() {
                    if let Some(until) = held.lease().and_then(|lease| renewed.get(&lease)) {
                        held.hold.renewed(*until);
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, queue = self.queue.name, "leases of timers could not be renewed");
            }
        }
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
    let mut unbegun = Vec::new();
    let collect = async {
        while let Some(handed) = handed.recv().await {
            unbegun.push(handed);
        }
    };
    // Who has a place and does not use it is about to end as well.
    let _ = tokio::time::timeout(HANDED_WITHIN, collect).await;
    give_back(log.connections(), &left(unbegun)).await;
}

/// Leaves what was not begun to whoever has time; gives the leases of what has a row already.
fn left(unbegun: impl IntoIterator<Item = Handed>) -> Vec<Lease> {
    let leave = |handed: Handed| Some(Lease { id: handed.timer.id, until: handed.hold.leave()? });
    unbegun.into_iter().filter_map(leave).collect()
}

async fn done(queue: &str, work: impl Future<Output = Done>) -> Done {
    // One that panics has failed like any other: it is told, and tried again ever later.
    let done = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
        let panic = panics::text(panic.as_ref());
        tracing::error!(queue, panic, "a piece of timed work panicked");
        Done::Failed(format!("it panicked: {panic}"))
    });
    crash_point!("timer-done", queue, Done::Failed("the work was done, and not marked".to_owned()));
    done
}
