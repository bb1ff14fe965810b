//! What may be asked of a payment.

use crate::identifiers::{OrderId, RefundId, UserId};
use crate::money::Money;

/// What may be asked of a payment. Those that begin with `Record` bring the answers of the gateway.
#[allow(missing_docs, reason = "the variant says what is asked, the names of its fields say with what")]
#[derive(Clone, Debug, PartialEq)]
pub enum PaymentCommand {
    /// The order can be paid.
    Open { order_id: OrderId, user_id: UserId, amount: Money },
    /// The order costs another amount.
    ChangeAmount { amount: Money },
    /// Pay; an amount, if given, must be the one due. The attempt gets the next number.
    RequestAttempt {
        token: String,
        card_brand: String,
        card_last4: String,
        paid_by: UserId,
        by_admin: bool,
        amount: Option<Money>,
    },
    /// The card's owner has to do something first.
    RecordActionRequired { attempt: u32 },
    /// The gateway did not answer.
    RecordUnknown { attempt: u32 },
    /// The gateway promised the money.
    RecordAuthorised { attempt: u32, gateway_reference: String },
    /// The gateway refused.
    RecordDeclined { attempt: u32, reason: String },
    /// Take the promised money.
    Capture,
    /// The gateway took it.
    RecordCaptured { attempt: u32 },
    /// The gateway cannot take it.
    RecordCaptureFailed { attempt: u32, reason: String },
    /// The gateway gave the promise back.
    RecordVoided { attempt: u32 },
    /// Give money back: the amount, or all that is left.
    RequestRefund { refund_id: RefundId, amount: Option<Money>, reason: String },
    /// Give the amount back, or what is left when some of it went back before.
    RefundUpTo { refund_id: RefundId, amount: Money, reason: String },
    /// The gateway gave it back.
    RecordRefunded { refund_id: RefundId },
    /// The gateway did not give it back.
    RecordRefundFailed { refund_id: RefundId, reason: String },
    /// Nobody may pay any more, and what was paid goes back.
    Close { order_id: OrderId },
}

impl PaymentCommand {
    /// Whether it is, unless it is given again, the first that a payment is asked.
    #[must_use]
    pub fn is_first(&self) -> bool {
        matches!(self, Self::Open { .. })
    }
}
