//! Who is asking, found out where the users are: from the signature of the token and the user's own events.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use event_store::CommandBus;

use aggregates::identifiers::SessionId;
use aggregates::users::User;

use super::{AuthenticationError, Authenticator, Caller};
use crate::clock;
use crate::tokens::{AccessClaims, Tokens};

/// Looks at the user behind a token each time: a session that was ended is refused at once.
#[derive(Clone)]
pub struct LocalAuthenticator {
    tokens: Arc<Tokens>,
    users: CommandBus<User>,
}

impl LocalAuthenticator {
    /// Verifies with `tokens` and finds sessions in `users`.
    pub fn new(tokens: Arc<Tokens>, users: CommandBus<User>) -> Self {
        Self { tokens, users }
    }
}

#[async_trait]
impl Authenticator for LocalAuthenticator {
    async fn authenticate(&self, token: &str) -> Result<Caller, AuthenticationError> {
        let claims = self.tokens.verify(token).map_err(|_| AuthenticationError::Invalid)?;
        let loaded = self
            .users
            .load(&claims.sub.to_string())
            .await
            .map_err(|error| AuthenticationError::Unavailable(Box::new(error)))?;
        caller(&loaded.aggregate, &claims, clock::now()).ok_or(AuthenticationError::Invalid)
    }
}

/// The caller, if the user may come in and the session of the token goes on. What the user may do is taken
/// from the state and not from the token, so that a role that was lost is lost at once.
fn caller(user: &User, claims: &AccessClaims, now: DateTime<Utc>) -> Option<Caller> {
    let User::Active(account) = user else { return None };
    let session = account.sessions.get(&SessionId(claims.sid))?;
    (session.expires_at > now).then(|| Caller {
        user_id: account.user_id.0,
        session_id: claims.sid,
        role: account.role,
        email: account.email.text().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aggregates::identifiers::UserId;
    use aggregates::users::{Account, Role, Session};
    use chrono::TimeDelta;
    use uuid::Uuid;

    use super::*;

    fn claims(user: Uuid, session: Uuid) -> AccessClaims {
        AccessClaims {
            iss: String::new(),
            aud: String::new(),
            sub: user,
            sid: session,
            role: "admin".to_owned(),
            typ: "access".to_owned(),
            iat: 0,
            exp: u64::MAX,
            jti: Uuid::nil(),
        }
    }

    fn account(session: Uuid, expires_at: DateTime<Utc>) -> Account {
        let session = (SessionId(session), Session { refresh_hash: String::new(), expires_at, ordinal: 0 });
        Account {
            user_id: UserId(Uuid::from_u128(1)),
            email: "ann@example.org".to_owned().into(),
            username: None,
            first_name: String::new().into(),
            last_name: String::new().into(),
            phone: None,
            password_hash: String::new().into(),
            role: Role::Staff,
            sessions: BTreeMap::from([session]),
        }
    }

    #[test]
    fn a_living_session_of_an_active_user_is_accepted_with_the_role_of_now() {
        let (session, now) = (Uuid::from_u128(2), Utc::now());
        let claims = claims(Uuid::from_u128(1), session);
        let living = account(session, now + TimeDelta::seconds(1));
        let expected = Caller {
            user_id: Uuid::from_u128(1),
            session_id: session,
            role: Role::Staff,
            email: "ann@example.org".to_owned(),
        };
        assert_eq!(caller(&User::Active(living.clone()), &claims, now), Some(expected));
        assert_eq!(caller(&User::Disabled(living), &claims, now), None);
    }

    #[test]
    fn an_ended_or_expired_session_and_an_erased_user_are_refused() {
        let (session, now) = (Uuid::from_u128(2), Utc::now());
        let claims = claims(Uuid::from_u128(1), session);
        let ended = account(Uuid::from_u128(3), now + TimeDelta::seconds(1));
        for user in
            [User::Active(ended), User::Active(account(session, now)), User::Erased, User::Unregistered]
        {
            assert_eq!(caller(&user, &claims, now), None, "{user:?}");
        }
    }
}
