//! The id of each request: taken from the client when it is sane, else new; in the answer, in the logs and in
//! every problem.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use tokio::task::futures::TaskLocalFuture;
use uuid::Uuid;

use crate::trace_context::{self, TraceContext};

/// The header in and out.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// A longer id of a client is replaced by ours.
const MAX_BYTES: usize = 64;

tokio::task_local! {
    static REQUEST_ID: String;
}

/// The id of the request that this task serves; empty outside of one.
pub fn current() -> String {
    REQUEST_ID.try_with(Clone::clone).unwrap_or_default()
}

/// Runs a future as part of the request `id`. No `async fn`, which would have room for the future twice: as what it was
/// given, and as what it waits for.
pub fn scope<F: Future>(id: String, future: F) -> TaskLocalFuture<String, F> {
    REQUEST_ID.scope(id, future)
}

/// The middleware: gives the request its id and its place in a trace, and the answer the id.
pub async fn assign(mut request: Request, inner: impl AsyncFnOnce(Request) -> Response) -> Response {
    let id = request
        .headers()
        .get(HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(|value| is_sane(value))
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let trace = TraceContext::from_headers(request.headers()).unwrap_or_else(TraceContext::new_root);
    let header = HeaderValue::from_str(&id).expect("a sane id is visible ASCII");
    request.headers_mut().insert(HEADER, header.clone());
    let mut response = scope(id, trace_context::scope(trace, inner(request))).await;
    response.headers_mut().insert(HEADER, header);
    response
}

fn is_sane(id: &str) -> bool {
    let character = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    (1..=MAX_BYTES).contains(&id.len()) && id.bytes().all(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sane_ids_of_clients_are_taken() {
        assert!(is_sane("0194a3b2-7d11.a_b:c"));
        for id in ["", "has space", "line\nbreak", "<script>", &"x".repeat(65)] {
            assert!(!is_sane(id), "{id:?}");
        }
    }

    #[test]
    fn outside_of_a_request_there_is_no_id() {
        assert_eq!(current(), "");
    }
}
