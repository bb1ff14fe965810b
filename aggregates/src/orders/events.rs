//! What happens to an order.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::identifiers::{OrderId, ProductId, UserId};
use crate::lines::{LineQuantity, OrderLine};
use crate::money::Money;
use crate::personal::Personal;
use crate::records::domain_event;

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Waits for the stock's answers.
    Placed,
    /// All is held; waits for the money.
    AwaitingPayment,
    /// Paid; the holds are being made firm.
    Committing,
    /// Paid and firm.
    Confirmed,
    /// Some of it left.
    PartiallyShipped,
    /// All of it left.
    Shipped,
    /// It arrived.
    Delivered,
    /// The customer sends something back.
    ReturnRequested,
    /// What was sent back arrived.
    Returned,
    /// Money and holds are on their way back.
    Cancelling,
    /// Money and holds are back.
    Cancelled,
    /// Not paid in time.
    Expired,
    /// The stock did not suffice.
    Rejected,
}

/// Where the money of an order stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// Not paid.
    #[default]
    Pending,
    /// Promised by the card's bank.
    Authorized,
    /// Received.
    Paid,
    /// The last attempt failed.
    Failed,
    /// All of it went back.
    Refunded,
    /// Some of it went back.
    PartiallyRefunded,
    /// The promise was given back.
    Voided,
}

/// Why an order is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// The customer asked for it.
    Customer,
    /// An admin asked for it.
    Admin,
    /// A hold was lost before it could be made firm.
    StockLost,
    /// What was authorised is not what the order costs.
    AmountMismatch,
    /// The authorised money could not be taken.
    CaptureFailed,
}

/// A line that the stock could not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedLine {
    /// Which product.
    pub product_id: ProductId,
    /// How many were wanted.
    pub requested: u32,
    /// How many there are for this order.
    pub available: u32,
}

/// What happens to an order.
#[allow(missing_docs, reason = "the variant says what happened, the names of its fields say with what")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum OrderEvent {
    /// A user wants these lines at these prices.
    OrderPlaced {
        order_id: OrderId,
        user_id: UserId,
        lines: Vec<OrderLine>,
        total: Money,
        shipping_address: Personal<String>,
        customer_notes: Option<Personal<String>>,
        from_cart: bool,
        pay_within_seconds: u32,
    },
    /// The stock holds a line, and others are not answered yet or rejected.
    OrderLineReserved { product_id: ProductId },
    /// The stock cannot hold a line.
    OrderLineRejected { product_id: ProductId, requested: u32, available: u32 },
    /// The stock holds all lines; the order is to be paid by then.
    OrderAwaitingPayment { user_id: UserId, total: Money, pay_by: DateTime<Utc> },
    /// The stock did not suffice for `rejected`; whatever is held of `lines` is to be released.
    OrderRejected { user_id: UserId, from_cart: bool, rejected: Vec<RejectedLine>, lines: Vec<LineQuantity> },
    /// The address or the notes are now these.
    OrderAddressEdited {
        user_id: UserId,
        shipping_address: Personal<String>,
        customer_notes: Option<Personal<String>>,
    },
    /// Other lines are wanted; the stock is asked to hold the quantities of `increases`.
    OrderEditRequested {
        user_id: UserId,
        revision: u32,
        lines: Vec<OrderLine>,
        increases: Vec<LineQuantity>,
        shipping_address: Option<Personal<String>>,
        customer_notes: Option<Personal<String>>,
    },
    /// The stock holds the new quantity of a line.
    OrderEditLineReserved { revision: u32, product_id: ProductId },
    /// The stock cannot hold the new quantity of a line.
    OrderEditLineRejected { revision: u32, product_id: ProductId, requested: u32, available: u32 },
    /// The lines are now these; the stock is to hold only the quantities of `decreases` (0: nothing).
    OrderLinesEdited {
        user_id: UserId,
        revision: u32,
        lines: Vec<OrderLine>,
        total: Money,
        decreases: Vec<LineQuantity>,
    },
    /// The lines stay as they were; the stock is to hold the quantities of `undo` (0: nothing).
    OrderEditRejected { user_id: UserId, revision: u32, rejected: Vec<RejectedLine>, undo: Vec<LineQuantity> },
    /// An attempt to pay began.
    OrderPaymentAttempted { attempt: u32, payment_status: PaymentStatus },
    /// An attempt to pay failed.
    OrderPaymentDeclined { attempt: u32, payment_status: PaymentStatus },
    /// The money is promised.
    OrderPaymentAuthorised { attempt: u32, amount: Money, payment_status: PaymentStatus },
    /// The holds of the lines are to be made firm.
    OrderCommitting { user_id: UserId, lines: Vec<LineQuantity> },
    /// The hold of a line is firm, and others are not yet or lost.
    OrderLineCommitted { product_id: ProductId },
    /// The hold of a line is lost.
    OrderLineLost { product_id: ProductId },
    /// All holds are firm: the money may be taken.
    OrderConfirmed { user_id: UserId, lines: Vec<OrderLine>, total: Money },
    /// The money is received.
    OrderPaymentCaptured { amount: Money, payment_status: PaymentStatus },
    /// The promised money could not be taken.
    OrderCaptureFailed { payment_status: PaymentStatus },
    /// The promise of money was given back.
    OrderPaymentVoided { payment_status: PaymentStatus },
    /// Money went back; `refunded` is all that ever did.
    OrderPaymentRefunded { amount: Money, refunded: Money, payment_status: PaymentStatus },
    /// No money of the customer is with us, and none will be taken.
    OrderPaymentClosed,
    /// The time to pay passed while an attempt was unresolved: its outcome decides.
    OrderExpiryDeferred,
    /// The order was not paid in time; the holds of the lines are to be released.
    OrderExpired { user_id: UserId, lines: Vec<LineQuantity> },
    /// Money and the holds of the lines are to go back.
    OrderCancelling { user_id: UserId, reason: CancelReason, lines: Vec<LineQuantity> },
    /// The hold of a line is back.
    OrderLineReleased { product_id: ProductId },
    /// Money and holds are back.
    OrderCancelled { user_id: UserId, reason: CancelReason },
    /// Lines left for the customer.
    OrderShipped { user_id: UserId, lines: Vec<LineQuantity>, status: OrderStatus },
    /// All arrived.
    OrderDelivered { user_id: UserId },
    /// The customer sends lines back.
    OrderReturnRequested { user_id: UserId, lines: Vec<LineQuantity> },
    /// What was sent back arrived; `refund` is due to the customer.
    OrderReturned { user_id: UserId, lines: Vec<LineQuantity>, resellable: bool, refund: Money },
}

domain_event!(OrderEvent {
    OrderPlaced,
    OrderLineReserved,
    OrderLineRejected,
    OrderAwaitingPayment,
    OrderRejected,
    OrderAddressEdited,
    OrderEditRequested,
    OrderEditLineReserved,
    OrderEditLineRejected,
    OrderLinesEdited,
    OrderEditRejected,
    OrderPaymentAttempted,
    OrderPaymentDeclined,
    OrderPaymentAuthorised,
    OrderCommitting,
    OrderLineCommitted,
    OrderLineLost,
    OrderConfirmed,
    OrderPaymentCaptured,
    OrderCaptureFailed,
    OrderPaymentVoided,
    OrderPaymentRefunded,
    OrderPaymentClosed,
    OrderExpiryDeferred,
    OrderExpired,
    OrderCancelling,
    OrderLineReleased,
    OrderCancelled,
    OrderShipped,
    OrderDelivered,
    OrderReturnRequested,
    OrderReturned,
});
