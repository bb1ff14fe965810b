//! What happens to a payment.

use serde::{Deserialize, Serialize};

use crate::identifiers::{OrderId, RefundId, UserId};
use crate::money::Money;
use crate::records::domain_event;

/// What happens to a payment. Cards appear by the gateway's token, brand and last four digits only.
#[allow(missing_docs, reason = "the variant says what happened, the names of its fields say with what")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PaymentEvent {
    /// The order can be paid.
    PaymentOpened { order_id: OrderId, user_id: UserId, amount: Money },
    /// The order costs another amount.
    PaymentAmountChanged { order_id: OrderId, amount: Money, previous: Money },
    /// Somebody pays: the gateway is to be asked.
    PaymentAttemptRequested {
        order_id: OrderId,
        attempt: u32,
        amount: Money,
        token: String,
        card_brand: String,
        card_last4: String,
        paid_by: UserId,
    },
    /// The card's owner has to do something first.
    PaymentActionRequired { order_id: OrderId, attempt: u32 },
    /// The gateway has not answered: it is to be asked again with the same key.
    PaymentAttemptUnknown { order_id: OrderId, attempt: u32 },
    /// The money is promised.
    PaymentAuthorised { order_id: OrderId, attempt: u32, amount: Money, gateway_reference: String },
    /// The attempt failed.
    PaymentDeclined { order_id: OrderId, attempt: u32, reason: String },
    /// The promised money is to be taken.
    CaptureRequested { order_id: OrderId, attempt: u32, amount: Money, gateway_reference: String },
    /// The money is received.
    PaymentCaptured { order_id: OrderId, user_id: UserId, attempt: u32, amount: Money },
    /// The promised money cannot be taken.
    CaptureFailed { order_id: OrderId, attempt: u32, reason: String },
    /// The promise is to be given back.
    VoidRequested { order_id: OrderId, attempt: u32, amount: Money, gateway_reference: String },
    /// The promise was given back.
    PaymentVoided { order_id: OrderId, attempt: u32 },
    /// Money is to go back.
    RefundRequested {
        order_id: OrderId,
        refund_id: RefundId,
        amount: Money,
        reason: String,
        gateway_reference: String,
    },
    /// Money went back; `refunded` is all that ever did, out of `captured`.
    PaymentRefunded {
        order_id: OrderId,
        user_id: UserId,
        refund_id: RefundId,
        amount: Money,
        refunded: Money,
        captured: Money,
    },
    /// A refund failed.
    RefundFailed { order_id: OrderId, refund_id: RefundId, reason: String },
    /// Nobody can pay any more, and what was paid goes back.
    PaymentClosing { order_id: OrderId },
    /// No money of the customer is with us, and none will be taken.
    PaymentClosed { order_id: OrderId },
}

domain_event!(PaymentEvent {
    PaymentOpened,
    PaymentAmountChanged,
    PaymentAttemptRequested,
    PaymentActionRequired,
    PaymentAttemptUnknown,
    PaymentAuthorised,
    PaymentDeclined,
    CaptureRequested,
    PaymentCaptured,
    CaptureFailed,
    VoidRequested,
    PaymentVoided,
    RefundRequested,
    PaymentRefunded,
    RefundFailed,
    PaymentClosing,
    PaymentClosed,
});
