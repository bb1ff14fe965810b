//! What happens to an order once it is paid: it leaves, arrives, and may come back.

use axum::extract::State;
use event_store::execute::Loaded;
use event_store::{Context, Target};
use uuid::Uuid;

use aggregates::lines::LineQuantity;
use aggregates::orders::{Details, Order, OrderCommand, OrderStatus};

use crate::auth::Caller;
use crate::extract::{Json, Path};
use crate::problem::{Problem, ProblemBody};
use crate::routes::orders::decision::with_capture_heard;
use crate::routes::orders::drafts::{PartDraft, ReturnDraft};
use crate::routes::orders::give;
use crate::routes::orders::view::{OrderBody, show};
use crate::routes::staff::Staff;
use crate::service::{Answer, Write, engine};
use crate::services::OrdersService;

/// Sends lines of a paid order off: those named, or all that are left.
#[utoipa::path(post, path = "/v1/orders/{id}/shipments", tag = "orders", params(("id" = Uuid, Path)),
    request_body = PartDraft, security(("bearer" = [])),
    responses((status = OK, body = OrderBody), (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody), (status = NOT_FOUND, body = ProblemBody),
        (status = CONFLICT, body = ProblemBody, description = "`not_shippable`, `not_paid`, `more_than_open`"),
        (status = PRECONDITION_FAILED, body = ProblemBody), (status = UNPROCESSABLE_ENTITY, body = ProblemBody)))]
pub(super) async fn ship_order(
    State(service): State<OrdersService>,
    _staff: Staff,
    Path(id): Path<Uuid>,
    write: Write,
    draft: Result<Json<PartDraft>, Problem>,
) -> Result<Answer<OrderBody>, Problem> {
    let id = id.to_string();
    placed(&with_capture_heard(&service, &id).await?)?;
    let lines = draft?.0.check()?;
    tell(&service, &id, OrderCommand::Ship { lines }, write.context()).await
}

/// Says that a shipped order arrived. It arrives as a whole: lines that are named must be all of them.
#[utoipa::path(post, path = "/v1/orders/{id}/deliveries", tag = "orders", params(("id" = Uuid, Path)),
    request_body = PartDraft, security(("bearer" = [])),
    responses((status = OK, body = OrderBody), (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody), (status = NOT_FOUND, body = ProblemBody),
        (status = CONFLICT, body = ProblemBody, description = "`not_deliverable`"),
        (status = PRECONDITION_FAILED, body = ProblemBody), (status = UNPROCESSABLE_ENTITY, body = ProblemBody)))]
pub(super) async fn deliver_order(
    State(service): State<OrdersService>,
    _staff: Staff,
    Path(id): Path<Uuid>,
    write: Write,
    draft: Result<Json<PartDraft>, Problem>,
) -> Result<Answer<OrderBody>, Problem> {
    let id = id.to_string();
    let loaded = service.orders.load(&id).await.map_err(engine)?;
    let details = placed(&loaded)?;
    let named = draft?.0.check()?;
    let all = details.lines.iter().map(|line| line.bought.without_price());
    if !named.is_empty() && !same_lines(&named, &all.collect::<Vec<_>>()) {
        return Err(Problem::invalid_field("items", "must be all lines of the order, or none"));
    }
    tell(&service, &id, OrderCommand::Deliver, write.context()).await
}

/// Sends lines of a delivered order back, and takes them in.
///
/// The owner announces a return. Staff say that it arrived; one that nobody announced is announced and taken in
/// at once.
#[utoipa::path(post, path = "/v1/orders/{id}/returns", tag = "orders", params(("id" = Uuid, Path)),
    request_body = ReturnDraft, security(("bearer" = [])),
    responses((status = OK, body = OrderBody), (status = UNAUTHORIZED, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody),
        (status = CONFLICT, body = ProblemBody, description = "`not_returnable`, `more_than_open`"),
        (status = PRECONDITION_FAILED, body = ProblemBody), (status = UNPROCESSABLE_ENTITY, body = ProblemBody)))]
pub(super) async fn return_order(
    State(service): State<OrdersService>,
    caller: Caller,
    Path(id): Path<Uuid>,
    write: Write,
    draft: Result<Json<ReturnDraft>, Problem>,
) -> Result<Answer<OrderBody>, Problem> {
    let id = id.to_string();
    let loaded = service.orders.load(&id).await.map_err(engine)?;
    let details = placed(&loaded)?;
    let is_staff = caller.must_be_staff().is_ok();
    if !is_staff && details.user_id.0 != caller.user_id {
        return Err(Problem::not_found());
    }
    let returned = draft?.0.check()?;
    if !is_staff {
        if returned.resellable.is_some() {
            return Err(Problem::invalid_field("resellable", "is for those who take the return in"));
        }
        let command = OrderCommand::RequestReturn { lines: returned.items };
        return tell(&service, &id, command, write.context()).await;
    }
    let announced = matches!(details.status, OrderStatus::ReturnRequested | OrderStatus::Returned);
    let mut expected = write.expected;
    if !announced {
        let command = OrderCommand::RequestReturn { lines: returned.items };
        give(&service, Target::Existing(id.clone()), command, write.context()).await?;
        expected = None;
    } else if !returned.items.is_empty() && !same_lines(&returned.items, &details.returning) {
        return Err(Problem::invalid_field("items", "must be what the customer announced, or nothing"));
    }
    let command = OrderCommand::ReceiveReturn { resellable: returned.resellable.unwrap_or(true) };
    tell(&service, &id, command, Context { expected, ..write.step("receive") }).await
}

fn placed(loaded: &Loaded<Order>) -> Result<&Details, Problem> {
    loaded.aggregate.details().ok_or_else(Problem::not_found)
}

async fn tell(
    service: &OrdersService,
    id: &str,
    command: OrderCommand,
    context: Context<Order>,
) -> Result<Answer<OrderBody>, Problem> {
    let done = give(service, Target::Existing(id.to_owned()), command, context).await?;
    let loaded = Loaded::at(done.state, done.version);
    show(service, id, &loaded, None).await
}

/// Whether two lists name the same quantities, in whatever order.
fn same_lines(some: &[LineQuantity], others: &[LineQuantity]) -> bool {
    let sorted = |lines: &[LineQuantity]| {
        let mut lines = lines.to_vec();
        lines.sort_unstable();
        lines
    };
    sorted(some) == sorted(others)
}

#[cfg(test)]
mod tests {
    use aggregates::identifiers::ProductId;

    use super::*;

    #[test]
    fn the_order_of_lines_does_not_matter() {
        let line = |product: u128, quantity| LineQuantity {
            product_id: ProductId(Uuid::from_u128(product)),
            quantity,
        };
        assert!(same_lines(&[line(1, 2), line(2, 1)], &[line(2, 1), line(1, 2)]));
        assert!(!same_lines(&[line(1, 2)], &[line(1, 1)]));
        assert!(!same_lines(&[line(1, 2)], &[line(1, 2), line(2, 1)]));
    }
}
