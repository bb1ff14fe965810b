//! Security headers on every answer, refusals included.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::Response;

/// Answers are data: nothing in them may be loaded, run or framed.
pub const DATA_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// The pages of the documentation load their own scripts, styles and pictures; the user interface sets styles
/// in its elements.
pub const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Two years, as the preload lists of browsers ask.
const TRANSPORT_SECURITY: HeaderValue = HeaderValue::from_static("max-age=63072000; includeSubDomains");

/// What is known about the way to the client.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeaderOptions {
    /// Whether clients come over TLS, which the gateway ends.
    pub behind_tls: bool,
}

/// The middleware. An answer that already has one of the headers keeps it.
pub async fn secure(
    options: HeaderOptions,
    request: Request,
    inner: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let private = request.headers().contains_key(AUTHORIZATION);
    let is_page = request.uri().path().starts_with("/docs");
    let read = request.method().is_safe();
    let mut response = inner(request).await;
    let refused = !response.status().is_success();
    let headers = response.headers_mut();
    let policy = if is_page { PAGE_POLICY } else { DATA_POLICY };
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(policy);
    headers.entry(X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    headers.entry(REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    // The answers to log-ins and registrations are private without any Authorization in the request.
    if private || !read || refused || headers.contains_key(SET_COOKIE) {
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    if options.behind_tls {
        headers.entry(STRICT_TRANSPORT_SECURITY).or_insert(TRANSPORT_SECURITY);
    }
    response
}
