//! Why a cart's command is refused.

use serde::Serialize;
use thiserror::Error;

use crate::lines::LinesError;
use crate::text::TextError;

/// Why a cart's command is refused.
#[allow(missing_docs, reason = "the message names the refusal and what its fields are")]
#[derive(Clone, Debug, PartialEq, Error, Serialize)]
pub enum CartError {
    #[error("the product is already in cart")]
    AlreadyInCart,
    #[error("there is no such line")]
    ItemUnknown,
    #[error("cart is empty")]
    CartEmpty,
    #[error("a quantity must be between {min} and {max}")]
    QuantityOutOfRange { min: u32, max: u32 },
    #[error("a cart has at most {max} lines")]
    CartFull { max: usize },
    #[error("cart changed while it was priced")]
    CartChanged,
    #[error("cart was abandoned")]
    Abandoned,
    #[error("lines cannot be bought together")]
    Lines(#[source] LinesError),
    #[error("{field} is invalid")]
    Invalid {
        field: &'static str,
        #[source]
        reason: TextError,
    },
}
