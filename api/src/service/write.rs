//! What a handler that writes takes out of the request, and how failures of the engine are told.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use cqrs_es::Aggregate;
use event_store::append::CommandKey;
use event_store::{Context, Error, ExecuteError};
use uuid::Uuid;

use crate::auth::Authenticated;
use crate::extract::{Freshness, IfMatch};
use crate::problem::Problem;
use crate::{request_id, trace_context};

/// The circumstances of a write.
#[derive(Debug, Clone)]
pub struct Write {
    /// Identity of the command, when the client gave the request one.
    pub key: Option<CommandKey>,
    /// Who asks.
    pub actor: Option<Uuid>,
    /// The version the aggregate must have.
    pub expected: Option<i64>,
    /// Whether the answer waits for the read models.
    pub freshness: Freshness,
}

impl<S: Send + Sync> FromRequestParts<S> for Write {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let IfMatch(version) = IfMatch::from_request_parts(parts, state).await?;
        let actor = match parts.extensions.get::<Authenticated>() {
            Some(Authenticated::Caller(caller)) => Some(caller.user_id),
            Some(Authenticated::Nobody | Authenticated::Refused | Authenticated::Unavailable) | None => None,
        };
        Ok(Self {
            key: parts.extensions.get::<CommandKey>().cloned(),
            actor,
            expected: version.map(u64::cast_signed),
            freshness: Freshness::from_request_parts(parts, state).await?,
        })
    }
}

impl Write {
    /// The context of the request's command; its state is asked for.
    pub fn context<A: Aggregate>(&self) -> Context<A> {
        Context {
            key: self.key.clone(),
            actor: self.actor,
            correlation_id: Uuid::parse_str(&request_id::current()).ok(),
            traceparent: trace_context::current().map(|trace| trace.to_string()),
            expected: self.expected,
            with_state: true,
            ..Context::default()
        }
    }

    /// The context of a further command of the same request; its id follows from that of the first.
    pub fn step<A: Aggregate>(&self, step: &str) -> Context<A> {
        let key = self.key.as_ref().map(|key| CommandKey {
            command_id: Uuid::new_v5(&key.command_id, step.as_bytes()),
            ..key.clone()
        });
        Context { key, expected: None, ..self.context() }
    }
}

/// What kept a command from being carried out, as a problem. `refuse` tells the refusals of the domain;
/// `taken` names the field whose value belongs to another, with a message.
pub fn refused<E: std::error::Error>(
    error: ExecuteError<E>,
    refuse: impl FnOnce(E) -> Problem,
    taken: impl FnOnce(&str) -> Problem,
) -> Problem {
    match error {
        ExecuteError::Refused(refusal) => refuse(refusal),
        ExecuteError::ClaimTaken { scope } => taken(&scope),
        ExecuteError::VersionMismatch { .. } => Problem::precondition_failed(),
        ExecuteError::KeyReused => Problem::new(
            axum::http::StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency_key_reused",
            "this Idempotency-Key was used for another request",
        ),
        ExecuteError::Conflict | ExecuteError::Busy => {
            Problem::service_unavailable("too many changes at the same time")
                .with_retry_after(Duration::from_secs(1))
        }
        ExecuteError::Engine(error) => engine(error),
    }
}

/// A failure of the plumbing, as a problem.
pub fn engine(error: Error) -> Problem {
    if error.is_transient() {
        tracing::warn!(%error, "the database is unavailable");
        return unavailable();
    }
    if let Error::Rebuilding(_) = error {
        return Problem::service_unavailable("what this shows is being built anew: try again soon");
    }
    Problem::internal(error)
}

/// The database does not answer.
pub(super) fn unavailable() -> Problem {
    Problem::service_unavailable("the database is unavailable").with_retry_after(Duration::from_secs(1))
}
