//! Lines of carts and orders: which products, how many, at what price.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::identifiers::ProductId;
use crate::money::{Money, MoneyError};
use crate::text::{self, TextError};

/// The most lines of a cart or an order.
pub const MAX_LINES: usize = 100;
/// The most pieces in one line of an order.
pub const MAX_LINE_QUANTITY: u32 = 1000;
/// The longest shipping address, in characters.
pub const MAX_ADDRESS_CHARS: usize = 500;
/// The longest note of a customer, in characters.
pub const MAX_NOTES_CHARS: usize = 2000;

/// So many pieces of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LineQuantity {
    /// Which product.
    pub product_id: ProductId,
    /// How many.
    pub quantity: u32,
}

/// A line that was bought: the name and the price are those of the moment, whatever the catalogue says later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    /// Which product.
    pub product_id: ProductId,
    /// What it was called.
    pub name: String,
    /// How many.
    pub quantity: u32,
    /// What one of them cost.
    pub unit_price: Money,
}

impl OrderLine {
    /// The price of the whole line.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`].
    pub fn total(&self) -> Result<Money, MoneyError> {
        self.unit_price.checked_multiply(self.quantity)
    }

    /// The line without its price.
    #[must_use]
    pub fn without_price(&self) -> LineQuantity {
        LineQuantity { product_id: self.product_id, quantity: self.quantity }
    }
}

/// Why lines cannot be bought together.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize)]
pub enum LinesError {
    /// There are none.
    #[error("there are no lines")]
    NoLines,
    /// There are more than [`MAX_LINES`].
    #[error("more than {max} lines")]
    TooManyLines {
        /// The most lines.
        max: usize,
    },
    /// A product has two lines.
    #[error("product {product_id} has more than one line")]
    DuplicateProduct {
        /// Which product.
        product_id: ProductId,
    },
    /// None, or more than may be bought at once.
    #[error("a quantity must be between {min} and {max}")]
    QuantityOutOfRange {
        /// Of which product.
        product_id: ProductId,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// A price below zero.
    #[error("a price is negative")]
    NegativePrice {
        /// Of which product.
        product_id: ProductId,
    },
    /// Prices in more than one currency.
    #[error("prices in different currencies")]
    MixedCurrencies,
    /// The total cannot be counted.
    #[error("the total is too large")]
    TotalTooLarge,
}

/// What lines cost together, if they can be bought together at all.
///
/// # Errors
/// The first [`LinesError`] found.
pub fn total_of(lines: &[OrderLine]) -> Result<Money, LinesError> {
    let first = lines.first().ok_or(LinesError::NoLines)?;
    if lines.len() > MAX_LINES {
        return Err(LinesError::TooManyLines { max: MAX_LINES });
    }
    let mut products = BTreeSet::new();
    let mut total = Money::zero(first.unit_price.currency);
    for line in lines {
        let product_id = line.product_id;
        if !products.insert(product_id) {
            return Err(LinesError::DuplicateProduct { product_id });
        }
        if !(1..=MAX_LINE_QUANTITY).contains(&line.quantity) {
            return Err(LinesError::QuantityOutOfRange { product_id, min: 1, max: MAX_LINE_QUANTITY });
        }
        if line.unit_price.minor < 0 {
            return Err(LinesError::NegativePrice { product_id });
        }
        total = line.total().and_then(|price| total.checked_add(price)).map_err(|refusal| match refusal {
            MoneyError::MixedCurrencies => LinesError::MixedCurrencies,
            MoneyError::TooLarge
            | MoneyError::UnknownCurrency
            | MoneyError::Malformed
            | MoneyError::TooManyDecimals { .. } => LinesError::TotalTooLarge,
        })?;
    }
    Ok(total)
}

/// Lines without their prices.
#[must_use]
pub fn quantities(lines: &[OrderLine]) -> Vec<LineQuantity> {
    lines.iter().map(OrderLine::without_price).collect()
}

/// A shipping address in the form it is stored.
///
/// # Errors
/// The rule of texts it breaks.
pub fn checked_address(address: &str) -> Result<String, TextError> {
    let address = text::normalise(address);
    text::check_paragraph(&address, 1, MAX_ADDRESS_CHARS)?;
    Ok(address)
}

/// A customer's notes in the form they are stored; empty ones are none.
///
/// # Errors
/// The rule of texts they break.
pub fn checked_notes(notes: Option<String>) -> Result<Option<String>, TextError> {
    let notes = text::normalise(&notes.unwrap_or_default());
    text::check_paragraph(&notes, 0, MAX_NOTES_CHARS)?;
    Ok((!notes.is_empty()).then_some(notes))
}
