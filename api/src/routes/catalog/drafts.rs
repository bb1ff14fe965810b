//! What clients send about products, and the commands it becomes.

use serde::Deserialize;
use utoipa::ToSchema;

use aggregates::catalog::{ProductChanges, ProductCommand};
use aggregates::money::{Currency, Money};

use crate::check::{Check, Field};
use crate::decimal::Decimal;
use crate::problem::Problem;
use crate::text;

const NAME_MAX_CHARS: usize = 200;
const DESCRIPTION_MAX_CHARS: usize = 5_000;
const COUNTRY_MAX_CHARS: usize = 60;
const SKU_MAX_CHARS: usize = 64;
const CATEGORY_MAX_CHARS: usize = 100;
const IMAGE_MAX_CHARS: usize = 2_000;
/// The most categories, and the most images.
const LABELS_MAX: usize = 50;
/// The most pieces a product can be listed with.
const OPENING_STOCK_MAX: i64 = 1_000_000_000;
/// The highest price, in minor units: orders and sales of any size can still be added up.
const PRICE_MAX_MINOR: i64 = 999_999_999_999;
/// What a product that is replaced without a country of origin gets, as one that is listed without.
const DEFAULT_COUNTRY_OF_ORIGIN: &str = "Not defined";

/// A whole product.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProductDraft {
    /// What it is called, 1 to 200 characters.
    #[serde(default)]
    #[schema(value_type = String, required, example = "Laptop")]
    name: Field<String>,
    /// What it costs: a decimal string, or a number, which is read exactly.
    #[serde(default)]
    #[schema(value_type = String, required, example = "999.99")]
    price: Field<Decimal>,
    /// The currency, USD when none is named.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "USD")]
    currency: Field<String>,
    /// What it is.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    description: Field<String>,
    /// Where it comes from, `Not defined` when nothing is said.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    country_of_origin: Field<String>,
    /// The stock-keeping unit; no two products have the same.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    sku: Field<String>,
    /// Where it is found.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    categories: Field<Vec<String>>,
    /// The addresses of its pictures.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    images: Field<Vec<String>>,
    /// How many pieces come in with it; only when it is listed.
    #[serde(default)]
    #[schema(value_type = Option<u32>, minimum = 0, maximum = 1_000_000_000)]
    opening_stock: Field<i64>,
}

/// Changes to a product: what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProductPatch {
    /// What it is called, 1 to 200 characters.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    name: Field<String>,
    /// What it costs.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "899.00")]
    price: Field<Decimal>,
    /// The currency of the price, which must then be sent too.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    currency: Field<String>,
    /// What it is.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    description: Field<String>,
    /// Where it comes from.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    country_of_origin: Field<String>,
    /// The stock-keeping unit; `null` takes it away.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    sku: Field<String>,
    /// Where it is found.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    categories: Field<Vec<String>>,
    /// The addresses of its pictures.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    images: Field<Vec<String>>,
}

/// A product that passed the check.
#[derive(Debug, PartialEq)]
struct Checked {
    name: String,
    price: Money,
    description: String,
    country_of_origin: Option<String>,
    sku: Option<String>,
    categories: Vec<String>,
    images: Vec<String>,
    opening_stock: Option<u32>,
}

impl ProductDraft {
    /// The command that lists the product.
    pub(super) fn list(self) -> Result<ProductCommand, Problem> {
        let Checked { name, price, description, country_of_origin, sku, categories, images, opening_stock } =
            self.check(Check::new())?;
        Ok(ProductCommand::List {
            name,
            description,
            country_of_origin,
            price,
            sku,
            categories,
            images,
            attributes: std::collections::BTreeMap::new(),
            opening_stock,
        })
    }

    /// The command that makes a product be this one.
    pub(super) fn replace(self) -> Result<ProductCommand, Problem> {
        let mut check = Check::new();
        if self.opening_stock.is_sent() {
            check.refuse("opening_stock", "can be sent only when a product is listed");
        }
        let product = self.check(check)?;
        let origin = product.country_of_origin.unwrap_or_else(|| DEFAULT_COUNTRY_OF_ORIGIN.to_owned());
        Ok(ProductCommand::Revise {
            changes: ProductChanges {
                name: Some(product.name),
                description: Some(product.description),
                country_of_origin: Some(origin),
                sku: Some(product.sku),
                images: Some(product.images),
                attributes: None,
            },
            price: Some(product.price),
            categories: Some(product.categories),
        })
    }

    fn check(self, mut check: Check) -> Result<Checked, Problem> {
        let name = check.required("name", self.name, checked_name);
        let currency = check.optional("currency", self.currency, |value| checked_currency(&value));
        let currency = currency.map(|currency| currency.unwrap_or(Currency::USD));
        let places = places(currency.unwrap_or(Currency::USD));
        let price = check.required("price", self.price, |value| checked_amount(&value, places));
        let description = check.optional("description", self.description, checked_description);
        let origin = check.optional("country_of_origin", self.country_of_origin, checked_country);
        let sku = check.optional("sku", self.sku, checked_sku);
        let categories = checked_categories(&mut check, self.categories);
        let images = checked_images(&mut check, self.images);
        let opening_stock = check.optional("opening_stock", self.opening_stock, |value| {
            let pieces = text::whole(value, 0..=OPENING_STOCK_MAX)?;
            u32::try_from(pieces).map_err(|_| "is too large".to_owned())
        });
        check.finish(|| {
            Some(Checked {
                name: name?,
                price: Money::new(price?, currency?),
                description: description?.unwrap_or_default(),
                country_of_origin: origin?,
                sku: sku?,
                categories: categories?.unwrap_or_default(),
                images: images?.unwrap_or_default(),
                opening_stock: opening_stock?,
            })
        })
    }
}

impl ProductPatch {
    /// The command that makes the changes; a price without a currency is in the present one.
    pub(super) fn revise(self, present: Currency) -> Result<ProductCommand, Problem> {
        let mut check = Check::new();
        let name = check.optional("name", self.name, checked_name);
        let currency = check.optional("currency", self.currency, |value| checked_currency(&value));
        let in_other = matches!(currency, Some(Some(other)) if other != present);
        if in_other && !self.price.is_sent() {
            check.refuse("price", "is required with another currency");
        }
        let currency = currency.map(|currency| currency.unwrap_or(present));
        let places = places(currency.unwrap_or(present));
        let price = check.optional("price", self.price, |value| checked_amount(&value, places));
        let description = check.optional("description", self.description, checked_description);
        let origin = check.optional("country_of_origin", self.country_of_origin, checked_country);
        let taken_away = self.sku == Field::Null;
        let sku = check.optional("sku", self.sku, checked_sku);
        let categories = checked_categories(&mut check, self.categories);
        let images = checked_images(&mut check, self.images);
        check.finish(|| {
            let currency = currency?;
            Some(ProductCommand::Revise {
                changes: ProductChanges {
                    name: name?,
                    description: description?,
                    country_of_origin: origin?,
                    sku: if taken_away { Some(None) } else { sku?.map(Some) },
                    images: images?,
                    attributes: None,
                },
                price: price?.map(|minor| Money::new(minor, currency)),
                categories: categories?,
            })
        })
    }
}

fn checked_name(value: String) -> Result<String, String> {
    text::line(&value, 1..=NAME_MAX_CHARS)
}

fn checked_description(value: String) -> Result<String, String> {
    text::lines(&value, 0..=DESCRIPTION_MAX_CHARS)
}

fn checked_country(value: String) -> Result<String, String> {
    text::line(&value, 1..=COUNTRY_MAX_CHARS)
}

fn checked_sku(value: String) -> Result<String, String> {
    text::line(&value, 1..=SKU_MAX_CHARS)
}

fn checked_currency(value: &str) -> Result<Currency, String> {
    value.parse().map_err(|_| "must be a currency code of ISO 4217, such as USD".to_owned())
}

fn places(currency: Currency) -> u32 {
    u32::from(currency.exponent())
}

fn checked_amount(value: &Decimal, places: u32) -> Result<i64, String> {
    let minor = value.minor(places)?;
    match minor {
        ..0 => Err("must be greater than or equal to 0".to_owned()),
        0..=PRICE_MAX_MINOR => Ok(minor),
        _ => Err("is too large".to_owned()),
    }
}

fn checked_categories(check: &mut Check, field: Field<Vec<String>>) -> Option<Option<Vec<String>>> {
    labels(check, "categories", field, |value| text::line(value, 1..=CATEGORY_MAX_CHARS))
}

/// Pictures are shown by browsers: another scheme, such as `javascript`, would be run by them.
fn checked_images(check: &mut Check, field: Field<Vec<String>>) -> Option<Option<Vec<String>>> {
    labels(check, "images", field, |value| {
        let address = text::line(value, 1..=IMAGE_MAX_CHARS)?;
        let right = address.starts_with("https://") || address.starts_with("http://");
        if right {
            Ok(address)
        } else {
            Err("must be an address that begins with https:// or http://".to_owned())
        }
    })
}

/// A list that may be missing, each item judged by its own path.
fn labels(
    check: &mut Check,
    name: &str,
    field: Field<Vec<String>>,
    rule: impl Fn(&str) -> Result<String, String>,
) -> Option<Option<Vec<String>>> {
    let values = check.optional(name, field, |values| {
        if values.len() > LABELS_MAX {
            return Err(format!("must have at most {LABELS_MAX} items"));
        }
        Ok(values)
    })?;
    let Some(values) = values else { return Some(None) };
    let mut checked = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        match rule(value) {
            Ok(value) => checked.push(value),
            Err(message) => check.refuse(&format!("{name}.{index}"), message),
        }
    }
    (checked.len() == values.len()).then_some(Some(checked))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn draft(body: Value) -> ProductDraft {
        // Through the text, as a number in a body comes.
        serde_json::from_str(&body.to_string()).expect("the body can be read")
    }

    fn patch(body: Value) -> ProductPatch {
        serde_json::from_str(&body.to_string()).expect("the body can be read")
    }

    fn refused(result: Result<ProductCommand, Problem>) -> Value {
        let problem = result.expect_err("it is refused");
        serde_json::to_value(problem.errors()).expect("errors are JSON")
    }

    #[test]
    fn a_price_is_read_exactly_as_string_and_as_number() {
        for text in [r#"{"name":"Laptop","price":"999.99"}"#, r#"{"name":"Laptop","price":999.99}"#] {
            let draft: ProductDraft = serde_json::from_str(text).expect("the body can be read");
            let product = draft.check(Check::new()).expect("it is right");
            assert_eq!(product.price, Money::new(99_999, Currency::USD), "{text}");
        }
    }

    #[test]
    fn a_price_has_as_many_places_as_its_currency() {
        let errors = refused(draft(json!({"name": "Tea", "price": "1.5", "currency": "JPY"})).list());
        assert_eq!(errors, json!({"price": ["must have at most 0 decimal places"]}));
        let errors = refused(draft(json!({"name": "Tea", "price": "-0.01"})).list());
        assert_eq!(errors, json!({"price": ["must be greater than or equal to 0"]}));
        assert!(draft(json!({"name": "Tea", "price": "9999999999.99"})).list().is_ok());
        let errors = refused(draft(json!({"name": "Tea", "price": "10000000000"})).list());
        assert_eq!(errors, json!({"price": ["is too large"]}));
    }

    #[test]
    fn what_is_wrong_is_told_at_once_and_by_its_path() {
        let body = json!({
            "name": "", "currency": "XXX", "categories": ["fine", ""], "images": ["javascript:alert(1)"],
            "opening_stock": -1,
        });
        assert_eq!(
            refused(draft(body).list()),
            json!({
                "name": ["must have at least 1 characters"],
                "price": ["is required"],
                "currency": ["must be a currency code of ISO 4217, such as USD"],
                "categories.1": ["must have at least 1 characters"],
                "images.0": ["must be an address that begins with https:// or http://"],
                "opening_stock": ["must be greater than or equal to 0 and less than or equal to 1000000000"],
            })
        );
    }

    #[test]
    fn a_replacement_leaves_nothing_of_what_was() {
        let command = draft(json!({"name": "Desk", "price": 5})).replace().expect("it is right");
        let changes = ProductChanges {
            name: Some("Desk".to_owned()),
            description: Some(String::new()),
            country_of_origin: Some("Not defined".to_owned()),
            sku: Some(None),
            images: Some(Vec::new()),
            attributes: None,
        };
        let price = Some(Money::new(500, Currency::USD));
        assert_eq!(command, ProductCommand::Revise { changes, price, categories: Some(Vec::new()) });
        let errors = refused(draft(json!({"name": "Desk", "price": 5, "opening_stock": 3})).replace());
        assert_eq!(errors, json!({"opening_stock": ["can be sent only when a product is listed"]}));
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let command = patch(json!({"price": "7", "sku": null})).revise(Currency::USD).expect("it is right");
        let changes = ProductChanges { sku: Some(None), ..ProductChanges::default() };
        let price = Some(Money::new(700, Currency::USD));
        assert_eq!(command, ProductCommand::Revise { changes, price, categories: None });
    }

    #[test]
    fn another_currency_needs_a_price() {
        let errors = refused(patch(json!({"currency": "EUR"})).revise(Currency::USD));
        assert_eq!(errors, json!({"price": ["is required with another currency"]}));
        patch(json!({"currency": "USD"})).revise(Currency::USD).expect("it changes nothing");
    }
}
