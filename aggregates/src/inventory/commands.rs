//! What may be asked of a stock item.

use chrono::{DateTime, Utc};

use crate::identifiers::OrderId;
use crate::inventory::events::{ReleaseReason, ReturnCondition};

/// What may be asked of a stock item. A reservation is named by its order.
#[allow(missing_docs, reason = "the variant says what is asked, the names of its fields say with what")]
#[derive(Clone, Debug, PartialEq)]
pub enum StockItemCommand {
    /// Keep this item.
    Open { low_stock_threshold: Option<u32> },
    /// Keep it no more, as soon as nothing is promised.
    Close,
    /// Goods come in.
    Receive { quantity: u32, reason: Option<String> },
    /// Goods are taken out.
    Remove { quantity: u32, reason: Option<String> },
    /// So many were counted.
    Count { counted: u32, reason: Option<String> },
    /// Goods are lost or spoilt.
    WriteOff { quantity: u32, reason: Option<String> },
    /// Call stock low from this quantity on, or never.
    SetLowStockThreshold { low_stock_threshold: Option<u32> },
    /// Hold pieces for an order. The answer is an event either way.
    Reserve { reservation: OrderId, quantity: u32, until: Option<DateTime<Utc>> },
    /// Hold another quantity for an order, 0 for none. The answer is an event either way.
    Adjust { reservation: OrderId, quantity: u32, revision: u32, now: DateTime<Utc> },
    /// The order was paid.
    Commit { reservation: OrderId, quantity: u32 },
    /// The order needs nothing any more.
    Release { reservation: OrderId, why: ReleaseReason, now: DateTime<Utc> },
    /// Pieces leave for the customer.
    Ship { reservation: OrderId, quantity: u32, now: DateTime<Utc> },
    /// Pieces come back from the customer.
    Return { reservation: OrderId, quantity: u32, condition: ReturnCondition },
}
