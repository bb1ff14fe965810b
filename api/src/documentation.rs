//! The OpenAPI document, made of the handlers' own annotations, the pages that show it, and the routes that say
//! how the mart is.

mod conventions;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Json, routing::get};
use futures::future::BoxFuture;
use serde::Serialize;
use utoipa::openapi::OpenApi as OpenApiDocument;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use crate::problem::{Problem, ProblemBody};
use crate::telemetry;

/// Where the document is.
pub const DOCUMENT_PATH: &str = "/v1/openapi.json";

/// The text format of Prometheus.
const METRICS_MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Online Mart",
        description = "An event-sourced online mart. Every write answers with `Mart-Position`; every refusal is a problem document (RFC 9457) with a stable `code`."
    ),
    paths(information, live, ready, metrics),
    components(schemas(ProblemBody)),
    modifiers(&BearerToken)
)]
struct Document;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut OpenApiDocument) {
        let scheme = Http::builder().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// Whether the mart can do its work, as `/readyz` says it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Readiness {
    /// Whether requests should come here.
    pub ready: bool,
    /// What is not as it should be, in words; a broker that is down is named here and the mart is ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<String>,
}

/// Looks at everything that readiness depends on.
pub type ReadinessCheck = Arc<dyn Fn() -> BoxFuture<'static, Readiness> + Send + Sync>;

/// What this is.
#[derive(Debug, Serialize, ToSchema)]
struct Information {
    name: &'static str,
    version: &'static str,
    docs: &'static str,
}

/// Says what this is and where it is described.
#[utoipa::path(get, path = "/", tag = "mart", responses((status = OK, body = Information)))]
async fn information() -> Json<Information> {
    Json(Information { name: "Online Mart", version: env!("CARGO_PKG_VERSION"), docs: "/docs" })
}

/// Says that the process is alive.
#[utoipa::path(get, path = "/livez", tag = "mart", responses((status = OK, description = "alive")))]
async fn live() -> &'static str {
    "alive\n"
}

/// Says whether requests should come here: the database answers and the work in the background goes on.
#[utoipa::path(get, path = "/readyz", tag = "mart", responses(
    (status = OK, body = Readiness), (status = SERVICE_UNAVAILABLE, body = ProblemBody)))]
async fn ready(State(readiness): State<ReadinessCheck>) -> Response {
    answer_readiness(readiness().await)
}

/// Counts and measures what the process does, in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "mart",
    responses((status = OK, body = String, content_type = "text/plain")))]
async fn metrics() -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_MEDIA_TYPE)], telemetry::render_metrics())
}

/// The routes of the services with the document's frame.
pub fn document(routes: OpenApiRouter) -> OpenApiRouter {
    let mut all = OpenApiRouter::with_openapi(Document::openapi()).merge(routes);
    conventions::complete(all.get_openapi_mut());
    all
}

/// Makes a router of routes, with the pages, the document and what every process tells of itself.
pub fn router(routes: OpenApiRouter, readiness: ReadinessCheck) -> Router {
    // Behind a gateway the mart is one: whichever process is asked shows the whole of it.
    let whole = document(crate::routes::document()).into_openapi();
    let (router, _) = routes.split_for_parts();
    router.merge(state(readiness)).merge(SwaggerUi::new("/docs").url(DOCUMENT_PATH, whole))
}

/// Makes a router of what every process tells of itself: what it is, whether it lives, whether it can do its
/// work, and its measurements.
pub fn state(readiness: ReadinessCheck) -> Router {
    Router::new()
        .route("/", get(information))
        .route("/livez", get(live))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(metrics))
}

fn answer_readiness(readiness: Readiness) -> Response {
    if readiness.ready {
        return Json(readiness).into_response();
    }
    Problem::service_unavailable("not ready yet").with_error("degraded", readiness.degraded).into_response()
}
