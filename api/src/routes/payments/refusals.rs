//! Refusals of payments, as problems.

use axum::http::StatusCode;

use aggregates::money::Money;
use aggregates::payments::PaymentError;

use crate::problem::Problem;

/// The refusal of a payment's command.
pub(super) fn problem(error: PaymentError) -> Problem {
    let detail = error.to_string();
    match error {
        // Whose payment it is stays untold.
        PaymentError::NotOpen | PaymentError::NotYours => Problem::not_found(),
        PaymentError::Closed => closed(),
        PaymentError::AlreadyPaid => Problem::conflict("already_paid", detail),
        PaymentError::PaymentInProgress => Problem::conflict("payment_in_progress", detail),
        PaymentError::AmountMismatch { due } => amount_mismatch(due),
        PaymentError::AttemptUnknown => Problem::conflict("attempt_unknown", detail),
        PaymentError::AttemptResolved => Problem::conflict("attempt_resolved", detail),
        PaymentError::NotAuthorised => Problem::conflict("not_authorized", detail),
        PaymentError::NotCaptured => Problem::conflict("not_captured", detail),
        PaymentError::RefundUnknown => Problem::conflict("refund_unknown", detail),
        PaymentError::RefundResolved => Problem::conflict("refund_resolved", detail),
        PaymentError::RefundExceedsPayment { left: _ } => Problem::conflict("refund_exceeds_payment", detail),
        PaymentError::AmountNotPositive => Problem::invalid_field("amount", "must be greater than 0"),
        PaymentError::Invalid { field, reason } => Problem::invalid_field(field, reason.to_string()),
    }
}

/// 402: the card is refused; another one may do.
pub(super) fn declined() -> Problem {
    Problem::new(StatusCode::PAYMENT_REQUIRED, "card_declined", "the card was declined: try another one")
}

/// 409: the order ended before it was paid.
pub(super) fn closed() -> Problem {
    let detail = "the order cannot be paid any more; money that was taken for it goes back";
    Problem::conflict("payment_closed", detail)
}

/// 422 that names what is due.
pub(super) fn amount_mismatch(due: Money) -> Problem {
    Problem::invalid_field("amount", format!("must be {due}, the total of the order"))
}

#[cfg(test)]
mod tests {
    use aggregates::money::Currency;

    use super::*;

    #[test]
    fn refusals_have_stable_codes() {
        let told = |error| {
            let problem = problem(error);
            (problem.status().as_u16(), problem.code().to_owned())
        };
        let code = |status: u16, code: &str| (status, code.to_owned());
        let money = Money::new(100, Currency::USD);
        assert_eq!(told(PaymentError::NotYours), code(404, "not_found"));
        assert_eq!(told(PaymentError::AlreadyPaid), code(409, "already_paid"));
        assert_eq!(told(PaymentError::PaymentInProgress), code(409, "payment_in_progress"));
        assert_eq!(told(PaymentError::Closed), code(409, "payment_closed"));
        assert_eq!(told(PaymentError::AmountMismatch { due: money }), code(422, "validation_failed"));
        let exceeds = PaymentError::RefundExceedsPayment { left: money };
        assert_eq!(told(exceeds), code(409, "refund_exceeds_payment"));
        assert_eq!(declined().status(), StatusCode::PAYMENT_REQUIRED);
    }
}
