//! One batch, one transaction: the effects and the checkpoints.

use std::collections::HashSet;
use std::slice;
use std::time::Duration;

use sqlx::{Connection, Postgres, Transaction};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cursor::{Batch, Cursor};
use super::underway::{Prepared, Ready, Underway};
use super::{ApplyError, Delivered, Effects, Subscription};
use crate::checkpoints::{Moving, Step};
use crate::signal::Mover;
use crate::timers::{InHand, TimerChanges};
use crate::{Error, Result, crash_point, panics, parked, planted};

/// When an event that cannot be applied is tried again, counted from the failure of its batch: many that fail
/// together wait together.
const TRIED_AGAIN_AFTER: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(300), Duration::from_millis(1_300)];

type Stream = (String, String, String);

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Applied {
    /// Its effects are committed with the checkpoints.
    Written,
    /// There was nothing to write: the checkpoints may be stored later.
    Nothing,
    /// This process is no longer the owner of the partitions, or is to stop.
    Over,
}

pub(super) struct Applier {
    /// Streams with an event in the waiting room; theirs wait behind it.
    waiting: HashSet<Stream>,
    stop: CancellationToken,
    /// The life of the database in which the checkpoints were loaded.
    life: u64,
    /// Timed work that came of events whose checkpoints are not stored yet.
    in_hand: InHand,
    underway: Underway,
}

impl Applier {
    pub(super) async fn start(
        subscription: &Subscription,
        life: u64,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let mut connection = subscription.home.database().acquire().await?;
        let mut waiting = HashSet::new();
        for source in &subscription.sources {
            let source = source.log.source();
            for (aggregate_type, aggregate_id) in
                parked::streams(&mut connection, &subscription.name, source).await?
            {
                waiting.insert((source.to_owned(), aggregate_type, aggregate_id));
            }
        }
        let (stop, in_hand, underway) = (stop.clone(), InHand::default(), Underway::default());
        Ok(Self { waiting, stop, life, in_hand, underway })
    }

    /// Begins the next batch of a source, or applies it where none may begin ahead. Says whether this process goes on: it
    /// does not when it is to stop, or is no longer the owner of the partitions.
    pub(super) async fn take_up(
        &mut self,
        subscription: &Subscription,
        cursors: &mut [Cursor],
        source: usize,
        batch: Batch,
    ) -> Result<bool> {
        cursors[source].begin(&batch);
        if batch.reached.is_empty() {
            return Ok(true);
        }
        while !self.underway.has_room_for(&batch) {
            self.underway.first_done().await;
            if !self.finish(subscription, cursors).await? {
                return Ok(false);
            }
        }
        if subscription.subscriber.prepares_ahead() && !self.is_delayed(&batch) {
            self.underway.begin(&subscription.subscriber, source, batch).await;
            return self.finish(subscription, cursors).await;
        }
        if !self.finish_all(subscription, cursors).await? {
            return Ok(false);
        }
        if !self.apply(subscription, &mut cursors[source], &batch, None).await? {
            return self.end(subscription, cursors).await;
        }
        Ok(true)
    }

    /// Stores what is in hand and not stored yet, as far as this process is still the owner: whoever follows is to do
    /// nothing of it again. Says that this process does not go on.
    async fn end(&mut self, subscription: &Subscription, cursors: &mut [Cursor]) -> Result<bool> {
        for cursor in cursors {
            if !self.store(subscription, cursor).await? {
                break;
            }
        }
        Ok(false)
    }

    /// Waits until a batch is prepared that nothing is ahead of; for ever when none is under way.
    pub(super) async fn first_done(&mut self) {
        self.underway.first_done().await;
    }

    /// Applies what is prepared, as far as nothing is ahead of it. Says whether this process goes on.
    pub(super) async fn finish(
        &mut self,
        subscription: &Subscription,
        cursors: &mut [Cursor],
    ) -> Result<bool> {
        while let Some(Ready { source, batch, prepared }) = self.underway.take_done() {
            let behind = match &prepared {
                Some(Err(ApplyError::Event(_))) => self.underway.give_up().await,
                Some(Ok(_) | Err(ApplyError::Engine(_))) | None => Vec::new(),
            };
            match self.apply(subscription, &mut cursors[source], &batch, prepared).await {
                Ok(true) => {}
                Ok(false) => return self.end(subscription, cursors).await,
                Err(error) => {
                    // All of them are given again: not while they are still at work.
                    self.underway.give_up().await;
                    return Err(error);
                }
            }
            for (source, batch) in behind {
                if !self.apply(subscription, &mut cursors[source], &batch, None).await? {
                    return self.end(subscription, cursors).await;
                }
            }
        }
        Ok(true)
    }

    /// What was read for a source. Should that have failed, what is under way is applied first: the failure has nothing to
    /// do with it.
    pub(super) async fn or_finish<T>(
        &mut self,
        subscription: &Subscription,
        cursors: &mut [Cursor],
        read: Result<T>,
    ) -> Result<T> {
        if read.is_err()
            && let Err(error) = self.finish_all(subscription, cursors).await
        {
            tracing::debug!(%error, subscription = subscription.name, "what was under way is done again");
        }
        read
    }

    /// Whether a batch has an event of a stream in the waiting room.
    fn is_delayed(&self, batch: &Batch) -> bool {
        !self.waiting.is_empty() && batch.events.iter().any(|event| self.waiting.contains(&stream(event)))
    }

    /// Applies all that is under way.
    pub(super) async fn finish_all(
        &mut self,
        subscription: &Subscription,
        cursors: &mut [Cursor],
    ) -> Result<bool> {
        while !self.underway.is_empty() {
            self.underway.first_done().await;
            if !self.finish(subscription, cursors).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Applies a batch, for which something may be prepared.
    async fn apply(
        &mut self,
        subscription: &Subscription,
        cursor: &mut Cursor,
        batch: &Batch,
        prepared: Option<Prepared>,
    ) -> Result<bool> {
        let life = self.life;
        if subscription.home.signal().life() != life {
            // The server was gone, and with it perhaps what was not flushed.
            return Ok(false);
        }
        if batch.events.is_empty() {
            cursor.pass(&cursor.steps(&batch.reached));
        } else if !self.commit(subscription, cursor, batch, prepared).await? {
            return Ok(false);
        }
        let reached: Vec<(i16, i64)> =
            batch.reached.iter().map(|(partition, position)| (*partition, *position)).collect();
        let signal = subscription.home.signal();
        signal.progressed(life, &subscription.name, &cursor.source, &reached, Mover::Own);
        metrics::counter!("mart_events_applied_total", "subscription" => subscription.name.clone())
            .increment(batch.events.len() as u64);
        Ok(true)
    }

    /// Commits the effects of a batch with its checkpoints.
    async fn commit(
        &mut self,
        subscription: &Subscription,
        cursor: &mut Cursor,
        batch: &Batch,
        prepared: Option<Prepared>,
    ) -> Result<bool> {
        let steps = cursor.steps(&batch.reached);
        let applied = if self.is_delayed(batch) {
            Err(ApplyError::Event(String::new()))
        } else {
            self.transact(subscription, cursor, &batch.events, &steps, prepared).await
        };
        match applied {
            Ok(Applied::Written) => {
                cursor.is_stored(&steps);
                Ok(true)
            }
            Ok(Applied::Nothing) => {
                cursor.pass(&steps);
                Ok(true)
            }
            Ok(Applied::Over) => Ok(false),
            Err(ApplyError::Engine(error)) => Err(error),
            // One event is to blame: find it by taking them one at a time.
            Err(ApplyError::Event(_)) => self.one_by_one(subscription, cursor, batch).await,
        }
    }

    /// Stores checkpoints that moved past what needed nothing written, with the work that is still in hand. Says
    /// whether this process is still the owner.
    pub(super) async fn store(&mut self, subscription: &Subscription, cursor: &mut Cursor) -> Result<bool> {
        let steps = cursor.unstored();
        if !steps.is_empty() {
            let name = &subscription.name;
            crash_point!("checkpoint-before-commit", name, Err(Error::ShuttingDown));
            let is_owner = if self.in_hand.needs_rows(&cursor.source) {
                let moving = moving(subscription, cursor, &steps);
                self.change(subscription, &TimerChanges::default(), &moving).await?
            } else {
                // Should another process have taken some of the partitions, the others move all the same: what was done
                // about their events is done.
                let mut connection = subscription.home.connections().take().await?;
                let is_owner = moving(subscription, cursor, &steps).step(&mut connection).await?;
                connection.give_back();
                is_owner
            };
            if !is_owner {
                return Ok(false);
            }
            crash_point!("checkpoint-after-commit", name, Err(Error::ShuttingDown));
        }
        cursor.is_stored(&steps);
        Ok(true)
    }

    async fn one_by_one(
        &mut self,
        subscription: &Subscription,
        cursor: &mut Cursor,
        batch: &Batch,
    ) -> Result<bool> {
        let failed_at = Instant::now();
        for event in &batch.events {
            if self.stop.is_cancelled() {
                return Ok(false);
            }
            // An event that is parked moves the checkpoint, also past those whose work is in hand.
            if self.in_hand.needs_rows(&cursor.source) && !self.store(subscription, cursor).await? {
                return Ok(false);
            }
            let step =
                Step { partition: event.partition, from: cursor.stored(event.partition), to: event.position };
            match self.one(subscription, cursor, event, step, failed_at).await? {
                Applied::Written => cursor.moved(step),
                Applied::Nothing => cursor.pass(&[step]),
                Applied::Over => return Ok(false),
            }
        }
        // Events that were not wanted still move the checkpoints on.
        cursor.pass(&cursor.steps(&batch.reached));
        self.store(subscription, cursor).await
    }

    async fn one(
        &mut self,
        subscription: &Subscription,
        cursor: &Cursor,
        event: &Delivered,
        step: Step,
        failed_at: Instant,
    ) -> Result<Applied> {
        if self.waiting.contains(&stream(event)) {
            let mut transaction = subscription.home.database().begin().await?;
            parked::lock(&mut transaction, &subscription.name).await?;
            let streams = parked::streams(&mut transaction, &subscription.name, &event.source).await?;
            if streams.contains(&(event.aggregate_type.clone(), event.aggregate_id.clone())) {
                parked::park(&mut transaction, &subscription.name, event, "", 0).await?;
                return move_on(transaction, subscription, cursor, step).await;
            }
            // Somebody has put the stream back in order.
            transaction.rollback().await?;
            self.waiting.remove(&stream(event));
        }

        let mut attempts = 0;
        let error = loop {
            match self.transact(subscription, cursor, slice::from_ref(event), &[step], None).await {
                Ok(applied) => return Ok(applied),
                Err(ApplyError::Engine(error)) => return Err(error),
                Err(ApplyError::Event(_)) if planted!("defect-poison-swallowed") => {
                    let transaction = subscription.home.database().begin().await?;
                    return move_on(transaction, subscription, cursor, step).await;
                }
                Err(ApplyError::Event(error)) => {
                    let Some(after) = TRIED_AGAIN_AFTER.get(attempts) else { break error };
                    attempts += 1;
                    tokio::select! {
                        () = tokio::time::sleep_until(failed_at + *after) => {}
                        () = self.stop.cancelled() => return Ok(Applied::Over),
                    }
                }
            }
        };
        tracing::error!(
            subscription = subscription.name,
            source = &*event.source,
            position = event.position,
            event_type = event.event_type,
            error,
            "an event cannot be applied; it is parked with its stream (see `mart parked`)"
        );
        metrics::counter!("mart_parked_total", "subscription" => subscription.name.clone()).increment(1);
        self.waiting.insert(stream(event));
        // Whoever puts the stream back in order writes its rows, and moves no checkpoint.
        subscription.subscriber.forget();
        let mut transaction = subscription.home.database().begin().await?;
        parked::lock(&mut transaction, &subscription.name).await?;
        parked::park(&mut transaction, &subscription.name, event, &error, attempts as i32 + 1).await?;
        move_on(transaction, subscription, cursor, step).await
    }

    async fn transact(
        &mut self,
        subscription: &Subscription,
        cursor: &Cursor,
        events: &[Delivered],
        steps: &[Step],
        prepared: Option<Prepared>,
    ) -> std::result::Result<Applied, ApplyError> {
        let Subscription { name, home, subscriber, .. } = subscription;
        let prepared = match prepared {
            Some(prepared) => prepared,
            None => panics::blamed(subscriber.prepare(events)).await,
        };
        // As late as can be: somebody may have come meanwhile who is to be told.
        let moving = || moving(subscription, cursor, steps);
        let applied = match prepared? {
            Effects::Timers(changes) if changes.is_empty() => return Ok(Applied::Nothing),
            Effects::Timers(changes) => {
                crash_point!("subscription-before-commit", name, Err(Error::ShuttingDown.into()));
                if home.workers().hand(&cursor.source, &changes, &mut self.in_hand) {
                    crash_point!("subscription-after-commit", name, Err(Error::ShuttingDown.into()));
                    return Ok(Applied::Nothing);
                }
                let is_owner = self.change(subscription, &changes, &moving()).await;
                if matches!(is_owner, Ok(true)) {
                    crash_point!("subscription-after-commit", name, Err(Error::ShuttingDown.into()));
                }
                let applied =
                    is_owner.map(|is_owner| if is_owner { Applied::Written } else { Applied::Over });
                applied.map_err(ApplyError::from)
            }
            Effects::Changes(changes) if !planted!("defect-projector-checkpoint-apart") => {
                crash_point!("subscription-before-commit", name, Err(Error::ShuttingDown.into()));
                let written = moving().write(home.connections(), &changes).await;
                if let Ok(Some(())) = written {
                    crash_point!("subscription-after-commit", name, Err(Error::ShuttingDown.into()));
                }
                written
                    .map(|done| done.map_or(Applied::Over, |()| Applied::Written))
                    .map_err(ApplyError::from)
            }
            Effects::Rows | Effects::Changes(_) => in_transaction(subscription, cursor, events, steps).await,
        };
        match applied {
            Ok(Applied::Written) => subscriber.committed(),
            Ok(Applied::Nothing | Applied::Over) | Err(_) => subscriber.forget(),
        }
        applied
    }

    /// Writes timed work, also what is still in hand, with the checkpoints. Says whether this process is still the
    /// owner.
    async fn change(
        &mut self,
        subscription: &Subscription,
        changes: &TimerChanges,
        moving: &Moving<'_>,
    ) -> sqlx::Result<bool> {
        let home = &subscription.home;
        home.workers().change(home.connections(), changes, &mut self.in_hand, moving).await
    }
}

/// Moves the checkpoint past an event, with what was done about it.
async fn move_on(
    mut transaction: Transaction<'_, Postgres>,
    subscription: &Subscription,
    cursor: &Cursor,
    step: Step,
) -> Result<Applied> {
    if !moving(subscription, cursor, &[step]).step(&mut transaction).await? {
        return Ok(Applied::Over);
    }
    transaction.commit().await?;
    Ok(Applied::Written)
}

/// How checkpoints of a subscription are moved now.
fn moving<'a>(subscription: &'a Subscription, cursor: &'a Cursor, steps: &'a [Step]) -> Moving<'a> {
    let told = !subscription.home.signal().is_alone();
    Moving { subscription: &subscription.name, source: &cursor.source, steps, told }
}

fn stream(event: &Delivered) -> Stream {
    (event.source.to_string(), event.aggregate_type.clone(), event.aggregate_id.clone())
}

/// Has the subscriber write its rows, under its own locks, and moves the checkpoints.
async fn in_transaction(
    subscription: &Subscription,
    cursor: &Cursor,
    events: &[Delivered],
    steps: &[Step],
) -> std::result::Result<Applied, ApplyError> {
    let Subscription { name, home, subscriber, .. } = subscription;
    let mut connection = home.connections().take().await?;
    let mut transaction = connection.begin().await?;
    if planted!("defect-projector-checkpoint-apart") {
        let is_owner = moving(subscription, cursor, steps).step(&mut transaction).await?;
        transaction.commit().await?;
        crash_point!("checkpoint-apart", name, Err(Error::ShuttingDown.into()));
        let mut transaction = connection.begin().await?;
        panics::blamed(subscriber.write(events, &mut transaction)).await?;
        transaction.commit().await?;
        return Ok(if is_owner { Applied::Written } else { Applied::Over });
    }
    panics::blamed(subscriber.write(events, &mut transaction)).await?;
    crash_point!("subscription-before-commit", name, Err(Error::ShuttingDown.into()));
    if !moving(subscription, cursor, steps).step(&mut transaction).await? {
        return Ok(Applied::Over);
    }
    transaction.commit().await?;
    connection.give_back();
    crash_point!("subscription-after-commit", name, Err(Error::ShuttingDown.into()));
    Ok(Applied::Written)
}
