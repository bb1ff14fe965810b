//! What may be asked of a product.

use std::collections::BTreeMap;

use crate::money::Money;

/// Changes to the description of a product; what is absent stays.
#[allow(missing_docs, reason = "the fields are those of a product")]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProductChanges {
    pub name: Option<String>,
    pub description: Option<String>,
    pub country_of_origin: Option<String>,
    /// `Some(None)` takes the SKU away.
    pub sku: Option<Option<String>>,
    pub images: Option<Vec<String>>,
    pub attributes: Option<BTreeMap<String, String>>,
}

/// What may be asked of a product.
#[allow(missing_docs, reason = "the variant says what is asked, the names of its fields say with what")]
#[derive(Clone, Debug, PartialEq)]
pub enum ProductCommand {
    /// Offer it. Without a country of origin it has the default one.
    List {
        name: String,
        description: String,
        country_of_origin: Option<String>,
        price: Money,
        sku: Option<String>,
        categories: Vec<String>,
        images: Vec<String>,
        attributes: BTreeMap<String, String>,
        opening_stock: Option<u32>,
    },
    /// Change its description.
    Describe { changes: ProductChanges },
    /// Change its price.
    Reprice { price: Money },
    /// Put it into these categories.
    Categorise { categories: Vec<String> },
    /// Several of these in one decision: all or none.
    Revise { changes: ProductChanges, price: Option<Money>, categories: Option<Vec<String>> },
    /// Take it out of the offer for the time being.
    Withdraw,
    /// Offer it again.
    Relist,
    /// Take it out for good.
    Discontinue,
}
