//! The edge over real connections: whatever a client does, the answer is one that the interface promises.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::documentation::{self, Readiness, ReadinessCheck};
use api::extract::Json;
use api::server::{self, ServerOptions};
use axum::routing::{get, post};
use axum::{Router, extract::DefaultBodyLimit};
use futures::FutureExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

/// How long the slow route takes.
const SLOW: Duration = Duration::from_millis(300);

struct Edge {
    address: SocketAddr,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    client: reqwest::Client,
    /// Told when a request for /v1/slow is being worked on.
    slow_begun: Arc<Notify>,
}

impl Edge {
    async fn start(options: ServerOptions) -> Self {
        api::tls::install_provider();
        api::telemetry::install_metrics();
        let ready: ReadinessCheck = Arc::new(|| {
            async { Readiness { ready: false, degraded: vec!["warming up".to_owned()] } }.boxed()
        });
        let slow_begun = Arc::new(Notify::new());
        let slow = {
            let begun = Arc::clone(&slow_begun);
            move || async move {
                begun.notify_one();
                tokio::time::sleep(SLOW).await;
            }
        };
        let routes = Router::new()
            .route("/v1/echo", post(|Json(body): Json<Value>| async { axum::Json(body) }))
            .route(
                "/v1/panic",
                get(|| async {
                    if true {
                        panic!("on purpose")
                    }
                }),
            )
            .route("/v1/slow", get(slow))
            .route("/v1/things/{id}", get(|| async { "a thing" }))
            .layer(DefaultBodyLimit::disable());
        let router = documentation::router(OpenApiRouter::new(), ready).merge(routes);
        let listener = server::listen("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let stop = CancellationToken::new();
        let serving =
            tokio::spawn(server::serve(listener, server::edge(router, &options), options, stop.clone()));
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { address, stop, serving, client, slow_begun }
    }

    async fn usual() -> Self {
        Self::start(ServerOptions::default()).await
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    async fn problem(&self, request: reqwest::RequestBuilder) -> (u16, Value, reqwest::header::HeaderMap) {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["content-security-policy"], "default-src 'none'; frame-ancestors 'none'");
        let body: Value = response.json().await.expect("JSON");
        assert_eq!(body["instance"], headers["x-request-id"].to_str().expect("text"));
        (status, body, headers)
    }
}

#[tokio::test]
async fn every_refusal_is_a_problem_document_with_the_request_id() {
    let edge = Edge::usual().await;
    let (status, body, _) = edge.problem(edge.get("/nowhere").header("x-request-id", "mine")).await;
    assert_eq!(
        (status, body["code"].as_str(), body["instance"].as_str()),
        (404, Some("not_found"), Some("mine"))
    );

    let (status, body, headers) = edge.problem(edge.get("/v1/echo")).await;
    assert_eq!((status, body["code"].as_str()), (405, Some("method_not_allowed")));
    assert_eq!(headers["allow"], "POST");

    let (status, body, _) = edge.problem(edge.get("/v1/panic")).await;
    assert_eq!((status, body["code"].as_str()), (500, Some("internal_error")));

    let (status, body, headers) = edge.problem(edge.get("/readyz")).await;
    assert_eq!((status, &body["errors"]["degraded"][0]), (503, &Value::from("warming up")));
    assert!(headers.contains_key("retry-after"));

    let echo = edge.client.post(format!("http://{}/v1/echo", edge.address));
    let (status, _, _) =
        edge.problem(echo.header("content-type", "application/json").body(" ".repeat(2_000_000))).await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn the_mart_says_what_it_is_and_shows_its_documentation() {
    let edge = Edge::usual().await;
    let information: Value = edge.get("/").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(information["name"], "Online Mart");
    assert_eq!(edge.get("/livez").send().await.expect("an answer").status(), 200);
    let document: Value =
        edge.get("/v1/openapi.json").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    let page = edge.get("/docs/").send().await.expect("an answer");
    assert!(page.headers()["content-security-policy"].to_str().expect("text").contains("script-src 'self'"));
    assert!(page.text().await.expect("text").contains("swagger"));
}

#[tokio::test]
async fn metrics_name_templates_and_not_paths() {
    let edge = Edge::usual().await;
    edge.get("/v1/things/0194a3b2").send().await.expect("an answer");
    edge.get("/secret-path").send().await.expect("an answer");
    let metrics = edge.get("/metrics").send().await.expect("an answer").text().await.expect("text");
    assert!(metrics.contains(r#"route="/v1/things/{id}""#), "{metrics}");
    assert!(!metrics.contains("0194a3b2") && !metrics.contains("secret-path"), "{metrics}");
}

#[tokio::test]
async fn what_takes_too_long_or_is_too_much_is_refused_with_503() {
    let slow = ServerOptions { request_timeout: Duration::from_millis(50), ..ServerOptions::default() };
    let edge = Edge::start(slow).await;
    assert_eq!(edge.problem(edge.get("/v1/slow")).await.0, 503);

    let narrow = ServerOptions { concurrent_requests: 1, ..ServerOptions::default() };
    let edge = Edge::start(narrow).await;
    let (first, second) = tokio::join!(edge.get("/v1/slow").send(), edge.get("/v1/slow").send());
    let mut statuses = [first, second].map(|answer| answer.expect("an answer").status().as_u16());
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_hung_up_on() {
    let hasty = ServerOptions { header_read_timeout: Duration::from_millis(50), ..ServerOptions::default() };
    let edge = Edge::start(hasty).await;
    let mut stream = TcpStream::connect(edge.address).await.expect("a connection");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: ").await.expect("it is open");
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the connection is still open");
}

#[tokio::test]
async fn a_stopping_server_ends_what_it_has_begun() {
    let edge = Edge::usual().await;
    let request = tokio::spawn(edge.get("/v1/slow").send());
    edge.slow_begun.notified().await;
    edge.stop.cancel();
    let answer = request.await.expect("it ends").expect("an answer");
    assert_eq!(answer.status(), 200);
    edge.serving.await.expect("the server ends");
}

/// The head of the next answer on a connection; nothing when the server has ended it.
async fn next_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"a thing") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).expect("text").to_lowercase()
}

#[tokio::test]
async fn a_stopping_server_tells_before_it_ends_a_kept_connection() {
    const ASK: &[u8] = b"GET /v1/things/1 HTTP/1.1\r\nHost: mart\r\n\r\n";
    let edge = Edge::usual().await;
    let mut busy = TcpStream::connect(edge.address).await.expect("a connection");
    let mut idle = TcpStream::connect(edge.address).await.expect("a connection");
    for stream in [&mut busy, &mut idle] {
        stream.write_all(ASK).await.expect("it is open");
        let head = next_head(stream).await;
        assert!(head.starts_with("http/1.1 200") && !head.contains("connection: close"), "{head}");
    }
    edge.stop.cancel();
    busy.write_all(ASK).await.expect("it is still open");
    let head = next_head(&mut busy).await;
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    assert_eq!(next_head(&mut busy).await, "");
    assert_eq!(next_head(&mut idle).await, "");
    edge.serving.await.expect("the server ends");
}

#[tokio::test]
async fn a_taken_port_is_told_in_one_sentence() {
    let edge = Edge::usual().await;
    let error = server::listen(edge.address).await.expect_err("it is taken");
    assert!(error.to_string().ends_with("choose another address with --http-addr"), "{error}");
}
