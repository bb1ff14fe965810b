//! What handlers take out of a request. Each refusal is a problem with the status that the interface promises.

mod body;
mod conditions;
mod query;

use axum::extract::{FromRequestParts, Path as AxumPath};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

pub use body::{BODY_MAX_BYTES, FormOrJson, Json};
pub use conditions::{Freshness, IdempotencyKey, IfMatch, MinPosition};
pub use query::{Cursor, PAGE_DEFAULT, PAGE_MAX, Page, PageDraft, Query};

/// The parameters of the path. One that cannot be read names nothing: 404.
#[derive(Debug, Clone)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match AxumPath::from_request_parts(parts, state).await {
            Ok(AxumPath(value)) => Ok(Self(value)),
            Err(_) => Err(Problem::not_found()),
        }
    }
}
