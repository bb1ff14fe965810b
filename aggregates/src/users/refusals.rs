//! Why a user's command is refused.

use serde::Serialize;
use thiserror::Error;

use crate::text::TextError;

/// Why a user's command is refused.
#[allow(missing_docs, reason = "the message names the refusal and what its fields are")]
#[derive(Clone, Debug, PartialEq, Error, Serialize)]
pub enum UserError {
    #[error("user is not registered")]
    Unregistered,
    #[error("user is already registered")]
    AlreadyRegistered,
    #[error("user is disabled")]
    Disabled,
    #[error("user was erased")]
    Erased,
    #[error("the last admin cannot lose the role")]
    LastAdmin,
    #[error("session is not known")]
    SessionUnknown,
    #[error("session has expired")]
    SessionExpired,
    #[error("{field} is invalid")]
    Invalid {
        field: &'static str,
        #[source]
        reason: TextError,
    },
}
