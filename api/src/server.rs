//! Serving: hyper with time limits on everything that a client can draw out, and an end without cut answers.

use std::any::Any;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::CONNECTION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{ServiceBuilder, ServiceExt};

use crate::extract::BODY_MAX_BYTES;
use crate::headers::{self, HeaderOptions};
use crate::problem::{self, Problem};
use crate::{request_id, telemetry, unknown_fields};

/// The pause after a failed `accept`, such as one without free file descriptors: trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long and how much.
#[derive(Debug, Clone, Copy)]
pub struct ServerOptions {
    /// How long a client may take to send the head of a request, and to begin the next one.
    pub header_read_timeout: Duration,
    /// The most bytes of the head of a request.
    pub head_max_bytes: usize,
    /// How long a request may take until its answer begins.
    pub request_timeout: Duration,
    /// Requests that are worked on at the same time; more are refused at once.
    pub concurrent_requests: usize,
    /// Connections that are open at the same time; more wait in the system's queue.
    pub connections: usize,
    /// How long a server that stops still takes requests. Each of their answers ends its connection, so that
    /// no connection is closed on a client that is just about to use it again.
    pub part_within: Duration,
    /// How long requests in progress may take to end after that.
    pub drain_within: Duration,
    /// Whether only a gateway of ours connects: it ends TLS, and names the client in `X-Forwarded-For`.
    pub behind_gateway: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            header_read_timeout: Duration::from_secs(10),
            head_max_bytes: 64 * 1024,
            request_timeout: Duration::from_secs(30),
            concurrent_requests: 1024,
            connections: 8192,
            part_within: Duration::from_secs(1),
            drain_within: Duration::from_secs(20),
            behind_gateway: false,
        }
    }
}

/// Why a server could not begin to listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Another program listens there.
    #[error("{0} is taken: stop what listens there, or choose another address with --http-addr")]
    AddressTaken(SocketAddr),
    /// The address is not ours, or the port needs more rights.
    #[error("cannot listen on {address}: choose another address with --http-addr")]
    Listen {
        /// The wanted address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Where the client is. A request that came over no connection, as in tests, is from nowhere: `0.0.0.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// The other end of the connection; or behind a gateway what that added to `X-Forwarded-For`, which is the
    /// last entry: the ones before come from the client, who can write anything.
    fn of(headers: &HeaderMap, peer: SocketAddr, behind_gateway: bool) -> Self {
        let last =
            headers.get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
        let named = last.and_then(|text| text.rsplit(',').next()?.trim().parse().ok());
        Self(named.filter(|_| behind_gateway).unwrap_or(peer.ip()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
    }
}

/// Begins to listen, so that a taken port is told before anything else is started.
///
/// # Errors
/// [`ServerError`], in one sentence that says what to do.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServerError::AddressTaken(address),
        _ => ServerError::Listen { address, source },
    })
}

/// Puts everything around the routes that every request needs: the request id and the log, security headers,
/// problem documents, and the limits.
pub fn edge(routes: Router, options: &ServerOptions) -> Router {
    let limits = Limits {
        slots: Arc::new(Semaphore::new(options.concurrent_requests)),
        timeout: options.request_timeout,
    };
    let headers = HeaderOptions { behind_tls: options.behind_gateway };
    let body_limit = axum::extract::DefaultBodyLimit::max(BODY_MAX_BYTES);
    let around = middleware::from_fn_with_state((limits, headers), around);
    routes.layer(ServiceBuilder::new().layer(around).layer(body_limit))
}

/// All of it in one layer: each layer of a router copies and boxes all that is inside of it, for each request.
async fn around(
    State((limits, headers)): State<(Limits, HeaderOptions)>,
    request: Request,
    next: Next,
) -> Response {
    let answered =
        async move |request| unknown_fields::collect(request, async |request| next.run(request).await).await;
    let limited = async move |request| within_limits(&limits, request, answered).await;
    let caught = async move |request| catch_panic(request, limited).await;
    let dressed = async move |request| problem::dress_refusals(request, caught).await;
    let secured = async move |request| headers::secure(headers, request, dressed).await;
    let observed = async move |request| telemetry::observe(request, secured).await;
    request_id::assign(request, observed).await
}

#[derive(Debug, Clone)]
struct Limits {
    slots: Arc<Semaphore>,
    timeout: Duration,
}

/// Refuses what is too much at once, and gives up on what takes too long.
async fn within_limits(
    limits: &Limits,
    request: Request,
    inner: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let Ok(_slot) = limits.slots.try_acquire() else {
        return Problem::service_unavailable("too many requests at once: try again").into_response();
    };
    match tokio::time::timeout(limits.timeout, inner(request)).await {
        Ok(response) => response,
        Err(_) => Problem::service_unavailable("no answer in time: try again").into_response(),
    }
}

/// Answers for a handler that panics. What that has left behind is its own: handlers share nothing that a panic could
/// leave half done without poisoning it.
async fn catch_panic(request: Request, inner: impl AsyncFnOnce(Request) -> Response) -> Response {
    AssertUnwindSafe(inner(request)).catch_unwind().await.unwrap_or_else(panicked)
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    tracing::error!(panic = event_store::panics::text(panic.as_ref()), "a request handler panicked");
    Problem::internal_unlogged().into_response()
}

/// Serves until `stop` is cancelled. Then it parts from its clients: for a moment it goes on, and says with each
/// answer that the connection ends; then it closes what is left and lets the requests in progress end. A client
/// that keeps connections loses none of its requests.
pub async fn serve(listener: TcpListener, router: Router, options: ServerOptions, stop: CancellationToken) {
    let server = Server {
        listener,
        router,
        graceful: GracefulShutdown::new(),
        slots: Arc::new(Semaphore::new(options.connections)),
        open: TaskTracker::new(),
        stop,
        options,
    };
    loop {
        tokio::select! {
            () = server.stop.cancelled() => break,
            () = server.accept() => {}
        }
    }
    server.open.close();
    let parting = tokio::time::sleep(server.options.part_within);
    tokio::pin!(parting);
    loop {
        tokio::select! {
            // What waits in the system's queue comes first: it would be reset with the listener.
            biased;
            () = server.accept() => {}
            () = server.open.wait() => break,
            () = &mut parting => break,
        }
    }
    let Server { listener, graceful, options, .. } = server;
    drop(listener);
    if tokio::time::timeout(options.drain_within, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests in progress were cut off: they took too long to end");
    }
}

struct Server {
    listener: TcpListener,
    router: Router,
    graceful: GracefulShutdown,
    slots: Arc<Semaphore>,
    open: TaskTracker,
    stop: CancellationToken,
    options: ServerOptions,
}

impl Server {
    /// Takes the next connection and serves it in a task of its own.
    async fn accept(&self) {
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        match self.listener.accept().await {
            Ok((stream, peer)) => {
                let connection = self.graceful.watch(self.connection(stream, peer));
                self.open.spawn(async move {
                    // A client that goes away in the middle is nothing to tell anybody.
                    let _ = connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send + use<> {
        // Answers are small and written at once: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let behind_gateway = self.options.behind_gateway;
        let (router, stop) = (self.router.clone(), self.stop.clone());
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            let client = ClientAddress::of(request.headers(), peer, behind_gateway);
            request.extensions_mut().insert(client);
            let answer = router.clone().oneshot(request);
            let stop = stop.clone();
            async move {
                let mut answer = answer.await.unwrap_or_else(|never| match never {});
                if stop.is_cancelled() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.header_read_timeout)
            .max_buf_size(self.options.head_max_bytes)
            .serve_connection(TokioIo::new(stream), service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gateway_is_believed_where_the_client_is() {
        let peer = SocketAddr::from(([192, 0, 2, 1], 4711));
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "10.0.0.1, 198.51.100.7".parse().expect("a header"));
        let client = IpAddr::from([198, 51, 100, 7]);
        assert_eq!(ClientAddress::of(&headers, peer, true), ClientAddress(client));
        assert_eq!(ClientAddress::of(&headers, peer, false), ClientAddress(peer.ip()));
        assert_eq!(ClientAddress::of(&HeaderMap::new(), peer, true), ClientAddress(peer.ip()));
    }
}
