//! Reservations: what orders need of the stock becomes commands to stock items.

use chrono::TimeDelta;

use crate::identifiers::{OrderId, StockItemId};
use crate::inventory::{InventoryCommand, ReleaseReason, ReturnCondition, StockItemCommand};
use crate::lines::{self, LineQuantity};
use crate::orders::{CancelReason, OrderEvent};
use crate::process::{Cause, ProcessManager, Reaction, Reactions};

/// The process that keeps the stock in step with the orders. All stock is taken from the main location.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reservations;

/// What reservations listen to.
#[derive(Clone, Debug, PartialEq)]
pub enum ReservationsEvent {
    /// Something happened to an order.
    Orders(OrderEvent),
}

impl ProcessManager for Reservations {
    const NAME: &'static str = "reservations";
    type Event = ReservationsEvent;
    type Command = InventoryCommand;
    type Job = ();

    fn react(&self, cause: &Cause, event: &ReservationsEvent) -> Reactions<Self> {
        let ReservationsEvent::Orders(event) = event;
        let reservation: OrderId = cause.aggregate_id.parse()?;
        let now = cause.recorded_at;
        let adjust = |lines: &[LineQuantity], revision: u32| {
            for_each(lines, |quantity| StockItemCommand::Adjust { reservation, quantity, revision, now })
        };
        let release = |lines: &[LineQuantity], why: ReleaseReason| {
            for_each(lines, |_| StockItemCommand::Release { reservation, why, now })
        };
        Ok(match event {
            OrderEvent::OrderPlaced { lines, pay_within_seconds, .. } => {
                let until = Some(now + TimeDelta::seconds(i64::from(*pay_within_seconds)));
                for_each(&lines::quantities(lines), |quantity| StockItemCommand::Reserve {
                    reservation,
                    quantity,
                    until,
                })
            }
            OrderEvent::OrderEditRequested { increases, revision, .. } => adjust(increases, *revision),
            OrderEvent::OrderLinesEdited { decreases, revision, .. } => adjust(decreases, *revision),
            OrderEvent::OrderEditRejected { undo, revision, .. } => adjust(undo, *revision),
            OrderEvent::OrderCommitting { lines, .. } => {
                for_each(lines, |quantity| StockItemCommand::Commit { reservation, quantity })
            }
            OrderEvent::OrderRejected { lines, .. } => release(lines, ReleaseReason::Cancelled),
            OrderEvent::OrderExpired { lines, .. } => release(lines, ReleaseReason::Expired),
            OrderEvent::OrderCancelling { lines, reason, .. } => release(
                lines,
                match reason {
                    CancelReason::Customer | CancelReason::Admin | CancelReason::StockLost => {
                        ReleaseReason::Cancelled
                    }
                    CancelReason::AmountMismatch | CancelReason::CaptureFailed => {
                        ReleaseReason::PaymentFailed
                    }
                },
            ),
            OrderEvent::OrderShipped { lines, .. } => {
                for_each(lines, |quantity| StockItemCommand::Ship { reservation, quantity, now })
            }
            OrderEvent::OrderReturned { lines, resellable, .. } => {
                let condition =
                    if *resellable { ReturnCondition::Resellable } else { ReturnCondition::Damaged };
                for_each(lines, |quantity| StockItemCommand::Return { reservation, quantity, condition })
            }
            OrderEvent::OrderLineReserved { .. }
            | OrderEvent::OrderLineRejected { .. }
            | OrderEvent::OrderAwaitingPayment { .. }
            | OrderEvent::OrderAddressEdited { .. }
            | OrderEvent::OrderEditLineReserved { .. }
            | OrderEvent::OrderEditLineRejected { .. }
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
            | OrderEvent::OrderDelivered { .. }
            | OrderEvent::OrderReturnRequested { .. } => Vec::new(),
        })
    }
}

fn for_each(
    lines: &[LineQuantity],
    command: impl Fn(u32) -> StockItemCommand,
) -> Vec<Reaction<InventoryCommand, ()>> {
    lines
        .iter()
        .enumerate()
        .map(|(ordinal, line)| Reaction::Command {
            step: format!("line {ordinal} {}", line.product_id),
            target: InventoryCommand::StockItem(StockItemId::main(line.product_id), command(line.quantity)),
        })
        .collect()
}
