//! One product that everybody wants, sold and received by several processes at the same time.

use features::Client;
use features::eventually::eventually;
use features::mart::Setup;
use features::shop::{customer, order, product, stock_becomes};
use futures::future::join_all;
use serde_json::json;

use crate::{SETTLED_WITHIN, in_parts, room, succeeds};

/// Pieces in stock at first.
const OPENING_PIECES: u32 = 60;
/// How often a piece comes in at each of the two processes while they sell.
const DELIVERIES: u32 = 10;
/// How many buy at each process.
const BUYERS: usize = 8;

/// Orders a piece and waits for the decision, which a busy shop may tell later. Says whether it was sold.
async fn is_sold(buyer: &Client, product: &str) -> bool {
    let reply = order(buyer, product, 1).await;
    match reply.status {
        201 => true,
        202 => {
            let path = format!("/v1/orders/{}", reply.text_of("id"));
            let decided = eventually(SETTLED_WITHIN, async || {
                let reply = buyer.get(&path).await;
                match reply.body["order_status"].as_str() {
                    Some("awaiting_payment") => Ok(true),
                    Some("rejected") => Ok(false),
                    _ => Err(reply.to_string()),
                }
            });
            decided.await
        }
        _ => {
            reply.refuses(409, "insufficient_stock");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_sell_all_of_a_hot_product_and_never_one_too_many() {
    let _room = room().await;
    let (mut mart, _broker) = in_parts(Setup::new().await).await;
    let (mut other, other_client) = mart.serve_beside(&["serve", "all"]).await;
    let mut running = vec![mart.role(&["project", "all"]).await];
    for _worker in 0..2 {
        running.push(mart.role(&["work", "all"]).await);
    }
    let (ann, product) = (customer(&mart).await, product(&mart, "2.00", OPENING_PIECES).await);
    let admin = mart.admin().await;
    let at_other = |client: &Client| other_client.with_token(client.token().unwrap_or_default());
    let doors = [ann.client.clone(), at_other(&ann)];
    let receiving_doors = [admin.clone(), at_other(&admin)];
    let pieces = OPENING_PIECES + 2 * DELIVERIES;

    let receiving = join_all(receiving_doors.iter().map(|door| async {
        for _delivery in 0..DELIVERIES {
            let path = format!("/v1/inventory/{product}/additions");
            let reply = door.post(&path).json(&json!({"quantity": 1})).await;
            assert!(matches!(reply.status, 200 | 201), "{reply}");
        }
    }));
    // Each buyer goes on until the shop says that there is nothing left, which may be too early while goods still
    // come in.
    let buying = join_all(doors.iter().cycle().take(2 * BUYERS).map(|door| async {
        let mut bought = 0;
        while is_sold(door, &product).await {
            bought += 1;
        }
        bought
    }));
    let (_, bought) = tokio::join!(receiving, buying);
    let mut sold: u32 = bought.iter().sum();
    // What came in after the last buyer had left.
    while sold < pieces {
        assert!(
            is_sold(&ann, &product).await,
            "{sold} of {pieces} pieces are sold, and no more is to be had"
        );
        sold += 1;
    }
    assert!(!is_sold(&ann, &product).await, "sold one too many");

    let held = i64::from(pieces);
    stock_becomes(&admin, &product, [held, 0, held, 0]).await;
    let orders = eventually(SETTLED_WITHIN, async || {
        let orders = ann.all("/v1/orders").await;
        let unsettled = orders
            .iter()
            .find(|order| !matches!(order["order_status"].as_str(), Some("awaiting_payment" | "rejected")));
        unsettled.map_or_else(|| Ok(orders.clone()), |order| Err(order.to_string()))
    })
    .await;
    let accepted = orders.iter().filter(|order| order["order_status"] == "awaiting_payment").count();
    assert_eq!(accepted, pieces as usize, "sold one too many, or one too few");
    succeeds(&mart, &["verify"]).await;
    for process in running.iter_mut().chain([&mut other]) {
        assert!(process.stop().await.success(), "a process stopped badly");
    }
    mart.stop().await;
}
