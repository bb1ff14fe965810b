//! The journal of a stock item: everything that happened to it, from its own stream.

use axum::extract::State;
use chrono::{DateTime, Utc};
use cqrs_es::Aggregate;
use event_store::{Recorded, feed};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use aggregates::identifiers::OrderId;
use aggregates::inventory::{Levels, ReleaseReason, ReturnCondition, StockItem, StockItemEvent};

use super::{item_id, opened};
use crate::extract::{Page, Path, Query};
use crate::listing::Listed;
use crate::problem::{Problem, ProblemBody};
use crate::routes::moments;
use crate::routes::staff::Staff;
use crate::service::{Answer, engine, ok};
use crate::services::InventoryService;

/// Something that happened to the stock of a product.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct MovementView {
    /// Its place in the journal, from 1 without gaps.
    sequence: i64,
    /// What happened.
    #[serde(rename = "type")]
    #[schema(example = "StockReceived")]
    kind: String,
    /// How many pieces it was about; of a count, by how many the books were wrong.
    quantity: Option<i64>,
    /// The levels after it, where it tells them.
    levels: Option<LevelsView>,
    /// Why.
    reason: Option<String>,
    /// For which order.
    reservation: Option<Uuid>,
    /// When.
    at: DateTime<Utc>,
    /// Who; null when the mart did it itself.
    actor: Option<Uuid>,
}

/// The quantities of a stock item.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct LevelsView {
    on_hand: u32,
    available: u32,
    reserved: u32,
    committed: u32,
    sold: u64,
}

impl LevelsView {
    fn of(levels: Levels) -> Self {
        Self {
            on_hand: levels.on_hand,
            available: levels.available(),
            reserved: levels.held,
            committed: levels.committed,
            sold: levels.sold,
        }
    }
}

/// Which part of the journal is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MovementParameters {
    /// Nothing later than this: a time by RFC 3339, or a date, whose end is meant.
    as_of: Option<String>,
    /// The most rows to answer.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<String>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Lists what happened to the stock of a product, the oldest first; also after the product is discontinued.
#[utoipa::path(get, path = "/v1/inventory/{product_id}/movements", tag = "inventory",
    params(("product_id" = Uuid, Path), MovementParameters), security(("bearer" = [])),
    responses(
        (status = OK, body = Listed<MovementView>),
        (status = UNAUTHORIZED, body = ProblemBody),
        (status = FORBIDDEN, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
    ))]
pub(super) async fn list_movements(
    State(service): State<InventoryService>,
    _staff: Staff,
    Path(product_id): Path<Uuid>,
    parameters: Result<Query<MovementParameters>, Problem>,
) -> Result<Answer<Listed<MovementView>>, Problem> {
    opened(&service, product_id).await?;
    let Query(parameters) = parameters?;
    let as_of = parameters.as_of.as_deref().map(moments::as_of).transpose()?;
    let page = Page::new(parameters.limit.as_deref(), parameters.cursor.as_deref())?;
    let after = page.cursor.as_ref().map(|cursor| cursor.key::<i64>()).transpose()?.unwrap_or(0);
    let (log, id, one_more) = (&service.surroundings.log, item_id(product_id), i64::from(page.limit) + 1);
    let events = feed::read_stream(log.database(), StockItem::TYPE, &id, after, one_more);
    let events = events.await.map_err(engine)?;
    let until = |event: &Recorded| as_of.is_none_or(|as_of| event.recorded_at <= as_of);
    let events = events.into_iter().take_while(until).collect::<Vec<_>>();
    let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
    let rows = projections::Page::cut(events, limit, |event| event.sequence);
    Ok(ok(Listed::try_of(rows, |event| view(&event))?))
}

fn view(recorded: &Recorded) -> Result<MovementView, Problem> {
    let event = recorded.decode::<StockItemEvent>().map_err(engine)?;
    let Told { quantity, levels, reason, reservation } = tell(event);
    Ok(MovementView {
        sequence: recorded.sequence,
        kind: recorded.event_type.clone(),
        quantity,
        levels: levels.map(LevelsView::of),
        reason,
        reservation: reservation.map(Uuid::from),
        at: recorded.recorded_at,
        actor: recorded.metadata.actor,
    })
}

/// What the events of a stock item have in common.
#[derive(Debug, Default, PartialEq)]
struct Told {
    quantity: Option<i64>,
    levels: Option<Levels>,
    reason: Option<String>,
    reservation: Option<OrderId>,
}

impl Told {
    fn pieces(quantity: impl Into<i64>) -> Self {
        Self { quantity: Some(quantity.into()), ..Self::default() }
    }

    fn levels(self, levels: Levels) -> Self {
        Self { levels: Some(levels), ..self }
    }

    fn because(self, reason: Option<String>) -> Self {
        Self { reason, ..self }
    }

    fn reserved(self, reservation: OrderId) -> Self {
        Self { reservation: Some(reservation), ..self }
    }
}

fn tell(event: StockItemEvent) -> Told {
    match event {
        StockItemEvent::StockItemOpened { low_stock_threshold: _ } => Told::default(),
        StockItemEvent::LowStockThresholdSet { low_stock_threshold } => {
            Told { quantity: low_stock_threshold.map(i64::from), ..Told::default() }
        }
        StockItemEvent::StockItemClosing { levels }
        | StockItemEvent::StockItemClosed { levels }
        | StockItemEvent::StockDepleted { levels }
        | StockItemEvent::StockReplenished { levels } => Told::default().levels(levels),
        StockItemEvent::LowStockReached { threshold, levels } => Told::pieces(threshold).levels(levels),
        StockItemEvent::StockReceived { quantity, reason, levels }
        | StockItemEvent::StockRemoved { quantity, reason, levels }
        | StockItemEvent::StockWrittenOff { quantity, reason, levels } => {
            Told::pieces(quantity).because(reason).levels(levels)
        }
        StockItemEvent::StockCounted { counted: _, correction, reason, levels } => {
            Told::pieces(correction).because(reason).levels(levels)
        }
        StockItemEvent::StockReserved { reservation, quantity, until: _, levels }
        | StockItemEvent::ReservationAdjusted {
            reservation,
            quantity,
            levels,
            previous: _,
            revision: _,
            at: _,
        }
        | StockItemEvent::ReservationCommitted { reservation, quantity, levels }
        | StockItemEvent::StockShipped { reservation, quantity, at: _, levels } => {
            Told::pieces(quantity).reserved(reservation).levels(levels)
        }
        StockItemEvent::ReservationRejected { reservation, requested, available: _, revision: _ }
        | StockItemEvent::ReservationLost { reservation, requested, available: _ } => {
            Told::pieces(requested).reserved(reservation)
        }
        StockItemEvent::ReservationReleased { reservation, quantity, why, at: _, levels } => {
            Told::pieces(quantity).reserved(reservation).because(Some(released(why))).levels(levels)
        }
        StockItemEvent::StockReturned { reservation, quantity, condition, levels } => {
            Told::pieces(quantity).reserved(reservation).because(Some(returned(condition))).levels(levels)
        }
    }
}

fn released(why: ReleaseReason) -> String {
    match why {
        ReleaseReason::Expired => "expired",
        ReleaseReason::Cancelled => "cancelled",
        ReleaseReason::PaymentFailed => "payment_failed",
        ReleaseReason::Edited => "edited",
    }
    .to_owned()
}

fn returned(condition: ReturnCondition) -> String {
    match condition {
        ReturnCondition::Resellable => "resellable",
        ReturnCondition::Damaged => "damaged",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_movement_tells_what_happened_and_what_is_left() {
        let levels = Levels { on_hand: 8, held: 2, committed: 1, sold: 1 };
        let reservation = OrderId(Uuid::from_u128(5));
        let event = StockItemEvent::StockReserved { reservation, quantity: 2, until: None, levels };
        let recorded = Recorded {
            position: 12,
            partition: 0,
            aggregate_type: "stock_item".to_owned(),
            aggregate_id: Uuid::nil().to_string(),
            sequence: 3,
            event_type: "StockReserved".to_owned(),
            event_version: "1.0".to_owned(),
            payload: serde_json::to_string(&event).expect("an event is JSON"),
            metadata: event_store::Metadata::default(),
            recorded_at: DateTime::UNIX_EPOCH,
        };
        let view = view(&recorded).map_err(|problem| problem.to_string()).expect("it can be shown");
        assert_eq!(
            serde_json::to_value(view).expect("a view is JSON"),
            json!({
                "sequence": 3, "type": "StockReserved", "quantity": 2,
                "levels": {"on_hand": 8, "available": 5, "reserved": 2, "committed": 1, "sold": 1},
                "reason": null, "reservation": Uuid::from_u128(5), "at": "1970-01-01T00:00:00Z", "actor": null,
            })
        );
    }

    #[test]
    fn a_count_tells_by_how_many_the_books_were_wrong() {
        let levels = Levels { on_hand: 7, ..Levels::default() };
        let reason = Some("stocktaking".to_owned());
        let event =
            StockItemEvent::StockCounted { counted: 7, correction: -3, reason: reason.clone(), levels };
        let expected = Told { quantity: Some(-3), levels: Some(levels), reason, reservation: None };
        assert_eq!(tell(event), expected);
    }
}
