//! Why a notification's command is refused.

use serde::Serialize;
use thiserror::Error;

/// Why a notification's command is refused.
#[allow(missing_docs, reason = "the message names the refusal and what its fields are")]
#[derive(Clone, Debug, PartialEq, Error, Serialize)]
pub enum NotificationError {
    #[error("notification is not queued")]
    NotQueued,
    #[error("notification was already sent")]
    AlreadySent,
    #[error("notification was given up")]
    GivenUp,
}
