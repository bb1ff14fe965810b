//! Why an order's command is refused.

use serde::Serialize;
use thiserror::Error;

use crate::identifiers::ProductId;
use crate::lines::LinesError;
use crate::orders::events::OrderStatus;
use crate::text::TextError;

/// Why an order's command is refused.
#[allow(missing_docs, reason = "the message names the refusal and what its fields are")]
#[derive(Clone, Debug, PartialEq, Error, Serialize)]
pub enum OrderError {
    #[error("order was not placed")]
    NotPlaced,
    #[error("order was already placed")]
    AlreadyPlaced,
    #[error("lines cannot be bought together")]
    Lines(#[source] LinesError),
    #[error("{field} is invalid")]
    Invalid {
        field: &'static str,
        #[source]
        reason: TextError,
    },
    #[error("the stock has not answered yet")]
    StockUndecided,
    #[error("the order is being edited")]
    EditInProgress,
    #[error("a payment is in progress")]
    PaymentInProgress,
    #[error("the order cannot be edited any more")]
    NotEditable { status: OrderStatus },
    #[error("the currency of an order cannot change")]
    CurrencyChanged,
    #[error("the order cannot be cancelled any more")]
    NotCancellable { status: OrderStatus },
    #[error("the time to pay has not passed")]
    NotDue,
    #[error("the order is not awaiting payment")]
    NotAwaitingPayment { status: OrderStatus },
    #[error("the order is not paid")]
    NotPaid,
    #[error("the order cannot be shipped")]
    NotShippable { status: OrderStatus },
    #[error("more of product {product_id} than is left: {requested} of {open}")]
    MoreThanOpen { product_id: ProductId, requested: u32, open: u32 },
    #[error("the order cannot be delivered")]
    NotDeliverable { status: OrderStatus },
    #[error("the order cannot be returned")]
    NotReturnable { status: OrderStatus },
}
