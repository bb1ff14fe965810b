//! One listening connection per database: the head of the log, the progress of its readers, due timers, and whether
//! other processes are there.
//!
//! Everyone in the process who waits for one of these shares it. A notification wakes within a
//! millisecond of the commit; where none comes, a slow poll finds what was missed.

mod presence;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{PARTITIONS, Result};
use presence::{Hearing, Presence};

/// How often the listener looks for the head itself: a process that died right after its commit has told nobody.
const POLL: Duration = Duration::from_secs(1);
/// How long it may take to say that this process is there.
const SAID_WITHIN: Duration = Duration::from_secs(3);
/// How long it waits before it tries to connect again.
const RECONNECT: Duration = Duration::from_millis(250);

/// The name of the notifications about progress, sent in the transaction that moves checkpoints.
pub(crate) const PROGRESS_CHANNEL: &str = "mart_progress";
/// The name of the notifications about timers that are due at once.
pub(crate) const TIMER_CHANNEL: &str = "mart_timers";
/// The name of the notifications about read models being replaced.
pub const READ_MODELS_CHANNEL: &str = "mart_read_models";
pub(crate) const LOG_CHANNEL: &str = "mart_log";
/// The name of the notifications of processes that are there.
const PRESENCE_CHANNEL: &str = "mart_presence";
/// A checkpoint that nothing was heard of: it has not reached even the beginning.
const UNKNOWN: i64 = -1;

/// How far a subscription has come, as far as it was told, and who waits for it.
pub(crate) struct Progress {
    /// The positions of the partitions, by source.
    positions: RwLock<HashMap<String, [Reached; PARTITIONS as usize]>>,
    /// Counts what was told: whoever waits for this subscription is woken by it, and by no other.
    told: watch::Sender<u64>,
    /// Wakes the subscription when somebody begins to wait.
    asked: Notify,
}

/// How far a subscription has come in a partition.
#[derive(Debug, Clone, Copy)]
struct Reached {
    known: i64,
    /// How far by the doing of this process.
    own: i64,
}

/// Who has moved a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mover {
    /// This process.
    Own,
    /// Perhaps another.
    Any,
}

impl Default for Progress {
    fn default() -> Self {
        Self { positions: RwLock::default(), told: watch::channel(0).0, asked: Notify::new() }
    }
}

impl Progress {
    /// A receiver that wakes whenever a checkpoint of this subscription moved.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// How many wait in this process for a checkpoint of this subscription to move.
    pub(crate) fn waiting(&self) -> usize {
        self.told.receiver_count()
    }

    /// Tells the subscription that somebody waits for it.
    pub(crate) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Returns when somebody may have begun to wait.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// A number that changes whenever a checkpoint of this subscription moved.
    pub(crate) fn version(&self) -> u64 {
        *self.told.borrow()
    }

    /// Whether it has come to all of these positions of a source.
    pub(crate) fn has_reached(&self, source: &str, wanted: &[(i16, i64)]) -> bool {
        let Ok(positions) = self.positions.read() else { return false };
        let Some(reached) = positions.get(source) else { return wanted.is_empty() };
        wanted.iter().all(|(partition, position)| {
            usize::try_from(*partition)
                .ok()
                .and_then(|index| reached.get(index))
                .is_some_and(|reached| reached.known >= *position)
        })
    }

    /// Whether nobody else is known to have moved the checkpoint of a partition.
    fn is_own(&self, source: &str, partition: i16) -> bool {
        let Ok(positions) = self.positions.read() else { return false };
        let reached = usize::try_from(partition).ok().and_then(|index| positions.get(source)?.get(index));
        reached.is_some_and(|reached| reached.own == reached.known && reached.own != UNKNOWN)
    }

    fn note(
        &self,
        source: &str,
        moved: impl Iterator<Item = (i16, i64)>,
        mover: Mover,
        is_known: impl FnOnce() -> bool,
    ) {
        let Ok(mut positions) = self.positions.write() else { return };
        if !is_known() {
            return;
        }
        if !positions.contains_key(source) {
            positions
                .insert(source.to_owned(), [Reached { known: UNKNOWN, own: UNKNOWN }; PARTITIONS as usize]);
        }
        if let Some(reached) = positions.get_mut(source) {
            for (partition, position) in moved {
                let reached = usize::try_from(partition).ok().and_then(|index| reached.get_mut(index));
                if let Some(reached) = reached {
                    reached.known = position.max(reached.known);
                    if mover == Mover::Own {
                        reached.own = position.max(reached.own);
                    }
                }
            }
        }
        // Still under the lock: whoever sees the new positions must not find the old version and believe what it
        // has remembered.
        self.told.send_modify(|version| *version += 1);
    }

    fn forget(&self) {
        if let Ok(mut positions) = self.positions.write() {
            positions.clear();
            self.told.send_modify(|version| *version += 1);
        }
    }
}

/// What is known of a database without asking it.
#[derive(Clone)]
pub struct Signal {
    inner: Arc<Inner>,
    _guard: Arc<DropGuard>,
}

struct Inner {
    source: String,
    database: PgPool,
    head: watch::Sender<i64>,
    /// Whether the log was found to end before what was known of it.
    is_taken_back: AtomicBool,
    listening: watch::Sender<bool>,
    /// Counts the times the database was lost: see [`Signal::life`].
    life: watch::Sender<u64>,
    /// By subscription.
    progress: RwLock<HashMap<String, Arc<Progress>>>,
    timers: watch::Sender<u64>,
    read_models: watch::Sender<u64>,
    presence: Presence,
}

impl std::fmt::Debug for Signal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Signal").field("source", &self.inner.source).finish_non_exhaustive()
    }
}

impl Signal {
    pub(crate) fn start(source: &str, database: PgPool, options: PgConnectOptions) -> Self {
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            source: source.to_owned(),
            database,
            head: watch::channel(0).0,
            is_taken_back: AtomicBool::new(false),
            listening: watch::channel(false).0,
            life: watch::channel(0).0,
            progress: RwLock::default(),
            timers: watch::channel(0).0,
            read_models: watch::channel(0).0,
            presence: Presence::default(),
        });
        let listener = Arc::clone(&inner);
        let token = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = listen(listener, options) => {}
            }
        });
        Self { inner, _guard: Arc::new(stop.drop_guard()) }
    }

    /// The log it tells of.
    pub(crate) fn source(&self) -> &str {
        &self.inner.source
    }

    /// The highest position known to be committed; changes wake the receiver.
    pub fn head(&self) -> watch::Receiver<i64> {
        self.inner.head.subscribe()
    }

    /// Whether the database notifies, as far as is known.
    pub(crate) fn is_listening(&self) -> bool {
        *self.inner.listening.borrow()
    }

    /// Whether no other process works on this database, as far as is heard: nobody needs to be told what this one
    /// writes.
    pub fn is_alone(&self) -> bool {
        self.inner.presence.is_alone()
    }

    /// The number of the time for which no other process was heard, while that lasts. What was so in such a time, and only
    /// others could have changed, still is.
    pub(crate) fn period_alone(&self) -> Option<u64> {
        self.inner.presence.period_alone()
    }

    /// As [`Signal::is_alone`], as it changes.
    pub(crate) fn alone(&self) -> watch::Receiver<bool> {
        self.inner.presence.alone()
    }

    /// Tells of a commit this process made itself, ahead of the notification.
    pub(crate) fn committed(&self, position: i64) {
        raise(&self.inner.head, position);
    }

    /// Asks the database for the head and tells everyone.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn refresh(&self) -> Result<i64> {
        self.inner.look().await?;
        Ok(*self.inner.head.borrow())
    }

    /// Notes that the log was found not to hold what was known of it. How far it reaches is looked up again, and whoever
    /// follows it starts over in a moment.
    pub(crate) fn was_taken_back(&self) {
        self.inner.head.send_replace(0);
        self.inner.is_taken_back.store(true, Ordering::Relaxed);
    }

    /// In which life of the database something is read of it or done to it. Checkpoints move by commits that are
    /// not flushed, so what was seen of them may be undone when the server crashes, and counts no longer then.
    pub(crate) fn life(&self) -> u64 {
        *self.inner.life.borrow()
    }

    /// As [`Signal::life`], as it changes.
    pub(crate) fn lives(&self) -> watch::Receiver<u64> {
        self.inner.life.subscribe()
    }

    /// Tells of checkpoints that were moved, or seen by this process, in a life of the database.
    pub(crate) fn progressed(
        &self,
        life: u64,
        subscription: &str,
        source: &str,
        positions: &[(i16, i64)],
        mover: Mover,
    ) {
        self.inner.note_progress(life, subscription, source, positions.iter().copied(), mover);
    }

    /// Whether it is known how far a subscription has come in a partition, and nobody but this process is known to have
    /// moved its checkpoint there, and so to have written rows because of its events.
    pub fn is_own(&self, subscription: &str, source: &str, partition: i16) -> bool {
        self.is_listening() && self.inner.progress_of(subscription).is_own(source, partition)
    }

    /// How far a subscription has come.
    pub(crate) fn progress(&self, subscription: &str) -> Arc<Progress> {
        self.inner.progress_of(subscription)
    }

    /// A number that changes whenever a subscription may have written something; none while notifications are
    /// not heard, and so nothing is known of what other processes write.
    pub fn version_of(&self, subscription: &str) -> Option<u64> {
        self.is_listening().then(|| self.inner.progress_of(subscription).version())
    }

    /// A receiver that wakes whenever a read model may have been replaced.
    pub fn read_models(&self) -> watch::Receiver<u64> {
        self.inner.read_models.subscribe()
    }

    /// A receiver that wakes whenever a timer was set that is due at once.
    pub(crate) fn timers(&self) -> watch::Receiver<u64> {
        self.inner.timers.subscribe()
    }
}

impl Inner {
    fn progress_of(&self, subscription: &str) -> Arc<Progress> {
        let known = self.progress.read().ok().and_then(|progress| progress.get(subscription).map(Arc::clone));
        known.unwrap_or_else(|| match self.progress.write() {
            Ok(mut progress) => Arc::clone(progress.entry(subscription.to_owned()).or_default()),
            // Somebody panicked with the lock in hand: nothing is known, and whoever waits looks for itself.
            Err(_) => Arc::default(),
        })
    }

    fn note_progress(
        &self,
        life: u64,
        subscription: &str,
        source: &str,
        moved: impl Iterator<Item = (i16, i64)>,
        mover: Mover,
    ) {
        let is_known = || *self.life.borrow() == life;
        self.progress_of(subscription).note(source, moved, mover, is_known);
    }

    /// Looks how far the log reaches. It reaches less far than was known when it was taken back to an earlier state, as by
    /// restoring a backup: then what is written from now on has positions that were seen before, and must not be taken for
    /// what they stood for.
    async fn look(&self) -> Result<()> {
        // Known before the look, so that nothing which is committed meanwhile is missed by it.
        let known = *self.head.borrow();
        let head = head_of(&self.database).await?;
        if head >= known {
            raise(&self.head, head);
            return Ok(());
        }
        tracing::error!(
            source = self.source,
            head,
            known,
            "the log ends before events that it had: it was taken back to an earlier state"
        );
        self.head.send_replace(head);
        self.is_taken_back.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Ends a life of the database.
    fn forget(&self) {
        self.life.send_modify(|life| *life += 1);
        if let Ok(progress) = self.progress.read() {
            for progress in progress.values() {
                progress.forget();
            }
        }
    }

    /// Wakes all who wait for any subscription: what was notified may have been missed.
    fn wake_all(&self) {
        if let Ok(progress) = self.progress.read() {
            for progress in progress.values() {
                progress.told.send_modify(|version| *version += 1);
            }
        }
    }
}

/// Notes that a log reaches this far; wakes nobody when that is known already.
pub(crate) fn raise(head: &watch::Sender<i64>, position: i64) {
    head.send_if_modified(|head| {
        let moved = position > *head;
        *head = position.max(*head);
        moved
    });
}

/// The payload of a progress notification: `subscription source partition:position,…`.
pub(crate) fn progress_payload(subscription: &str, source: &str, positions: &[(i16, i64)]) -> String {
    let moved: Vec<String> =
        positions.iter().map(|(partition, position)| format!("{partition}:{position}")).collect();
    format!("{subscription} {source} {}", moved.join(","))
}

async fn head_of(database: &PgPool) -> Result<i64> {
    let head: i64 = sqlx::query_scalar("select coalesce(max(position), 0) from event_store.events")
        .fetch_one(database)
        .await?;
    Ok(head)
}

async fn listen(inner: Arc<Inner>, options: PgConnectOptions) {
    let mut was_lost = false;
    loop {
        let error = listen_once(&inner, &options, was_lost).await.err();
        inner.presence.end();
        if inner.listening.send_replace(false) {
            was_lost = true;
            inner.forget();
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            tracing::warn!(source = inner.source, error, "lost the listening connection");
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn listen_once(inner: &Inner, options: &PgConnectOptions, was_lost: bool) -> Result<()> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(3))
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    // It would connect again by itself, and nobody would know that something was missed.
    listener.eager_reconnect(false);
    let channels = [LOG_CHANNEL, PROGRESS_CHANNEL, TIMER_CHANNEL, READ_MODELS_CHANNEL, PRESENCE_CHANNEL];
    listener.listen_all(channels).await?;
    let mut hearing = inner.presence.begin(Instant::now());
    inner.say_if_due(&mut listener, &mut hearing).await?;
    // The tables may not be there yet: a service may be started before it is migrated.
    let _ = inner.look().await;
    if was_lost {
        // While nobody listened the server may have been lost once more.
        inner.forget();
    }
    inner.listening.send_replace(true);
    inner.wake_all();
    inner.timers.send_modify(|version| *version += 1);
    inner.read_models.send_modify(|version| *version += 1);
    let life = *inner.life.borrow();
    let mut looks = tokio::time::interval_at(Instant::now() + POLL, POLL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // A receive that is given up for a look loses nothing: what was read so far stays in the connection.
        tokio::select! {
            received = listener.try_recv() => match received? {
                Some(notification) if notification.channel() == PRESENCE_CHANNEL => {
                    inner.hear(&mut hearing, notification.payload());
                    if hearing.is_unsaid() {
                        inner.say_if_due(&mut listener, &mut hearing).await?;
                    }
                }
                Some(notification) => inner.note(life, notification.channel(), notification.payload()),
                // The connection broke: what was notified meanwhile is lost, so start over by looking.
                None => return Ok(()),
            },
            _ = looks.tick() => {
                match inner.look().await {
                    Ok(()) => {}
                    // The database answers, but has not been migrated yet.
                    Err(crate::Error::Database(_)) => {}
                    Err(error) => return Err(error),
                }
                // All that was known of this life is forgotten with the connection.
                if inner.is_taken_back.swap(false, Ordering::Relaxed) || hearing.is_deaf(Instant::now()) {
                    return Ok(());
                }
                inner.presence.look(&mut hearing, Instant::now());
                inner.say_if_due(&mut listener, &mut hearing).await?;
            }
        }
    }
}

impl Inner {
    /// Says that this process is there, when it is time.
    async fn say_if_due(&self, listener: &mut PgListener, hearing: &mut Hearing) -> Result<()> {
        if hearing.is_due(Instant::now()) {
            let saying =
                sqlx::query("select set_config('synchronous_commit', 'off', true), pg_notify($1, $2)")
                    .bind(PRESENCE_CHANNEL)
                    .bind(self.presence.payload())
                    .execute(listener);
            let said = tokio::time::timeout(SAID_WITHIN, saying).await;
            said.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
            hearing.said(Instant::now());
        }
        Ok(())
    }

    /// Somebody says that he is there. Until he knew of this process, or this one of him, not everything was told.
    fn hear(&self, hearing: &mut Hearing, payload: &str) {
        if self.presence.heard(hearing, payload, Instant::now()) {
            self.wake_all();
        }
    }

    fn note(&self, life: u64, channel: &str, payload: &str) {
        match channel {
            LOG_CHANNEL => {
                if let Ok(position) = payload.parse() {
                    raise(&self.head, position);
                }
            }
            PROGRESS_CHANNEL => {
                let mut words = payload.split(' ');
                if let (Some(subscription), Some(source), Some(moved)) =
                    (words.next(), words.next(), words.next())
                {
                    let positions = moved.split(',').filter_map(|pair| {
                        let (partition, position) = pair.split_once(':')?;
                        Some((partition.parse().ok()?, position.parse().ok()?))
                    });
                    self.note_progress(life, subscription, source, positions, Mover::Any);
                }
            }
            TIMER_CHANNEL => self.timers.send_modify(|version| *version += 1),
            READ_MODELS_CHANNEL => self.read_models.send_modify(|version| *version += 1),
            other => tracing::debug!(channel = other, "notification of an unknown channel"),
        }
    }
}
