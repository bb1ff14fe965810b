//! The product listing, which is made of two logs: whichever comes first, and in whatever order it is listed.

use std::collections::BTreeMap;

use aggregates::catalog::{Product, ProductEvent};
use aggregates::inventory::{Levels, StockItem, StockItemEvent};
use projections::catalog::ProductListing;
use projections::catalog::product_listing::{
    self, ListingStatus, ProductQuery, ProductRow, ProductSort, find_product, list_products,
};
use projections::rebuild::Outcome;
use uuid::Uuid;

use crate::answering::listed;
use crate::mart::Mart;

async fn stock(mart: &Mart, product: Uuid, on_hand: u32) {
    let levels = Levels { on_hand, ..Levels::default() };
    mart.given::<StockItem>(
        "inventory",
        &product.to_string(),
        vec![
            StockItemEvent::StockItemOpened { low_stock_threshold: None },
            StockItemEvent::StockReceived { quantity: on_hand, reason: None, levels },
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_may_come_before_its_product_or_after_it() {
    let mut mart = Mart::of(&["catalog", "inventory"]).await;
    mart.project("catalog").await;
    let live = mart.live::<ProductListing>("catalog");
    let (early, late) = (Uuid::now_v7(), Uuid::now_v7());
    stock(&mart, early, 3).await;
    mart.given::<Product>("catalog", &late.to_string(), vec![listed("Apple", 250)]).await;
    mart.settle("catalog").await;
    assert_eq!(find_product(&live, early).await.expect("answers"), None);
    assert!(!product_listing::product_exists(&live, early).await.expect("answers"));
    mart.given::<Product>("catalog", &early.to_string(), vec![listed("Apple", 250)]).await;
    stock(&mart, late, 3).await;
    // Another place does not count.
    stock_elsewhere(&mart, late).await;
    mart.settle("catalog").await;
    for id in [early, late] {
        let found = find_product(&live, id).await.expect("answers").expect("there");
        let expected = ProductRow {
            id,
            sku: Some("sku Apple".to_owned()),
            name: "Apple".to_owned(),
            description: "100% good".to_owned(),
            country_of_origin: "Chile".to_owned(),
            price_minor: 250,
            currency: "USD".to_owned(),
            categories: vec!["fruit".to_owned(), "fresh".to_owned()],
            images: vec!["https://example.org/a.png".to_owned()],
            attributes: BTreeMap::from([("colour".to_owned(), "red".to_owned())]),
            status: ListingStatus::Listed,
            available: 3,
            is_available: true,
            created_at: found.created_at,
            version: 1,
            searched: "apple\n100% good".to_owned(),
        };
        assert_eq!(found, expected);
    }
    assert_eq!(mart.verify("product_listing").await, Outcome::Equal { rows: 2 });
    mart.stop().await;
}

async fn stock_elsewhere(mart: &Mart, product: Uuid) {
    let levels = Levels { on_hand: 50, ..Levels::default() };
    let received = StockItemEvent::StockReceived { quantity: 50, reason: None, levels };
    mart.given::<StockItem>("inventory", &format!("{product}@attic"), vec![received]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn products_are_listed_in_every_order_page_by_page() {
    let mut mart = Mart::of(&["catalog", "inventory"]).await;
    let live = mart.live::<ProductListing>("catalog");
    // In the order of their listing; two share a price, two a name.
    let products = [("Pear", 300), ("Apple", 100), ("Quince_", 100), ("Apple", 200), ("Gone", 5)];
    let mut ids = Vec::new();
    for (name, price) in products {
        let id = Uuid::now_v7();
        mart.given::<Product>("catalog", &id.to_string(), vec![listed(name, price)]).await;
        ids.push(id);
    }
    let gone = vec![ProductEvent::ProductDiscontinued];
    mart.given::<Product>("catalog", &ids[4].to_string(), gone).await;
    let moved = ProductEvent::ProductCategorised { categories: vec!["trees".to_owned()] };
    mart.given::<Product>("catalog", &ids[2].to_string(), vec![moved]).await;
    stock(&mart, ids[0], 1).await;
    mart.project("catalog").await;
    mart.settle("catalog").await;
    for (sort, expected) in [
        (ProductSort::Name, [1, 3, 0, 2]),
        (ProductSort::NameDescending, [2, 0, 3, 1]),
        (ProductSort::Price, [1, 2, 3, 0]),
        (ProductSort::PriceDescending, [0, 3, 2, 1]),
        (ProductSort::CreatedAt, [0, 1, 2, 3]),
        (ProductSort::CreatedAtDescending, [3, 2, 1, 0]),
    ] {
        let query = ProductQuery { sort, ..ProductQuery::default() };
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = list_products(&live, &query, after.as_ref(), 1).await.expect("answers");
            found.extend(page.rows.iter().map(|row| row.id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected.map(|index| ids[index]), "{sort:?}");
    }
    let default = ProductQuery::default();
    for (query, expected) in [
        (ProductQuery { search: Some("aPPl".to_owned()), ..default.clone() }, vec![3, 1]),
        (ProductQuery { search: Some("e_".to_owned()), ..default.clone() }, vec![2]),
        (ProductQuery { search: Some("0% GOOD".to_owned()), ..default.clone() }, vec![3, 2, 1, 0]),
        (ProductQuery { search: Some("0_".to_owned()), ..default.clone() }, vec![]),
        (ProductQuery { category: Some("trees".to_owned()), ..default.clone() }, vec![2]),
        (ProductQuery { available: Some(true), ..default.clone() }, vec![0]),
        (ProductQuery { available: Some(false), ..default.clone() }, vec![3, 2, 1]),
    ] {
        let page = list_products(&live, &query, None, 10).await.expect("answers");
        let found: Vec<Uuid> = page.rows.iter().map(|row| row.id).collect();
        let expected: Vec<Uuid> = expected.into_iter().map(|index| ids[index]).collect();
        assert_eq!(found, expected, "{query:?}");
    }
    let of_names =
        list_products(&live, &ProductQuery { sort: ProductSort::Name, ..default.clone() }, None, 1)
            .await
            .expect("answers");
    let refused = list_products(&live, &default, of_names.next.as_ref(), 1).await;
    assert!(refused.is_err(), "a cursor of another order is refused");
    assert_eq!(find_product(&live, ids[4]).await.expect("answers"), None);
    assert!(product_listing::product_exists(&live, ids[4]).await.expect("answers"));
    mart.stop().await;
}
