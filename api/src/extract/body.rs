//! Bodies: JSON, or for log-in a form too.

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::problem::Problem;
use crate::unknown_fields::{self, Known};

/// The most that a body may have.
pub const BODY_MAX_BYTES: usize = 1024 * 1024;

/// A JSON body. Drafts with [`Field`](crate::check::Field)s report everything that is wrong; here only what
/// cannot be read at all is refused.
#[derive(Debug, Clone)]
pub struct Json<T>(pub T);

/// A body in JSON or as `application/x-www-form-urlencoded`, whose values are then strings.
#[derive(Debug, Clone)]
pub struct FormOrJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let media_type = media_type(request.headers());
        let (bytes, sent) = (read(request).await?, media_type);
        require_content(&bytes)?;
        if !sent.as_deref().is_some_and(is_json) {
            return Err(Problem::from_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        parse(&bytes).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for FormOrJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let media_type = media_type(request.headers()).unwrap_or_default();
        let bytes = read(request).await?;
        require_content(&bytes)?;
        if is_json(&media_type) {
            return parse(&bytes).map(Self);
        }
        if media_type != "application/x-www-form-urlencoded" {
            return Err(Problem::from_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        let object = form_pairs(&bytes)
            .map(|(name, value)| (name, Value::String(value)))
            .collect::<Map<String, Value>>();
        parse(Value::Object(object).to_string().as_bytes()).map(Self)
    }
}

/// The media type without its parameters, in lower case.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn is_json(media_type: &str) -> bool {
    media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

/// Reads the body up to its limit, whether its length was told or it comes in chunks.
async fn read(request: Request) -> Result<Bytes, Problem> {
    let too_large = || Problem::from_status(StatusCode::PAYLOAD_TOO_LARGE);
    let told =
        request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|length| length > BODY_MAX_BYTES as u64) {
        return Err(too_large());
    }
    to_bytes(request.into_body(), BODY_MAX_BYTES).await.map_err(|error| {
        use std::error::Error;
        let over = error.source().is_some_and(|cause| cause.to_string().contains("length limit"));
        if over {
            too_large()
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "bad_request", "the body ended early")
        }
    })
}

fn require_content(bytes: &[u8]) -> Result<(), Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "body_missing", "a body is needed"));
    }
    Ok(())
}

/// Reads JSON: what is no JSON is 400, what is another shape 422 with the path.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let malformed = |error: &serde_json::Error| {
        let detail = format!("the body is no JSON: see line {}, column {}", error.line(), error.column());
        Problem::new(StatusCode::BAD_REQUEST, "malformed_json", detail)
    };
    // What is no JSON is malformed, also where a field before it is wrong.
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|error| malformed(&error))?;
    // Every body is an object; serde would take the items of a list for the fields in their order.
    let is_object = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if !is_object {
        return Err(Problem::invalid_field("body", "must be an object"));
    }
    let json = std::str::from_utf8(bytes)
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "malformed_json", "the body is no UTF-8"))?;
    let refused =
        |path: &str, message| Problem::invalid_field(if path.is_empty() { "body" } else { path }, message);
    let Known { value, unknown } =
        unknown_fields::read(json).map_err(|(path, message)| refused(&path, message))?;
    match unknown.first().cloned() {
        Some(first) if !unknown_fields::leave(unknown) => {
            Err(refused(&first, unknown_fields::MESSAGE.to_owned()))
        }
        Some(_) | None => Ok(value),
    }
}

/// The pairs of `a=1&b=x+y` (WHATWG URL, application/x-www-form-urlencoded parsing).
pub(super) fn form_pairs(bytes: &[u8]) -> impl Iterator<Item = (String, String)> + '_ {
    let decode = |part: &[u8]| {
        let spaced = part.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect::<Vec<_>>();
        percent_encoding::percent_decode(&spaced).decode_utf8_lossy().into_owned()
    };
    bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        (decode(&pair[..equals]), decode(pair.get(equals + 1..).unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::check::{Check, Field};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Draft {
        #[serde(default)]
        username: Field<String>,
        #[serde(default)]
        password: Field<String>,
    }

    fn request(media_type: &str, body: impl Into<Body>) -> Request {
        Request::post("/").header(CONTENT_TYPE, media_type).body(body.into()).expect("the request is right")
    }

    async fn refused(media_type: &str, body: impl Into<Body>) -> (u16, String, Value) {
        let problem = match Json::<Draft>::from_request(request(media_type, body), &()).await {
            Ok(draft) => panic!("{draft:?} was taken"),
            Err(problem) => problem,
        };
        let errors = serde_json::to_value(problem.errors()).expect("errors are JSON");
        (problem.status().as_u16(), problem.code().to_owned(), errors)
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_told_apart() {
        let json = "application/json";
        assert_eq!(refused(json, "").await, (400, "body_missing".to_owned(), json!({})));
        for malformed in ["{", "{\"username\":5,", "nonsense", "{} {}"] {
            assert_eq!(refused(json, malformed).await.1, "malformed_json", "{malformed}");
        }
        assert_eq!(refused("text/plain", "{}").await.0, 415);
        let unknown = json!({"is_admin": ["is not a known field"]});
        assert_eq!(
            refused(json, r#"{"is_admin":true}"#).await,
            (422, "validation_failed".to_owned(), unknown)
        );
        for other in ["[1]", "5", "null", "\"text\""] {
            assert_eq!(refused(json, other).await.2, json!({"body": ["must be an object"]}), "{other}");
        }
    }

    #[tokio::test]
    async fn a_large_body_is_refused_also_in_chunks() {
        let chunk = vec![b' '; 64 * 1024];
        assert_eq!(refused("application/json", chunk.repeat(17)).await.0, 413);
        let chunks = futures::stream::iter((0..17).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
        assert_eq!(refused("application/json", Body::from_stream(chunks)).await.0, 413);
    }

    #[tokio::test]
    async fn a_form_is_read_like_an_object_of_strings() {
        let form = request("application/x-www-form-urlencoded", "username=j+d%40x.co&password=%2B1");
        let FormOrJson(draft) = FormOrJson::<Draft>::from_request(form, &()).await.expect("it is right");
        assert_eq!(draft.username, Field::Sent("j d@x.co".to_owned()));
        assert_eq!(draft.password, Field::Sent("+1".to_owned()));
    }

    #[tokio::test]
    async fn missing_fields_are_all_named() {
        let Json(draft) = Json::<Draft>::from_request(request("application/json; charset=utf-8", "{}"), &())
            .await
            .expect("it can be read");
        let mut check = Check::new();
        let username = check.required("username", draft.username, Ok);
        let password = check.required("password", draft.password, Ok);
        let problem = check.finish(|| username.zip(password)).expect_err("both are missing");
        assert_eq!(problem.errors().keys().collect::<Vec<_>>(), ["password", "username"]);
    }
}
