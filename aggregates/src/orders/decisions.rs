//! What an order decides.
//!
//! Answers of stock and payment that come late, or twice, change nothing and are not refused: they were true
//! when they were sent, and whoever sent them cannot do better by trying again.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::identifiers::ProductId;
use crate::lines::{self, LineQuantity, OrderLine};
use crate::money::Money;
use crate::orders::commands::OrderCommand;
use crate::orders::events::{CancelReason, OrderEvent, OrderStatus, PaymentStatus, RejectedLine};
use crate::orders::order::{Details, Edit, EditAnswer, Line, Order, Stock};
use crate::orders::refusals::OrderError;
use crate::personal::Personal;

type Decision = Result<Vec<OrderEvent>, OrderError>;

impl Order {
    /// What a command leads to, by the rules.
    ///
    /// # Errors
    /// The rule that refuses it.
    pub fn decide(&self, command: OrderCommand) -> Decision {
        match (self, command) {
            (
                Self::Unplaced,
                OrderCommand::PlaceOrder {
                    order_id,
                    user_id,
                    lines,
                    shipping_address,
                    customer_notes,
                    from_cart,
                    pay_within_seconds,
                },
            ) => {
                let total = lines::total_of(&lines).map_err(OrderError::Lines)?;
                Ok(vec![OrderEvent::OrderPlaced {
                    order_id,
                    user_id,
                    lines,
                    total,
                    shipping_address: checked_address(&shipping_address)?,
                    customer_notes: checked_notes(customer_notes)?,
                    from_cart,
                    pay_within_seconds,
                }])
            }
            (Self::Unplaced, _) => Err(OrderError::NotPlaced),
            (Self::Placed(details), command) => details.decide(command),
        }
    }
}

impl Details {
    fn decide(&self, command: OrderCommand) -> Decision {
        match command {
            OrderCommand::PlaceOrder { user_id, lines, .. } => {
                self.placed_again(user_id == self.user_id, &lines)
            }
            OrderCommand::Edit { lines, shipping_address, customer_notes } => {
                self.edit(lines, shipping_address, customer_notes)
            }
            OrderCommand::RecordReserved { product_ids, now } => Ok(self.record_reserved(&product_ids, now)),
            OrderCommand::RecordRejected { product_id, requested, available, revision: 0, now } => {
                let event = OrderEvent::OrderLineRejected { product_id, requested, available };
                Ok(self.record_rejected(product_id, event, now))
            }
            OrderCommand::RecordRejected { product_id, requested, available, revision, now: _ } => {
                let event = OrderEvent::OrderEditLineRejected { revision, product_id, requested, available };
                Ok(self.record_edit_answer(product_id, requested, revision, event))
            }
            OrderCommand::RecordAdjusted { product_id, quantity, revision } => {
                let event = OrderEvent::OrderEditLineReserved { revision, product_id };
                Ok(self.record_edit_answer(product_id, quantity, revision, event))
            }
            OrderCommand::RecordCommitted { product_ids } => Ok(self.record_committed(&product_ids)),
            OrderCommand::RecordLost { product_id } => Ok(self.record_lost(product_id)),
            OrderCommand::RecordReleased { product_id } => {
                let known = self.status == OrderStatus::Cancelling && self.releasing.contains(&product_id);
                Ok(if known { self.back(OrderEvent::OrderLineReleased { product_id }) } else { Vec::new() })
            }
            OrderCommand::RecordPaymentAttempted { attempt } => Ok(self.record_attempt(attempt)),
            OrderCommand::RecordPaymentDeclined { attempt } => Ok(self.record_declined(attempt)),
            OrderCommand::RecordPaymentAuthorised { attempt, amount } => {
                Ok(self.record_authorised(attempt, amount))
            }
            OrderCommand::RecordPaymentCaptured { amount } => {
                let event = OrderEvent::OrderPaymentCaptured { amount, payment_status: PaymentStatus::Paid };
                Ok(self.captured.is_none().then_some(event).into_iter().collect())
            }
            OrderCommand::RecordCaptureFailed => Ok(self.record_capture_failed()),
            OrderCommand::RecordPaymentVoided => Ok(self
                .changed_payment(PaymentStatus::Voided, |payment_status| OrderEvent::OrderPaymentVoided {
                    payment_status,
                })),
            OrderCommand::RecordPaymentRefunded { amount, refunded } => {
                let all = self.captured.is_none_or(|captured| refunded.minor >= captured.minor);
                let payment_status =
                    if all { PaymentStatus::Refunded } else { PaymentStatus::PartiallyRefunded };
                Ok(vec![OrderEvent::OrderPaymentRefunded { amount, refunded, payment_status }])
            }
            OrderCommand::RecordPaymentClosed => {
                Ok(if self.payment_closed { Vec::new() } else { self.back(OrderEvent::OrderPaymentClosed) })
            }
            OrderCommand::Expire { now } => self.expire(now),
            OrderCommand::Cancel { by_admin } => self.cancel(by_admin),
            OrderCommand::Ship { lines } => self.ship(lines),
            OrderCommand::Deliver => match self.status {
                OrderStatus::Shipped => Ok(vec![OrderEvent::OrderDelivered { user_id: self.user_id }]),
                OrderStatus::Delivered => Ok(Vec::new()),
                status => Err(OrderError::NotDeliverable { status }),
            },
            OrderCommand::RequestReturn { lines } => self.request_return(lines),
            OrderCommand::ReceiveReturn { resellable } => self.receive_return(resellable),
        }
    }

    fn placed_again(&self, same_user: bool, lines: &[OrderLine]) -> Decision {
        let same = same_user && lines.iter().eq(self.lines.iter().map(|line| &line.bought));
        if same { Ok(Vec::new()) } else { Err(OrderError::AlreadyPlaced) }
    }

    fn line(&self, product_id: ProductId) -> Option<&Line> {
        self.lines.iter().find(|line| line.bought.product_id == product_id)
    }

    fn bought(&self) -> Vec<OrderLine> {
        self.lines.iter().map(|line| line.bought.clone()).collect()
    }

    fn quantity_of(&self, product_id: ProductId) -> u32 {
        self.line(product_id).map_or(0, |line| line.bought.quantity)
    }

    /// Everything the stock may hold for this order: its lines, and what an undecided edit asked for.
    fn maybe_held(&self) -> Vec<LineQuantity> {
        let not_lost = self.lines.iter().filter(|line| line.stock != Stock::Lost);
        let asked = self.edit.iter().flat_map(|edit| &edit.increases);
        let added = asked.filter(|increase| self.line(increase.product_id).is_none());
        not_lost.map(|line| line.bought.without_price()).chain(added.copied()).collect()
    }

    // Placing: rows 2 and 3.

    fn record_reserved(&self, product_ids: &[ProductId], now: DateTime<Utc>) -> Vec<OrderEvent> {
        let news = self.waiting(product_ids, Stock::Asked);
        if self.status != OrderStatus::Placed || news.is_empty() {
            return Vec::new();
        }
        let reserved = news.into_iter().map(|product_id| OrderEvent::OrderLineReserved { product_id });
        let reserved: Vec<_> = reserved.collect();
        match self.after_all(&reserved).stock_decision(now) {
            // That all lines are held says it of each.
            Some(payable @ OrderEvent::OrderAwaitingPayment { .. }) => vec![payable],
            decision => reserved.into_iter().chain(decision).collect(),
        }
    }

    fn record_rejected(
        &self,
        product_id: ProductId,
        event: OrderEvent,
        now: DateTime<Utc>,
    ) -> Vec<OrderEvent> {
        if self.status != OrderStatus::Placed || self.waiting(&[product_id], Stock::Asked).is_empty() {
            return Vec::new();
        }
        let decision = self.after(&event).stock_decision(now);
        [event].into_iter().chain(decision).collect()
    }

    /// Those of some products' lines of which this was the last that the stock said.
    fn waiting(&self, product_ids: &[ProductId], stock: Stock) -> Vec<ProductId> {
        let lines = self.lines.iter().filter(|line| line.stock == stock);
        lines.map(|line| line.bought.product_id).filter(|id| product_ids.contains(id)).collect()
    }

    /// Taken when all lines are answered, so that a refusal names every line that is short.
    fn stock_decision(&self, now: DateTime<Utc>) -> Option<OrderEvent> {
        if self.lines.iter().any(|line| line.stock == Stock::Asked) {
            return None;
        }
        let rejected: Vec<_> = self
            .lines
            .iter()
            .filter_map(|line| match line.stock {
                Stock::Rejected { available } => Some(RejectedLine {
                    product_id: line.bought.product_id,
                    requested: line.bought.quantity,
                    available,
                }),
                Stock::Asked | Stock::Held | Stock::Committed | Stock::Lost => None,
            })
            .collect();
        let user_id = self.user_id;
        Some(if rejected.is_empty() {
            let pay_by = now + TimeDelta::seconds(i64::from(self.pay_within_seconds));
            OrderEvent::OrderAwaitingPayment { user_id, total: self.total, pay_by }
        } else {
            let lines = lines::quantities(&self.bought());
            OrderEvent::OrderRejected { user_id, from_cart: self.from_cart, rejected, lines }
        })
    }

    // Editing: row 4.

    fn edit(
        &self,
        wanted: Option<Vec<OrderLine>>,
        shipping_address: Option<String>,
        customer_notes: Option<String>,
    ) -> Decision {
        if !matches!(self.status, OrderStatus::Placed | OrderStatus::AwaitingPayment) {
            return Err(OrderError::NotEditable { status: self.status });
        }
        if self.edit.is_some() {
            return Err(OrderError::EditInProgress);
        }
        if self.attempt_unresolved {
            return Err(OrderError::PaymentInProgress);
        }
        let address = self.edited_address(shipping_address, customer_notes)?;
        match wanted {
            None => Ok(self.address_edited(address).into_iter().collect()),
            Some(wanted) => self.edit_lines(wanted, address),
        }
    }

    fn edited_address(
        &self,
        shipping_address: Option<String>,
        customer_notes: Option<String>,
    ) -> Result<Option<Address>, OrderError> {
        let address = match shipping_address {
            None => self.shipping_address.clone(),
            Some(address) => checked_address(&address)?,
        };
        let notes = match customer_notes {
            None => self.customer_notes.clone(),
            Some(notes) => checked_notes(Some(notes))?,
        };
        let changed = address != self.shipping_address || notes != self.customer_notes;
        Ok(changed.then_some((address, notes)))
    }

    fn address_edited(&self, address: Option<Address>) -> Option<OrderEvent> {
        address.map(|(shipping_address, customer_notes)| OrderEvent::OrderAddressEdited {
            user_id: self.user_id,
            shipping_address,
            customer_notes,
        })
    }

    fn edit_lines(&self, wanted: Vec<OrderLine>, address: Option<Address>) -> Decision {
        if self.status == OrderStatus::Placed {
            return Err(OrderError::StockUndecided);
        }
        let lines: Vec<_> = wanted
            .into_iter()
            .map(|line| match self.line(line.product_id) {
                Some(kept) => OrderLine { quantity: line.quantity, ..kept.bought.clone() },
                None => line,
            })
            .collect();
        let total = lines::total_of(&lines).map_err(OrderError::Lines)?;
        if total.currency != self.total.currency {
            return Err(OrderError::CurrencyChanged);
        }
        if lines == self.bought() {
            return Ok(self.address_edited(address).into_iter().collect());
        }
        let increases: Vec<_> = lines::quantities(&lines)
            .into_iter()
            .filter(|line| line.quantity > self.quantity_of(line.product_id))
            .collect();
        let revision = self.revision.saturating_add(1);
        if increases.is_empty() {
            return Ok(self.lines_edited(revision, lines, total, address));
        }
        let (shipping_address, customer_notes) = match address {
            Some((address, notes)) => (Some(address), notes),
            None => (None, None),
        };
        let user_id = self.user_id;
        Ok(vec![OrderEvent::OrderEditRequested {
            user_id,
            revision,
            lines,
            increases,
            shipping_address,
            customer_notes,
        }])
    }

    fn lines_edited(
        &self,
        revision: u32,
        lines: Vec<OrderLine>,
        total: Money,
        address: Option<Address>,
    ) -> Vec<OrderEvent> {
        let next: BTreeMap<_, _> = lines.iter().map(|line| (line.product_id, line.quantity)).collect();
        let decreases = self
            .lines
            .iter()
            .map(|line| {
                let product_id = line.bought.product_id;
                LineQuantity { product_id, quantity: next.get(&product_id).copied().unwrap_or(0) }
            })
            .filter(|line| line.quantity < self.quantity_of(line.product_id))
            .collect();
        let edited =
            OrderEvent::OrderLinesEdited { user_id: self.user_id, revision, lines, total, decreases };
        [edited].into_iter().chain(self.address_edited(address)).collect()
    }

    fn record_edit_answer(
        &self,
        product_id: ProductId,
        quantity: u32,
        revision: u32,
        event: OrderEvent,
    ) -> Vec<OrderEvent> {
        let wanted = LineQuantity { product_id, quantity };
        let asked = self.edit.as_ref().is_some_and(|edit| {
            edit.revision == revision
                && edit.increases.contains(&wanted)
                && !edit.answers.contains_key(&product_id)
        });
        if !asked {
            return Vec::new();
        }
        let next = self.after(&event);
        let decided = next.edit.as_ref().filter(|edit| edit.answers.len() == edit.increases.len());
        let decision = decided.map(|edit| next.edit_decision(edit)).unwrap_or_default();
        [event].into_iter().chain(decision).collect()
    }

    fn edit_decision(&self, edit: &Edit) -> Vec<OrderEvent> {
        let rejected: Vec<_> = edit
            .answers
            .iter()
            .filter_map(|(product_id, answer)| match *answer {
                EditAnswer::Held => None,
                EditAnswer::Rejected { requested, available } => {
                    Some(RejectedLine { product_id: *product_id, requested, available })
                }
            })
            .collect();
        match lines::total_of(&edit.lines) {
            Ok(total) if rejected.is_empty() => {
                self.lines_edited(edit.revision, edit.lines.clone(), total, edit.address.clone())
            }
            Ok(_) | Err(_) => vec![self.edit_rejected(edit, rejected)],
        }
    }

    /// All that was asked for is undone, also what is still unanswered: the undoing comes after the asking.
    fn edit_rejected(&self, edit: &Edit, rejected: Vec<RejectedLine>) -> OrderEvent {
        let undo = edit
            .increases
            .iter()
            .map(|line| LineQuantity { quantity: self.quantity_of(line.product_id), ..*line })
            .collect();
        OrderEvent::OrderEditRejected { user_id: self.user_id, revision: edit.revision, rejected, undo }
    }

    // Paying: rows 5, 6, 8, 9 and 15.

    fn record_attempt(&self, attempt: u32) -> Vec<OrderEvent> {
        let fresh = self.status == OrderStatus::AwaitingPayment && attempt > self.attempts;
        let payment_status = PaymentStatus::Pending;
        fresh.then_some(OrderEvent::OrderPaymentAttempted { attempt, payment_status }).into_iter().collect()
    }

    /// Whether the outcome of an attempt is news.
    fn is_undecided(&self, attempt: u32) -> bool {
        attempt > self.attempts || (attempt == self.attempts && self.attempt_unresolved)
    }

    fn record_declined(&self, attempt: u32) -> Vec<OrderEvent> {
        if !self.is_undecided(attempt) {
            return Vec::new();
        }
        let declined = OrderEvent::OrderPaymentDeclined { attempt, payment_status: PaymentStatus::Failed };
        let due = self.status == OrderStatus::AwaitingPayment && self.expiry_deferred;
        [declined].into_iter().chain(due.then(|| self.expired())).collect()
    }

    fn record_authorised(&self, attempt: u32, amount: Money) -> Vec<OrderEvent> {
        if !self.is_undecided(attempt) {
            return Vec::new();
        }
        let authorised =
            OrderEvent::OrderPaymentAuthorised { attempt, amount, payment_status: PaymentStatus::Authorized };
        if self.status != OrderStatus::AwaitingPayment {
            // The payment was told to close and gives the money back by itself.
            return vec![authorised];
        }
        if amount != self.total {
            return vec![authorised, self.cancelling(CancelReason::AmountMismatch)];
        }
        let undone = self.edit.as_ref().map(|edit| self.edit_rejected(edit, Vec::new()));
        let lines = lines::quantities(&self.bought());
        let committing = OrderEvent::OrderCommitting { user_id: self.user_id, lines };
        [authorised].into_iter().chain(undone).chain([committing]).collect()
    }

    fn record_committed(&self, product_ids: &[ProductId]) -> Vec<OrderEvent> {
        let news = self.waiting(product_ids, Stock::Held);
        if self.status != OrderStatus::Committing || news.is_empty() {
            return Vec::new();
        }
        let committed = news.into_iter().map(|product_id| OrderEvent::OrderLineCommitted { product_id });
        let committed: Vec<_> = committed.collect();
        match self.after_all(&committed).commitment_decision() {
            // That all holds are firm says it of each.
            Some(confirmed @ OrderEvent::OrderConfirmed { .. }) => vec![confirmed],
            decision => committed.into_iter().chain(decision).collect(),
        }
    }

    fn record_lost(&self, product_id: ProductId) -> Vec<OrderEvent> {
        if self.status != OrderStatus::Committing || self.waiting(&[product_id], Stock::Held).is_empty() {
            return Vec::new();
        }
        let lost = OrderEvent::OrderLineLost { product_id };
        let decision = self.after(&lost).commitment_decision();
        [lost].into_iter().chain(decision).collect()
    }

    /// Taken when the fate of all holds is known.
    fn commitment_decision(&self) -> Option<OrderEvent> {
        if self.lines.iter().any(|line| line.stock == Stock::Held) {
            None
        } else if self.lines.iter().any(|line| line.stock == Stock::Lost) {
            Some(self.cancelling(CancelReason::StockLost))
        } else {
            let lines = self.bought();
            Some(OrderEvent::OrderConfirmed { user_id: self.user_id, lines, total: self.total })
        }
    }

    fn record_capture_failed(&self) -> Vec<OrderEvent> {
        let mut events = self.changed_payment(PaymentStatus::Failed, |payment_status| {
            OrderEvent::OrderCaptureFailed { payment_status }
        });
        if self.status == OrderStatus::Confirmed {
            events.push(self.cancelling(CancelReason::CaptureFailed));
        }
        events
    }

    fn changed_payment(
        &self,
        status: PaymentStatus,
        event: impl FnOnce(PaymentStatus) -> OrderEvent,
    ) -> Vec<OrderEvent> {
        if self.payment_status == status { Vec::new() } else { vec![event(status)] }
    }

    // Ending early: rows 7, 12 and 13.

    fn expire(&self, now: DateTime<Utc>) -> Decision {
        match (self.status, self.pay_by) {
            (OrderStatus::Expired, _) => Ok(Vec::new()),
            (OrderStatus::AwaitingPayment, Some(pay_by)) if now < pay_by => Err(OrderError::NotDue),
            (OrderStatus::AwaitingPayment, _) if self.attempt_unresolved => {
                Ok((!self.expiry_deferred).then_some(OrderEvent::OrderExpiryDeferred).into_iter().collect())
            }
            (OrderStatus::AwaitingPayment, _) => Ok(vec![self.expired()]),
            (status, _) => Err(OrderError::NotAwaitingPayment { status }),
        }
    }

    fn expired(&self) -> OrderEvent {
        OrderEvent::OrderExpired { user_id: self.user_id, lines: self.maybe_held() }
    }

    fn cancel(&self, by_admin: bool) -> Decision {
        match self.status {
            OrderStatus::Cancelling | OrderStatus::Cancelled => Ok(Vec::new()),
            OrderStatus::Placed
            | OrderStatus::AwaitingPayment
            | OrderStatus::Committing
            | OrderStatus::Confirmed
                if by_admin || self.captured.is_none() =>
            {
                let reason = if by_admin { CancelReason::Admin } else { CancelReason::Customer };
                Ok(vec![self.cancelling(reason)])
            }
            status => Err(OrderError::NotCancellable { status }),
        }
    }

    fn cancelling(&self, reason: CancelReason) -> OrderEvent {
        OrderEvent::OrderCancelling { user_id: self.user_id, reason, lines: self.maybe_held() }
    }

    /// Something is back; when all is, the order is cancelled.
    fn back(&self, event: OrderEvent) -> Vec<OrderEvent> {
        let next = self.after(&event);
        let all = next.status == OrderStatus::Cancelling && next.payment_closed && next.releasing.is_empty();
        let cancelled = next
            .cancel_reason
            .filter(|_| all)
            .map(|reason| OrderEvent::OrderCancelled { user_id: self.user_id, reason });
        [event].into_iter().chain(cancelled).collect()
    }

    // Sending and taking back: rows 10, 11 and 14.

    fn ship(&self, wanted: Vec<LineQuantity>) -> Decision {
        match self.status {
            OrderStatus::Confirmed | OrderStatus::PartiallyShipped => {}
            OrderStatus::Shipped if wanted.is_empty() => return Ok(Vec::new()),
            status => return Err(OrderError::NotShippable { status }),
        }
        if self.captured.is_none() || self.payment_status == PaymentStatus::Refunded {
            return Err(OrderError::NotPaid);
        }
        let lines = self.chosen(wanted, |line| line.bought.quantity - line.shipped)?;
        let user_id = self.user_id;
        let partly = OrderEvent::OrderShipped { user_id, lines, status: OrderStatus::PartiallyShipped };
        let open = self.after(&partly).lines.iter().any(|line| line.shipped < line.bought.quantity);
        Ok(vec![match partly {
            OrderEvent::OrderShipped { user_id, lines, .. } if !open => {
                OrderEvent::OrderShipped { user_id, lines, status: OrderStatus::Shipped }
            }
            partly => partly,
        }])
    }

    fn request_return(&self, wanted: Vec<LineQuantity>) -> Decision {
        if self.status != OrderStatus::Delivered {
            return Err(OrderError::NotReturnable { status: self.status });
        }
        let lines = self.chosen(wanted, |line| line.shipped - line.returned)?;
        Ok(vec![OrderEvent::OrderReturnRequested { user_id: self.user_id, lines }])
    }

    fn receive_return(&self, resellable: bool) -> Decision {
        match self.status {
            OrderStatus::ReturnRequested => {}
            OrderStatus::Returned => return Ok(Vec::new()),
            status => return Err(OrderError::NotReturnable { status }),
        }
        let lines = self.returning.clone();
        let refund = lines.iter().try_fold(Money::zero(self.total.currency), |sum, returned| {
            let price = self.line(returned.product_id).map(|line| line.bought.unit_price);
            price.map_or(Ok(sum), |price| sum.checked_add(price.checked_multiply(returned.quantity)?))
        });
        // A part of the lines never costs more than all of them, so the total is the bound it cannot pass.
        let refund = refund.unwrap_or(self.total);
        Ok(vec![OrderEvent::OrderReturned { user_id: self.user_id, lines, resellable, refund }])
    }

    /// The lines that are named, or all that are open.
    fn chosen(
        &self,
        wanted: Vec<LineQuantity>,
        open: fn(&Line) -> u32,
    ) -> Result<Vec<LineQuantity>, OrderError> {
        if wanted.is_empty() {
            let all = self
                .lines
                .iter()
                .map(|line| LineQuantity { quantity: open(line), ..line.bought.without_price() });
            return Ok(all.filter(|line| line.quantity > 0).collect());
        }
        let mut sums = BTreeMap::new();
        for LineQuantity { product_id, quantity } in &wanted {
            let sum: &mut u32 = sums.entry(*product_id).or_default();
            *sum = sum.saturating_add(*quantity);
        }
        for (product_id, requested) in sums {
            let open = self.line(product_id).map_or(0, open);
            if requested > open || requested == 0 {
                return Err(OrderError::MoreThanOpen { product_id, requested, open });
            }
        }
        Ok(wanted)
    }
}

/// A shipping address and notes.
type Address = (Personal<String>, Option<Personal<String>>);

fn checked_address(address: &str) -> Result<Personal<String>, OrderError> {
    lines::checked_address(address)
        .map(Personal::Known)
        .map_err(|reason| OrderError::Invalid { field: "shipping_address", reason })
}

fn checked_notes(notes: Option<String>) -> Result<Option<Personal<String>>, OrderError> {
    lines::checked_notes(notes)
        .map(|notes| notes.map(Personal::Known))
        .map_err(|reason| OrderError::Invalid { field: "customer_notes", reason })
}
