//! The product: state, decisions, and what follows from events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::catalog::commands::{ProductChanges, ProductCommand};
use crate::catalog::events::ProductEvent;
use crate::catalog::refusals::ProductError;
use crate::money::Money;
use crate::records::{Claim, Claims, Recorded, decided_aggregate};
use crate::text::{self, TextError};

/// The country of origin of a product that names none.
const DEFAULT_COUNTRY_OF_ORIGIN: &str = "Not defined";
/// The longest name, in characters.
const MAX_NAME_CHARS: usize = 200;
/// The longest country of origin, in characters.
const MAX_COUNTRY_CHARS: usize = 60;
/// The longest description, in characters.
const MAX_DESCRIPTION_CHARS: usize = 5000;
/// The longest SKU, in characters.
const MAX_SKU_CHARS: usize = 64;
/// The longest category, attribute name or attribute value, in characters.
const MAX_LABEL_CHARS: usize = 100;
/// The longest image URL, in characters.
const MAX_URL_CHARS: usize = 2000;
/// The most categories, images or attributes of a product.
const MAX_LABELS: usize = 50;
/// The most pieces a product can be listed with.
const MAX_OPENING_STOCK: u32 = 1_000_000_000;

const SKU_SCOPE: &str = "sku";
const NAME_AND_ORIGIN_SCOPE: &str = "name_and_origin";

/// A product of the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Product {
    /// Nothing yet.
    #[default]
    Unlisted,
    /// Offered.
    Listed(Details),
    /// Not offered for the time being.
    Withdrawn(Details),
    /// Never offered again.
    Discontinued,
}

/// What a product is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// What it is called.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Where it comes from.
    pub country_of_origin: String,
    /// What it costs.
    pub price: Money,
    /// The stock-keeping unit.
    pub sku: Option<String>,
    /// Where it is found.
    pub categories: Vec<String>,
    /// The addresses of its pictures.
    pub images: Vec<String>,
    /// Whatever else there is to say.
    pub attributes: BTreeMap<String, String>,
}

impl Product {
    /// What is known of a product that is not discontinued.
    #[must_use]
    pub fn details(&self) -> Option<&Details> {
        match self {
            Self::Listed(details) | Self::Withdrawn(details) => Some(details),
            Self::Unlisted | Self::Discontinued => None,
        }
    }

    /// What a command leads to, by the rules.
    ///
    /// # Errors
    /// The rule that refuses it.
    pub fn decide(&self, command: ProductCommand) -> Result<Vec<ProductEvent>, ProductError> {
        match (self, command) {
            (
                Self::Unlisted,
                ProductCommand::List {
                    name,
                    description,
                    country_of_origin,
                    price,
                    sku,
                    categories,
                    images,
                    attributes,
                    opening_stock,
                },
            ) => {
                let origin = country_of_origin.unwrap_or_else(|| DEFAULT_COUNTRY_OF_ORIGIN.to_owned());
                if opening_stock.is_some_and(|quantity| quantity > MAX_OPENING_STOCK) {
                    return Err(ProductError::OpeningStockTooLarge { max: MAX_OPENING_STOCK });
                }
                Ok(vec![ProductEvent::ProductListed {
                    name: checked_line("name", &name, 1, MAX_NAME_CHARS)?,
                    description: checked_description(&description)?,
                    country_of_origin: checked_line("country_of_origin", &origin, 1, MAX_COUNTRY_CHARS)?,
                    price: checked_price(price)?,
                    sku: checked_sku(sku)?,
                    categories: checked_labels("categories", categories, MAX_LABEL_CHARS)?,
                    images: checked_labels("images", images, MAX_URL_CHARS)?,
                    attributes: checked_attributes(attributes)?,
                    opening_stock,
                }])
            }
            (Self::Listed(_) | Self::Withdrawn(_), ProductCommand::List { .. }) => {
                Err(ProductError::AlreadyListed)
            }
            (Self::Discontinued, ProductCommand::Discontinue) => Ok(Vec::new()),
            (Self::Discontinued, _) => Err(ProductError::Discontinued),
            (Self::Unlisted, _) => Err(ProductError::Unlisted),
            (Self::Listed(_), ProductCommand::Withdraw) => Ok(vec![ProductEvent::ProductWithdrawn]),
            (Self::Withdrawn(_), ProductCommand::Relist) => Ok(vec![ProductEvent::ProductRelisted]),
            (Self::Listed(_), ProductCommand::Relist) | (Self::Withdrawn(_), ProductCommand::Withdraw) => {
                Ok(Vec::new())
            }
            (Self::Listed(_) | Self::Withdrawn(_), ProductCommand::Discontinue) => {
                Ok(vec![ProductEvent::ProductDiscontinued])
            }
            (Self::Listed(details) | Self::Withdrawn(details), ProductCommand::Describe { changes }) => {
                details.describe(changes)
            }
            (Self::Listed(details) | Self::Withdrawn(details), ProductCommand::Reprice { price }) => {
                details.reprice(price)
            }
            (Self::Listed(details) | Self::Withdrawn(details), ProductCommand::Categorise { categories }) => {
                details.categorise(categories)
            }
            (
                Self::Listed(details) | Self::Withdrawn(details),
                ProductCommand::Revise { changes, price, categories },
            ) => {
                let mut events = details.describe(changes)?;
                events.extend(price.map_or(Ok(Vec::new()), |price| details.reprice(price))?);
                events.extend(categories.map_or(Ok(Vec::new()), |them| details.categorise(them))?);
                Ok(events)
            }
        }
    }

    fn evolve(&mut self, event: ProductEvent) {
        match event {
            ProductEvent::ProductListed {
                name,
                description,
                country_of_origin,
                price,
                sku,
                categories,
                images,
                attributes,
                opening_stock: _,
            } => {
                *self = Self::Listed(Details {
                    name,
                    description,
                    country_of_origin,
                    price,
                    sku,
                    categories,
                    images,
                    attributes,
                });
            }
            ProductEvent::ProductDescribed {
                name,
                description,
                country_of_origin,
                sku,
                images,
                attributes,
            } => self.change(|details| {
                details.name = name;
                details.description = description;
                details.country_of_origin = country_of_origin;
                details.sku = sku;
                details.images = images;
                details.attributes = attributes;
            }),
            ProductEvent::ProductRepriced { price, previous: _ } => {
                self.change(|details| details.price = price);
            }
            ProductEvent::ProductCategorised { categories } => {
                self.change(|details| details.categories = categories);
            }
            ProductEvent::ProductWithdrawn => {
                *self = match std::mem::take(self) {
                    Self::Listed(details) => Self::Withdrawn(details),
                    other => other,
                };
            }
            ProductEvent::ProductRelisted => {
                *self = match std::mem::take(self) {
                    Self::Withdrawn(details) => Self::Listed(details),
                    other => other,
                };
            }
            ProductEvent::ProductDiscontinued => *self = Self::Discontinued,
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Details)) {
        match self {
            Self::Listed(details) | Self::Withdrawn(details) => change(details),
            Self::Unlisted | Self::Discontinued => {}
        }
    }
}

impl Details {
    fn describe(&self, changes: ProductChanges) -> Result<Vec<ProductEvent>, ProductError> {
        let mut next = self.clone();
        if let Some(name) = changes.name {
            next.name = checked_line("name", &name, 1, MAX_NAME_CHARS)?;
        }
        if let Some(description) = changes.description {
            next.description = checked_description(&description)?;
        }
        if let Some(origin) = changes.country_of_origin {
            next.country_of_origin = checked_line("country_of_origin", &origin, 1, MAX_COUNTRY_CHARS)?;
        }
        if let Some(sku) = changes.sku {
            next.sku = checked_sku(sku)?;
        }
        if let Some(images) = changes.images {
            next.images = checked_labels("images", images, MAX_URL_CHARS)?;
        }
        if let Some(attributes) = changes.attributes {
            next.attributes = checked_attributes(attributes)?;
        }
        if next == *self {
            return Ok(Vec::new());
        }
        Ok(vec![ProductEvent::ProductDescribed {
            name: next.name,
            description: next.description,
            country_of_origin: next.country_of_origin,
            sku: next.sku,
            images: next.images,
            attributes: next.attributes,
        }])
    }

    fn reprice(&self, price: Money) -> Result<Vec<ProductEvent>, ProductError> {
        let price = checked_price(price)?;
        let event = ProductEvent::ProductRepriced { price, previous: self.price };
        Ok((price != self.price).then_some(event).into_iter().collect())
    }

    fn categorise(&self, categories: Vec<String>) -> Result<Vec<ProductEvent>, ProductError> {
        let categories = checked_labels("categories", categories, MAX_LABEL_CHARS)?;
        Ok(if categories == self.categories {
            Vec::new()
        } else {
            vec![ProductEvent::ProductCategorised { categories }]
        })
    }

    fn claimed_keys(&self) -> Vec<(&'static str, String)> {
        claimed_keys(&self.name, &self.country_of_origin, self.sku.as_deref())
    }
}

decided_aggregate!(Product, "product", ProductCommand, ProductEvent, ProductError);

impl Recorded for Product {
    const CLAIMS: Option<Claims<Self>> = Some(claims);
}

fn claims(before: &Product, event: &ProductEvent) -> Vec<Claim> {
    let old = before.details().map(Details::claimed_keys).unwrap_or_default();
    let new = match event {
        ProductEvent::ProductListed { name, country_of_origin, sku, .. }
        | ProductEvent::ProductDescribed { name, country_of_origin, sku, .. } => {
            claimed_keys(name, country_of_origin, sku.as_deref())
        }
        ProductEvent::ProductDiscontinued => Vec::new(),
        ProductEvent::ProductRepriced { .. }
        | ProductEvent::ProductCategorised { .. }
        | ProductEvent::ProductWithdrawn
        | ProductEvent::ProductRelisted => return Vec::new(),
    };
    let released = old.iter().filter(|key| !new.contains(key));
    let taken = new.iter().filter(|key| !old.contains(key));
    released
        .map(|(scope, key)| Claim::release(scope, key.clone()))
        .chain(taken.map(|(scope, key)| Claim::take(scope, key.clone())))
        .collect()
}

fn claimed_keys(name: &str, origin: &str, sku: Option<&str>) -> Vec<(&'static str, String)> {
    // The unit separator cannot occur in a line, so no two pairs of texts share a key.
    let both = format!("{}\u{1f}{}", text::fold(name), text::fold(origin));
    let sku = sku.map(|sku| (SKU_SCOPE, text::fold(sku)));
    [(NAME_AND_ORIGIN_SCOPE, both)].into_iter().chain(sku).collect()
}

fn invalid(field: &'static str) -> impl FnOnce(TextError) -> ProductError {
    move |reason| ProductError::Invalid { field, reason }
}

fn checked_line(field: &'static str, line: &str, min: usize, max: usize) -> Result<String, ProductError> {
    let line = text::normalise(line);
    text::check_line(&line, min, max).map_err(invalid(field))?;
    Ok(line)
}

fn checked_description(description: &str) -> Result<String, ProductError> {
    let description = text::normalise(description);
    text::check_paragraph(&description, 0, MAX_DESCRIPTION_CHARS).map_err(invalid("description"))?;
    Ok(description)
}

fn checked_sku(sku: Option<String>) -> Result<Option<String>, ProductError> {
    sku.map(|sku| checked_line("sku", &sku, 1, MAX_SKU_CHARS)).transpose()
}

fn checked_price(price: Money) -> Result<Money, ProductError> {
    if price.minor < 0 { Err(ProductError::NegativePrice) } else { Ok(price) }
}

fn checked_labels(
    field: &'static str,
    labels: Vec<String>,
    max_chars: usize,
) -> Result<Vec<String>, ProductError> {
    if labels.len() > MAX_LABELS {
        return Err(ProductError::TooMany { field, max: MAX_LABELS });
    }
    labels.iter().map(|label| checked_line(field, label, 1, max_chars)).collect()
}

fn checked_attributes(
    attributes: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ProductError> {
    const FIELD: &str = "attributes";
    if attributes.len() > MAX_LABELS {
        return Err(ProductError::TooMany { field: FIELD, max: MAX_LABELS });
    }
    attributes
        .iter()
        .map(|(name, value)| {
            let name = checked_line(FIELD, name, 1, MAX_LABEL_CHARS)?;
            Ok((name, checked_line(FIELD, value, 0, MAX_LABEL_CHARS)?))
        })
        .collect()
}
