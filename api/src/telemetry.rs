//! Logs and metrics. Routes are named by their templates: raw paths would make a series of each id, and put ids
//! of people into the metrics.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::response::Response;
use clap::ValueEnum;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::{request_id, trace_context};

/// What is logged when nobody says otherwise.
const DEFAULT_FILTER: &str = "info,sqlx=warn,hyper=warn,rdkafka=warn";

/// Upper bounds of the buckets for durations, in seconds.
const DURATION_BUCKETS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How often the exporter clears away what nobody reads.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// What a request for no known route is called.
const UNMATCHED: &str = "unmatched";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    Compact,
    /// One JSON object a line, for machines.
    Json,
}

/// Begins to log to standard error. `filter` is in the syntax of `RUST_LOG`, e.g. `info,api=debug`; a second
/// call changes nothing.
///
/// # Errors
/// When the filter cannot be read.
pub fn init(filter: Option<&str>, format: LogFormat) -> Result<(), tracing_subscriber::filter::ParseError> {
    let from_environment = std::env::var("RUST_LOG").ok();
    let text = filter.or(from_environment.as_deref()).unwrap_or(DEFAULT_FILTER);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(text)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Tests in one process call this more than once; the first wins.
    let _ = match format {
        LogFormat::Compact => subscriber.compact().with_target(false).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).with_current_span(false).try_init(),
    };
    Ok(())
}

/// Begins to count; afterwards [`render_metrics`] has something to say. Must be called within a runtime; a second
/// call changes nothing.
pub fn install_metrics() {
    RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets(&DURATION_BUCKETS).expect("there are buckets");
        let handle = match builder.install_recorder() {
            Ok(handle) => handle,
            Err(error) => {
                tracing::error!(%error, "nothing is counted");
                return None;
            }
        };
        metrics::describe_histogram!(
            "http_request_duration_seconds",
            metrics::Unit::Seconds,
            "Time until the answer began, by route, method and status"
        );
        let kept = handle.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP_EVERY).await;
                kept.run_upkeep();
            }
        });
        Some(handle)
    });
}

/// The recorder of this process; `None` inside when another one was there before.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// All metrics in the text format of Prometheus.
pub fn render_metrics() -> String {
    RECORDER.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default()
}

/// The middleware: one log line and one measurement for each request.
pub async fn observe(request: Request, inner: impl AsyncFnOnce(Request) -> Response) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = matched.unwrap_or_else(|| UNMATCHED.to_owned());
    let response = inner(request).await;
    let (elapsed, status) = (begun.elapsed(), response.status());
    let labels = [
        ("route", route.clone()),
        ("method", method_label(&method).to_owned()),
        ("status", status.as_str().to_owned()),
    ];
    metrics::histogram!("http_request_duration_seconds", &labels).record(elapsed.as_secs_f64());

    // Probes come every few seconds and say nothing as long as they succeed.
    if matches!(route.as_str(), "/livez" | "/readyz" | "/metrics") && status.is_success() {
        return response;
    }
    tracing::info!(
        method = %method,
        route,
        status = status.as_u16(),
        duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        request_id = request_id::current(),
        trace_id = trace_context::current().map(|trace| format!("{:032x}", trace.trace_id)).unwrap_or_default(),
        "request"
    );
    response
}

/// Clients can invent methods, and each would be a series of its own.
fn method_label(method: &Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
        _ => "other",
    }
}
