//! The user: state, decisions, and what follows from events.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identifiers::{SessionId, UserId};
use crate::personal::Personal;
use crate::records::{Claim, Claims, Recorded, decided_aggregate};
use crate::text::{self, TextError};
use crate::users::commands::UserCommand;
use crate::users::events::{Role, SessionEnd, UserEvent};
use crate::users::refusals::UserError;

/// The most sessions a user has at a time; the oldest makes room for a new one.
pub const MAX_SESSIONS: usize = 20;
/// The longest first or last name, in characters.
const MAX_NAME_CHARS: usize = 256;

const EMAIL_SCOPE: &str = "email";
const USERNAME_SCOPE: &str = "username";

/// A user of the mart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum User {
    /// Nobody yet.
    #[default]
    Unregistered,
    /// May come in.
    Active(Account),
    /// Is locked out.
    Disabled(Account),
    /// Is gone, and nothing is remembered.
    Erased,
}

/// What is known of a living user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// The user's id.
    pub user_id: UserId,
    /// The e-mail address.
    pub email: Personal<String>,
    /// The name to log in with beside the e-mail address.
    pub username: Option<Personal<String>>,
    /// The first name.
    pub first_name: Personal<String>,
    /// The last name.
    pub last_name: Personal<String>,
    /// The phone number.
    pub phone: Option<Personal<String>>,
    /// The password's hash, a PHC string.
    pub password_hash: Personal<String>,
    /// What the user may do.
    pub role: Role,
    /// The sessions that have not ended.
    pub sessions: BTreeMap<SessionId, Session>,
}

/// A log-in that goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// The hash of the one refresh token that is good now.
    pub refresh_hash: String,
    /// When the session is over unless it is rotated.
    pub expires_at: DateTime<Utc>,
    /// The order in which sessions were started.
    pub ordinal: u64,
}

impl User {
    /// The account of a living user, active or disabled.
    #[must_use]
    pub fn account(&self) -> Option<&Account> {
        match self {
            Self::Active(account) | Self::Disabled(account) => Some(account),
            Self::Unregistered | Self::Erased => None,
        }
    }

    /// What a command leads to, by the rules.
    ///
    /// # Errors
    /// The rule that refuses it.
    pub fn decide(&self, command: UserCommand) -> Result<Vec<UserEvent>, UserError> {
        match (self, command) {
            (
                Self::Unregistered,
                UserCommand::Register {
                    user_id,
                    email,
                    username,
                    first_name,
                    last_name,
                    phone,
                    password_hash,
                    role,
                },
            ) => Ok(vec![UserEvent::UserRegistered {
                user_id,
                email: checked_email(&email)?.into(),
                username: username.map(|name| checked_username(&name)).transpose()?.map(Personal::Known),
                first_name: checked_name("first_name", &first_name)?.into(),
                last_name: checked_name("last_name", &last_name)?.into(),
                phone: phone.map(|phone| checked_phone(&phone)).transpose()?.flatten(),
                password_hash: password_hash.into(),
                role,
            }]),
            (Self::Active(_) | Self::Disabled(_), UserCommand::Register { .. }) => {
                Err(UserError::AlreadyRegistered)
            }
            (Self::Unregistered, _) => Err(UserError::Unregistered),
            (Self::Erased, _) => Err(UserError::Erased),
            (Self::Disabled(_), UserCommand::Disable { .. }) | (Self::Active(_), UserCommand::Enable) => {
                Ok(Vec::new())
            }
            (Self::Disabled(_), UserCommand::StartSession { .. } | UserCommand::RotateSession { .. }) => {
                Err(UserError::Disabled)
            }
            (Self::Active(account) | Self::Disabled(account), command) => account.decide(command),
        }
    }

    fn evolve(&mut self, event: UserEvent) {
        match event {
            UserEvent::UserRegistered {
                user_id,
                email,
                username,
                first_name,
                last_name,
                phone,
                password_hash,
                role,
            } => {
                *self = Self::Active(Account {
                    user_id,
                    email,
                    username,
                    first_name,
                    last_name,
                    phone,
                    password_hash,
                    role,
                    sessions: BTreeMap::new(),
                });
            }
            UserEvent::ProfileChanged { username, first_name, last_name, phone } => {
                self.change(|account| {
                    account.username = username;
                    account.first_name = first_name;
                    account.last_name = last_name;
                    account.phone = phone;
                });
            }
            UserEvent::EmailChanged { email } => self.change(|account| account.email = email),
            UserEvent::PasswordChanged { password_hash } => {
                self.change(|account| account.password_hash = password_hash);
            }
            UserEvent::RoleGranted { role } => self.change(|account| account.role = role),
            UserEvent::RoleRevoked { role: _ } => self.change(|account| account.role = Role::Customer),
            UserEvent::UserDisabled => {
                *self = match std::mem::take(self) {
                    Self::Active(account) => Self::Disabled(account),
                    other => other,
                };
            }
            UserEvent::UserEnabled => {
                *self = match std::mem::take(self) {
                    Self::Disabled(account) => Self::Active(account),
                    other => other,
                };
            }
            UserEvent::UserErased { user_id: _ } => *self = Self::Erased,
            UserEvent::SessionStarted { session_id, refresh_hash, expires_at } => self.change(|account| {
                let ordinal =
                    account.sessions.values().map(|session| session.ordinal).max().map_or(0, |last| last + 1);
                account.sessions.insert(session_id, Session { refresh_hash, expires_at, ordinal });
            }),
            UserEvent::SessionRotated { session_id, refresh_hash, expires_at } => self.change(|account| {
                if let Some(session) = account.sessions.get_mut(&session_id) {
                    session.refresh_hash = refresh_hash;
                    session.expires_at = expires_at;
                }
            }),
            UserEvent::SessionReuseDetected { session_id }
            | UserEvent::SessionEnded { session_id, why: _ } => self.change(|account| {
                account.sessions.remove(&session_id);
            }),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Account)) {
        match self {
            Self::Active(account) | Self::Disabled(account) => change(account),
            Self::Unregistered | Self::Erased => {}
        }
    }
}

impl Account {
    /// What a command to a registered user leads to, where active and disabled users do not differ.
    fn decide(&self, command: UserCommand) -> Result<Vec<UserEvent>, UserError> {
        match command {
            UserCommand::Register { .. } => Err(UserError::AlreadyRegistered),
            UserCommand::Enable => Ok(vec![UserEvent::UserEnabled]),
            UserCommand::ChangeProfile { email, username, first_name, last_name, phone } => {
                let mut events = email.map_or(Ok(Vec::new()), |email| self.change_email(&email))?;
                events.extend(self.change_profile(username, first_name, last_name, phone)?);
                Ok(events)
            }
            UserCommand::ChangeEmail { email } => self.change_email(&email),
            UserCommand::ChangePassword { password_hash, keep } => {
                let mut events = vec![UserEvent::PasswordChanged { password_hash: password_hash.into() }];
                events.extend(self.end_sessions(keep, SessionEnd::PasswordChanged));
                Ok(events)
            }
            UserCommand::GrantRole { role, other_admins } => self.become_role(role, other_admins),
            UserCommand::RevokeRole { other_admins } => self.become_role(Role::Customer, other_admins),
            UserCommand::Disable { other_admins } => {
                self.check_admin_remains(other_admins)?;
                let mut events = self.end_sessions(None, SessionEnd::Disabled);
                events.push(UserEvent::UserDisabled);
                Ok(events)
            }
            UserCommand::Erase { other_admins } => {
                self.check_admin_remains(other_admins)?;
                let mut events = self.end_sessions(None, SessionEnd::Erased);
                events.push(UserEvent::UserErased { user_id: self.user_id });
                Ok(events)
            }
            UserCommand::StartSession { session_id, refresh_hash, expires_at, now } => {
                Ok(self.start_session(session_id, refresh_hash, expires_at, now))
            }
            UserCommand::RotateSession { session_id, presented_hash, new_hash, expires_at, now } => {
                let session = self.sessions.get(&session_id).ok_or(UserError::SessionUnknown)?;
                if session.refresh_hash != presented_hash {
                    return Ok(vec![UserEvent::SessionReuseDetected { session_id }]);
                }
                if session.expires_at <= now {
                    return Err(UserError::SessionExpired);
                }
                Ok(vec![UserEvent::SessionRotated { session_id, refresh_hash: new_hash, expires_at }])
            }
            UserCommand::EndSession { session_id } => Ok(self
                .sessions
                .contains_key(&session_id)
                .then_some(UserEvent::SessionEnded { session_id, why: SessionEnd::LoggedOut })
                .into_iter()
                .collect()),
            UserCommand::EndAllSessions { except } => Ok(self.end_sessions(except, SessionEnd::LoggedOut)),
        }
    }

    fn change_email(&self, email: &str) -> Result<Vec<UserEvent>, UserError> {
        let email = Personal::Known(checked_email(email)?);
        Ok(if email == self.email { Vec::new() } else { vec![UserEvent::EmailChanged { email }] })
    }

    fn change_profile(
        &self,
        username: Option<String>,
        first_name: Option<String>,
        last_name: Option<String>,
        phone: Option<String>,
    ) -> Result<Vec<UserEvent>, UserError> {
        let username = match username {
            None => self.username.clone(),
            Some(username) => Some(checked_username(&username)?.into()),
        };
        let first_name = match first_name {
            None => self.first_name.clone(),
            Some(name) => checked_name("first_name", &name)?.into(),
        };
        let last_name = match last_name {
            None => self.last_name.clone(),
            Some(name) => checked_name("last_name", &name)?.into(),
        };
        let phone = match phone {
            None => self.phone.clone(),
            Some(phone) => checked_phone(&phone)?,
        };
        let unchanged = username == self.username
            && first_name == self.first_name
            && last_name == self.last_name
            && phone == self.phone;
        Ok(if unchanged {
            Vec::new()
        } else {
            vec![UserEvent::ProfileChanged { username, first_name, last_name, phone }]
        })
    }

    fn become_role(&self, role: Role, other_admins: bool) -> Result<Vec<UserEvent>, UserError> {
        if role == self.role {
            return Ok(Vec::new());
        }
        self.check_admin_remains(other_admins)?;
        let revoked = (self.role != Role::Customer).then_some(UserEvent::RoleRevoked { role: self.role });
        let granted = (role != Role::Customer).then_some(UserEvent::RoleGranted { role });
        Ok(revoked.into_iter().chain(granted).collect())
    }

    fn check_admin_remains(&self, other_admins: bool) -> Result<(), UserError> {
        if self.role == Role::Admin && !other_admins { Err(UserError::LastAdmin) } else { Ok(()) }
    }

    fn start_session(
        &self,
        session_id: SessionId,
        refresh_hash: String,
        expires_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Vec<UserEvent> {
        if self.sessions.contains_key(&session_id) {
            return Vec::new();
        }
        let (expired, mut living): (Vec<_>, Vec<_>) =
            self.sessions.iter().partition(|(_, session)| session.expires_at <= now);
        living.sort_by_key(|(_, session)| session.ordinal);
        let surplus = (living.len() + 1).saturating_sub(MAX_SESSIONS);
        let ended = expired.into_iter().map(|(id, _)| (*id, SessionEnd::Expired));
        let displaced = living.into_iter().take(surplus).map(|(id, _)| (*id, SessionEnd::Displaced));
        ended
            .chain(displaced)
            .map(|(session_id, why)| UserEvent::SessionEnded { session_id, why })
            .chain([UserEvent::SessionStarted { session_id, refresh_hash, expires_at }])
            .collect()
    }

    fn end_sessions(&self, except: Option<SessionId>, why: SessionEnd) -> Vec<UserEvent> {
        self.sessions
            .keys()
            .filter(|session_id| Some(**session_id) != except)
            .map(|session_id| UserEvent::SessionEnded { session_id: *session_id, why })
            .collect()
    }
}

decided_aggregate!(User, "user", UserCommand, UserEvent, UserError);

impl Recorded for User {
    const CLAIMS: Option<Claims<Self>> = Some(claims);

    fn personal_fields(event_type: &str) -> &'static [&'static str] {
        match event_type {
            "UserRegistered" => &["email", "username", "first_name", "last_name", "phone", "password_hash"],
            "ProfileChanged" => &["username", "first_name", "last_name", "phone"],
            "EmailChanged" => &["email"],
            "PasswordChanged" => &["password_hash"],
            _ => &[],
        }
    }

    fn person_of(aggregate_id: &str, _event: &UserEvent) -> Option<Uuid> {
        aggregate_id.parse().ok()
    }

    fn person_of_state(aggregate_id: &str, _user: &Self) -> Option<Uuid> {
        aggregate_id.parse().ok()
    }
}

fn claims(before: &User, event: &UserEvent) -> Vec<Claim> {
    let (old_email, old_username) = match before.account() {
        Some(account) => (account.email.known(), account.username.as_ref().and_then(Personal::known)),
        None => (None, None),
    };
    match event {
        UserEvent::UserRegistered { email, username, .. } => [
            exchange(EMAIL_SCOPE, None, email.known()),
            exchange(USERNAME_SCOPE, None, username.as_ref().and_then(Personal::known)),
        ]
        .concat(),
        UserEvent::EmailChanged { email } => exchange(EMAIL_SCOPE, old_email, email.known()),
        UserEvent::ProfileChanged { username, .. } => {
            exchange(USERNAME_SCOPE, old_username, username.as_ref().and_then(Personal::known))
        }
        UserEvent::UserErased { .. } => {
            [exchange(EMAIL_SCOPE, old_email, None), exchange(USERNAME_SCOPE, old_username, None)].concat()
        }
        UserEvent::PasswordChanged { .. }
        | UserEvent::RoleGranted { .. }
        | UserEvent::RoleRevoked { .. }
        | UserEvent::UserDisabled
        | UserEvent::UserEnabled
        | UserEvent::SessionStarted { .. }
        | UserEvent::SessionRotated { .. }
        | UserEvent::SessionReuseDetected { .. }
        | UserEvent::SessionEnded { .. } => Vec::new(),
    }
}

/// Gives up the old value and takes the new one, unless they are the same once folded.
fn exchange(scope: &'static str, old: Option<&String>, new: Option<&String>) -> Vec<Claim> {
    let (old, new) = (old.map(|text| text::fold(text)), new.map(|text| text::fold(text)));
    if old == new {
        return Vec::new();
    }
    let released = old.map(|key| Claim::release(scope, key));
    released.into_iter().chain(new.map(|key| Claim::take(scope, key))).collect()
}

fn invalid(field: &'static str) -> impl FnOnce(TextError) -> UserError {
    move |reason| UserError::Invalid { field, reason }
}

fn checked_email(email: &str) -> Result<String, UserError> {
    let email = text::normalise(email);
    text::check_email(&email).map_err(invalid("email"))?;
    Ok(email)
}

fn checked_username(username: &str) -> Result<String, UserError> {
    let username = text::normalise(username);
    text::check_username(&username).map_err(invalid("username"))?;
    Ok(username)
}

fn checked_name(field: &'static str, name: &str) -> Result<String, UserError> {
    let name = text::normalise(name);
    text::check_line(&name, 0, MAX_NAME_CHARS).map_err(invalid(field))?;
    Ok(name)
}

fn checked_phone(phone: &str) -> Result<Option<Personal<String>>, UserError> {
    let phone = text::normalise(phone);
    if phone.is_empty() {
        return Ok(None);
    }
    text::check_phone(&phone).map_err(invalid("phone"))?;
    Ok(Some(Personal::Known(phone)))
}
