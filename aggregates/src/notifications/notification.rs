//! The notification: state, decisions, and what follows from events.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identifiers::{OrderId, UserId};
use crate::notifications::commands::NotificationCommand;
use crate::notifications::events::{Channel, NotificationEvent, Template};
use crate::notifications::refusals::NotificationError;
use crate::records::{Recorded, decided_aggregate};

/// How often delivery is tried before the message is given up.
pub const MAX_ATTEMPTS: u32 = 8;

/// A message to a user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Notification {
    /// Nothing yet.
    #[default]
    Unqueued,
    /// To be sent, sent, or given up.
    Queued {
        /// To whom.
        user_id: UserId,
        /// With which text.
        template: Template,
        /// By what way.
        channel: Channel,
        /// Because of which event.
        cause: Uuid,
        /// About which order.
        order_id: Option<OrderId>,
        /// How often it was tried.
        attempts: u32,
        /// How far it got.
        progress: Progress,
    },
}

/// How far a message got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// It waits for its next attempt.
    Waiting,
    /// It is on its way.
    Sent,
    /// No attempt follows.
    GivenUp,
}

impl Notification {
    /// What a command leads to, by the rules.
    ///
    /// # Errors
    /// The rule that refuses it.
    pub fn decide(&self, command: NotificationCommand) -> Result<Vec<NotificationEvent>, NotificationError> {
        match (self, command) {
            (Self::Unqueued, NotificationCommand::Queue { user_id, template, channel, cause, order_id }) => {
                Ok(vec![NotificationEvent::NotificationQueued {
                    user_id,
                    template,
                    channel,
                    cause,
                    order_id,
                }])
            }
            (Self::Unqueued, _) => Err(NotificationError::NotQueued),
            (Self::Queued { .. }, NotificationCommand::Queue { .. }) => Ok(Vec::new()),
            (Self::Queued { attempts, progress, .. }, command) => progress.decide(*attempts, &command),
        }
    }

    fn evolve(&mut self, event: NotificationEvent) {
        match event {
            NotificationEvent::NotificationQueued { user_id, template, channel, cause, order_id } => {
                *self = Self::Queued {
                    user_id,
                    template,
                    channel,
                    cause,
                    order_id,
                    attempts: 0,
                    progress: Progress::Waiting,
                };
            }
            NotificationEvent::NotificationSent { attempts } => self.advance(attempts, Progress::Sent),
            NotificationEvent::NotificationFailed { error: _, attempts } => {
                self.advance(attempts, Progress::Waiting);
            }
            NotificationEvent::NotificationGivenUp { error: _, attempts } => {
                self.advance(attempts, Progress::GivenUp);
            }
            NotificationEvent::NotificationRequeued => self.advance(0, Progress::Waiting),
        }
    }

    fn advance(&mut self, tried: u32, reached: Progress) {
        if let Self::Queued { attempts, progress, .. } = self {
            *attempts = tried;
            *progress = reached;
        }
    }
}

impl Progress {
    fn decide(
        self,
        attempts: u32,
        command: &NotificationCommand,
    ) -> Result<Vec<NotificationEvent>, NotificationError> {
        let attempts = attempts.saturating_add(1);
        match (self, command) {
            (_, NotificationCommand::Queue { .. })
            | (Self::Sent, NotificationCommand::RecordSent)
            | (Self::Waiting, NotificationCommand::Retry) => Ok(Vec::new()),
            (Self::Waiting, NotificationCommand::RecordSent) => {
                Ok(vec![NotificationEvent::NotificationSent { attempts }])
            }
            (Self::Waiting, NotificationCommand::RecordFailed { error, retry }) => {
                let error = *error;
                Ok(vec![if *retry && attempts < MAX_ATTEMPTS {
                    NotificationEvent::NotificationFailed { error, attempts }
                } else {
                    NotificationEvent::NotificationGivenUp { error, attempts }
                }])
            }
            (Self::Sent, NotificationCommand::RecordFailed { .. } | NotificationCommand::Retry) => {
                Err(NotificationError::AlreadySent)
            }
            (Self::GivenUp, NotificationCommand::Retry) => Ok(vec![NotificationEvent::NotificationRequeued]),
            (Self::GivenUp, NotificationCommand::RecordSent | NotificationCommand::RecordFailed { .. }) => {
                Err(NotificationError::GivenUp)
            }
        }
    }
}

decided_aggregate!(Notification, "notification", NotificationCommand, NotificationEvent, NotificationError);

impl Recorded for Notification {}
