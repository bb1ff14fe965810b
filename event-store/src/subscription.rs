//! Subscriptions: projectors and process managers follow the logs of services, exactly once in effect.
//!
//! New events come over Kafka, or without it when this process wrote them itself; history, and whatever Kafka did not
//! bring, comes from the source's log.
//! Position decides what is new, not transport: a record at or below its partition's checkpoint is a
//! duplicate, one whose predecessor is above it shows a gap, and the gap is read from the log first. The
//! effects of a batch and its checkpoints commit together. When a log has moved on and the broker has
//! delivered nothing of it for a while, the subscription follows the log itself until the broker delivers
//! again.

mod applying;
mod cursor;
mod delivered;
mod pacing;
mod reacting;
mod retrying;
mod underway;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::PgConnection;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Incoming, Listener};
use crate::lease::Slots;
use crate::log::Log;
use crate::timers::TimerChanges;
use crate::{Error, PARTITIONS, Result};

use applying::Applier;
use cursor::Cursor;
pub use delivered::{Body, Delivered};
pub use pacing::Pace;
use pacing::Pause;
pub use reacting::{Reacting, Reactor};
pub use retrying::{Retried, retry_parked};

/// How long a broker may be silent about events that are in the log.
const SILENCE: Duration = Duration::from_millis(250);
/// How many events are applied in one transaction at most, but for those that are read from the log for rows.
const BATCH_EVENTS: usize = 2_000;
/// How many are read from the log at once for rows. The more, the more often a row is written once for several events;
/// whoever prepares ahead has fewer, because commands to one aggregate must find room in its queue.
const ROWS_PAGE_EVENTS: usize = 4_000;
/// How long a subscription pauses after a failure of the plumbing.
const PAUSE: Duration = Duration::from_millis(250);

/// Reads what a record of a topic says of itself. Given by whoever knows the published language.
pub type Reader = Arc<dyn Fn(&str, i16, i64, Bytes) -> Result<Delivered> + Send + Sync>;

/// Why a batch could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The plumbing failed: the same batch is tried again until it works.
    #[error(transparent)]
    Engine(#[from] Error),
    /// An event cannot be applied: it is tried a few times, then parked with its stream.
    #[error("{0}")]
    Event(String),
}

impl From<sqlx::Error> for ApplyError {
    fn from(error: sqlx::Error) -> Self {
        match Error::from(error) {
            // A statement the database refuses is refused again: the event is to blame, or its subscriber.
            Error::Database(error) if !is_rollback(&error) && !is_unprepared(&error) => {
                Self::Event(error.to_string())
            }
            error => Self::Engine(error),
        }
    }
}

fn is_rollback(error: &sqlx::Error) -> bool {
    // Class 40: serialisation failure or deadlock; 55P03, 57014: a lock or statement timeout.
    error.as_database_error().and_then(|refusal| refusal.code()).is_some_and(|code| {
        code.starts_with("40") || code.starts_with("53") || code == "55P03" || code == "57014"
    })
}

/// Whether the database lacks what every statement needs: a table that was dropped, a function of a migration to come.
fn is_unprepared(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|refusal| refusal.code())
        .is_some_and(|code| matches!(&*code, "3F000" | "42P01" | "42703" | "42883"))
}

/// What a subscription does about events.
#[async_trait]
pub trait Subscriber: Send + Sync + 'static {
    /// Does what happens outside the subscription's transaction, and says what is to be written in it. It is
    /// repeated after a crash, so each effect must carry an identity of its own.
    ///
    /// # Errors
    /// See [`ApplyError`].
    async fn prepare(&self, batch: &[Delivered]) -> std::result::Result<Effects, ApplyError> {
        let _ = batch;
        Ok(Effects::Rows)
    }

    /// Whether the next batch may be prepared before this one is: then the first poll of [`prepare`](Self::prepare) puts
    /// all in order that needs to be.
    fn prepares_ahead(&self) -> bool {
        false
    }

    /// What it prepared last is committed.
    fn committed(&self) {}

    /// Whatever it remembers of what was written no longer counts: the partitions may have had another owner since,
    /// or it is not known what was committed.
    fn forget(&self) {}

    /// Writes the rows of a batch in the transaction that moves the checkpoints.
    ///
    /// # Errors
    /// See [`ApplyError`].
    async fn write(
        &self,
        batch: &[Delivered],
        transaction: &mut PgConnection,
    ) -> std::result::Result<(), ApplyError>;
}

/// What a batch changes in the database of its subscription.
#[derive(Debug)]
pub enum Effects {
    /// What [`Subscriber::write`] writes.
    Rows,
    /// These rows, which nobody but the owner of their partitions writes.
    Changes(RowChanges),
    /// Timed work. Unless some of it is due at once and workers of this process cannot take it, the checkpoint is moved a
    /// moment later, and with it is written what is due later, and what is not done by then.
    Timers(TimerChanges),
}

/// The rows of a batch, to be written by the very statement that moves the checkpoints: it writes nothing unless all
/// of them are where they were left, and so needs no lock.
#[derive(Debug)]
pub struct RowChanges {
    /// Inserts or updates what its first parameter has, a JSON array of rows.
    pub upsert: String,
    /// The rows.
    pub rows: String,
    /// Deletes the rows with the keys in its second parameter, a `text[]`.
    pub delete: String,
    /// The keys.
    pub removed: Vec<String>,
}

/// A log a subscription reads.
#[derive(Clone)]
pub struct Source {
    /// The log; a connection that may only read is enough.
    pub log: Log,
    /// Which aggregates' events it wants; others only move the checkpoint. Empty: all.
    pub aggregates: Vec<&'static str>,
    /// Whether its personal fields are to be opened, and so the stored form is needed.
    pub personal: bool,
}

/// A subscription to one or more logs.
#[derive(Clone)]
pub struct Subscription {
    /// Its name, part of its checkpoints.
    pub name: String,
    /// The database that has its checkpoints and its effects.
    pub home: Log,
    /// What it reads.
    pub sources: Vec<Source>,
    /// What it does.
    pub subscriber: Arc<dyn Subscriber>,
    /// Kafka; without it, or when it belongs to this process, the logs are followed.
    pub broker: Option<Broker>,
    /// Reads the records of topics.
    pub reader: Reader,
    /// How soon after one batch the next may begin.
    pub pace: Pace,
}

impl Subscription {
    /// Follows the sources until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut membership = self.home.leases().join(&self.name, PARTITIONS);
        let logs: Vec<&Log> = self.sources.iter().map(|source| &source.log).collect();
        let mut inbox = self.heard().map(|broker| broker.listen(&logs));
        while !stop.is_cancelled() {
            let (slots, in_use) = membership.take_up();
            if slots.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => break,
                    changed = membership.held().changed() => if changed.is_err() { break },
                }
                continue;
            }
            let mut lost = membership.held().clone();
            let term = stop.child_token();
            let mut is_replaced = false;
            let ended = {
                let mut following = std::pin::pin!(self.follow(&slots, inbox.as_mut(), &term));
                tokio::select! {
                    changed = lost.changed() => {
                        // Another membership of this process has taken the place of this one.
                        is_replaced = changed.is_err();
                        // It ends by itself and is not dropped: sqlx gives a connection back to its pool with the
                        // transaction open that it was just beginning.
                        term.cancel();
                        following.await
                    }
                    ended = &mut following => ended,
                }
            };
            drop(in_use);
            // Somebody else may follow now, and write the same rows, or erase whose data is in them.
            self.subscriber.forget();
            if is_replaced {
                break;
            }
            if let Err(error) = ended {
                tracing::warn!(subscription = self.name, error = %error.with_source(), "the subscription starts over");
                metrics::counter!("mart_subscription_restarts_total", "subscription" => self.name.clone())
                    .increment(1);
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
        if let Err(error) = membership.leave().await {
            tracing::debug!(%error, subscription = self.name, "the leases run out by themselves");
        }
    }

    /// The broker that tells something new.
    fn heard(&self) -> Option<&Broker> {
        self.broker.as_ref().filter(|broker| !broker.config().own)
    }

    /// Follows the partitions in `slots` until the plumbing fails or ownership is lost.
    async fn follow(
        &self,
        slots: &Slots,
        mut inbox: Option<&mut Listener>,
        stop: &CancellationToken,
    ) -> Result<()> {
        // Checkpoints that were moved by commits that are not flushed may be undone when the server is lost, and with
        // them what came of their events. Then all is read anew.
        let mut lives = self.home.signal().lives();
        let life = *lives.borrow_and_update();
        // A log of another database may come back as it was earlier.
        let others = self.sources.iter().map(|source| &source.log);
        let others = others.filter(|log| log.source() != self.home.source());
        let mut other_lives: Vec<watch::Receiver<u64>> = others.map(|log| log.signal().lives()).collect();
        other_lives.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let mut cursors = Vec::with_capacity(self.sources.len());
        for source in &self.sources {
            cursors.push(Cursor::load(self, source, slots).await?);
        }
        // After the checkpoints: a former owner that parks an event still moves one that was read here, and is found
        // out by that.
        let mut applier = Applier::start(self, life, stop).await?;
        let mut incoming: Vec<(usize, Incoming)> = Vec::with_capacity(BATCH_EVENTS);
        let mut pause: Option<Pause> = None;
        let signal = self.home.signal();
        let progress = signal.progress(&self.name);
        loop {
            let begun = Instant::now();
            let waiting = progress.waiting();
            let mut worked = 0;
            for index in 0..cursors.len() {
                loop {
                    let taken = cursors[index].take().await;
                    let Some(batch) = applier.or_finish(self, &mut cursors, taken).await? else { break };
                    worked += batch.events.len();
                    let is_full = batch.events.len() >= BATCH_EVENTS;
                    if !applier.take_up(self, &mut cursors, index, batch).await? {
                        return Ok(());
                    }
                    // Nobody tells of the rest again.
                    if !is_full || stop.is_cancelled() {
                        break;
                    }
                }
                let records =
                    incoming.extract_if(.., |(source, _)| *source == index).map(|(_, record)| record);
                let accepted = cursors[index].accept(self, records).await;
                let batch = applier.or_finish(self, &mut cursors, accepted).await?;
                worked += batch.events.len();
                if !applier.take_up(self, &mut cursors, index, batch).await? {
                    return Ok(());
                }
                while cursors[index].should_look() && !stop.is_cancelled() {
                    let found = cursors[index].look(self).await;
                    let batch = applier.or_finish(self, &mut cursors, found).await?;
                    worked += batch.events.len();
                    if !applier.take_up(self, &mut cursors, index, batch).await? {
                        return Ok(());
                    }
                }
                if let Some(inbox) = &inbox {
                    inbox.knows(index, cursors[index].known());
                }
            }
            // Asked once: who is to stop from here on goes round once more, to finish what is under way.
            let is_last = stop.is_cancelled();
            if is_last && !applier.finish_all(self, &mut cursors).await? {
                return Ok(());
            }
            for cursor in &mut cursors {
                let store_at = cursor.store_at(signal.is_alone());
                let is_due = store_at.is_some_and(|at| at <= Instant::now() || is_last);
                if is_due && !applier.store(self, cursor).await? {
                    return Ok(());
                }
            }
            if worked > 0 {
                pause = Some(self.pace.pause(worked, waiting, signal.is_alone(), begun));
            }
            if is_last || signal.life() != life {
                return Ok(());
            }
            loop {
                tokio::select! {
                    () = wait(&mut inbox, &mut incoming, &mut cursors, signal.is_alone(), stop) => break,
                    _ = lives.changed() => return Ok(()),
                    () = any_changed(&mut other_lives) => return Ok(()),
                    () = applier.first_done() => {}
                }
                if !applier.finish(self, &mut cursors).await? {
                    return Ok(());
                }
            }
            if let Some(pause) = &pause {
                loop {
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = pause.pass(&progress, &cursors) => break,
                        () = applier.first_done() => {}
                    }
                    if !applier.finish(self, &mut cursors).await? {
                        return Ok(());
                    }
                }
                collect(&mut inbox, &mut incoming);
            }
        }
    }
}

/// Waits until one of these has changed.
async fn any_changed(lives: &mut [watch::Receiver<u64>]) {
    if lives.is_empty() {
        return std::future::pending().await;
    }
    let _ = futures::future::select_all(lives.iter_mut().map(|life| Box::pin(life.changed()))).await;
}

/// Collects the records that came meanwhile.
fn collect(inbox: &mut Option<&mut Listener>, incoming: &mut Vec<(usize, Incoming)>) {
    if let Some(inbox) = inbox {
        while incoming.len() < BATCH_EVENTS
            && let Ok(record) = inbox.records.try_recv()
        {
            incoming.push(record);
        }
    }
}

/// Waits for records, for the head of a log to move, or until a silence has lasted.
async fn wait(
    inbox: &mut Option<&mut Listener>,
    incoming: &mut Vec<(usize, Incoming)>,
    cursors: &mut [Cursor],
    is_alone: bool,
    stop: &CancellationToken,
) {
    let until = cursors.iter().filter_map(|cursor| cursor.wake_at(is_alone)).min();
    let heads = futures::future::select_all(cursors.iter_mut().map(|cursor| Box::pin(cursor.grown())));
    let arrival = async {
        match inbox {
            Some(inbox) => inbox.records.recv_many(incoming, BATCH_EVENTS).await,
            None => std::future::pending().await,
        }
    };
    let quiet = async {
        match until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        _ = arrival => {}
        _ = heads => {}
        () = quiet => {}
    }
}
