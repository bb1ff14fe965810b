//! Refusals of orders, as problems.

use axum::http::StatusCode;
use serde_json::{Value, json};

use aggregates::lines::LinesError;
use aggregates::orders::{OrderError, RejectedLine};
use aggregates::text::TextError;

use crate::problem::Problem;

/// The refusal of an order's command.
pub(crate) fn problem(error: OrderError) -> Problem {
    let detail = error.to_string();
    match error {
        OrderError::NotPlaced => Problem::not_found(),
        OrderError::AlreadyPlaced => Problem::conflict("already_placed", detail),
        OrderError::Lines(reason) => lines_problem(reason),
        OrderError::Invalid { field, reason } => text_problem(field, &reason),
        OrderError::StockUndecided => Problem::conflict("stock_undecided", detail),
        OrderError::EditInProgress => Problem::conflict("edit_in_progress", detail),
        OrderError::PaymentInProgress => Problem::conflict("payment_in_progress", detail),
        OrderError::NotEditable { status: _ } => Problem::conflict("not_editable", detail),
        OrderError::CurrencyChanged => mixed_currencies(),
        OrderError::NotCancellable { status: _ } => Problem::conflict("not_cancellable", detail),
        OrderError::NotDue => Problem::conflict("not_due", detail),
        OrderError::NotAwaitingPayment { status: _ } => Problem::conflict("not_awaiting_payment", detail),
        OrderError::NotPaid => Problem::conflict("not_paid", detail),
        OrderError::NotShippable { status: _ } => Problem::conflict("not_shippable", detail),
        OrderError::MoreThanOpen { product_id, requested, open } => Problem::conflict(
            "more_than_open",
            detail,
        )
        .with_error("items", json!([{"product_id": product_id, "requested": requested, "open": open}])),
        OrderError::NotDeliverable { status: _ } => Problem::conflict("not_deliverable", detail),
        OrderError::NotReturnable { status: _ } => Problem::conflict("not_returnable", detail),
    }
}

/// The refusal of lines that cannot be bought together.
pub(crate) fn lines_problem(error: LinesError) -> Problem {
    let detail = error.to_string();
    match error {
        LinesError::MixedCurrencies => mixed_currencies(),
        LinesError::NoLines
        | LinesError::TooManyLines { max: _ }
        | LinesError::DuplicateProduct { product_id: _ }
        | LinesError::QuantityOutOfRange { product_id: _, min: _, max: _ }
        | LinesError::NegativePrice { product_id: _ }
        | LinesError::TotalTooLarge => Problem::invalid_field("items", detail),
    }
}

/// 422 for amounts that do not add up.
pub(crate) fn mixed_currencies() -> Problem {
    let detail = "all products of an order must have prices in the same currency";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "mixed_currencies", detail)
        .with_error("items", vec![detail])
}

/// 422 for a text the domain does not take.
pub(crate) fn text_problem(field: &str, reason: &TextError) -> Problem {
    Problem::invalid_field(field, reason.to_string())
}

/// 409 with the lines that are short.
pub(crate) fn insufficient_stock(rejected: &[RejectedLine]) -> Problem {
    let lines = rejected.iter().map(|line| {
        json!({"product_id": line.product_id, "requested": line.requested, "available": line.available})
    });
    Problem::conflict("insufficient_stock", "there is not enough in stock")
        .with_error("items", lines.collect::<Vec<Value>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aggregates::identifiers::ProductId;
    use aggregates::orders::OrderStatus;
    use uuid::Uuid;

    #[test]
    fn refusals_have_stable_codes() {
        let told = |error| {
            let problem = problem(error);
            (problem.status().as_u16(), problem.code().to_owned())
        };
        let code = |status: u16, code: &str| (status, code.to_owned());
        let status = OrderStatus::Shipped;
        assert_eq!(told(OrderError::NotPlaced), code(404, "not_found"));
        assert_eq!(told(OrderError::NotCancellable { status }), code(409, "not_cancellable"));
        assert_eq!(told(OrderError::Lines(LinesError::MixedCurrencies)), code(422, "mixed_currencies"));
        assert_eq!(told(OrderError::CurrencyChanged), code(422, "mixed_currencies"));
        let invalid =
            OrderError::Invalid { field: "shipping_address", reason: TextError::TooShort { min: 1 } };
        assert_eq!(told(invalid), code(422, "validation_failed"));
    }

    #[test]
    fn short_lines_are_named_with_what_there_is() {
        let product_id = ProductId(Uuid::from_u128(7));
        let problem = insufficient_stock(&[RejectedLine { product_id, requested: 3, available: 1 }]);
        assert_eq!(problem.status(), StatusCode::CONFLICT);
        assert_eq!(
            problem.errors()["items"],
            json!([{"product_id": product_id, "requested": 3, "available": 1}])
        );
    }
}
