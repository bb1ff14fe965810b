//! The headers that say under what conditions a request is to be done.

use axum::extract::FromRequestParts;
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};

use crate::problem::Problem;

/// The longest `Idempotency-Key`.
const IDEMPOTENCY_KEY_MAX_BYTES: usize = 255;

/// `Idempotency-Key`: 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(pub Option<String>);

/// `If-Match: "<version>"`; `*` asks for nothing in particular.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IfMatch(pub Option<u64>);

/// `Mart-Min-Position: <service>:<position>`: answer only what has seen this position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinPosition(pub Option<(String, u64)>);

/// Whether a write answers only when the read models show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Wait for the read models, within bounds: the default.
    Wait,
    /// `Prefer: respond-async`: answer at once.
    RespondAsync,
}

/// The only value of a header; `None` when it was not sent.
fn single<'parts>(
    parts: &'parts Parts,
    name: &HeaderName,
    expected: &str,
) -> Result<Option<&'parts str>, Problem> {
    let refused = || Problem::bad_header(name.as_str(), expected);
    let mut values = parts.headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(text)), None) => Ok(Some(text)),
        (Some(_), _) => Err(refused()),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let name = HeaderName::from_static("idempotency-key");
        let expected = "1 to 255 visible ASCII characters";
        let Some(text) = single(parts, &name, expected)? else { return Ok(Self(None)) };
        let right = (1..=IDEMPOTENCY_KEY_MAX_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if right {
            Ok(Self(Some(text.to_owned())))
        } else {
            Err(Problem::bad_header(name.as_str(), expected))
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let expected = "one entity tag, such as \"3\"";
        match single(parts, &IF_MATCH, expected)?.map(str::trim) {
            None | Some("*") => Ok(Self(None)),
            Some(tag) => tag
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'))
                .and_then(digits)
                .map(|version| Self(Some(version)))
                .ok_or_else(|| Problem::bad_header(IF_MATCH.as_str(), expected)),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MinPosition {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let name = HeaderName::from_static("mart-min-position");
        let expected = "<service>:<position>, as Mart-Position said";
        let Some(text) = single(parts, &name, expected)? else { return Ok(Self(None)) };
        let is_name =
            |service: &str| !service.is_empty() && service.bytes().all(|byte| byte.is_ascii_lowercase());
        text.split_once(':')
            .filter(|(service, _)| is_name(service))
            .and_then(|(service, position)| Some(Self(Some((service.to_owned(), digits(position)?)))))
            .ok_or_else(|| Problem::bad_header(name.as_str(), expected))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Freshness {
    type Rejection = Problem;

    /// Never refuses: RFC 7240 has preferences ignored that are not understood.
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let preferences = parts.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let asynchronous = preferences.flat_map(|text| text.split(',')).any(|preference| {
            preference.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("respond-async")
        });
        Ok(if asynchronous { Self::RespondAsync } else { Self::Wait })
    }
}

/// A number without sign; positions are kept in 64 bits with one.
fn digits(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| plain && i64::try_from(*number).is_ok())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn extract<T: FromRequestParts<(), Rejection = Problem>>(
        name: &str,
        value: &str,
    ) -> Result<T, String> {
        let request = Request::get("/").header(name, value).body(()).expect("the request is right");
        let (mut parts, ()) = request.into_parts();
        T::from_request_parts(&mut parts, &()).await.map_err(|problem| problem.code().to_owned())
    }

    #[tokio::test]
    async fn keys_are_visible_ascii() {
        let key = "a".repeat(255);
        assert_eq!(extract("idempotency-key", &key).await, Ok(IdempotencyKey(Some(key))));
        for wrong in ["", "has space", "tab\there", &"a".repeat(256)] {
            assert_eq!(
                extract::<IdempotencyKey>("idempotency-key", wrong).await,
                Err("bad_header".to_owned())
            );
        }
        assert_eq!(extract("other", "x").await, Ok(IdempotencyKey(None)));
    }

    #[tokio::test]
    async fn versions_are_entity_tags() {
        assert_eq!(extract("if-match", "\"3\"").await, Ok(IfMatch(Some(3))));
        assert_eq!(extract("if-match", "*").await, Ok(IfMatch(None)));
        for wrong in ["3", "\"x\"", "W/\"3\"", "\"-1\"", "\"1\", \"2\""] {
            assert_eq!(extract::<IfMatch>("if-match", wrong).await, Err("bad_header".to_owned()), "{wrong}");
        }
    }

    #[tokio::test]
    async fn positions_name_their_service() {
        let expected = MinPosition(Some(("orders".to_owned(), 17)));
        assert_eq!(extract("mart-min-position", "orders:17").await, Ok(expected));
        for wrong in ["orders", "17", "orders:", "orders:-1", "orders:99999999999999999999", ":1", "Orders:1"]
        {
            assert_eq!(
                extract::<MinPosition>("mart-min-position", wrong).await,
                Err("bad_header".to_owned())
            );
        }
    }

    #[tokio::test]
    async fn a_client_may_prefer_not_to_wait() {
        assert_eq!(
            extract("prefer", "handling=lenient, respond-async; wait=5").await,
            Ok(Freshness::RespondAsync)
        );
        assert_eq!(extract("prefer", "return=minimal").await, Ok(Freshness::Wait));
    }
}
