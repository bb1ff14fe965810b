//! What surrounds the routes of every service: who is asking, reading no less than was seen before, doing a
//! repeated request once, and answering when the service's own read models show what was written.

pub(crate) mod answer;
mod idempotency;
mod write;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use event_store::read_your_writes::Place;
use event_store::{Log, crash_point};
use utoipa_axum::router::OpenApiRouter;

use crate::auth::{self, Authenticator};
use crate::extract::{Freshness, MinPosition};
use crate::problem::Problem;

pub use answer::{Answer, created, no_content, ok};
pub use write::{Write, engine, refused};

/// How long an answer waits for the read models.
pub const READ_WITHIN: Duration = Duration::from_secs(2);
/// How long a look-up waits for what another service published before the request arrived.
pub const HEAR_WITHIN: Duration = Duration::from_secs(1);

const CONSISTENCY: HeaderName = HeaderName::from_static("mart-consistency");

/// The read models of a service, as far as waiting for them goes.
#[async_trait]
pub trait Reads: Send + Sync + 'static {
    /// Waits until all read models of the service that read the place's log show everything up to it.
    ///
    /// # Errors
    /// When the database is unreachable.
    async fn wait(&self, place: &Place, limit: Duration) -> event_store::Result<bool>;

    /// Waits until the service shows what it makes of a place in any log: its read models of it, and what its process
    /// managers did about it. A log that it does not listen to is not waited for.
    ///
    /// # Errors
    /// When a database is unreachable.
    async fn wait_for_news(&self, place: &Place, limit: Duration) -> event_store::Result<bool>;

    /// Waits until they show everything that `source` had published when this was asked.
    ///
    /// # Errors
    /// When a database is unreachable.
    async fn hear(&self, source: &str, limit: Duration) -> event_store::Result<bool>;

    /// Waits until they show everything that had happened to an aggregate of `source` when this was asked.
    ///
    /// # Errors
    /// When a database is unreachable.
    async fn hear_of(
        &self,
        source: &str,
        aggregate_type: &str,
        aggregate_id: &str,
        limit: Duration,
    ) -> event_store::Result<bool>;
}

/// What the routes of a service share.
#[derive(Clone)]
pub struct Surroundings {
    /// The service's log.
    pub log: Log,
    /// Who holds a token.
    pub auth: Arc<dyn Authenticator>,
    /// The service's read models.
    pub reads: Arc<dyn Reads>,
}

/// Puts the surroundings around the routes of a service.
pub fn surround(routes: OpenApiRouter, surroundings: Surroundings) -> OpenApiRouter {
    routes.layer(middleware::from_fn_with_state(surroundings, around))
}

async fn around(State(surroundings): State<Surroundings>, request: Request, next: Next) -> Response {
    // Told at once: nobody is to wait until each part of the request has run out of patience.
    if !surroundings.log.is_reachable().await {
        return write::unavailable().into_response();
    }
    let (mut parts, body) = request.into_parts();
    let authenticated = auth::look(surroundings.auth.as_ref(), &parts.headers).await;
    parts.extensions.insert(authenticated);
    if matches!(parts.method, Method::GET | Method::HEAD) {
        let waited = wait_for_position(&surroundings, &mut parts).await;
        let response = next.run(Request::from_parts(parts, body)).await;
        // Who may not ask is told that before what became of a position.
        let barred = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        return match waited {
            Err(problem) if !barred => problem.into_response(),
            Ok(()) | Err(_) => response,
        };
    }
    if !matches!(parts.method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE) {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let freshness = match Freshness::from_request_parts(&mut parts, &()).await {
        Ok(freshness) => freshness,
        Err(problem) => return problem.into_response(),
    };
    let source = surroundings.log.source();
    let response = idempotency::once(&surroundings.log, parts, body, next).await;
    let response = settle(&surroundings, freshness, response).await;
    crash_point!("before-answer", source, lost());
    response
}

/// An answer that got lost on its way.
fn lost() -> Response {
    Problem::service_unavailable("the answer was lost")
        .with_retry_after(Duration::from_secs(1))
        .into_response()
}

async fn wait_for_position(
    surroundings: &Surroundings,
    parts: &mut axum::http::request::Parts,
) -> Result<(), Problem> {
    let MinPosition(Some((service, position))) = MinPosition::from_request_parts(parts, &()).await? else {
        return Ok(());
    };
    let place = Place { source: service, partition: None, position: position.cast_signed() };
    let reached = surroundings.reads.wait_for_news(&place, READ_WITHIN).await.map_err(engine)?;
    if reached {
        return Ok(());
    }
    let detail = "this service has not seen that position yet";
    Err(Problem::service_unavailable(detail).with_retry_after(Duration::from_secs(1)))
}

/// Holds an answer back until what was written can be read.
async fn settle(surroundings: &Surroundings, freshness: Freshness, mut response: Response<Body>) -> Response {
    // An answer that is given again has only its header left.
    let written = response.extensions().get::<Place>().cloned();
    let Some(place) = written.or_else(|| answer::place_of(response.headers())) else { return response };
    if freshness == Freshness::RespondAsync || place.position == 0 {
        return response;
    }
    if !matches!(surroundings.reads.wait(&place, READ_WITHIN).await, Ok(true)) {
        response.headers_mut().insert(CONSISTENCY, HeaderValue::from_static("stale"));
    }
    response
}
