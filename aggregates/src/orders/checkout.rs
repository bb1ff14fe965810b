//! Checkout: what stock, payment and carts say becomes commands to orders, and the time to pay is watched.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::carts::{CartCommand, CartEvent};
use crate::identifiers::{OrderId, ProductId, StockItemId, UserId};
use crate::inventory::StockItemEvent;
use crate::orders::OrdersCommand;
use crate::orders::commands::OrderCommand;
use crate::orders::events::OrderEvent;
use crate::payments::PaymentEvent;
use crate::process::{Cause, ProcessManager, Reaction, Reactions};

/// How long an order may stay unpaid unless configured otherwise, in seconds.
pub const DEFAULT_PAY_WITHIN_SECONDS: u32 = 15 * 60;
/// The most pieces in one line of a cart unless configured otherwise.
pub const DEFAULT_MAX_PER_LINE: u32 = 5;

/// The process from a cart to a confirmed order.
#[derive(Clone, Copy, Debug)]
pub struct Checkout {
    /// How long an order from a cart may stay unpaid, in seconds.
    pub pay_within_seconds: u32,
    /// The most pieces in one line of a cart.
    pub max_per_line: u32,
}

impl Default for Checkout {
    fn default() -> Self {
        Self { pay_within_seconds: DEFAULT_PAY_WITHIN_SECONDS, max_per_line: DEFAULT_MAX_PER_LINE }
    }
}

/// What checkout listens to.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckoutEvent {
    /// Something happened to a stock item.
    Inventory(StockItemEvent),
    /// Something happened to a payment.
    Payments(PaymentEvent),
    /// Something happened to a cart; its personal data must be readable.
    Carts(CartEvent),
    /// Something happened to an order.
    Orders(OrderEvent),
}

/// Durable work of checkout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckoutJob {
    /// Give the order [`OrderCommand::Expire`]. A refusal `NotAwaitingPayment` or `NotPlaced` ends the job.
    ExpireOrder {
        /// Which order.
        order_id: OrderId,
    },
}

/// The id of the work that expires an order.
#[must_use]
pub fn expiry_id(order_id: OrderId) -> Uuid {
    order_id.derive("expire")
}

impl ProcessManager for Checkout {
    const NAME: &'static str = "checkout";
    type Event = CheckoutEvent;
    type Command = OrdersCommand;
    type Job = CheckoutJob;

    fn react(&self, cause: &Cause, event: &CheckoutEvent) -> Reactions<Self> {
        Ok(match event {
            CheckoutEvent::Inventory(event) => {
                let item: StockItemId = cause.aggregate_id.parse()?;
                on_stock(cause, item.product_id, event).into_iter().collect()
            }
            CheckoutEvent::Payments(event) => on_payment(event).into_iter().collect(),
            CheckoutEvent::Carts(event) => self.on_cart(event).into_iter().collect(),
            CheckoutEvent::Orders(event) => self.on_order(cause.aggregate_id.parse()?, event),
        })
    }

    fn merges_for(command: &OrdersCommand) -> Option<Uuid> {
        match command {
            OrdersCommand::Order(order_id, _) => Some(order_id.0),
            OrdersCommand::Cart(..) => None,
        }
    }

    /// The stock answers for each line, and mostly for all of them in one batch.
    fn merge(earlier: &mut OrdersCommand, later: &OrdersCommand) -> bool {
        let (OrdersCommand::Order(_, earlier), OrdersCommand::Order(_, later)) = (earlier, later) else {
            return false;
        };
        match (earlier, later) {
            (
                OrderCommand::RecordReserved { product_ids, now },
                OrderCommand::RecordReserved { product_ids: more, now: then },
            ) => {
                product_ids.extend_from_slice(more);
                *now = (*now).max(*then);
                true
            }
            (
                OrderCommand::RecordCommitted { product_ids },
                OrderCommand::RecordCommitted { product_ids: more },
            ) => {
                product_ids.extend_from_slice(more);
                true
            }
            _ => false,
        }
    }
}

type CheckoutReaction = Reaction<OrdersCommand, CheckoutJob>;

impl Checkout {
    fn on_cart(&self, event: &CartEvent) -> Option<CheckoutReaction> {
        match event {
            CartEvent::CartCheckedOut { order_id, user_id, lines, shipping_address, customer_notes } => {
                Some(tell_order(
                    *order_id,
                    OrderCommand::PlaceOrder {
                        order_id: *order_id,
                        user_id: *user_id,
                        lines: lines.clone(),
                        shipping_address: shipping_address.text().to_owned(),
                        customer_notes: customer_notes.as_ref().map(|notes| notes.text().to_owned()),
                        from_cart: true,
                        pay_within_seconds: self.pay_within_seconds,
                    },
                ))
            }
            CartEvent::CartItemAdded { .. }
            | CartEvent::CartItemQuantityChanged { .. }
            | CartEvent::CartItemRemoved { .. }
            | CartEvent::CartCleared
            | CartEvent::CartReopened { .. }
            | CartEvent::CartAbandoned => None,
        }
    }

    fn on_order(&self, order_id: OrderId, event: &OrderEvent) -> Vec<CheckoutReaction> {
        match event {
            OrderEvent::OrderAwaitingPayment { pay_by, .. } => vec![Reaction::Schedule {
                id: expiry_id(order_id),
                due_at: Some(*pay_by),
                job: CheckoutJob::ExpireOrder { order_id },
            }],
            OrderEvent::OrderCommitting { .. }
            | OrderEvent::OrderCancelling { .. }
            | OrderEvent::OrderExpired { .. } => vec![Reaction::Unschedule { id: expiry_id(order_id) }],
            OrderEvent::OrderRejected { user_id, from_cart: true, lines, .. } => {
                let max_per_line = self.max_per_line;
                let command = CartCommand::Reopen { order_id, lines: lines.clone(), max_per_line };
                vec![tell_cart(*user_id, command)]
            }
            OrderEvent::OrderRejected { from_cart: false, .. }
            | OrderEvent::OrderPlaced { .. }
            | OrderEvent::OrderLineReserved { .. }
            | OrderEvent::OrderLineRejected { .. }
            | OrderEvent::OrderAddressEdited { .. }
            | OrderEvent::OrderEditRequested { .. }
            | OrderEvent::OrderEditLineReserved { .. }
            | OrderEvent::OrderEditLineRejected { .. }
            | OrderEvent::OrderLinesEdited { .. }
            | OrderEvent::OrderEditRejected { .. }
            | OrderEvent::OrderPaymentAttempted { .. }
            | OrderEvent::OrderPaymentDeclined { .. }
            | OrderEvent::OrderPaymentAuthorised { .. }
            | OrderEvent::OrderLineCommitted { .. }
            | OrderEvent::OrderLineLost { .. }
            | OrderEvent::OrderConfirmed { .. }
            | OrderEvent::OrderPaymentCaptured { .. }
            | OrderEvent::OrderCaptureFailed { .. }
            | OrderEvent::OrderPaymentVoided { .. }
            | OrderEvent::OrderPaymentRefunded { .. }
            | OrderEvent::OrderPaymentClosed
            | OrderEvent::OrderExpiryDeferred
            | OrderEvent::OrderLineReleased { .. }
            | OrderEvent::OrderCancelled { .. }
            | OrderEvent::OrderShipped { .. }
            | OrderEvent::OrderDelivered { .. }
            | OrderEvent::OrderReturnRequested { .. }
            | OrderEvent::OrderReturned { .. } => Vec::new(),
        }
    }
}

fn on_stock(cause: &Cause, product_id: ProductId, event: &StockItemEvent) -> Option<CheckoutReaction> {
    let now = cause.recorded_at;
    let (order_id, command) = match event {
        StockItemEvent::StockReserved { reservation, .. } => {
            (*reservation, OrderCommand::RecordReserved { product_ids: vec![product_id], now })
        }
        StockItemEvent::ReservationRejected { reservation, requested, available, revision } => {
            let (requested, available, revision) = (*requested, *available, *revision);
            let rejected = OrderCommand::RecordRejected { product_id, requested, available, revision, now };
            (*reservation, rejected)
        }
        StockItemEvent::ReservationAdjusted { reservation, quantity, revision, .. } => {
            let (quantity, revision) = (*quantity, *revision);
            (*reservation, OrderCommand::RecordAdjusted { product_id, quantity, revision })
        }
        StockItemEvent::ReservationCommitted { reservation, .. } => {
            (*reservation, OrderCommand::RecordCommitted { product_ids: vec![product_id] })
        }
        StockItemEvent::ReservationLost { reservation, .. } => {
            (*reservation, OrderCommand::RecordLost { product_id })
        }
        StockItemEvent::ReservationReleased { reservation, .. } => {
            (*reservation, OrderCommand::RecordReleased { product_id })
        }
        StockItemEvent::StockItemOpened { .. }
        | StockItemEvent::StockItemClosing { .. }
        | StockItemEvent::StockItemClosed { .. }
        | StockItemEvent::StockReceived { .. }
        | StockItemEvent::StockRemoved { .. }
        | StockItemEvent::StockCounted { .. }
        | StockItemEvent::StockWrittenOff { .. }
        | StockItemEvent::StockShipped { .. }
        | StockItemEvent::StockReturned { .. }
        | StockItemEvent::LowStockThresholdSet { .. }
        | StockItemEvent::StockDepleted { .. }
        | StockItemEvent::StockReplenished { .. }
        | StockItemEvent::LowStockReached { .. } => return None,
    };
    Some(tell_order(order_id, command))
}

fn on_payment(event: &PaymentEvent) -> Option<CheckoutReaction> {
    let (order_id, command) = match event {
        PaymentEvent::PaymentAttemptRequested { order_id, attempt, .. } => {
            (*order_id, OrderCommand::RecordPaymentAttempted { attempt: *attempt })
        }
        PaymentEvent::PaymentDeclined { order_id, attempt, .. } => {
            (*order_id, OrderCommand::RecordPaymentDeclined { attempt: *attempt })
        }
        PaymentEvent::PaymentAuthorised { order_id, attempt, amount, .. } => {
            (*order_id, OrderCommand::RecordPaymentAuthorised { attempt: *attempt, amount: *amount })
        }
        PaymentEvent::PaymentCaptured { order_id, amount, .. } => {
            (*order_id, OrderCommand::RecordPaymentCaptured { amount: *amount })
        }
        PaymentEvent::CaptureFailed { order_id, .. } => (*order_id, OrderCommand::RecordCaptureFailed),
        PaymentEvent::PaymentVoided { order_id, .. } => (*order_id, OrderCommand::RecordPaymentVoided),
        PaymentEvent::PaymentRefunded { order_id, amount, refunded, .. } => {
            (*order_id, OrderCommand::RecordPaymentRefunded { amount: *amount, refunded: *refunded })
        }
        PaymentEvent::PaymentClosed { order_id } => (*order_id, OrderCommand::RecordPaymentClosed),
        PaymentEvent::PaymentOpened { .. }
        | PaymentEvent::PaymentAmountChanged { .. }
        | PaymentEvent::PaymentActionRequired { .. }
        | PaymentEvent::PaymentAttemptUnknown { .. }
        | PaymentEvent::CaptureRequested { .. }
        | PaymentEvent::VoidRequested { .. }
        | PaymentEvent::RefundRequested { .. }
        | PaymentEvent::RefundFailed { .. }
        | PaymentEvent::PaymentClosing { .. } => return None,
    };
    Some(tell_order(order_id, command))
}

fn tell_order(order_id: OrderId, command: OrderCommand) -> CheckoutReaction {
    Reaction::Command { step: format!("order {order_id}"), target: OrdersCommand::Order(order_id, command) }
}

fn tell_cart(user_id: UserId, command: CartCommand) -> CheckoutReaction {
    Reaction::Command { step: format!("cart {user_id}"), target: OrdersCommand::Cart(user_id, command) }
}
