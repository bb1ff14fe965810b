//! Samples of what happens to products and stock items.

use std::collections::BTreeMap;

use aggregates::catalog::ProductEvent;
use aggregates::inventory::{Levels, ReleaseReason, ReturnCondition, StockItemEvent};

use super::{dollars, order, time};

pub(super) fn products() -> Vec<ProductEvent> {
    let images = vec!["https://images.example/teapot.jpg".to_owned()];
    let attributes = BTreeMap::from([
        ("colour".to_owned(), "blue".to_owned()),
        ("material".to_owned(), "stoneware".to_owned()),
    ]);
    vec![
        ProductEvent::ProductListed {
            name: "Teapot".to_owned(),
            description: "Holds a litre.".to_owned(),
            country_of_origin: "PT".to_owned(),
            price: dollars(99_999),
            sku: Some("TEA-1".to_owned()),
            categories: vec!["kitchen".to_owned(), "tea".to_owned()],
            images: images.clone(),
            attributes: attributes.clone(),
            opening_stock: Some(50),
        },
        ProductEvent::ProductDescribed {
            name: "Large teapot".to_owned(),
            description: "Holds two litres.".to_owned(),
            country_of_origin: "PT".to_owned(),
            sku: Some("TEA-2".to_owned()),
            images,
            attributes,
        },
        ProductEvent::ProductRepriced { price: dollars(89_999), previous: dollars(99_999) },
        ProductEvent::ProductCategorised { categories: vec!["kitchen".to_owned()] },
        ProductEvent::ProductWithdrawn,
        ProductEvent::ProductRelisted,
        ProductEvent::ProductDiscontinued,
    ]
}

pub(super) fn stock_items() -> Vec<StockItemEvent> {
    let levels = Levels { on_hand: 50, held: 3, committed: 2, sold: 12 };
    let reason = Some("delivery 17".to_owned());
    let at = time("2026-03-01T12:30:00.5Z");
    vec![
        StockItemEvent::StockItemOpened { low_stock_threshold: Some(5) },
        StockItemEvent::StockItemClosing { levels },
        StockItemEvent::StockItemClosed { levels },
        StockItemEvent::StockReceived { quantity: 50, reason: reason.clone(), levels },
        StockItemEvent::StockRemoved { quantity: 5, reason: reason.clone(), levels },
        StockItemEvent::StockCounted { counted: 48, correction: -2, reason: reason.clone(), levels },
        StockItemEvent::StockWrittenOff { quantity: 1, reason, levels },
        StockItemEvent::StockReserved { reservation: order(), quantity: 3, until: Some(at), levels },
        StockItemEvent::ReservationRejected {
            reservation: order(),
            requested: 60,
            available: 45,
            revision: 1,
        },
        StockItemEvent::ReservationAdjusted {
            reservation: order(),
            previous: 2,
            quantity: 3,
            revision: 1,
            at,
            levels,
        },
        StockItemEvent::ReservationCommitted { reservation: order(), quantity: 3, levels },
        StockItemEvent::ReservationLost { reservation: order(), requested: 3, available: 1 },
        StockItemEvent::ReservationReleased {
            reservation: order(),
            quantity: 3,
            why: ReleaseReason::Expired,
            at,
            levels,
        },
        StockItemEvent::StockShipped { reservation: order(), quantity: 3, at, levels },
        StockItemEvent::StockReturned {
            reservation: order(),
            quantity: 1,
            condition: ReturnCondition::Damaged,
            levels,
        },
        StockItemEvent::LowStockThresholdSet { low_stock_threshold: Some(8) },
        StockItemEvent::StockDepleted { levels },
        StockItemEvent::StockReplenished { levels },
        StockItemEvent::LowStockReached { threshold: 8, levels },
    ]
}
