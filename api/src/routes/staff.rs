//! Who works for the mart.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::auth::Caller;
use crate::problem::Problem;

/// A caller who is staff or an admin. Taken before the path and the body, so that 401 and 403 come first.
#[derive(Debug, Clone)]
pub(crate) struct Staff;

impl<S: Send + Sync> FromRequestParts<S> for Staff {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Caller::from_request_parts(parts, state).await?.must_be_staff()?;
        Ok(Self)
    }
}
