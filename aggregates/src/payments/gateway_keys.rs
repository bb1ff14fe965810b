//! The keys sent to payment gateways. They are derived, so that a call made again is the same charge.

use crate::identifiers::{OrderId, RefundId};

/// The key of an attempt to pay an order.
#[must_use]
pub fn attempt_key(order_id: OrderId, attempt: u32) -> String {
    format!("pay:{order_id}:{attempt}")
}

/// The key of the capture of what an attempt authorised.
#[must_use]
pub fn capture_key(order_id: OrderId, attempt: u32) -> String {
    format!("cap:{order_id}:{attempt}")
}

/// The key of giving back what an attempt authorised.
#[must_use]
pub fn void_key(order_id: OrderId, attempt: u32) -> String {
    format!("void:{order_id}:{attempt}")
}

/// The key of a refund.
#[must_use]
pub fn refund_key(refund_id: RefundId) -> String {
    format!("ref:{refund_id}")
}
