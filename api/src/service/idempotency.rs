//! A request sent twice under one `Idempotency-Key` is done once and answered the same.
//!
//! The key becomes the id of the command, so its row is written in the transaction of the events. The answer
//! is added to the row when it is known; the first answer wins, and a copy that comes in between, or after a
//! crash, finds the events, makes the answer from them and offers it in the same way.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Request};
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use event_store::append::CommandKey;
use event_store::{Log, commands, crash_point};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::answer::POSITION;
use super::write::engine;
use crate::auth::Authenticated;
use crate::extract::{BODY_MAX_BYTES, IdempotencyKey};
use crate::problem::Problem;

/// The longest answer that is kept.
const ANSWER_MAX_BYTES: usize = 1 << 20;
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The headers of an answer that belong to it and not to its delivery.
const KEPT_HEADERS: [HeaderName; 5] = [CONTENT_TYPE, LOCATION, ETAG, POSITION, RETRY_AFTER];

/// An answer as it is kept in the command row.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Which copy of the request it is the answer to, so that equal answers are told apart.
    copy: Uuid,
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

/// Runs a request, once for each key.
pub(super) async fn once(log: &Log, mut parts: Parts, body: Body, next: Next) -> Response {
    let key = match IdempotencyKey::from_request_parts(&mut parts, &()).await {
        Ok(IdempotencyKey(Some(key))) => key,
        Ok(IdempotencyKey(None)) => return next.run(Request::from_parts(parts, body)).await,
        Err(problem) => return problem.into_response(),
    };
    // A token that is not accepted is refused by the route; its answer is not kept.
    let principal = match parts.extensions.get::<Authenticated>() {
        Some(Authenticated::Caller(caller)) => caller.user_id.to_string(),
        Some(Authenticated::Nobody) | None => "anonymous".to_owned(),
        Some(Authenticated::Refused | Authenticated::Unavailable) => {
            return next.run(Request::from_parts(parts, body)).await;
        }
    };
    let Ok(body) = axum::body::to_bytes(body, BODY_MAX_BYTES).await else {
        return Problem::from_status(StatusCode::PAYLOAD_TOO_LARGE).into_response();
    };
    let key = command_key(log, &parts, &principal, &key, &body);
    match commands::find(log.connections(), key.command_id).await {
        Err(error) => return engine(error).into_response(),
        Ok(Some(first)) if first.fingerprint != key.fingerprint => return reused(),
        Ok(Some(first)) => {
            if let Some(kept) = first.answer.as_deref().and_then(replay) {
                return kept;
            }
        }
        Ok(None) => {}
    }
    parts.extensions.insert(key.clone());
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    keep(log, &key, response).await
}

/// The fingerprint is keyed: a body may hold a card number, and its plain hash could be searched for.
fn command_key(log: &Log, parts: &Parts, principal: &str, key: &str, body: &Bytes) -> CommandKey {
    let route = format!("{} {}", parts.method, parts.uri.path());
    let name = format!("{principal}\n{route}\n{key}");
    let mut hash = Sha256::new();
    hash.update(route.as_bytes());
    hash.update([0]);
    hash.update(parts.uri.query().unwrap_or_default().as_bytes());
    hash.update([0]);
    hash.update(body);
    CommandKey {
        command_id: Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()),
        principal: principal.to_owned(),
        fingerprint: log.personal().keyed_hash("request", &hash.finalize()),
        derived: false,
    }
}

/// 422 for a key that stands for another request.
pub(super) fn reused() -> Response {
    let detail = "this Idempotency-Key was used for another request";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail).into_response()
}

/// Keeps the answer, unless another copy's was kept first: then that one is given. Another request that came at the same
/// time with the same key has an answer of its own, which is nobody else's.
async fn keep(log: &Log, key: &CommandKey, response: Response) -> Response {
    let status = response.status();
    let lasting = status.is_success()
        || matches!(
            status,
            StatusCode::PAYMENT_REQUIRED
                | StatusCode::NOT_FOUND
                | StatusCode::CONFLICT
                | StatusCode::UNPROCESSABLE_ENTITY
        );
    if !lasting {
        return response;
    }
    let (parts, body) = response.into_parts();
    let Ok(body) = axum::body::to_bytes(body, ANSWER_MAX_BYTES).await else {
        return Problem::internal("an answer is too long to be kept").into_response();
    };
    let headers = KEPT_HEADERS
        .iter()
        .filter_map(|name| Some((name.to_string(), parts.headers.get(name)?.to_str().ok()?.to_owned())))
        .collect();
    let copy = Uuid::now_v7();
    let kept =
        Kept { copy, status: status.as_u16(), headers, body: String::from_utf8_lossy(&body).into_owned() };
    let offered = match serde_json::to_string(&kept) {
        Ok(offered) => offered,
        Err(error) => return Problem::internal(error).into_response(),
    };
    crash_point!("answer-before-kept", log.source(), super::lost());
    let completed = commands::complete(log.connections(), key, &offered).await;
    crash_point!("answer-after-kept", log.source(), super::lost());
    match completed {
        // The work is done and durable; a later copy makes the same answer from it.
        Err(error) => tracing::warn!(%error, "the answer to a repeated request could not be kept"),
        Ok(commands::Kept::Offered) => {}
        Ok(commands::Kept::Earlier(first)) => {
            if let Some(first) = replay(&first) {
                return first;
            }
        }
        Ok(commands::Kept::OfAnother) => return reused(),
    }
    Response::from_parts(parts, Body::from(body))
}

fn replay(kept: &str) -> Option<Response> {
    let kept: Kept = serde_json::from_str(kept).ok()?;
    let mut response = Response::new(Body::from(kept.body));
    *response.status_mut() = StatusCode::from_u16(kept.status).ok()?;
    for (name, value) in kept.headers {
        response.headers_mut().insert(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Some(response)
}
