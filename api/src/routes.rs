//! The routes of all services: one module each, with a draft of each body, a check that makes it a command,
//! and handlers.

pub(crate) mod amounts;
pub mod carts;
pub mod catalog;
pub(crate) mod executed;
pub mod inventory;
pub(crate) mod moments;
pub mod notifications;
pub mod orders;
pub mod payments;
mod staff;
pub mod users;

use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

/// The document of all routes, without the services behind them.
pub fn document() -> OpenApiRouter {
    fn of<S: Clone + Send + Sync + 'static>(routes: OpenApiRouter<S>) -> OpenApi {
        routes.split_for_parts().1
    }
    let documents = [
        of(users::paths()),
        of(catalog::paths()),
        of(inventory::paths()),
        of(carts::paths()),
        of(orders::paths()),
        of(payments::paths()),
        of(notifications::paths()),
    ];
    documents
        .into_iter()
        .fold(OpenApiRouter::new(), |all, document| all.merge(OpenApiRouter::with_openapi(document)))
}
