//! What products cost, for those who buy them: the price list, and waiting for products it has not heard of.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use projections::orders::price_list::{PriceRow, find_prices};
use uuid::Uuid;

use aggregates::identifiers::ProductId;
use aggregates::lines::{LineQuantity, OrderLine};
use aggregates::orders::Details;

use crate::problem::Problem;
use crate::routes::amounts::money;
use crate::service::{HEAR_WITHIN, engine};
use crate::services::OrdersService;

/// The lines with the names and prices of now.
///
/// # Errors
/// 404 when a product does not exist, 409 when one is not offered.
pub(crate) async fn price(
    service: &OrdersService,
    wanted: &[LineQuantity],
) -> Result<Vec<OrderLine>, Problem> {
    let products = wanted.iter().map(|line| line.product_id.0).collect::<Vec<_>>();
    let prices = offered(service, &products).await?;
    wanted
        .iter()
        .map(|line| {
            let row = prices.get(&line.product_id.0).ok_or_else(unknown)?;
            Ok(OrderLine {
                product_id: line.product_id,
                name: row.name.clone(),
                quantity: line.quantity,
                unit_price: money(row.price_minor, &row.currency)?,
            })
        })
        .collect()
}

/// The lines of an order as they shall be: products that stay keep the price they were ordered at, whether they
/// are still offered or not.
///
/// # Errors
/// 404 when a new product does not exist, 409 when one is not offered.
pub(super) async fn price_changed(
    service: &OrdersService,
    wanted: &[LineQuantity],
    order: &Details,
) -> Result<Vec<OrderLine>, Problem> {
    let (kept, new) = part(wanted, order);
    let new = price(service, &new).await?;
    let priced = kept.into_iter().chain(new).map(|line| (line.product_id, line));
    let mut priced = priced.collect::<BTreeMap<_, _>>();
    Ok(wanted.iter().filter_map(|line| priced.remove(&line.product_id)).collect())
}

/// The lines whose products are in the order, with their prices, and the others.
fn part(wanted: &[LineQuantity], order: &Details) -> (Vec<OrderLine>, Vec<LineQuantity>) {
    let (mut kept, mut new) = (Vec::new(), Vec::new());
    for line in wanted {
        let ordered = order.lines.iter().find(|ordered| ordered.bought.product_id == line.product_id);
        match ordered {
            Some(ordered) => kept.push(OrderLine { quantity: line.quantity, ..ordered.bought.clone() }),
            None => new.push(*line),
        }
    }
    (kept, new)
}

/// The prices of products that can be bought now. Products that this service has not heard of are waited for:
/// they may have been listed a moment ago.
///
/// # Errors
/// 404 when a product does not exist, 409 when one is not offered.
pub(crate) async fn offered(
    service: &OrdersService,
    products: &[Uuid],
) -> Result<BTreeMap<Uuid, PriceRow>, Problem> {
    let mut prices = find_prices(&service.prices, products).await.map_err(engine)?;
    if products.iter().any(|id| !prices.contains_key(id)) {
        service.surroundings.reads.hear("catalog", HEAR_WITHIN).await.map_err(engine)?;
        prices = find_prices(&service.prices, products).await.map_err(engine)?;
    }
    check_offered(products, &prices)?;
    Ok(prices)
}

fn check_offered(products: &[Uuid], prices: &BTreeMap<Uuid, PriceRow>) -> Result<(), Problem> {
    let rows = products.iter().map(|id| prices.get(id).filter(|row| !row.discontinued));
    let rows = rows.collect::<Option<Vec<_>>>().ok_or_else(unknown)?;
    match rows.into_iter().find(|row| !row.buyable) {
        None => Ok(()),
        Some(row) => {
            let detail = format!("product {} is not offered at present", ProductId(row.product_id));
            Err(Problem::conflict("product_unavailable", detail))
        }
    }
}

fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "product_unknown", "there is no such product")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(product_id: Uuid, buyable: bool, discontinued: bool) -> PriceRow {
        let (name, currency) = ("Laptop".to_owned(), "USD".to_owned());
        PriceRow { product_id, name, price_minor: 1, currency, buyable, discontinued }
    }

    #[test]
    fn a_missing_product_is_told_before_one_that_is_not_offered() {
        let (offered, withdrawn, gone, missing) =
            (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3), Uuid::from_u128(4));
        let rows = [row(offered, true, false), row(withdrawn, false, false), row(gone, false, true)];
        let prices = rows.into_iter().map(|row| (row.product_id, row)).collect();
        let code = |products: &[Uuid]| {
            check_offered(products, &prices).err().map(|problem| problem.code().to_owned())
        };
        assert_eq!(code(&[offered]), None);
        assert_eq!(code(&[offered, withdrawn]).as_deref(), Some("product_unavailable"));
        assert_eq!(code(&[withdrawn, gone]).as_deref(), Some("product_unknown"));
        assert_eq!(code(&[withdrawn, missing]).as_deref(), Some("product_unknown"));
    }
}
