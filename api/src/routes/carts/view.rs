//! A cart as clients see it: its lines at the prices of now.

use std::collections::BTreeMap;

use projections::orders::price_list::{PriceRow, find_prices};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use aggregates::carts::CartLine;
use aggregates::money::{Currency, Money};

use crate::problem::Problem;
use crate::routes::amounts::money;
use crate::service::engine;
use crate::services::OrdersService;

/// A cart.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CartBody {
    /// Whose it is.
    pub user_id: Uuid,
    /// What is in it, in the order it was added.
    pub items: Vec<CartItemBody>,
    /// What all of it costs now; `null` when its products have come to have prices that do not add up: in
    /// different currencies, or too large.
    #[schema(example = "2999.97")]
    pub total: Option<String>,
    /// In which currency.
    #[schema(example = "USD")]
    pub currency: String,
    /// The version, also in `ETag`; 0 for a cart that was never used.
    pub version: i64,
}

/// A line of a cart.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CartItemBody {
    /// The line.
    pub id: Uuid,
    /// Which product.
    pub product_id: Uuid,
    /// What it is called; `null` when the mart does not know it any more.
    pub name: Option<String>,
    /// How many.
    pub quantity: u32,
    /// What one of them costs now.
    #[schema(example = "999.99")]
    pub unit_price: Option<String>,
    /// What the line costs now.
    #[schema(example = "2999.97")]
    pub line_total: Option<String>,
}

/// A cart at the prices of now.
///
/// # Errors
/// When the database is unavailable.
pub(super) async fn show(
    service: &OrdersService,
    user_id: Uuid,
    lines: &[CartLine],
    version: i64,
) -> Result<CartBody, Problem> {
    let products = lines.iter().map(|line| line.product_id.0).collect::<Vec<_>>();
    let prices = if products.is_empty() {
        BTreeMap::new()
    } else {
        find_prices(&service.prices, &products).await.map_err(engine)?
    };
    priced(user_id, lines, version, &prices)
}

fn priced(
    user_id: Uuid,
    lines: &[CartLine],
    version: i64,
    prices: &BTreeMap<Uuid, PriceRow>,
) -> Result<CartBody, Problem> {
    let mut sum: Option<Money> = None;
    let mut adds_up = true;
    let mut items = Vec::with_capacity(lines.len());
    for line in lines {
        let row = prices.get(&line.product_id.0);
        let unit_price = row.map(|row| money(row.price_minor, &row.currency)).transpose()?;
        let multiplied = unit_price.map(|price| price.checked_multiply(line.quantity)).transpose();
        adds_up &= multiplied.is_ok();
        let line_total = multiplied.unwrap_or_default();
        if let Some(line_total) = line_total {
            let before = sum.unwrap_or_else(|| Money::zero(line_total.currency));
            match before.checked_add(line_total) {
                Ok(after) => sum = Some(after),
                Err(_) => adds_up = false,
            }
        }
        items.push(CartItemBody {
            id: line.item_id.0,
            product_id: line.product_id.0,
            name: row.map(|row| row.name.clone()),
            quantity: line.quantity,
            unit_price: unit_price.map(|price| price.to_string()),
            line_total: line_total.map(|price| price.to_string()),
        });
    }
    let sum = sum.unwrap_or_else(|| Money::zero(Currency::USD));
    let total = adds_up.then(|| sum.to_string());
    Ok(CartBody { user_id, items, total, currency: sum.currency.code().to_owned(), version })
}

#[cfg(test)]
mod tests {
    use aggregates::identifiers::{CartItemId, ProductId};

    use super::*;

    const USER: Uuid = Uuid::from_u128(1);

    fn line(product: u128, quantity: u32) -> CartLine {
        let (item_id, product_id) =
            (CartItemId(Uuid::from_u128(product + 100)), ProductId(Uuid::from_u128(product)));
        CartLine { item_id, product_id, quantity }
    }

    fn prices(rows: &[(u128, i64, &str)]) -> BTreeMap<Uuid, PriceRow> {
        let row = |(product, price_minor, currency): &(u128, i64, &str)| {
            let product_id = Uuid::from_u128(*product);
            let (name, currency) = (format!("Product {product}"), (*currency).to_owned());
            let row = PriceRow {
                product_id,
                name,
                price_minor: *price_minor,
                currency,
                buyable: true,
                discontinued: false,
            };
            (product_id, row)
        };
        rows.iter().map(row).collect()
    }

    #[test]
    fn an_empty_cart_costs_nothing() {
        let cart = priced(USER, &[], 0, &BTreeMap::new()).expect("it can be shown");
        let total = Some("0.00".to_owned());
        assert_eq!(
            cart,
            CartBody { user_id: USER, items: Vec::new(), total, currency: "USD".to_owned(), version: 0 }
        );
    }

    #[test]
    fn a_cart_costs_what_its_lines_cost_now() {
        let rows = prices(&[(7, 99_999, "USD"), (8, 50, "USD")]);
        let cart = priced(USER, &[line(7, 3), line(8, 1)], 4, &rows).expect("it can be shown");
        assert_eq!(cart.total.as_deref(), Some("3000.47"));
        assert_eq!(
            cart.items[0],
            CartItemBody {
                id: Uuid::from_u128(107),
                product_id: Uuid::from_u128(7),
                name: Some("Product 7".to_owned()),
                quantity: 3,
                unit_price: Some("999.99".to_owned()),
                line_total: Some("2999.97".to_owned()),
            }
        );
    }

    #[test]
    fn prices_that_do_not_add_up_have_no_total() {
        let rows = prices(&[(7, 100, "EUR"), (8, 50, "USD")]);
        let cart = priced(USER, &[line(7, 1), line(8, 1), line(9, 1)], 4, &rows).expect("it can be shown");
        assert_eq!((cart.total, cart.currency.as_str()), (None, "EUR"));
        assert_eq!((&cart.items[2].name, &cart.items[2].unit_price), (&None, &None));
    }

    #[test]
    fn a_cart_of_prices_beyond_all_measure_can_be_read() {
        let rows = prices(&[(7, i64::MAX, "USD"), (8, i64::MAX, "USD")]);
        let cart = priced(USER, &[line(7, 2), line(8, 1)], 4, &rows).expect("it can be shown");
        assert_eq!((cart.total, &cart.items[0].line_total), (None, &None));
        assert!(cart.items[1].line_total.is_some());
    }
}
