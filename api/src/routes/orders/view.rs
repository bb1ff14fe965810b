//! An order as clients see it, made of the aggregate after a write and of the read model otherwise.

use chrono::{DateTime, Utc};
use event_store::event::partition_of;
use event_store::execute::Loaded;
use event_store::read_your_writes::Place;
use projections::orders::order_details::OrderRow;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use aggregates::lines::OrderLine;
use aggregates::orders::{Details, Order, OrderStatus, PaymentStatus};
use aggregates::personal::Personal;

use crate::problem::Problem;
use crate::routes::amounts::money;
use crate::routes::executed::{begun_at, position_of};
use crate::service::{Answer, ok};
use crate::services::OrdersService;

/// An order.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct OrderBody {
    /// The order.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// What is bought, at the prices of that moment.
    pub items: Vec<OrderItemBody>,
    /// What it costs.
    #[schema(example = "1999.98")]
    pub total: String,
    /// In which currency.
    #[schema(example = "USD")]
    pub currency: String,
    /// Where it stands: `placed`, `awaiting_payment`, `committing`, `confirmed`, `partially_shipped`, `shipped`,
    /// `delivered`, `return_requested`, `returned`, `cancelling`, `cancelled`, `expired` or `rejected`.
    #[schema(value_type = String, example = "awaiting_payment")]
    pub order_status: OrderStatus,
    /// Where its money stands: `pending`, `authorized`, `paid`, `failed`, `refunded`, `partially_refunded` or
    /// `voided`.
    #[schema(value_type = String, example = "pending")]
    pub payment_status: PaymentStatus,
    /// Where it goes; `null` when the customer was erased.
    pub shipping_address: Option<String>,
    /// What the customer has to say.
    pub customer_notes: Option<String>,
    /// When it expires unless it is paid.
    pub pay_by: Option<DateTime<Utc>>,
    /// When it was placed.
    pub created_at: DateTime<Utc>,
    /// The version, also in `ETag`.
    pub version: i64,
}

/// A line of an order.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct OrderItemBody {
    /// Which product.
    pub product_id: Uuid,
    /// What it was called.
    pub name: String,
    /// How many.
    pub quantity: u32,
    /// What one of them cost.
    #[schema(example = "999.99")]
    pub unit_price: String,
    /// What the line costs.
    #[schema(example = "1999.98")]
    pub line_total: String,
}

impl OrderBody {
    /// Made of a row of the read model.
    pub(super) fn of_row(row: OrderRow) -> Result<Self, Problem> {
        let total = money(row.total_minor, &row.currency)?;
        Ok(Self {
            id: row.id,
            user_id: row.user_id,
            items: row.lines.iter().map(item).collect::<Result<_, _>>()?,
            total: total.to_string(),
            currency: row.currency,
            order_status: row.order_status,
            payment_status: row.payment_status,
            shipping_address: row.shipping_address.into_known(),
            customer_notes: row.customer_notes.and_then(Personal::into_known),
            pay_by: row.pay_by,
            created_at: row.created_at,
            version: row.version,
        })
    }

    /// Made of the aggregate.
    pub(super) fn of(details: &Details, created_at: DateTime<Utc>, version: i64) -> Result<Self, Problem> {
        Ok(Self {
            id: details.order_id.0,
            user_id: details.user_id.0,
            items: details.lines.iter().map(|line| item(&line.bought)).collect::<Result<_, _>>()?,
            total: details.total.to_string(),
            currency: details.total.currency.code().to_owned(),
            order_status: details.status,
            payment_status: details.payment_status,
            shipping_address: details.shipping_address.known().cloned(),
            customer_notes: details.customer_notes.as_ref().and_then(|notes| notes.known().cloned()),
            pay_by: details.pay_by,
            created_at,
            version,
        })
    }
}

fn item(line: &OrderLine) -> Result<OrderItemBody, Problem> {
    Ok(OrderItemBody {
        product_id: line.product_id.0,
        name: line.name.clone(),
        quantity: line.quantity,
        unit_price: line.unit_price.to_string(),
        line_total: line.total().map_err(Problem::internal)?.to_string(),
    })
}

/// 200 with an order as it stands in the log. `created_at` is looked up when it is not known.
///
/// # Errors
/// 404 when there is none.
pub(crate) async fn show(
    service: &OrdersService,
    id: &str,
    loaded: &Loaded<Order>,
    created_at: Option<DateTime<Utc>>,
) -> Result<Answer<OrderBody>, Problem> {
    let details = loaded.aggregate.details().ok_or_else(Problem::not_found)?;
    let created_at = match created_at {
        Some(created_at) => created_at,
        None => begun_at(&service.orders, id, loaded).await?,
    };
    let position = position_of(&service.orders, id, loaded).await?;
    let body = OrderBody::of(details, created_at, loaded.version)?;
    Ok(ok(body).with_version(loaded.version).with_position("orders", id, position))
}

/// Where an event of an aggregate of this service stands.
pub(crate) fn place_of(aggregate_id: &str, position: i64) -> Place {
    Place { source: "orders".to_owned(), partition: Some(partition_of(aggregate_id)), position }
}
