//! The order: state, and what follows from events. What is decided stands in `decisions.rs`.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identifiers::{OrderId, ProductId, UserId};
use crate::lines::{LineQuantity, OrderLine};
use crate::money::Money;
use crate::orders::commands::OrderCommand;
use crate::orders::events::{CancelReason, OrderEvent, OrderStatus, PaymentStatus};
use crate::orders::refusals::OrderError;
use crate::personal::Personal;
use crate::records::{Recorded, decided_aggregate};

/// An order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// Nothing yet.
    #[default]
    Unplaced,
    /// Somebody placed it.
    Placed(Box<Details>),
}

/// What is known of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// The order's id.
    pub order_id: OrderId,
    /// Whose order.
    pub user_id: UserId,
    /// What is bought.
    pub lines: Vec<Line>,
    /// What it costs.
    pub total: Money,
    /// Where it goes.
    pub shipping_address: Personal<String>,
    /// What the customer wants us to know.
    pub customer_notes: Option<Personal<String>>,
    /// Whether it came from the customer's cart.
    pub from_cart: bool,
    /// How long it may stay unpaid, in seconds.
    pub pay_within_seconds: u32,
    /// When it expires unless it is paid.
    pub pay_by: Option<DateTime<Utc>>,
    /// Where it stands.
    pub status: OrderStatus,
    /// Where its money stands.
    pub payment_status: PaymentStatus,
    /// The latest attempt to pay.
    pub attempts: u32,
    /// Whether that attempt is undecided.
    pub attempt_unresolved: bool,
    /// What was received.
    pub captured: Option<Money>,
    /// No money of the customer is with us, and none will be taken.
    pub payment_closed: bool,
    /// The time to pay passed while an attempt was undecided.
    pub expiry_deferred: bool,
    /// How often the lines were edited, or tried to be.
    pub revision: u32,
    /// An edit that the stock has not answered.
    pub edit: Option<Edit>,
    /// Why it is cancelled.
    pub cancel_reason: Option<CancelReason>,
    /// The holds that are not back yet.
    pub releasing: BTreeSet<ProductId>,
    /// What the customer is sending back.
    pub returning: Vec<LineQuantity>,
}

/// A line of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// What is bought.
    pub bought: OrderLine,
    /// What the stock said.
    pub stock: Stock,
    /// How many left.
    pub shipped: u32,
    /// How many came back.
    pub returned: u32,
}

impl Line {
    pub(super) fn new(bought: OrderLine, stock: Stock) -> Self {
        Self { bought, stock, shipped: 0, returned: 0 }
    }
}

/// What the stock said of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stock {
    /// Nothing yet.
    Asked,
    /// It is held.
    Held,
    /// There is not enough.
    Rejected {
        /// How many there are.
        available: u32,
    },
    /// It is held for good.
    Committed,
    /// The hold was lost.
    Lost,
}

/// A change of lines that the stock has to agree to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// Which one.
    pub revision: u32,
    /// The lines as they shall be.
    pub lines: Vec<OrderLine>,
    /// What the stock is asked for.
    pub increases: Vec<LineQuantity>,
    /// What it answered.
    pub answers: BTreeMap<ProductId, EditAnswer>,
    /// The address and notes as they shall be, where they change.
    pub address: Option<(Personal<String>, Option<Personal<String>>)>,
}

/// What the stock said of a larger quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EditAnswer {
    /// It is held.
    Held,
    /// There is not enough.
    Rejected {
        /// How many were wanted.
        requested: u32,
        /// How many there are.
        available: u32,
    },
}

impl Order {
    /// The order once it is placed.
    #[must_use]
    pub fn details(&self) -> Option<&Details> {
        match self {
            Self::Unplaced => None,
            Self::Placed(details) => Some(details),
        }
    }

    fn evolve(&mut self, event: OrderEvent) {
        match (self, event) {
            (
                order,
                OrderEvent::OrderPlaced {
                    order_id,
                    user_id,
                    lines,
                    total,
                    shipping_address,
                    customer_notes,
                    from_cart,
                    pay_within_seconds,
                },
            ) => {
                *order = Self::Placed(Box::new(Details {
                    order_id,
                    user_id,
                    lines: lines.into_iter().map(|line| Line::new(line, Stock::Asked)).collect(),
                    total,
                    shipping_address,
                    customer_notes,
                    from_cart,
                    pay_within_seconds,
                    pay_by: None,
                    status: OrderStatus::Placed,
                    payment_status: PaymentStatus::Pending,
                    attempts: 0,
                    attempt_unresolved: false,
                    captured: None,
                    payment_closed: false,
                    expiry_deferred: false,
                    revision: 0,
                    edit: None,
                    cancel_reason: None,
                    releasing: BTreeSet::new(),
                    returning: Vec::new(),
                }));
            }
            (Self::Placed(details), event) => details.evolve(event),
            (Self::Unplaced, _) => {}
        }
    }
}

impl Details {
    /// The order as it is after an event.
    pub(super) fn after(&self, event: &OrderEvent) -> Self {
        self.after_all(std::slice::from_ref(event))
    }

    /// The order as it is after some events.
    pub(super) fn after_all(&self, events: &[OrderEvent]) -> Self {
        let mut next = self.clone();
        for event in events {
            next.evolve(event.clone());
        }
        next
    }

    fn evolve(&mut self, event: OrderEvent) {
        match event {
            OrderEvent::OrderPlaced { .. } => {}
            OrderEvent::OrderLineReserved { product_id } => self.answer(product_id, Stock::Held),
            OrderEvent::OrderLineRejected { product_id, requested: _, available } => {
                self.answer(product_id, Stock::Rejected { available });
            }
            OrderEvent::OrderAwaitingPayment { pay_by, .. } => {
                self.status = OrderStatus::AwaitingPayment;
                self.pay_by = Some(pay_by);
                self.answer_all(Stock::Held);
            }
            OrderEvent::OrderRejected { .. } => self.status = OrderStatus::Rejected,
            OrderEvent::OrderAddressEdited { user_id: _, shipping_address, customer_notes } => {
                self.shipping_address = shipping_address;
                self.customer_notes = customer_notes;
            }
            OrderEvent::OrderEditRequested {
                user_id: _,
                revision,
                lines,
                increases,
                shipping_address,
                customer_notes,
            } => {
                self.revision = revision;
                let address = shipping_address.map(|address| (address, customer_notes));
                self.edit = Some(Edit { revision, lines, increases, answers: BTreeMap::new(), address });
            }
            OrderEvent::OrderEditLineReserved { revision: _, product_id } => {
                self.answer_edit(product_id, EditAnswer::Held);
            }
            OrderEvent::OrderEditLineRejected { revision: _, product_id, requested, available } => {
                self.answer_edit(product_id, EditAnswer::Rejected { requested, available });
            }
            OrderEvent::OrderLinesEdited { revision, lines, total, .. } => {
                self.revision = revision;
                self.edit = None;
                self.total = total;
                self.lines = lines.into_iter().map(|line| Line::new(line, Stock::Held)).collect();
            }
            OrderEvent::OrderEditRejected { .. } => self.edit = None,
            OrderEvent::OrderPaymentAttempted { attempt, payment_status } => {
                self.attempts = attempt;
                self.attempt_unresolved = true;
                self.payment_status = payment_status;
            }
            OrderEvent::OrderPaymentDeclined { attempt, payment_status }
            | OrderEvent::OrderPaymentAuthorised { attempt, amount: _, payment_status } => {
                self.attempts = attempt;
                self.attempt_unresolved = false;
                self.payment_status = payment_status;
            }
            OrderEvent::OrderCommitting { .. } => self.status = OrderStatus::Committing,
            OrderEvent::OrderLineCommitted { product_id } => self.answer(product_id, Stock::Committed),
            OrderEvent::OrderLineLost { product_id } => self.answer(product_id, Stock::Lost),
            OrderEvent::OrderConfirmed { .. } => {
                self.status = OrderStatus::Confirmed;
                self.answer_all(Stock::Committed);
            }
            OrderEvent::OrderPaymentCaptured { amount, payment_status } => {
                self.captured = Some(amount);
                self.payment_status = payment_status;
            }
            OrderEvent::OrderCaptureFailed { payment_status }
            | OrderEvent::OrderPaymentVoided { payment_status }
            | OrderEvent::OrderPaymentRefunded { amount: _, refunded: _, payment_status } => {
                self.payment_status = payment_status;
            }
            OrderEvent::OrderPaymentClosed => self.payment_closed = true,
            OrderEvent::OrderExpiryDeferred => self.expiry_deferred = true,
            OrderEvent::OrderExpired { .. } => {
                self.status = OrderStatus::Expired;
                self.edit = None;
            }
            OrderEvent::OrderCancelling { user_id: _, reason, lines } => {
                self.status = OrderStatus::Cancelling;
                self.cancel_reason = Some(reason);
                self.releasing = lines.iter().map(|line| line.product_id).collect();
                self.edit = None;
            }
            OrderEvent::OrderLineReleased { product_id } => {
                self.releasing.remove(&product_id);
            }
            OrderEvent::OrderCancelled { .. } => self.status = OrderStatus::Cancelled,
            OrderEvent::OrderShipped { user_id: _, lines, status } => {
                self.status = status;
                self.each_line(&lines, |line, quantity| line.shipped = line.shipped.saturating_add(quantity));
            }
            OrderEvent::OrderDelivered { .. } => self.status = OrderStatus::Delivered,
            OrderEvent::OrderReturnRequested { user_id: _, lines } => {
                self.status = OrderStatus::ReturnRequested;
                self.returning = lines;
            }
            OrderEvent::OrderReturned { user_id: _, lines, .. } => {
                self.each_line(&lines, |line, quantity| {
                    line.returned = line.returned.saturating_add(quantity)
                });
                self.returning = Vec::new();
                let all = self.lines.iter().all(|line| line.returned >= line.bought.quantity);
                self.status = if all { OrderStatus::Returned } else { OrderStatus::Delivered };
            }
        }
    }

    fn answer(&mut self, product_id: ProductId, stock: Stock) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.bought.product_id == product_id) {
            line.stock = stock;
        }
    }

    fn answer_all(&mut self, stock: Stock) {
        for line in &mut self.lines {
            line.stock = stock;
        }
    }

    fn answer_edit(&mut self, product_id: ProductId, answer: EditAnswer) {
        if let Some(edit) = &mut self.edit {
            edit.answers.insert(product_id, answer);
        }
    }

    fn each_line(&mut self, quantities: &[LineQuantity], change: fn(&mut Line, u32)) {
        for wanted in quantities {
            let found = self.lines.iter_mut().find(|line| line.bought.product_id == wanted.product_id);
            if let Some(line) = found {
                change(line, wanted.quantity);
            }
        }
    }
}

decided_aggregate!(Order, "order", OrderCommand, OrderEvent, OrderError);

impl Recorded for Order {
    fn personal_fields(event_type: &str) -> &'static [&'static str] {
        match event_type {
            "OrderPlaced" | "OrderAddressEdited" | "OrderEditRequested" => {
                &["shipping_address", "customer_notes"]
            }
            _ => &[],
        }
    }

    fn person_of_state(_aggregate_id: &str, order: &Self) -> Option<Uuid> {
        order.details().map(|details| details.user_id.0)
    }

    /// Only events that hold personal data name a person; the others need no key.
    fn person_of(_aggregate_id: &str, event: &OrderEvent) -> Option<Uuid> {
        if let OrderEvent::OrderPlaced { user_id, .. }
        | OrderEvent::OrderAddressEdited { user_id, .. }
        | OrderEvent::OrderEditRequested { user_id, .. } = event
        {
            Some(user_id.0)
        } else {
            None
        }
    }
}
