//! Waiting for what the stock says: whether an order can be had, and whether it can be had otherwise.

use std::time::Duration;

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use event_store::execute::Loaded;
use event_store::feed;

use aggregates::orders::{Details, Order, OrderEvent, OrderStatus, RejectedLine, Stock};

use crate::arrivals::Seat;
use crate::extract::Freshness;
use crate::problem::Problem;
use crate::routes::executed::{Done, event_at, position_of};
use crate::routes::orders::refusals::insufficient_stock;
use crate::routes::orders::view::{OrderBody, show};
use crate::service::{Answer, HEAR_WITHIN, READ_WITHIN, engine};
use crate::services::OrdersService;

/// How long an answer waits for the stock.
const DECIDED_WITHIN: Duration = Duration::from_secs(5);
/// How many events after an edit are searched for its outcome.
const EVENTS_SEARCHED: i64 = 500;

/// The answer to who placed an order: 201 when the stock holds it all, 202 while it has not answered. The order is
/// that of the seat; `placed` is the version at which it was placed, if that was after the seat was taken.
///
/// # Errors
/// 409 with the lines that are short.
pub(crate) async fn answer_placed(
    service: &OrdersService,
    seat: &Seat,
    placed: Option<i64>,
    created_at: Option<DateTime<Utc>>,
    freshness: Freshness,
) -> Result<Answer<OrderBody>, Problem> {
    let id = seat.aggregate_id();
    let loaded = match freshness {
        Freshness::RespondAsync => service.orders.load(id).await.map_err(engine)?,
        Freshness::Wait => {
            let decided = |order: &Order| status_of(order) != Some(OrderStatus::Placed);
            seat.wait_for(&service.orders, placed, DECIDED_WITHIN, decided).await.map_err(engine)?
        }
    };
    let details = loaded.aggregate.details().ok_or_else(Problem::not_found)?;
    if details.status == OrderStatus::Rejected && freshness == Freshness::Wait {
        let position = position_of(&service.orders, id, &loaded).await?;
        return Err(insufficient_stock(&rejected_lines(details)).with_position("orders", id, position));
    }
    let open = details.status == OrderStatus::Placed || freshness == Freshness::RespondAsync;
    let status = if open { StatusCode::ACCEPTED } else { StatusCode::CREATED };
    let answer = show(service, id, &loaded, created_at).await?;
    Ok(answer.with_status(status).with_location(&format!("/v1/orders/{id}")))
}

/// The answer to who edited an order: 200 when it is as wanted, 202 while the stock has not answered.
///
/// # Errors
/// 409 when the stock does not suffice, or something came between; the order is then as it was.
pub(super) async fn answer_edited(
    service: &OrdersService,
    done: Done<Order>,
    freshness: Freshness,
) -> Result<Answer<OrderBody>, Problem> {
    let id = done.id.as_str();
    let asked = event_at(&service.orders, id, done.sequence).await?.decode().map_err(engine)?;
    let OrderEvent::OrderEditRequested { revision, .. } = asked else {
        let loaded = Loaded::at(done.state, done.version);
        return show(service, id, &loaded, None).await;
    };
    let open = move |order: &Order| {
        let edit = order.details().and_then(|details| details.edit.as_ref());
        edit.is_some_and(|edit| edit.revision == revision)
    };
    let loaded = match freshness {
        Freshness::RespondAsync => service.orders.load(id).await.map_err(engine)?,
        Freshness::Wait => wait_until(service, id, DECIDED_WITHIN, |order| !open(order)).await?,
    };
    if open(&loaded.aggregate) {
        return Ok(show(service, id, &loaded, None).await?.with_status(StatusCode::ACCEPTED));
    }
    let database = service.orders.log().database();
    let after = feed::read_stream(database, "order", id, done.sequence, EVENTS_SEARCHED).await;
    for event in after.map_err(engine)? {
        if let Some(outcome) = outcome_of(&event.decode().map_err(engine)?, revision) {
            return match outcome {
                Ok(()) => show(service, id, &loaded, None).await,
                Err(problem) => Err(problem.with_position("orders", id, event.position)),
            };
        }
    }
    Err(Problem::conflict("not_editable", "the order ended while it was edited"))
}

/// What an event says about an edit, if it ends it.
fn outcome_of(event: &OrderEvent, edit: u32) -> Option<Result<(), Problem>> {
    if let OrderEvent::OrderLinesEdited { revision, .. } = event
        && *revision == edit
    {
        return Some(Ok(()));
    }
    if let OrderEvent::OrderEditRejected { revision, rejected, .. } = event
        && *revision == edit
    {
        let undone_by_payment = rejected.is_empty();
        return Some(Err(if undone_by_payment {
            Problem::conflict("payment_in_progress", "the order was paid while it was edited")
        } else {
            insufficient_stock(rejected)
        }));
    }
    None
}

/// The order once its money has arrived, where that is only a moment away: who was told that it is paid may
/// come here before the payment's news does.
///
/// # Errors
/// When the log cannot be read.
pub(super) async fn with_capture_heard(service: &OrdersService, id: &str) -> Result<Loaded<Order>, Problem> {
    wait_until(service, id, HEAR_WITHIN, |order| {
        order.details().is_none_or(|details| {
            let paying = matches!(details.status, OrderStatus::Committing | OrderStatus::Confirmed);
            !paying || details.captured.is_some()
        })
    })
    .await
}

/// The order once its cancellation is through.
///
/// # Errors
/// When the log cannot be read.
pub(super) async fn with_cancellation_settled(
    service: &OrdersService,
    id: &str,
    freshness: Freshness,
) -> Result<Loaded<Order>, Problem> {
    let limit = match freshness {
        Freshness::Wait => READ_WITHIN,
        Freshness::RespondAsync => Duration::ZERO,
    };
    wait_until(service, id, limit, |order| status_of(order) != Some(OrderStatus::Cancelling)).await
}

async fn wait_until(
    service: &OrdersService,
    id: &str,
    limit: Duration,
    wanted: impl Fn(&Order) -> bool,
) -> Result<Loaded<Order>, Problem> {
    service.arrivals.wait_for(&service.orders, id, limit, wanted).await.map_err(engine)
}

fn status_of(order: &Order) -> Option<OrderStatus> {
    order.details().map(|details| details.status)
}

/// The lines that are short.
fn rejected_lines(details: &Details) -> Vec<RejectedLine> {
    let rejected = details.lines.iter().filter_map(|line| match line.stock {
        Stock::Rejected { available } => Some(RejectedLine {
            product_id: line.bought.product_id,
            requested: line.bought.quantity,
            available,
        }),
        Stock::Asked | Stock::Held | Stock::Committed | Stock::Lost => None,
    });
    rejected.collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use aggregates::identifiers::{ProductId, UserId};

    use super::*;

    #[test]
    fn only_the_events_of_an_edit_decide_it() {
        let (user_id, product_id) = (UserId(Uuid::from_u128(1)), ProductId(Uuid::from_u128(2)));
        let rejected = |revision, rejected| OrderEvent::OrderEditRejected {
            user_id,
            revision,
            rejected,
            undo: Vec::new(),
        };
        let short = vec![RejectedLine { product_id, requested: 4, available: 0 }];
        let told = |event: &OrderEvent| {
            outcome_of(event, 2).map(|outcome| outcome.map_err(|problem| problem.code().to_owned()))
        };
        assert_eq!(told(&rejected(2, short.clone())), Some(Err("insufficient_stock".to_owned())));
        assert_eq!(told(&rejected(2, Vec::new())), Some(Err("payment_in_progress".to_owned())));
        assert_eq!(told(&rejected(1, short)), None);
        assert_eq!(told(&OrderEvent::OrderEditLineReserved { revision: 2, product_id }), None);
    }
}
