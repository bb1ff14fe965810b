//! Query strings and paging.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{DeserializeOwned, IntoDeserializer, value::MapDeserializer};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::body::form_pairs;
use crate::problem::Problem;

/// The rows of a page when the client does not say.
pub const PAGE_DEFAULT: u32 = 20;

/// The most rows of a page.
pub const PAGE_MAX: u32 = 100;

/// Longer cursors are none of ours.
const CURSOR_MAX_BYTES: usize = 1024;

/// The parameters of the query string, as a struct of `Option<String>` and the like. Unknown ones (with
/// `deny_unknown_fields`), twice given ones and those that cannot be read are 422 by name.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let pairs = form_pairs(parts.uri.query().unwrap_or_default().as_bytes()).collect::<Vec<_>>();
        if let Some((name, _)) = pairs.iter().find(|(_, value)| value.contains('\0')) {
            return Err(Problem::invalid_field(name, "must not contain the NUL character"));
        }
        let values = pairs.into_iter().map(|(name, value)| (name, QueryText(value)));
        serde_path_to_error::deserialize(MapDeserializer::new(values)).map(Self).map_err(|error| {
            let path = error.path().to_string();
            let text = error.inner().to_string();
            let named = text.split('`').nth(1).unwrap_or_default();
            if text.starts_with("unknown field") {
                return Problem::invalid_field(named, "is not a known parameter");
            }
            let of_struct = path == "." || path.is_empty();
            let message = if text.starts_with("duplicate field") {
                "was given twice"
            } else if text.starts_with("missing field") {
                "is required"
            } else {
                "cannot be read"
            };
            Problem::invalid_field(if of_struct { named } else { &path }, message)
        })
    }
}

/// A value of the query string: text, that may be read as a number, a truth value or one of several names.
struct QueryText(String);

impl<'de> IntoDeserializer<'de, serde::de::value::Error> for QueryText {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! read_as {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            match self.0.parse::<$type>() {
                Ok(value) => visitor.$visit(value),
                Err(error) => Err(serde::de::Error::custom(error)),
            }
        }
    )*};
}

impl<'de> serde::Deserializer<'de> for QueryText {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: serde::de::Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: serde::de::Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    read_as! {
        deserialize_bool visit_bool bool;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        struct identifier ignored_any
    }
}

/// `limit` and `cursor` as they come; serde's `flatten` loses types, so a struct of parameters names both
/// fields itself and gives them to [`Page::new`].
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageDraft {
    /// The most rows to answer.
    #[param(minimum = 1, maximum = 100, default = 20)]
    pub limit: Option<String>,
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// How many rows, 1 to [`PAGE_MAX`].
    pub limit: u32,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
}

impl Page {
    /// Reads both parameters.
    ///
    /// # Errors
    /// 422 that names `limit` or `cursor`.
    pub fn new(limit: Option<&str>, cursor: Option<&str>) -> Result<Self, Problem> {
        let limit = match limit.map(str::parse) {
            None => PAGE_DEFAULT,
            Some(Ok(limit)) if (1..=PAGE_MAX).contains(&limit) => limit,
            Some(Ok(_) | Err(_)) => {
                return Err(Problem::invalid_field(
                    "limit",
                    format!("must be a number from 1 to {PAGE_MAX}"),
                ));
            }
        };
        Ok(Self { limit, cursor: cursor.map(Cursor::parse).transpose()? })
    }
}

impl TryFrom<PageDraft> for Page {
    type Error = Problem;

    fn try_from(draft: PageDraft) -> Result<Self, Problem> {
        Self::new(draft.limit.as_deref(), draft.cursor.as_deref())
    }
}

/// The key of the last row of a page, opaque to clients: base64url of its JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// The cursor after the row with this key.
    pub fn after(key: &impl Serialize) -> Self {
        Self(serde_json::to_string(key).expect("the keys of rows are plain values"))
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        let bytes = (text.len() <= CURSOR_MAX_BYTES).then(|| URL_SAFE_NO_PAD.decode(text).ok()).flatten();
        let json =
            bytes.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|json| !json.contains("\\u0000"));
        json.map(Self).ok_or_else(Self::refused)
    }

    /// The key.
    ///
    /// # Errors
    /// 422 when it is the cursor of another list.
    pub fn key<K: DeserializeOwned>(&self) -> Result<K, Problem> {
        serde_json::from_str(&self.0).map_err(|_| Self::refused())
    }

    fn refused() -> Problem {
        Problem::invalid_field("cursor", "must be the next_cursor of a page of this list")
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Parameters {
        search: Option<String>,
        available: Option<bool>,
        sort: Option<Sort>,
        limit: Option<String>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Sort {
        Name,
    }

    async fn read(query: &str) -> Result<Parameters, String> {
        let request = Request::get(format!("/x?{query}")).body(()).expect("the request is right");
        let (mut parts, ()) = request.into_parts();
        match Query::from_request_parts(&mut parts, &()).await {
            Ok(Query(parameters)) => Ok(parameters),
            Err(problem) => Err(problem.errors().keys().cloned().collect::<String>()),
        }
    }

    #[tokio::test]
    async fn parameters_are_read_by_their_types() {
        let parameters = read("search=100%25+x&available=true&sort=name").await;
        let expected = Parameters {
            search: Some("100% x".to_owned()),
            available: Some(true),
            sort: Some(Sort::Name),
            limit: None,
        };
        assert_eq!(parameters, Ok(expected));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_named() {
        for (query, name) in [
            ("nonsense=1", "nonsense"),
            ("available=2", "available"),
            ("sort=x", "sort"),
            ("search=%00", "search"),
            ("limit=1&limit=2", "limit"),
        ] {
            assert_eq!(read(query).await, Err(name.to_owned()), "{query}");
        }
    }

    #[test]
    fn pages_have_limits_and_opaque_cursors() {
        assert_eq!(Page::new(None, None).expect("both are optional").limit, PAGE_DEFAULT);
        for limit in ["0", "101", "-1", "x", ""] {
            let problem = Page::new(Some(limit), None).expect_err("it is out of range");
            assert!(problem.errors().contains_key("limit"), "{limit}");
        }
        let cursor = Cursor::after(&("name", 7)).to_string();
        let page = Page::new(Some("100"), Some(&cursor)).expect("the cursor is ours");
        assert_eq!(
            page.cursor.expect("it was given").key::<(String, i64)>().expect("its key"),
            ("name".to_owned(), 7)
        );
        Page::new(None, Some("***")).expect_err("it is none of ours");
    }
}
