//! What may be asked of a user.

use chrono::{DateTime, Utc};

use crate::identifiers::{SessionId, UserId};
use crate::users::events::Role;

/// What may be asked of a user. A log-in is recorded by the session it starts.
#[allow(missing_docs, reason = "the variant says what is asked, the names of its fields say with what")]
#[derive(Clone, PartialEq)]
pub enum UserCommand {
    /// Register; the password hash is a PHC string made outside. Only seeds and admins give another role than
    /// customer.
    Register {
        user_id: UserId,
        email: String,
        username: Option<String>,
        first_name: String,
        last_name: String,
        phone: Option<String>,
        password_hash: String,
        role: Role,
    },
    /// Change what is given; an empty name or phone clears it.
    ChangeProfile {
        email: Option<String>,
        username: Option<String>,
        first_name: Option<String>,
        last_name: Option<String>,
        phone: Option<String>,
    },
    /// Change the e-mail address.
    ChangeEmail { email: String },
    /// Change the password and end all sessions but one.
    ChangePassword { password_hash: String, keep: Option<SessionId> },
    /// Give the user this role in place of the present one; `other_admins`: whether there are any.
    GrantRole { role: Role, other_admins: bool },
    /// Make the user a customer; `other_admins`: whether there are any.
    RevokeRole { other_admins: bool },
    /// Lock the user out; `other_admins`: whether there are any.
    Disable { other_admins: bool },
    /// Let the user in again.
    Enable,
    /// Erase the user; `other_admins`: whether there are any.
    Erase { other_admins: bool },
    /// Start a session; the hash is that of its refresh token (SHA-256, hex).
    StartSession {
        session_id: SessionId,
        refresh_hash: String,
        expires_at: DateTime<Utc>,
        now: DateTime<Utc>,
    },
    /// Replace the refresh token.
    RotateSession {
        session_id: SessionId,
        presented_hash: String,
        new_hash: String,
        expires_at: DateTime<Utc>,
        now: DateTime<Utc>,
    },
    /// End a session.
    EndSession { session_id: SessionId },
    /// End all sessions but one.
    EndAllSessions { except: Option<SessionId> },
}

/// Tells the command's name only: its fields are personal or secret.
impl std::fmt::Debug for UserCommand {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Register { .. } => "Register",
            Self::ChangeProfile { .. } => "ChangeProfile",
            Self::ChangeEmail { .. } => "ChangeEmail",
            Self::ChangePassword { .. } => "ChangePassword",
            Self::GrantRole { .. } => "GrantRole",
            Self::RevokeRole { .. } => "RevokeRole",
            Self::Disable { .. } => "Disable",
            Self::Enable => "Enable",
            Self::Erase { .. } => "Erase",
            Self::StartSession { .. } => "StartSession",
            Self::RotateSession { .. } => "RotateSession",
            Self::EndSession { .. } => "EndSession",
            Self::EndAllSessions { .. } => "EndAllSessions",
        })
    }
}
