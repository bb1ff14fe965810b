//! The life of an order, told by its events: its history, and how it was at some moment.

use chrono::{DateTime, Utc};
use cqrs_es::{Aggregate, DomainEvent};
use event_store::event::Recorded;
use event_store::feed;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use aggregates::money::Money;
use aggregates::orders::{Order, OrderEvent};
use aggregates::records::Recorded as _;

use crate::extract::Page;
use crate::listing::Listed;
use crate::problem::Problem;
use crate::routes::orders::view::OrderBody;
use crate::service::engine;
use crate::services::OrdersService;

/// How many events are read in one go.
const CHUNK_EVENTS: i64 = 500;

/// An event of an order.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct OrderHistoryEntry {
    /// Its place in the order's history, from 1: the version of the order after it.
    pub sequence: i64,
    /// What kind of event it is.
    #[serde(rename = "type")]
    #[schema(example = "OrderPlaced")]
    pub kind: String,
    /// What happened, without anything personal.
    #[schema(value_type = Object)]
    pub what: Value,
    /// When.
    pub at: DateTime<Utc>,
    /// Who caused it; `null` for the mart itself.
    pub actor: Option<Uuid>,
}

/// A page of the events of an order, oldest first.
///
/// # Errors
/// When the log cannot be read, or the cursor is of another list.
pub(super) async fn page(
    service: &OrdersService,
    id: &str,
    page: &Page,
) -> Result<Listed<OrderHistoryEntry>, Problem> {
    let after = page.cursor.as_ref().map_or(Ok(0), |cursor| cursor.key::<i64>())?;
    let database = service.orders.log().database();
    let limit = i64::from(page.limit);
    let mut events = feed::read_stream(database, Order::TYPE, id, after, limit + 1).await.map_err(engine)?;
    let more = events.len() > usize::try_from(page.limit).unwrap_or(usize::MAX);
    if more {
        events.pop();
    }
    let next = events.last().filter(|_| more).map(|event| event.sequence);
    let entries = events.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    Ok(Listed::new(entries, next))
}

fn entry(recorded: Recorded) -> Result<OrderHistoryEntry, Problem> {
    let event: OrderEvent = recorded.decode().map_err(engine)?;
    Ok(OrderHistoryEntry {
        sequence: recorded.sequence,
        kind: event.event_type(),
        what: what(&event)?,
        at: recorded.recorded_at,
        actor: recorded.metadata.actor,
    })
}

/// The public fields of an event, its amounts as everywhere in the interface.
fn what(event: &OrderEvent) -> Result<Value, Problem> {
    let kind = event.event_type();
    let hidden = Order::personal_fields(&kind);
    Ok(match serde_json::to_value(event).map_err(Problem::internal)? {
        Value::Object(mut variant) => match variant.remove(&kind) {
            Some(Value::Object(fields)) => {
                let shown = fields.into_iter().filter(|(name, _)| !hidden.contains(&name.as_str()));
                Value::Object(shown.map(|(name, value)| (name, with_decimals(value))).collect())
            }
            Some(_) | None => Value::Object(Map::new()),
        },
        // An event without fields is stored as its name alone.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Value::Object(Map::new())
        }
    })
}

/// Amounts of minor units become decimal strings.
fn with_decimals(value: Value) -> Value {
    match value {
        Value::Object(fields) => match serde_json::from_value::<Money>(Value::Object(fields.clone())) {
            Ok(money) => json!({"amount": money.to_string(), "currency": money.currency.code()}),
            Err(_) => {
                Value::Object(fields.into_iter().map(|(name, value)| (name, with_decimals(value))).collect())
            }
        },
        Value::Array(items) => Value::Array(items.into_iter().map(with_decimals).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// The order as it was at a moment.
///
/// # Errors
/// 404 when it was not placed by then.
pub(super) async fn as_of(
    service: &OrdersService,
    id: &str,
    moment: DateTime<Utc>,
) -> Result<OrderBody, Problem> {
    let log = service.orders.log();
    let (mut order, mut version, mut created_at) = (Order::default(), 0, None);
    loop {
        let chunk = feed::read_stream(log.database(), Order::TYPE, id, version, CHUNK_EVENTS).await;
        let chunk = chunk.map_err(engine)?;
        let before = version;
        for mut recorded in chunk.into_iter().take_while(|recorded| recorded.recorded_at <= moment) {
            recorded.open(log.personal()).await.map_err(engine)?;
            order.apply(recorded.decode().map_err(engine)?);
            version = recorded.sequence;
            created_at.get_or_insert(recorded.recorded_at);
        }
        if version - before < CHUNK_EVENTS {
            break;
        }
    }
    let (details, created_at) = order.details().zip(created_at).ok_or_else(Problem::not_found)?;
    OrderBody::of(details, created_at, version)
}

#[cfg(test)]
mod tests {
    use aggregates::identifiers::{OrderId, ProductId, UserId};
    use aggregates::lines::OrderLine;
    use aggregates::money::Currency;
    use aggregates::personal::Personal;

    use super::*;

    #[test]
    fn a_history_shows_amounts_and_nothing_personal() {
        let (order_id, user_id) = (OrderId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        let product_id = ProductId(Uuid::from_u128(3));
        let unit_price = Money::new(99_999, Currency::USD);
        let event = OrderEvent::OrderPlaced {
            order_id,
            user_id,
            lines: vec![OrderLine { product_id, name: "Laptop".to_owned(), quantity: 1, unit_price }],
            total: unit_price,
            shipping_address: Personal::Known("Here 1".to_owned()),
            customer_notes: Some(Personal::Sealed("x".to_owned())),
            from_cart: false,
            pay_within_seconds: 900,
        };
        let amount = json!({"amount": "999.99", "currency": "USD"});
        assert_eq!(
            what(&event).expect("it can be shown"),
            json!({
                "order_id": order_id,
                "user_id": user_id,
                "lines": [{"product_id": product_id, "name": "Laptop", "quantity": 1, "unit_price": amount}],
                "total": amount,
                "from_cart": false,
                "pay_within_seconds": 900,
            })
        );
        assert_eq!(what(&OrderEvent::OrderPaymentClosed).expect("it can be shown"), json!({}));
    }
}
