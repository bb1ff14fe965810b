//! Why a payment's command is refused.

use serde::Serialize;
use thiserror::Error;

use crate::money::Money;
use crate::text::TextError;

/// Why a payment's command is refused.
#[allow(missing_docs, reason = "the message names the refusal and what its fields are")]
#[derive(Clone, Debug, PartialEq, Error, Serialize)]
pub enum PaymentError {
    #[error("payment is not open")]
    NotOpen,
    #[error("payment is closed")]
    Closed,
    #[error("the order is already paid")]
    AlreadyPaid,
    #[error("a payment is in progress")]
    PaymentInProgress,
    #[error("the amount must be {due}")]
    AmountMismatch { due: Money },
    #[error("the order is another user's")]
    NotYours,
    #[error("there is no such attempt")]
    AttemptUnknown,
    #[error("the attempt has ended otherwise")]
    AttemptResolved,
    #[error("nothing is authorised")]
    NotAuthorised,
    #[error("nothing is captured")]
    NotCaptured,
    #[error("there is no such refund")]
    RefundUnknown,
    #[error("the refund has ended otherwise")]
    RefundResolved,
    #[error("the refund exceeds what is left, {left}")]
    RefundExceedsPayment { left: Money },
    #[error("an amount must be positive")]
    AmountNotPositive,
    #[error("{field} is invalid")]
    Invalid {
        field: &'static str,
        #[source]
        reason: TextError,
    },
}
