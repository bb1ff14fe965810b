//! Orders as their customers see them: one row an order, for the page of an order and for lists.

use chrono::{DateTime, Utc};
use event_store::Result;
use event_store::subscription::ApplyError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use aggregates::lines::{LineQuantity, OrderLine};
use aggregates::orders::{OrderEvent, OrderStatus, PaymentStatus};
use aggregates::personal::Personal;

use crate::event::{Event, Happened};
use crate::live::{Live, Page};
use crate::read_model::{Feed, PersonalData, ReadModel};

/// The read model of orders.
pub struct OrderDetails;

/// An order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderRow {
    /// The order.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// What was ordered, at the prices of that moment.
    pub lines: Vec<OrderLine>,
    /// What it costs, in minor units.
    pub total_minor: i64,
    /// In which currency.
    pub currency: String,
    /// Where it stands.
    pub order_status: OrderStatus,
    /// Where its money stands.
    pub payment_status: PaymentStatus,
    /// What left of each line.
    pub shipped: Vec<LineQuantity>,
    /// What came back of each line.
    pub returned: Vec<LineQuantity>,
    /// Where to; sealed in the table, opened for queries, gone when the customer was erased.
    pub shipping_address: Personal<String>,
    /// What the customer had to say; as the address.
    pub customer_notes: Option<Personal<String>>,
    /// Until when it is to be paid.
    pub pay_by: Option<DateTime<Utc>>,
    /// When it was placed.
    pub created_at: DateTime<Utc>,
    /// The version of the aggregate.
    pub version: i64,
}

impl ReadModel for OrderDetails {
    const NAME: &'static str = "order_details";
    const VERSION: u32 = 1;
    // No event of an order tells that its customer was erased: what is sealed needs none.
    const FEEDS: &'static [Feed] =
        &[Feed { service: "orders", aggregates: &["order"], personal: PersonalData::Sealed }];
    const KEY: &'static str = "id";
    const COLUMNS: &'static str = "id uuid primary key,
        user_id uuid not null,
        lines json not null,
        total_minor bigint not null,
        currency text not null,
        order_status text not null,
        payment_status text not null,
        shipped json not null,
        returned json not null,
        shipping_address json,
        customer_notes json,
        pay_by timestamptz,
        created_at timestamptz not null,
        version bigint not null";
    const INDEXES: &'static [&'static str] = &["(user_id, id desc)"];

    type Row = OrderRow;

    fn person(row: &OrderRow) -> Option<Uuid> {
        Some(row.user_id)
    }

    fn fold(
        row: Option<OrderRow>,
        key: &str,
        happened: &Happened,
    ) -> std::result::Result<Option<OrderRow>, ApplyError> {
        let Event::Order(event) = &happened.event else { return Ok(row) };
        if let OrderEvent::OrderPlaced {
            order_id,
            user_id,
            lines,
            total,
            shipping_address,
            customer_notes,
            ..
        } = event
        {
            return Ok(Some(OrderRow {
                id: order_id.0,
                user_id: user_id.0,
                lines: lines.clone(),
                total_minor: total.minor,
                currency: total.currency.code().to_owned(),
                order_status: OrderStatus::Placed,
                payment_status: PaymentStatus::Pending,
                shipped: Vec::new(),
                returned: Vec::new(),
                shipping_address: shipping_address.clone(),
                customer_notes: customer_notes.clone(),
                pay_by: None,
                created_at: happened.recorded_at,
                version: happened.sequence,
            }));
        }
        let mut row = row.ok_or_else(|| ApplyError::Event(format!("order {key} was never placed")))?;
        row.version = happened.sequence;
        evolve(&mut row, event);
        Ok(Some(row))
    }
}

fn evolve(row: &mut OrderRow, event: &OrderEvent) {
    match event {
        OrderEvent::OrderAwaitingPayment { pay_by, .. } => {
            row.order_status = OrderStatus::AwaitingPayment;
            row.pay_by = Some(*pay_by);
        }
        OrderEvent::OrderRejected { .. } => row.order_status = OrderStatus::Rejected,
        OrderEvent::OrderAddressEdited { shipping_address, customer_notes, .. } => {
            row.shipping_address.clone_from(shipping_address);
            row.customer_notes.clone_from(customer_notes);
        }
        OrderEvent::OrderLinesEdited { lines, total, .. } => {
            row.lines.clone_from(lines);
            row.total_minor = total.minor;
        }
        OrderEvent::OrderPaymentAttempted { payment_status, .. }
        | OrderEvent::OrderPaymentDeclined { payment_status, .. }
        | OrderEvent::OrderPaymentAuthorised { payment_status, .. }
        | OrderEvent::OrderPaymentCaptured { payment_status, .. }
        | OrderEvent::OrderCaptureFailed { payment_status }
        | OrderEvent::OrderPaymentVoided { payment_status }
        | OrderEvent::OrderPaymentRefunded { payment_status, .. } => row.payment_status = *payment_status,
        OrderEvent::OrderCommitting { .. } => row.order_status = OrderStatus::Committing,
        OrderEvent::OrderConfirmed { .. } => row.order_status = OrderStatus::Confirmed,
        OrderEvent::OrderExpired { .. } => row.order_status = OrderStatus::Expired,
        OrderEvent::OrderCancelling { .. } => row.order_status = OrderStatus::Cancelling,
        OrderEvent::OrderCancelled { .. } => row.order_status = OrderStatus::Cancelled,
        OrderEvent::OrderShipped { user_id: _, lines, status } => {
            add(&mut row.shipped, lines);
            row.order_status = *status;
        }
        OrderEvent::OrderDelivered { .. } => row.order_status = OrderStatus::Delivered,
        OrderEvent::OrderReturnRequested { .. } => row.order_status = OrderStatus::ReturnRequested,
        OrderEvent::OrderReturned { user_id: _, lines, .. } => {
            add(&mut row.returned, lines);
            let all = row.lines.iter().all(|line| quantity_of(&row.returned, line) >= line.quantity);
            row.order_status = if all { OrderStatus::Returned } else { OrderStatus::Delivered };
        }
        OrderEvent::OrderPlaced { .. }
        | OrderEvent::OrderLineReserved { .. }
        | OrderEvent::OrderLineRejected { .. }
        | OrderEvent::OrderEditRequested { .. }
        | OrderEvent::OrderEditLineReserved { .. }
        | OrderEvent::OrderEditLineRejected { .. }
        | OrderEvent::OrderEditRejected { .. }
        | OrderEvent::OrderLineCommitted { .. }
        | OrderEvent::OrderLineLost { .. }
        | OrderEvent::OrderPaymentClosed
        | OrderEvent::OrderExpiryDeferred
        | OrderEvent::OrderLineReleased { .. } => {}
    }
}

/// Adds quantities to those of the same products.
fn add(counted: &mut Vec<LineQuantity>, more: &[LineQuantity]) {
    for line in more {
        match counted.iter_mut().find(|known| known.product_id == line.product_id) {
            Some(known) => known.quantity = known.quantity.saturating_add(line.quantity),
            None => counted.push(*line),
        }
    }
}

fn quantity_of(counted: &[LineQuantity], line: &OrderLine) -> u32 {
    counted.iter().find(|known| known.product_id == line.product_id).map_or(0, |known| known.quantity)
}

/// The order with an id.
///
/// # Errors
/// When the database is unreachable.
pub async fn find_order(live: &Live<OrderDetails>, id: Uuid) -> Result<Option<OrderRow>> {
    live.find(&id.to_string()).await
}

/// Orders, newest first: those of one user, or all.
///
/// # Errors
/// When the database is unreachable.
pub async fn list_orders(
    live: &Live<OrderDetails>,
    user_id: Option<Uuid>,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Page<OrderRow, Uuid>> {
    let statement = live
        .select(
            "where ($1::uuid is null or t.user_id = $1) and ($2::uuid is null or t.id < $2) \
             order by t.id desc limit $3",
        )
        .await?;
    let found = sqlx::query(&statement)
        .bind(user_id)
        .bind(after)
        .bind(i64::from(limit) + 1)
        .fetch_all(live.connections())
        .await?;
    Ok(Page::cut(live.rows(&found).await?, limit as usize, |row| row.id))
}
