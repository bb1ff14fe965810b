//! What happens to a user.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::identifiers::{SessionId, UserId};
use crate::personal::Personal;
use crate::records::domain_event;

/// What a user may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Buys.
    #[default]
    Customer,
    /// Keeps the catalogue and the stock.
    Staff,
    /// May do everything.
    Admin,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEnd {
    /// The user logged out.
    LoggedOut,
    /// Its time was over.
    Expired,
    /// The user has too many sessions, and this was the oldest.
    Displaced,
    /// The password changed.
    PasswordChanged,
    /// The user was disabled.
    Disabled,
    /// The user was erased.
    Erased,
}

/// What happens to a user.
#[allow(missing_docs, reason = "the variant says what happened, the names of its fields say with what")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum UserEvent {
    /// Somebody registered.
    UserRegistered {
        user_id: UserId,
        email: Personal<String>,
        username: Option<Personal<String>>,
        first_name: Personal<String>,
        last_name: Personal<String>,
        phone: Option<Personal<String>>,
        password_hash: Personal<String>,
        role: Role,
    },
    /// The profile is now this.
    ProfileChanged {
        username: Option<Personal<String>>,
        first_name: Personal<String>,
        last_name: Personal<String>,
        phone: Option<Personal<String>>,
    },
    /// The e-mail address is now this.
    EmailChanged { email: Personal<String> },
    /// The password was changed; other sessions ended in the same decision.
    PasswordChanged { password_hash: Personal<String> },
    /// The user was given a role above that of a customer.
    RoleGranted { role: Role },
    /// The user lost the role and is a customer.
    RoleRevoked { role: Role },
    /// The user was locked out.
    UserDisabled,
    /// The user may come in again.
    UserEnabled,
    /// The user is gone: the key of the personal data is to be destroyed, names and addresses are free again.
    UserErased { user_id: UserId },
    /// The user logged in.
    SessionStarted { session_id: SessionId, refresh_hash: String, expires_at: DateTime<Utc> },
    /// The session goes on with a new refresh token.
    SessionRotated { session_id: SessionId, refresh_hash: String, expires_at: DateTime<Utc> },
    /// A refresh token of the session that had been replaced was presented: the session is over.
    SessionReuseDetected { session_id: SessionId },
    /// The session is over.
    SessionEnded { session_id: SessionId, why: SessionEnd },
}

domain_event!(UserEvent {
    UserRegistered,
    ProfileChanged,
    EmailChanged,
    PasswordChanged,
    RoleGranted,
    RoleRevoked,
    UserDisabled,
    UserEnabled,
    UserErased,
    SessionStarted,
    SessionRotated,
    SessionReuseDetected,
    SessionEnded,
});
