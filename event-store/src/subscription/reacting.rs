//! Subscribers that answer events with commands and timed work instead of rows.

use async_trait::async_trait;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{ApplyError, Delivered, Subscriber};
use crate::timers::{self, Timer};

/// Timers to set and to clear because of a batch, in that order of effect: an id is in one of the two only.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TimerChanges {
    /// To be set.
    pub set: Vec<Timer>,
    /// To be cleared.
    pub clear: Vec<Uuid>,
}

impl TimerChanges {
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

/// What a process manager does about events. It is asked again after a crash, so its commands carry ids that
/// follow from the events.
#[async_trait]
pub trait Reactor: Send + Sync + 'static {
    /// Carries out the commands of a batch.
    ///
    /// # Errors
    /// See [`ApplyError`]; a refusal of the domain is an answer and no error.
    async fn carry_out(&self, batch: &[Delivered]) -> Result<(), ApplyError>;

    /// The timed work of a batch; it is set and cleared in the transaction that moves the checkpoint.
    ///
    /// # Errors
    /// See [`ApplyError`].
    fn timers(&self, batch: &[Delivered]) -> Result<TimerChanges, ApplyError> {
        let _ = batch;
        Ok(TimerChanges::default())
    }
}

/// Makes a reactor a subscriber.
pub struct Reacting<R>(pub R);

#[async_trait]
impl<R: Reactor> Subscriber for Reacting<R> {
    async fn prepare(&self, batch: &[Delivered]) -> Result<(), ApplyError> {
        self.0.carry_out(batch).await
    }

    fn has_effects(&self, batch: &[Delivered]) -> Result<bool, ApplyError> {
        Ok(self.0.timers(batch)? != TimerChanges::default())
    }

    async fn write(&self, batch: &[Delivered], transaction: &mut PgConnection) -> Result<(), ApplyError> {
        let changes = self.0.timers(batch)?;
        timers::set(transaction, &changes.set).await?;
        timers::clear(transaction, &changes.clear).await?;
        Ok(())
    }
}
