//! Speaking HTTP to a mart.

use std::fmt;
use std::pin::Pin;
use std::sync::Once;

use reqwest::header::HeaderMap;
use reqwest::{Body, Method, RequestBuilder};
use serde_json::Value;

/// Speaks to one mart, as nobody or with a token. Cheap to clone; connections are kept.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    /// Speaks to the mart at `base`, such as `http://127.0.0.1:8080`, as nobody.
    ///
    /// # Panics
    /// When no client can be made.
    pub fn new(base: &str) -> Self {
        static PROVIDER: Once = Once::new();
        // Some dependency brings the client TLS without saying whose; nothing here uses it.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("an HTTP client needs nothing that could be missing");
        Self { http, base: base.to_owned(), token: None }
    }

    /// The same at another mart, or at the same one elsewhere.
    #[must_use]
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// The same with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same without a token.
    #[must_use]
    pub fn nobody(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// Where it speaks to.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The token, when there is one.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Reads.
    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    /// Sends without a body; add one with [`Call::json`].
    pub fn post(&self, path: &str) -> Call {
        self.call(Method::POST, path)
    }

    /// Replaces.
    pub fn put(&self, path: &str) -> Call {
        self.call(Method::PUT, path)
    }

    /// Changes.
    pub fn patch(&self, path: &str) -> Call {
        self.call(Method::PATCH, path)
    }

    /// Removes.
    pub fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }

    /// Any method.
    pub fn call(&self, method: Method, path: &str) -> Call {
        let asked = format!("{method} {path}");
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Call { request, asked }
    }

    /// All rows of a list, page by page.
    ///
    /// # Panics
    /// When a page is refused, or no list.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let mut rows = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let from = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page = self.get(&format!("{path}{join}limit=100{from}")).await.is(200);
            rows.extend(page.body["data"].as_array().expect("a list has data").iter().cloned());
            match page.body["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return rows,
            }
        }
    }
}

/// A request that is sent when it is awaited.
#[derive(Debug)]
pub struct Call {
    request: RequestBuilder,
    asked: String,
}

impl Call {
    /// With a body of JSON.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        Self { request: self.request.json(body), ..self }
    }

    /// With any body.
    #[must_use]
    pub fn body(self, media_type: &str, body: impl Into<Body>) -> Self {
        Self { request: self.request.header("content-type", media_type).body(body), ..self }
    }

    /// With a header.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        Self { request: self.request.header(name, value), ..self }
    }

    /// Sends it.
    ///
    /// # Errors
    /// When no answer came.
    pub async fn send(self) -> Result<Reply, reqwest::Error> {
        let answer = self.request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Reply { asked: self.asked, status, headers, text, body })
    }
}

impl IntoFuture for Call {
    type Output = Reply;
    type IntoFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;

    /// Sends it; panics when no answer comes.
    fn into_future(self) -> Self::IntoFuture {
        let asked = self.asked.clone();
        Box::pin(
            async move { self.send().await.unwrap_or_else(|error| panic!("{asked} got no answer: {error}")) },
        )
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    asked: String,
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub text: String,
    /// The body as JSON; null when it is none.
    pub body: Value,
}

impl fmt::Display for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} was answered {} {}", self.asked, self.status, self.text)
    }
}

impl Reply {
    /// This answer, which must have a status.
    ///
    /// # Panics
    /// When it has another.
    #[must_use]
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert!(self.status == status, "{self}, not {status}");
        self
    }

    /// This answer, which must be a problem document of the one shape, with a status and a code.
    ///
    /// # Panics
    /// When it is anything else.
    #[track_caller]
    pub fn refuses(self, status: u16, code: &str) -> Self {
        let reply = self.is(status);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply}");
        assert_eq!(reply.body["code"], code, "{reply}");
        assert_eq!(reply.body["status"], status, "{reply}");
        let told = ["type", "title", "detail"].map(|field| reply.body[field].as_str().unwrap_or_default());
        assert!(told.iter().all(|text| !text.is_empty()), "{reply} lacks a part");
        assert_eq!(reply.body["instance"].as_str(), reply.header("x-request-id"), "{reply}");
        reply
    }

    /// This answer, which must refuse exactly these fields.
    ///
    /// # Panics
    /// When it is anything else.
    #[track_caller]
    pub fn refuses_fields(self, status: u16, code: &str, fields: &[&str]) -> Self {
        let reply = self.refuses(status, code);
        assert_eq!(reply.fields(), fields, "{reply}");
        reply
    }

    /// The fields that a problem names, sorted.
    pub fn fields(&self) -> Vec<&str> {
        let mut fields: Vec<&str> =
            self.body["errors"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        fields.sort_unstable();
        fields
    }

    /// A header, when it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A text in the body.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn text_of(&self, field: &str) -> String {
        let text = self.body[field].as_str();
        text.unwrap_or_else(|| panic!("{self} has no {field}")).to_owned()
    }
}
