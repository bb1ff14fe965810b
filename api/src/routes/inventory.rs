//! Stock: how much there is, what comes in and goes out, and the journal of it.

mod movements;

use std::time::Duration;

use axum::extract::State;
use event_store::Target;
use event_store::execute::Loaded;
use projections::inventory::stock_levels::{self, StockRow};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use aggregates::identifiers::{MAIN_LOCATION, ProductId, StockItemId};
use aggregates::inventory::{MAX_QUANTITY, Status, StockItem, StockItemCommand, StockItemError};

use crate::check::{Check, Field};
use crate::extract::{Json, Page, PageDraft, Path, Query};
use crate::listing::Listed;
use crate::problem::{Problem, ProblemBody};
use crate::routes::executed::carry_out;
use crate::routes::staff::Staff;
use crate::service::{self, Answer, HEAR_WITHIN, Write, engine, ok};
use crate::services::InventoryService;
use crate::text;

/// The name of the service in positions.
const INVENTORY: &str = "inventory";
/// The longest reason, in characters.
const REASON_MAX_CHARS: usize = 500;
/// How often a stock item that is about to be opened is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// The routes of the inventory, without what surrounds them.
pub fn paths() -> OpenApiRouter<InventoryService> {
    OpenApiRouter::new()
        .routes(routes!(list_stock))
        .routes(routes!(get_stock, put_stock))
        .routes(routes!(post_addition))
        .routes(routes!(post_reduction))
        .routes(routes!(movements::list_movements))
}

/// The routes of the inventory.
pub fn routes(service: InventoryService) -> OpenApiRouter {
    let surroundings = service.surroundings.clone();
    service::surround(paths().with_state(service), surroundings)
}

/// The stock of a product at a place.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct StockView {
    product_id: Uuid,
    /// Where it lies.
    #[schema(example = "main")]
    location: String,
    /// What lies there.
    on_hand: u32,
    /// What can be promised to somebody else.
    available: u32,
    /// Reserved by orders that are not paid.
    reserved: u32,
    /// Paid, waiting to leave.
    committed: u32,
    /// Committed, or shipped at any time.
    sold: u64,
    /// From how much on it is little; null when it never is.
    low_stock_threshold: Option<u32>,
}

impl StockView {
    fn of(product_id: Uuid, item: &StockItem) -> Self {
        Self {
            product_id,
            location: MAIN_LOCATION.to_owned(),
            on_hand: item.levels.on_hand,
            available: item.levels.available(),
            reserved: item.levels.held,
            committed: item.levels.committed,
            sold: item.levels.sold,
            low_stock_threshold: item.low_stock_threshold,
        }
    }

    fn of_row(row: StockRow) -> Self {
        Self {
            product_id: row.product_id,
            location: row.location,
            on_hand: row.on_hand,
            available: row.available,
            // The row counts what is paid among the reserved too; here each piece is in one figure only.
            reserved: row.held,
            committed: row.committed,
            sold: row.sold,
            low_stock_threshold: row.low_stock_threshold,
        }
    }
}

/// What was counted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StockCountDraft {
    /// How many pieces lie there.
    #[serde(default)]
    #[schema(value_type = u32, required, minimum = 0, maximum = 1_000_000_000)]
    stock_level: Field<i64>,
    /// Why the level changes.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    reason: Field<String>,
}

/// Pieces that come in or go out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StockChangeDraft {
    /// How many.
    #[serde(default)]
    #[schema(value_type = u32, required, minimum = 1, maximum = 1_000_000_000)]
    quantity: Field<i64>,
    /// Why.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    reason: Field<String>,
}

impl StockCountDraft {
    fn check(self) -> Result<(u32, Option<String>), Problem> {
        checked("stock_level", self.stock_level, 0, self.reason)
    }
}

impl StockChangeDraft {
    fn check(self) -> Result<(u32, Option<String>), Problem> {
        checked("quantity", self.quantity, 1, self.reason)
    }
}

fn checked(
    name: &str,
    pieces: Field<i64>,
    least: i64,
    reason: Field<String>,
) -> Result<(u32, Option<String>), Problem> {
    let mut check = Check::new();
    let pieces = check.required(name, pieces, |value| {
        let value = text::whole(value, least..=i64::from(MAX_QUANTITY))?;
        u32::try_from(value).map_err(|_| "is too large".to_owned())
    });
    let reason = check.optional("reason", reason, |value| text::line(&value, 0..=REASON_MAX_CHARS));
    check.finish(|| Some((pieces?, reason?)))
}

/// Lists the stock of all products that are kept, in the order of their ids.
#[utoipa::path(get, path = "/v1/inventory", tag = "inventory", params(PageDraft), security(("bearer" = [])),
    responses(
        (status = OK, body = Listed<StockView>),
        (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
    ))]
async fn list_stock(
    State(service): State<InventoryService>,
    _staff: Staff,
    Query(page): Query<PageDraft>,
) -> Result<Answer<Listed<StockView>>, Problem> {
    let page = Page::try_from(page)?;
    let after = page.cursor.as_ref().map(|cursor| cursor.key::<String>()).transpose()?;
    let stock = stock_levels::list_stock(&service.levels, after.as_deref(), page.limit);
    let stock = stock.await.map_err(engine)?;
    Ok(ok(Listed::of(stock, StockView::of_row)))
}

/// Shows the stock of a product.
#[utoipa::path(get, path = "/v1/inventory/{product_id}", tag = "inventory",
    params(("product_id" = Uuid, Path)), security(("bearer" = [])),
    responses(
        (status = OK, body = StockView, headers(("ETag" = String, description = "its version"))),
        (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody),
    ))]
async fn get_stock(
    State(service): State<InventoryService>,
    _staff: Staff,
    Path(product_id): Path<Uuid>,
) -> Result<Answer<StockView>, Problem> {
    let row = stock_levels::find_stock(&service.levels, product_id).await.map_err(engine)?;
    if let Some(row) = row {
        let version = row.version;
        return Ok(ok(StockView::of_row(row)).with_version(version));
    }
    let loaded = kept(&service, product_id).await?;
    Ok(ok(StockView::of(product_id, &loaded.aggregate)).with_version(loaded.version))
}

/// Sets the stock of a product to what was counted.
#[utoipa::path(put, path = "/v1/inventory/{product_id}", tag = "inventory",
    params(("product_id" = Uuid, Path)), request_body = StockCountDraft, security(("bearer" = [])),
    responses(
        (status = OK, body = StockView, headers(("ETag" = String))),
        (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody),
        (status = CONFLICT, body = ProblemBody, description = "more than that is promised"),
        (status = PRECONDITION_FAILED, body = ProblemBody, description = "If-Match names another version"),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
    ))]
async fn put_stock(
    State(service): State<InventoryService>,
    _staff: Staff,
    Path(product_id): Path<Uuid>,
    write: Write,
    body: Result<Json<StockCountDraft>, Problem>,
) -> Result<Answer<StockView>, Problem> {
    kept(&service, product_id).await?;
    let Json(draft) = body?;
    let (counted, reason) = draft.check()?;
    give(&service, product_id, &write, StockItemCommand::Count { counted, reason }).await
}

/// Records goods that came in.
#[utoipa::path(post, path = "/v1/inventory/{product_id}/additions", tag = "inventory",
    params(("product_id" = Uuid, Path)), request_body = StockChangeDraft, security(("bearer" = [])),
    responses(
        (status = OK, body = StockView, headers(("ETag" = String))),
        (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody),
        (status = PRECONDITION_FAILED, body = ProblemBody, description = "If-Match names another version"),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
    ))]
async fn post_addition(
    State(service): State<InventoryService>,
    _staff: Staff,
    Path(product_id): Path<Uuid>,
    write: Write,
    body: Result<Json<StockChangeDraft>, Problem>,
) -> Result<Answer<StockView>, Problem> {
    kept(&service, product_id).await?;
    let Json(draft) = body?;
    let (quantity, reason) = draft.check()?;
    give(&service, product_id, &write, StockItemCommand::Receive { quantity, reason }).await
}

/// Records goods that were taken out.
#[utoipa::path(post, path = "/v1/inventory/{product_id}/reductions", tag = "inventory",
    params(("product_id" = Uuid, Path)), request_body = StockChangeDraft, security(("bearer" = [])),
    responses(
        (status = OK, body = StockView, headers(("ETag" = String))),
        (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody),
        (status = CONFLICT, body = ProblemBody, description = "there is not as much: `insufficient_stock`"),
        (status = PRECONDITION_FAILED, body = ProblemBody, description = "If-Match names another version"),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
    ))]
async fn post_reduction(
    State(service): State<InventoryService>,
    _staff: Staff,
    Path(product_id): Path<Uuid>,
    write: Write,
    body: Result<Json<StockChangeDraft>, Problem>,
) -> Result<Answer<StockView>, Problem> {
    kept(&service, product_id).await?;
    let Json(draft) = body?;
    let (quantity, reason) = draft.check()?;
    give(&service, product_id, &write, StockItemCommand::Remove { quantity, reason }).await
}

fn item_id(product_id: Uuid) -> String {
    StockItemId::main(ProductId(product_id)).to_string()
}

async fn give(
    service: &InventoryService,
    product_id: Uuid,
    write: &Write,
    command: StockItemCommand,
) -> Result<Answer<StockView>, Problem> {
    let target = Target::Existing(item_id(product_id));
    let done = carry_out(&service.stock, target, command, write.context(), problem).await;
    let done = done.map_err(|problem| name_line(problem, product_id))?;
    let view = StockView::of(product_id, &done.state);
    Ok(ok(view).with_version(done.version).with_position(INVENTORY, &done.id, done.position))
}

/// The stock item of a product that is kept.
///
/// # Errors
/// 404 when there is none, also a moment after its product was listed.
async fn kept(service: &InventoryService, product_id: Uuid) -> Result<Loaded<StockItem>, Problem> {
    let loaded = opened(service, product_id).await?;
    match loaded.aggregate.status {
        Status::Open | Status::Closing => Ok(loaded),
        Status::Unopened | Status::Closed => Err(Problem::not_found()),
    }
}

/// The stock item of a product, also when it is not kept any more. Stock-keeping opens it when it hears of the
/// product, so that one that misses may be on its way.
///
/// # Errors
/// 404 when there is none and none comes.
async fn opened(service: &InventoryService, product_id: Uuid) -> Result<Loaded<StockItem>, Problem> {
    let deadline = Instant::now() + HEAR_WITHIN;
    let mut heard = false;
    loop {
        let loaded = service.stock.load(&item_id(product_id)).await.map_err(engine)?;
        match loaded.aggregate.status {
            Status::Open | Status::Closing | Status::Closed => return Ok(loaded),
            Status::Unopened => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Problem::not_found());
        }
        if heard {
            tokio::time::sleep(left.min(LOOK_AGAIN)).await;
        } else {
            service.surroundings.reads.hear("catalog", left).await.map_err(engine)?;
            heard = true;
        }
    }
}

fn problem(refusal: StockItemError) -> Problem {
    match refusal {
        StockItemError::NotOpen | StockItemError::Closed => Problem::not_found(),
        StockItemError::QuantityOutOfRange { min, max } => {
            Problem::invalid_field("quantity", format!("must be at least {min} and at most {max}"))
        }
        StockItemError::InsufficientStock { requested, available } => {
            Problem::conflict("insufficient_stock", "there are not as many that nobody was promised")
                .with_error("items", json!([{"requested": requested, "available": available}]))
        }
        StockItemError::BelowReserved { counted, reserved } => {
            let detail = format!("{counted} were counted, but {reserved} are promised to orders");
            Problem::conflict("below_reserved", detail)
        }
        StockItemError::NotCommitted { .. } => {
            Problem::conflict("not_committed", "not as many wait to leave for this order")
        }
        StockItemError::NotShipped { .. } => {
            Problem::conflict("not_shipped", "not as many left for this order")
        }
        StockItemError::Invalid { field, reason } => Problem::invalid_field(field, reason.to_string()),
    }
}

/// Names the product in the lines that are short, as an order's refusal does: the aggregate does not know it.
fn name_line(problem: Problem, product_id: Uuid) -> Problem {
    let Some(lines) = problem.errors().get("items").and_then(|lines| lines.as_array()).cloned() else {
        return problem;
    };
    let named = lines.into_iter().map(|mut line| {
        line["product_id"] = json!(product_id);
        line
    });
    let named = named.collect::<Vec<_>>();
    problem.with_error("items", named)
}

#[cfg(test)]
mod tests {
    use aggregates::inventory::{Levels, StockItemEvent};
    use cqrs_es::Aggregate;

    use super::*;

    fn counted(body: serde_json::Value) -> Result<(u32, Option<String>), serde_json::Value> {
        let draft: StockCountDraft = serde_json::from_value(body).expect("the body can be read");
        draft.check().map_err(|problem| json!(problem.errors()))
    }

    fn moved(body: serde_json::Value) -> Result<(u32, Option<String>), serde_json::Value> {
        let draft: StockChangeDraft = serde_json::from_value(body).expect("the body can be read");
        draft.check().map_err(|problem| json!(problem.errors()))
    }

    #[test]
    fn nothing_may_be_counted_but_nothing_cannot_come_in() {
        assert_eq!(counted(json!({"stock_level": 0, "reason": "fire"})), Ok((0, Some("fire".to_owned()))));
        let range = "must be greater than or equal to 1 and less than or equal to 1000000000";
        for quantity in [0, -1, 1_000_000_001] {
            assert_eq!(moved(json!({"quantity": quantity})), Err(json!({"quantity": [range]})));
        }
        assert_eq!(moved(json!({})), Err(json!({"quantity": ["is required"]})));
    }

    #[test]
    fn a_row_and_its_aggregate_are_shown_the_same() {
        let product_id = Uuid::from_u128(7);
        let levels = Levels { on_hand: 10, held: 2, committed: 3, sold: 5 };
        let mut item = StockItem::default();
        item.apply(StockItemEvent::StockItemOpened { low_stock_threshold: None });
        item.apply(StockItemEvent::StockReceived { quantity: 10, reason: None, levels });
        let row = StockRow {
            id: item_id(product_id),
            product_id,
            location: "main".to_owned(),
            on_hand: 10,
            held: 2,
            committed: 3,
            available: 5,
            reserved: 5,
            sold: 5,
            low_stock_threshold: None,
            status: stock_levels::StockStatus::Open,
            version: 4,
        };
        let view = StockView::of_row(row);
        assert_eq!(view, StockView::of(product_id, &item));
        assert_eq!((view.available, view.reserved, view.committed), (5, 2, 3));
    }

    #[test]
    fn a_line_that_is_short_names_its_product() {
        let refusal = problem(StockItemError::InsufficientStock { requested: 11, available: 10 });
        let problem = name_line(refusal, Uuid::nil());
        assert_eq!((problem.status().as_u16(), problem.code()), (409, "insufficient_stock"));
        let line = json!({"product_id": Uuid::nil(), "requested": 11, "available": 10});
        assert_eq!(json!(problem.errors()), json!({"items": [line]}));
    }
}
