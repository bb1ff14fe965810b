//! Orders: placing, reading, changing and cancelling them, and what follows once they are paid.

mod decision;
mod drafts;
mod fulfilment;
mod history;
mod prices;
mod refusals;
mod view;

use axum::extract::State;
use event_store::execute::Loaded;
use event_store::{Context, Target};
use projections::orders::order_details::{OrderRow, find_order, list_orders};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use aggregates::identifiers::{OrderId, UserId};
use aggregates::orders::{Order, OrderCommand};

use crate::auth::Caller;
use crate::extract::{Json, Page, PageDraft, Path, Query};
use crate::listing::Listed;
use crate::problem::{Problem, ProblemBody};
use crate::routes::executed::{Done, carry_out};
use crate::routes::moments;
use crate::service::{self, Answer, Write, engine, ok};
use crate::services::OrdersService;

use drafts::{EditDraft, PlacementDraft};
use history::OrderHistoryEntry;

pub use view::{OrderBody, OrderItemBody};

pub(super) use decision::answer_placed;
pub(super) use drafts::{address, notes};
pub(super) use prices::{offered, price};
pub(super) use refusals::{lines_problem, mixed_currencies, problem, text_problem};
pub(super) use view::place_of;

/// The routes of orders.
pub fn paths() -> OpenApiRouter<OrdersService> {
    OpenApiRouter::new()
        .routes(routes!(place_order, list))
        .routes(routes!(read_order, edit_order, delete_order))
        .routes(routes!(cancel_order))
        .routes(routes!(read_history))
        .routes(routes!(fulfilment::ship_order))
        .routes(routes!(fulfilment::deliver_order))
        .routes(routes!(fulfilment::return_order))
}

/// The routes of orders with what surrounds them.
pub fn routes(service: OrdersService) -> OpenApiRouter {
    let surroundings = service.surroundings.clone();
    service::surround(paths().with_state(service), surroundings)
}

/// When an order is looked at.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ReadingDraft {
    /// A moment (RFC 3339), or a date: the order as it was then, or at the end of that day.
    as_of: Option<String>,
}

/// Places an order.
///
/// Answers when the stock has decided. With `Prefer: respond-async` it answers 202 at once.
#[utoipa::path(post, path = "/v1/orders", tag = "orders", request_body = PlacementDraft,
    security(("bearer" = [])),
    responses(
        (status = CREATED, body = OrderBody, description = "all lines are held; to be paid until `pay_by`"),
        (status = ACCEPTED, body = OrderBody, description = "the stock has not answered yet"),
        (status = UNAUTHORIZED, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody, description = "`product_unknown`"),
        (status = CONFLICT, body = ProblemBody, description = "`insufficient_stock`, with the lines; `product_unavailable`"),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody, description = "also `mixed_currencies`")))]
async fn place_order(
    State(service): State<OrdersService>,
    caller: Caller,
    write: Write,
    draft: Result<Json<PlacementDraft>, Problem>,
) -> Result<Answer<OrderBody>, Problem> {
    let placement = draft?.0.check()?;
    let lines = price(&service, &placement.items).await?;
    let order_id = OrderId(Uuid::now_v7());
    let command = OrderCommand::PlaceOrder {
        order_id,
        user_id: UserId(caller.user_id),
        lines,
        shipping_address: placement.shipping_address,
        customer_notes: placement.customer_notes,
        from_cart: false,
        pay_within_seconds: pay_within_seconds(&service),
    };
    let mut seat = service.arrivals.seat(&order_id.to_string());
    let target = Target::New(order_id.to_string());
    let placed = give(&service, target, command, write.context()).await?;
    let version = (!placed.repeated).then_some(placed.sequence);
    if placed.repeated {
        seat = service.arrivals.seat(&placed.id);
    }
    answer_placed(&service, &seat, version, placed.recorded_at, write.freshness).await
}

/// How long an order may be unpaid, as the domain counts it.
pub(super) fn pay_within_seconds(service: &OrdersService) -> u32 {
    u32::try_from(service.pay_within.as_secs()).unwrap_or(u32::MAX)
}

/// Lists orders, newest first: one's own, or for admins all.
#[utoipa::path(get, path = "/v1/orders", tag = "orders", params(PageDraft), security(("bearer" = [])),
    responses((status = OK, body = Listed<OrderBody>), (status = UNAUTHORIZED, body = ProblemBody),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody)))]
async fn list(
    State(service): State<OrdersService>,
    caller: Caller,
    Query(draft): Query<PageDraft>,
) -> Result<Answer<Listed<OrderBody>>, Problem> {
    let page = Page::try_from(draft)?;
    let after = page.cursor.map(|cursor| cursor.key::<Uuid>()).transpose()?;
    let whose = (!caller.is_admin()).then_some(caller.user_id);
    let found = list_orders(&service.details, whose, after, page.limit).await.map_err(engine)?;
    let orders = found.rows.into_iter().map(OrderBody::of_row).collect::<Result<Vec<_>, _>>()?;
    Ok(ok(Listed::new(orders, found.next)))
}

/// Shows an order, as it is or as it was.
#[utoipa::path(get, path = "/v1/orders/{id}", tag = "orders", params(("id" = Uuid, Path), ReadingDraft),
    security(("bearer" = [])),
    responses((status = OK, body = OrderBody), (status = UNAUTHORIZED, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody), (status = UNPROCESSABLE_ENTITY, body = ProblemBody)))]
async fn read_order(
    State(service): State<OrdersService>,
    caller: Caller,
    Path(id): Path<Uuid>,
    reading: Result<Query<ReadingDraft>, Problem>,
) -> Result<Answer<OrderBody>, Problem> {
    let row = visible_row(&service, &caller, id).await?;
    let Query(reading) = reading?;
    if let Some(moment) = reading.as_of.as_deref().map(moments::as_of).transpose()? {
        return Ok(ok(history::as_of(&service, &id.to_string(), moment).await?));
    }
    let version = row.version;
    Ok(ok(OrderBody::of_row(row)?).with_version(version))
}

/// Tells everything that happened to an order, oldest first.
#[utoipa::path(get, path = "/v1/orders/{id}/history", tag = "orders", params(("id" = Uuid, Path), PageDraft),
    security(("bearer" = [])),
    responses((status = OK, body = Listed<OrderHistoryEntry>), (status = UNAUTHORIZED, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody), (status = UNPROCESSABLE_ENTITY, body = ProblemBody)))]
async fn read_history(
    State(service): State<OrdersService>,
    caller: Caller,
    Path(id): Path<Uuid>,
    draft: Result<Query<PageDraft>, Problem>,
) -> Result<Answer<Listed<OrderHistoryEntry>>, Problem> {
    visible_row(&service, &caller, id).await?;
    let page = Page::try_from(draft?.0)?;
    Ok(ok(history::page(&service, &id.to_string(), &page).await?))
}

/// Changes an order that is not paid.
///
/// Other lines are answered when the stock has decided; when it does not suffice, the order stays as it was.
#[utoipa::path(patch, path = "/v1/orders/{id}", tag = "orders", params(("id" = Uuid, Path)),
    request_body = EditDraft, security(("bearer" = [])),
    responses((status = OK, body = OrderBody),
        (status = ACCEPTED, body = OrderBody, description = "the stock has not answered yet"),
        (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody), (status = NOT_FOUND, body = ProblemBody),
        (status = CONFLICT, body = ProblemBody, description = "`insufficient_stock`, `not_editable`, `payment_in_progress` and others"),
        (status = PRECONDITION_FAILED, body = ProblemBody), (status = UNPROCESSABLE_ENTITY, body = ProblemBody)))]
async fn edit_order(
    State(service): State<OrdersService>,
    caller: Caller,
    Path(id): Path<Uuid>,
    write: Write,
    draft: Result<Json<EditDraft>, Problem>,
) -> Result<Answer<OrderBody>, Problem> {
    let id = id.to_string();
    let loaded = visible(&service, &caller, &id).await?;
    let details = loaded.aggregate.details().ok_or_else(Problem::not_found)?;
    if details.user_id.0 != caller.user_id {
        return Err(Problem::forbidden());
    }
    let edits = draft?.0.check()?;
    let lines = match &edits.items {
        None => None,
        Some(items) => Some(prices::price_changed(&service, items, details).await?),
    };
    let command = OrderCommand::Edit {
        lines,
        shipping_address: edits.shipping_address,
        customer_notes: edits.customer_notes,
    };
    let done = give(&service, Target::Existing(id), command, write.context()).await?;
    decision::answer_edited(&service, done, write.freshness).await
}

/// Cancels an order: its owner until it is paid, an admin until something of it is shipped.
#[utoipa::path(post, path = "/v1/orders/{id}/cancel", tag = "orders", params(("id" = Uuid, Path)),
    security(("bearer" = [])),
    responses((status = OK, body = OrderBody), (status = UNAUTHORIZED, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody),
        (status = CONFLICT, body = ProblemBody, description = "`not_cancellable`"),
        (status = PRECONDITION_FAILED, body = ProblemBody)))]
async fn cancel_order(
    State(service): State<OrdersService>,
    caller: Caller,
    Path(id): Path<Uuid>,
    write: Write,
) -> Result<Answer<OrderBody>, Problem> {
    cancel(&service, &caller, id, &write).await
}

/// Cancels an order; the same as `/cancel`. The order itself stays.
#[utoipa::path(delete, path = "/v1/orders/{id}", tag = "orders", params(("id" = Uuid, Path)),
    security(("bearer" = [])),
    responses((status = OK, body = OrderBody), (status = UNAUTHORIZED, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody),
        (status = CONFLICT, body = ProblemBody, description = "`not_cancellable`"),
        (status = PRECONDITION_FAILED, body = ProblemBody)))]
async fn delete_order(
    State(service): State<OrdersService>,
    caller: Caller,
    Path(id): Path<Uuid>,
    write: Write,
) -> Result<Answer<OrderBody>, Problem> {
    cancel(&service, &caller, id, &write).await
}

async fn cancel(
    service: &OrdersService,
    caller: &Caller,
    id: Uuid,
    write: &Write,
) -> Result<Answer<OrderBody>, Problem> {
    let id = id.to_string();
    visible(service, caller, &id).await?;
    decision::with_capture_heard(service, &id).await?;
    let command = OrderCommand::Cancel { by_admin: caller.is_admin() };
    give(service, Target::Existing(id.clone()), command, write.context()).await?;
    let settled = decision::with_cancellation_settled(service, &id, write.freshness).await?;
    view::show(service, &id, &settled, None).await
}

/// Gives an order a command.
async fn give(
    service: &OrdersService,
    target: Target,
    command: OrderCommand,
    context: Context<Order>,
) -> Result<Done<Order>, Problem> {
    carry_out(&service.orders, target, command, context, problem).await
}

/// The order in the log, for its owner and admins.
async fn visible(service: &OrdersService, caller: &Caller, id: &str) -> Result<Loaded<Order>, Problem> {
    let loaded = service.orders.load(id).await.map_err(engine)?;
    let may_see = |user_id: UserId| user_id.0 == caller.user_id || caller.is_admin();
    let seen = loaded.aggregate.details().is_some_and(|details| may_see(details.user_id));
    if seen { Ok(loaded) } else { Err(Problem::not_found()) }
}

/// The order in the read model, for its owner and admins.
async fn visible_row(service: &OrdersService, caller: &Caller, id: Uuid) -> Result<OrderRow, Problem> {
    let row = find_order(&service.details, id).await.map_err(engine)?;
    let seen = row.filter(|row| row.user_id == caller.user_id || caller.is_admin());
    seen.ok_or_else(Problem::not_found)
}
