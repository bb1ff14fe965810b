//! What happens to a product.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::money::Money;
use crate::records::domain_event;

/// What happens to a product.
#[allow(missing_docs, reason = "the variant says what happened, the names of its fields say with what")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ProductEvent {
    /// It is offered; the opening stock is for stock-keeping, which receives it exactly once.
    ProductListed {
        name: String,
        description: String,
        country_of_origin: String,
        price: Money,
        sku: Option<String>,
        categories: Vec<String>,
        images: Vec<String>,
        attributes: BTreeMap<String, String>,
        opening_stock: Option<u32>,
    },
    /// It is now described so.
    ProductDescribed {
        name: String,
        description: String,
        country_of_origin: String,
        sku: Option<String>,
        images: Vec<String>,
        attributes: BTreeMap<String, String>,
    },
    /// It has another price.
    ProductRepriced { price: Money, previous: Money },
    /// It is in these categories.
    ProductCategorised { categories: Vec<String> },
    /// It is not offered for the time being.
    ProductWithdrawn,
    /// It is offered again.
    ProductRelisted,
    /// It will never be offered again.
    ProductDiscontinued,
}

domain_event!(ProductEvent {
    ProductListed,
    ProductDescribed,
    ProductRepriced,
    ProductCategorised,
    ProductWithdrawn,
    ProductRelisted,
    ProductDiscontinued,
});
