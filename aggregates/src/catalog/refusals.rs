//! Why a product's command is refused.

use serde::Serialize;
use thiserror::Error;

use crate::text::TextError;

/// Why a product's command is refused.
#[allow(missing_docs, reason = "the message names the refusal and what its fields are")]
#[derive(Clone, Debug, PartialEq, Error, Serialize)]
pub enum ProductError {
    #[error("product is not listed")]
    Unlisted,
    #[error("product is already listed")]
    AlreadyListed,
    #[error("product was discontinued")]
    Discontinued,
    #[error("price is negative")]
    NegativePrice,
    #[error("at most {max} {field} are allowed")]
    TooMany { field: &'static str, max: usize },
    #[error("opening stock is above {max}")]
    OpeningStockTooLarge { max: u32 },
    #[error("{field} is invalid")]
    Invalid {
        field: &'static str,
        #[source]
        reason: TextError,
    },
}
