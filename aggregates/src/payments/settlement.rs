//! Settlement: what orders mean for their payments, and which calls to the gateway follow.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::identifiers::{OrderId, PaymentId, RefundId, derive};
use crate::orders::OrderEvent;
use crate::payments::{PaymentCommand, PaymentEvent, PaymentsCommand};
use crate::process::{Cause, ProcessManager, Reaction, Reactions};

/// How long to wait before a gateway that did not answer is asked again, in seconds.
pub const ASK_AGAIN_AFTER_SECONDS: i64 = 5;
/// Why money goes back when goods came back.
const RETURNED_REASON: &str = "goods returned";

/// The process that keeps payments in step with orders, and the gateway with payments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settlement;

/// What settlement listens to.
#[derive(Clone, Debug, PartialEq)]
pub enum SettlementEvent {
    /// Something happened to an order.
    Orders(OrderEvent),
    /// Something happened to a payment.
    Payments(PaymentEvent),
}

/// Durable work of settlement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettlementJob {
    /// Ask the gateway, and tell the payment what it answered. Amount, token and reference are read from the
    /// payment, and nothing is asked when it is past that point; the keys are those of `gateway_keys`.
    CallGateway {
        /// Which payment.
        payment_id: PaymentId,
        /// Of which order.
        order_id: OrderId,
        /// What to ask.
        call: GatewayCall,
    },
}

/// What a gateway is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayCall {
    /// To promise the money of an attempt; asked again with the same key, it tells the outcome.
    Authorise {
        /// The number of the attempt.
        attempt: u32,
    },
    /// To take what an attempt was promised.
    Capture {
        /// The number of the attempt.
        attempt: u32,
    },
    /// To forget what an attempt was promised.
    Void {
        /// The number of the attempt.
        attempt: u32,
    },
    /// To give money back.
    Refund {
        /// Which refund.
        refund_id: RefundId,
    },
}

impl ProcessManager for Settlement {
    const NAME: &'static str = "settlement";
    type Event = SettlementEvent;
    type Command = PaymentsCommand;
    type Job = SettlementJob;

    fn react(&self, cause: &Cause, event: &SettlementEvent) -> Reactions<Self> {
        Ok(match event {
            SettlementEvent::Orders(event) => {
                on_order(cause, cause.aggregate_id.parse()?, event).into_iter().collect()
            }
            SettlementEvent::Payments(event) => on_payment(cause, event).into_iter().collect(),
        })
    }
}

type SettlementReaction = Reaction<PaymentsCommand, SettlementJob>;

fn on_order(cause: &Cause, order_id: OrderId, event: &OrderEvent) -> Option<SettlementReaction> {
    let command = match event {
        OrderEvent::OrderAwaitingPayment { user_id, total, .. } => {
            PaymentCommand::Open { order_id, user_id: *user_id, amount: *total }
        }
        OrderEvent::OrderLinesEdited { total, .. } => PaymentCommand::ChangeAmount { amount: *total },
        OrderEvent::OrderConfirmed { .. } => PaymentCommand::Capture,
        OrderEvent::OrderCancelling { .. } | OrderEvent::OrderExpired { .. } => {
            PaymentCommand::Close { order_id }
        }
        OrderEvent::OrderReturned { refund, .. } if refund.minor > 0 => PaymentCommand::RefundUpTo {
            refund_id: RefundId(derive(cause.event_id, b"refund")),
            amount: *refund,
            reason: RETURNED_REASON.to_owned(),
        },
        OrderEvent::OrderReturned { .. }
        | OrderEvent::OrderPlaced { .. }
        | OrderEvent::OrderLineReserved { .. }
        | OrderEvent::OrderLineRejected { .. }
        | OrderEvent::OrderRejected { .. }
        | OrderEvent::OrderAddressEdited { .. }
        | OrderEvent::OrderEditRequested { .. }
        | OrderEvent::OrderEditLineReserved { .. }
        | OrderEvent::OrderEditLineRejected { .. }
        | OrderEvent::OrderEditRejected { .. }
        | OrderEvent::OrderPaymentAttempted { .. }
        | OrderEvent::OrderPaymentDeclined { .. }
        | OrderEvent::OrderPaymentAuthorised { .. }
        | OrderEvent::OrderCommitting { .. }
        | OrderEvent::OrderLineCommitted { .. }
        | OrderEvent::OrderLineLost { .. }
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
        | OrderEvent::OrderReturnRequested { .. } => return None,
    };
    let target = PaymentsCommand::Payment(PaymentId::of(order_id), command);
    Some(Reaction::Command { step: "payment".to_owned(), target })
}

fn on_payment(cause: &Cause, event: &PaymentEvent) -> Option<SettlementReaction> {
    let at_once = None;
    let later = Some(cause.recorded_at + TimeDelta::seconds(ASK_AGAIN_AFTER_SECONDS));
    let (order_id, due_at, call) = match event {
        PaymentEvent::PaymentAttemptRequested { order_id, attempt, .. } => {
            (*order_id, at_once, GatewayCall::Authorise { attempt: *attempt })
        }
        PaymentEvent::PaymentAttemptUnknown { order_id, attempt }
        | PaymentEvent::PaymentActionRequired { order_id, attempt } => {
            (*order_id, later, GatewayCall::Authorise { attempt: *attempt })
        }
        PaymentEvent::CaptureRequested { order_id, attempt, .. } => {
            (*order_id, at_once, GatewayCall::Capture { attempt: *attempt })
        }
        PaymentEvent::VoidRequested { order_id, attempt, .. } => {
            (*order_id, at_once, GatewayCall::Void { attempt: *attempt })
        }
        PaymentEvent::RefundRequested { order_id, refund_id, .. } => {
            (*order_id, at_once, GatewayCall::Refund { refund_id: *refund_id })
        }
        PaymentEvent::PaymentOpened { .. }
        | PaymentEvent::PaymentAmountChanged { .. }
        | PaymentEvent::PaymentAuthorised { .. }
        | PaymentEvent::PaymentDeclined { .. }
        | PaymentEvent::PaymentCaptured { .. }
        | PaymentEvent::CaptureFailed { .. }
        | PaymentEvent::PaymentVoided { .. }
        | PaymentEvent::PaymentRefunded { .. }
        | PaymentEvent::RefundFailed { .. }
        | PaymentEvent::PaymentClosing { .. }
        | PaymentEvent::PaymentClosed { .. } => return None,
    };
    let payment_id = PaymentId::of(order_id);
    Some(Reaction::Schedule {
        id: derive(cause.event_id, b"gateway"),
        due_at,
        job: SettlementJob::CallGateway { payment_id, order_id, call },
    })
}
