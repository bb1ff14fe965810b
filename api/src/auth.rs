//! Who is asking. A caller exists only when a token was verified and its session still lives.

pub mod local;
pub mod role;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use aggregates::users::Role;

use crate::problem::Problem;

/// How long a living session is believed without looking again, outside the routes of the users service.
const BELIEVED_FOR: Duration = Duration::from_secs(2);
/// How many living sessions are remembered.
const BELIEVED_TOKENS: u64 = 100_000;

/// Somebody whose token and session are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user_id: Uuid,
    /// The session of the token.
    pub session_id: Uuid,
    /// What the user may do, as it is now and not as the token says.
    pub role: Role,
    /// The e-mail address, for those who need to tell users apart by it.
    pub email: String,
}

impl Caller {
    /// Whether the caller is an admin.
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// Lets admins pass.
    ///
    /// # Errors
    /// 403 for everybody else.
    pub fn must_be_admin(&self) -> Result<(), Problem> {
        if self.is_admin() { Ok(()) } else { Err(Problem::forbidden()) }
    }

    /// Lets staff and admins pass.
    ///
    /// # Errors
    /// 403 for customers.
    pub fn must_be_staff(&self) -> Result<(), Problem> {
        match self.role {
            Role::Staff | Role::Admin => Ok(()),
            Role::Customer => Err(Problem::forbidden()),
        }
    }

    /// Lets the user and admins pass, whether the user exists or not.
    ///
    /// # Errors
    /// 403 for everybody else.
    pub fn must_be(&self, user_id: Uuid) -> Result<(), Problem> {
        if self.user_id == user_id || self.is_admin() { Ok(()) } else { Err(Problem::forbidden()) }
    }
}

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// It is not one of ours, has expired, or its session is over.
    #[error("the token is not valid")]
    Invalid,
    /// It could not be found out.
    #[error("sessions cannot be checked right now")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Finds out who holds a token.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The caller behind a token whose session lives now.
    ///
    /// # Errors
    /// See [`AuthenticationError`].
    async fn authenticate(&self, token: &str) -> Result<Caller, AuthenticationError>;
}

/// An authenticator that believes what it has just found out.
#[derive(Clone)]
pub struct Believing {
    inner: Arc<dyn Authenticator>,
    believed: Cache<[u8; 32], Caller>,
}

impl Believing {
    /// Remembers the answers of `inner` for two seconds.
    pub fn new(inner: Arc<dyn Authenticator>) -> Self {
        let believed = Cache::builder().max_capacity(BELIEVED_TOKENS).time_to_live(BELIEVED_FOR).build();
        Self { inner, believed }
    }
}

#[async_trait]
impl Authenticator for Believing {
    async fn authenticate(&self, token: &str) -> Result<Caller, AuthenticationError> {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(caller) = self.believed.get(&key) {
            return Ok(caller);
        }
        let caller = self.inner.authenticate(token).await?;
        self.believed.insert(key, caller.clone());
        Ok(caller)
    }
}

/// What became of the token of a request, kept in its extensions.
#[derive(Clone)]
pub(crate) enum Authenticated {
    Nobody,
    Caller(Caller),
    Refused,
    Unavailable,
}

/// Looks at the token of a request.
pub(crate) async fn look(auth: &dyn Authenticator, headers: &HeaderMap) -> Authenticated {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), more) = (values.next(), values.next()) else { return Authenticated::Nobody };
    let Some(token) = bearer(value).filter(|_| more.is_none()) else { return Authenticated::Refused };
    match auth.authenticate(token).await {
        Ok(caller) => Authenticated::Caller(caller),
        Err(AuthenticationError::Invalid) => Authenticated::Refused,
        Err(AuthenticationError::Unavailable(error)) => {
            tracing::warn!(%error, "a session could not be checked");
            Authenticated::Unavailable
        }
    }
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim()).filter(|token| !token.is_empty())
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        match parts.extensions.get::<Authenticated>() {
            Some(Authenticated::Caller(caller)) => Ok(caller.clone()),
            Some(Authenticated::Unavailable) => {
                Err(Problem::service_unavailable("sessions cannot be checked right now"))
            }
            Some(Authenticated::Nobody | Authenticated::Refused) | None => Err(Problem::unauthorized()),
        }
    }
}
