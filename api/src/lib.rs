//! The edge of Online Mart: HTTP and gRPC, who is asking, and the wiring of the binary `mart`.
//!
//! A handler extracts, acts, answers: nothing else. A route module has a draft of each body, a check that makes
//! it a command, handlers, and one function that lists the routes:
//!
//! ```
//! use api::check::{Check, Field};
//! use api::extract::{Json, Path};
//! use api::problem::Problem;
//! use api::text;
//! use axum::extract::State;
//! use axum::http::StatusCode;
//! use serde::{Deserialize, Serialize};
//! use utoipa::ToSchema;
//! use utoipa_axum::{router::OpenApiRouter, routes};
//! use uuid::Uuid;
//!
//! # #[derive(Clone)] struct Shop;
//! # impl Shop { async fn rename(&self, _: Uuid, _: Rename) -> Result<Shelf, Problem> { Ok(Shelf { name: "x".into() }) } }
//! /// What a client sends: every field may be missing or wrong, and all of it is reported at once.
//! #[derive(Deserialize, ToSchema)]
//! #[serde(deny_unknown_fields)]
//! struct RenameDraft {
//!     #[serde(default)]
//!     #[schema(value_type = String, required)]
//!     name: Field<String>,
//! }
//!
//! /// What the domain takes.
//! struct Rename {
//!     name: String,
//! }
//!
//! impl RenameDraft {
//!     fn check(self) -> Result<Rename, Problem> {
//!         let mut check = Check::new();
//!         let name = check.required("name", self.name, |value: String| text::line(&value, 1..=100));
//!         check.finish(|| Some(Rename { name: name? }))
//!     }
//! }
//!
//! #[derive(Serialize, ToSchema)]
//! struct Shelf {
//!     name: String,
//! }
//!
//! /// Renames a shelf.
//! #[utoipa::path(patch, path = "/v1/shelves/{id}", params(("id" = Uuid, Path)), request_body = RenameDraft,
//!     responses((status = OK, body = Shelf), (status = UNPROCESSABLE_ENTITY, body = api::problem::ProblemBody)))]
//! async fn rename_shelf(
//!     State(shop): State<Shop>,
//!     Path(id): Path<Uuid>,
//!     Json(draft): Json<RenameDraft>,
//! ) -> Result<(StatusCode, axum::Json<Shelf>), Problem> {
//!     let shelf = shop.rename(id, draft.check()?).await?;
//!     Ok((StatusCode::OK, axum::Json(shelf)))
//! }
//!
//! pub fn routes() -> OpenApiRouter<Shop> {
//!     OpenApiRouter::new().routes(routes!(rename_shelf))
//! }
//! # let _ = routes();
//! ```

pub mod arrivals;
pub mod auth;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod contacts;
pub mod decimal;
pub mod demo;
pub mod documentation;
pub mod extract;
#[cfg(feature = "failpoints")]
pub mod failpoints;
pub mod gateway;
pub mod grpc;
pub mod headers;
pub mod hearing;
pub mod keys;
pub mod limits;
pub mod listing;
pub mod mail;
pub mod open;
pub mod passwords;
pub mod problem;
pub mod process;
pub mod reads;
pub mod request_id;
pub mod roles;
pub mod routes;
pub mod running;
pub mod server;
pub mod service;
pub mod services;
pub mod stop_signals;
pub mod telemetry;
pub mod text;
pub mod tls;
pub mod tokens;
pub mod trace_context;
pub mod unknown_fields;
pub mod work;
