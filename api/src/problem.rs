//! The one shape of every refusal: a problem document (RFC 9457) with a stable `code`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use axum::Json;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use event_store::read_your_writes::Place;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::request_id;
use crate::service::answer;

/// The media type of problem documents.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What is wrong, by the path of the field: mostly a list of messages, for stock the lines that are short.
pub type FieldErrors = BTreeMap<String, Value>;

/// A refusal on its way to the client.
#[derive(Debug)]
pub struct Problem(Box<Content>);

#[derive(Debug)]
struct Content {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: String,
    errors: FieldErrors,
    headers: HeaderMap,
    place: Option<Place>,
}

/// The problem document as it is sent.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemBody {
    /// Names the kind of problem and leads to its description.
    #[serde(rename = "type")]
    #[schema(example = "/docs/problems/validation_failed")]
    pub type_uri: String,
    /// The kind of problem in words.
    #[schema(example = "Validation failed")]
    pub title: String,
    /// The HTTP status.
    #[schema(example = 422)]
    pub status: u16,
    /// What was wrong with this request.
    pub detail: String,
    /// The id of this request, to be told to whoever runs the mart.
    pub instance: String,
    /// The kind of problem for programs; it does not change.
    #[schema(example = "validation_failed")]
    pub code: String,
    /// What is wrong with which field.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Option<std::collections::HashMap<String, Vec<Wrong>>>)]
    pub errors: FieldErrors,
}

/// What is wrong with a field.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Wrong {
    /// In words.
    Message(String),
    /// A line of which there is not enough.
    Line {
        /// Which product.
        product_id: uuid::Uuid,
        /// How many were asked for.
        requested: i64,
        /// How many can be had.
        available: Option<i64>,
        /// How many of the line are still to be sent, or can come back.
        open: Option<i64>,
    },
}

impl Problem {
    /// A problem of any kind; prefer the named ones below.
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self(Box::new(Content {
            status,
            code: code.into(),
            detail: detail.into(),
            errors: FieldErrors::new(),
            headers: HeaderMap::new(),
            place: None,
        }))
    }

    /// 401: nobody proved who is asking. The same for every reason.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "a valid access token is needed")
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 401 of a log-in: the same for an unknown name and a wrong password.
    pub fn wrong_credentials() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "invalid_credentials",
            "unable to log in with the provided credentials",
        )
        .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 403: known, and not allowed.
    pub fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "you do not have permission to perform this action")
    }

    /// 404: there is none, or none that this user may see.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
    }

    /// 422 with everything that is wrong.
    pub fn validation(errors: FieldErrors) -> Self {
        let fields = errors.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let mut problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "validation_failed",
            format!("these fields are not right: {fields}"),
        );
        problem.0.errors = errors;
        problem
    }

    /// 422 for one field.
    pub fn invalid_field(field: &str, message: impl Into<String>) -> Self {
        Self::validation(FieldErrors::from([(field.to_owned(), Value::from(vec![message.into()]))]))
    }

    /// 409: the request is right, and what it asks for does not fit the present state.
    pub fn conflict(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 412: `If-Match` named another version than the present one.
    pub fn precondition_failed() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "version_changed",
            "it was changed since you read it: read it again",
        )
    }

    /// 400: a header that cannot be read.
    pub fn bad_header(name: &str, expected: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_header", format!("the header {name} must be {expected}"))
    }

    /// 429 with the time to wait.
    pub fn too_many_requests(retry_after: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "too many attempts: wait and try again")
            .with_retry_after(retry_after)
    }

    /// 503: something this depends on does not answer now.
    pub fn service_unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", detail)
            .with_retry_after(Duration::from_secs(1))
    }

    /// 500: logs the error, once and with its causes, and tells the client nothing but the request id.
    pub fn internal(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let error = error.into();
        tracing::error!(error = %Chain(error.as_ref()), "a request failed");
        Self::internal_unlogged()
    }

    /// 500 for an error that was logged where it happened.
    pub(crate) fn internal_unlogged() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "something went wrong on our side")
    }

    /// The problem of a bare status, as the router and its layers answer them.
    pub fn from_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::unauthorized(),
            StatusCode::FORBIDDEN => Self::forbidden(),
            StatusCode::NOT_FOUND => Self::not_found(),
            StatusCode::METHOD_NOT_ALLOWED => {
                Self::new(status, "method_not_allowed", "this method is not possible here: see Allow")
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(status, "payload_too_large", "the body may have at most 1 MiB")
            }
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                Self::new(status, "unsupported_media_type", "send the body as application/json")
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => {
                Self::service_unavailable("no answer in time: try again")
            }
            server_error if server_error.is_server_error() => Self::internal_unlogged(),
            other => Self::new(other, "bad_request", "the request is not right"),
        }
    }

    /// The same problem with errors by field.
    #[must_use]
    pub fn with_error(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.errors.insert(field.to_owned(), value.into());
        self
    }

    /// The same problem with a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// The same problem with the position of what was written all the same: that an order was rejected, a card declined.
    #[must_use]
    pub fn with_position(mut self, service: &str, aggregate_id: &str, position: i64) -> Self {
        self.0.place = Some(answer::written(&mut self.0.headers, service, aggregate_id, position));
        self
    }

    /// The same problem with `Retry-After`, in whole seconds, at least 1.
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable code.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// What is wrong with which field.
    pub fn errors(&self) -> &FieldErrors {
        &self.0.errors
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.0.code, self.0.detail)
    }
}

impl Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let content = *self.0;
        let body = ProblemBody {
            type_uri: format!("/docs/problems/{}", content.code),
            title: title(&content.code),
            status: content.status.as_u16(),
            detail: content.detail,
            instance: request_id::current(),
            code: content.code.into_owned(),
            errors: content.errors,
        };
        let media_type = [(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))];
        let mut response = (content.status, content.headers, media_type, Json(body)).into_response();
        if let Some(place) = content.place {
            response.extensions_mut().insert(place);
        }
        response
    }
}

/// `insufficient_stock` → `Insufficient stock`.
fn title(code: &str) -> String {
    let words = code.replace('_', " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// An error with all its causes.
struct Chain<'a>(&'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// A middleware that makes problem documents of the bare refusals of the router and its layers (404, 405, 413,
/// …), whose headers, such as `Allow`, are kept.
pub async fn dress_refusals(request: Request, inner: impl AsyncFnOnce(Request) -> Response) -> Response {
    let response = inner(request).await;
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    let plain = response.headers().get(CONTENT_TYPE).is_none_or(|media_type| {
        media_type.as_bytes().starts_with(b"text/plain") || response.body().is_end_stream()
    });
    if !refused || !plain {
        return response;
    }
    let mut dressed = Problem::from_status(status).into_response();
    for (name, value) in response.headers() {
        if name == ALLOW || (name != CONTENT_TYPE && name != CONTENT_LENGTH) {
            dressed.headers_mut().insert(name.clone(), value.clone());
        }
    }
    dressed
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    async fn body(problem: Problem) -> Value {
        let response = problem.into_response();
        assert_eq!(response.headers()[CONTENT_TYPE], MEDIA_TYPE);
        let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("the body is in memory");
        serde_json::from_slice(&bytes).expect("the body is JSON")
    }

    #[tokio::test]
    async fn a_problem_is_sent_as_rfc_9457_says() {
        let problem = Problem::conflict("insufficient_stock", "not enough").with_error("items", vec!["few"]);
        let sent = request_id::scope("request-1".to_owned(), body(problem)).await;
        assert_eq!(
            sent,
            serde_json::json!({
                "type": "/docs/problems/insufficient_stock",
                "title": "Insufficient stock",
                "status": 409,
                "detail": "not enough",
                "instance": "request-1",
                "code": "insufficient_stock",
                "errors": {"items": ["few"]},
            })
        );
    }

    #[tokio::test]
    async fn an_internal_error_tells_nothing() {
        let sent = body(Problem::internal("the password of the database is x")).await;
        assert_eq!(sent["detail"], "something went wrong on our side");
        assert!(!sent.to_string().contains("password"));
    }

    #[test]
    fn times_to_wait_are_whole_seconds_rounded_up() {
        let response = Problem::too_many_requests(Duration::from_millis(1_200)).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(Problem::unauthorized().into_response().headers()[WWW_AUTHENTICATE], "Bearer");
    }
}
