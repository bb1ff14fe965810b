//! Subscribers that answer events with commands and timed work instead of rows.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::{ApplyError, Delivered, Effects, Subscriber};
use crate::timers::TimerChanges;

/// What a process manager does about events. It is asked again after a crash, so its commands carry ids that
/// follow from the events.
#[async_trait]
pub trait Reactor: Send + Sync + 'static {
    /// Carries out the commands of a batch, and gives its timed work, which is set and cleared in the transaction
    /// that moves the checkpoint, as far as it is not done by then. A timer is set and cleared because of one log: the
    /// checkpoints of several are moved one after the other, and may be stored in another order than they were reached.
    ///
    /// # Errors
    /// See [`ApplyError`]; a refusal of the domain is an answer and no error.
    async fn react(&self, batch: &[Delivered]) -> Result<TimerChanges, ApplyError>;

    /// Whether the first poll of [`react`](Self::react) puts the commands of the batch into their queues, so that those of
    /// the next one may follow at once.
    fn queues_at_once(&self) -> bool {
        false
    }
}

/// Makes a reactor a subscriber.
pub struct Reacting<R>(pub R);

#[async_trait]
impl<R: Reactor> Subscriber for Reacting<R> {
    async fn prepare(&self, batch: &[Delivered]) -> Result<Effects, ApplyError> {
        self.0.react(batch).await.map(Effects::Timers)
    }

    fn prepares_ahead(&self) -> bool {
        self.0.queues_at_once()
    }

    async fn write(&self, _batch: &[Delivered], _transaction: &mut PgConnection) -> Result<(), ApplyError> {
        Ok(())
    }
}
