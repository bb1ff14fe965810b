//! Why a stock item's command is refused.

use serde::Serialize;
use thiserror::Error;

use crate::text::TextError;

/// Why a stock item's command is refused.
#[allow(missing_docs, reason = "the message names the refusal and what its fields are")]
#[derive(Clone, Debug, PartialEq, Error, Serialize)]
pub enum StockItemError {
    #[error("stock item is not open")]
    NotOpen,
    #[error("stock item is closed")]
    Closed,
    #[error("a quantity must be between {min} and {max}")]
    QuantityOutOfRange { min: u32, max: u32 },
    #[error("{requested} requested, {available} available")]
    InsufficientStock { requested: u32, available: u32 },
    #[error("{counted} counted, but {reserved} are reserved")]
    BelowReserved { counted: u32, reserved: u32 },
    #[error("{requested} to be shipped, {committed} committed")]
    NotCommitted { requested: u32, committed: u32 },
    #[error("{requested} to be returned, {shipped} shipped")]
    NotShipped { requested: u32, shipped: u32 },
    #[error("{field} is invalid")]
    Invalid {
        field: &'static str,
        #[source]
        reason: TextError,
    },
}
