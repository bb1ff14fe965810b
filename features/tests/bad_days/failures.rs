//! Power failures while the shop is full, and records on a topic that do not belong there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use embedded::testing;
use features::eventually::eventually;
use features::mart::{Setup, TestMart};
use features::shop::{
    self, GOOD_CARD, card, customer, order_now, order_of, paid_order, product, stock_becomes,
};
use features::topics::{self, Record};
use features::{Client, PATIENCE};
use futures::future::join_all;
use rand::Rng;
use serde_json::Value;

use crate::room;

/// How often the power fails.
const FAILURES: usize = 3;
/// How many buy at the same time.
const BUYERS: usize = 6;
/// Pieces in stock: more than are bought.
const PIECES: u32 = 10_000;
/// How long everything may take to come to rest after the last failure.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// What a buyer was told.
#[derive(Debug, Default)]
struct Told {
    placed: Vec<String>,
    paid: Vec<String>,
}

/// Buys until the power fails; every second order is paid.
async fn buy(buyer: &Client, product: &str, failed: &AtomicBool) -> Told {
    let mut told = Told::default();
    let mut pays = false;
    while !failed.load(Ordering::Relaxed) {
        let Ok(placed) = buyer.post("/v1/orders").json(&order_of(product, 1)).send().await else { break };
        if placed.status != 201 {
            continue;
        }
        let id = placed.text_of("id");
        told.placed.push(id.clone());
        pays = !pays;
        if pays {
            let path = format!("/v1/orders/{id}/payments");
            let Ok(paid) = buyer.post(&path).json(&card(GOOD_CARD)).send().await else { break };
            if paid.status == 200 {
                told.paid.push(id);
            }
        }
    }
    told
}

/// Waits until every order is either waiting for its money or confirmed with it, and the stock adds up. Orders
/// and stock are looked at together: the list of orders may be behind for as long as the read models are.
async fn adds_up(mart: &TestMart, buyer: &Client, product: &str, told: &Told) {
    let admin = mart.admin().await;
    let orders = eventually(SETTLED_WITHIN, async || {
        let orders = buyer.all("/v1/orders").await;
        let rests = |order: &Value| {
            let state = (order["order_status"].as_str(), order["payment_status"].as_str());
            matches!(state, (Some("awaiting_payment"), Some("pending")) | (Some("confirmed"), Some("paid")))
        };
        if let Some(order) = orders.iter().find(|order| !rests(order)) {
            return Err(format!("an order does not come to rest: {order}"));
        }
        let count = |status: &str| {
            let count = orders.iter().filter(|order| order["order_status"] == status).count();
            i64::try_from(count).expect("they can be counted")
        };
        let (held, committed, pieces) = (count("awaiting_payment"), count("confirmed"), i64::from(PIECES));
        let expected = [pieces, pieces - held - committed, held, committed];
        let stock = shop::stock(&admin, product).await;
        if stock == expected { Ok(orders) } else { Err(format!("the stock is {stock:?}, not {expected:?}")) }
    })
    .await;
    let status_of = |id: &String| {
        let order = orders.iter().find(|order| order["id"] == id.as_str());
        order.map(|order| order["order_status"].as_str().unwrap_or_default())
    };
    for id in &told.placed {
        assert!(status_of(id).is_some(), "the acknowledged order {id} is gone");
    }
    for id in &told.paid {
        assert_eq!(status_of(id), Some("confirmed"), "the acknowledged payment of {id} is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_power_failures_at_any_moment() {
    let _room = room().await;
    let mut mart = Setup::new().await.start().await;
    let (ann, product) = (customer(&mart).await, product(&mart, "2.00", PIECES).await);
    let token = ann.token().unwrap_or_default().to_owned();
    let mut told = Told::default();
    for _failure in 0..FAILURES {
        let failed = AtomicBool::new(false);
        let buyer = mart.client().with_token(&token);
        let buying = join_all((0..BUYERS).map(|_| buy(&buyer, &product, &failed)));
        let moment = Duration::from_millis(rand::rng().random_range(200..2_500));
        let failing = async {
            // The moment of the failure is what is tested, not something to wait for.
            let _ = tokio::time::timeout(moment, std::future::pending::<()>()).await;
            mart.kill9();
            failed.store(true, Ordering::Relaxed);
        };
        let (round, ()) = tokio::join!(buying, failing);
        for buyer in round {
            told.placed.extend(buyer.placed);
            told.paid.extend(buyer.paid);
        }
        mart.start().await;
    }
    assert!(!told.placed.is_empty(), "nobody bought anything");
    let buyer = mart.client().with_token(&token);
    adds_up(&mart, &buyer, &product, &told).await;
    let verified = mart.run(&["verify"]).await;
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    mart.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poisoned_and_repeated_records_do_no_harm() {
    let _room = room().await;
    let mut mart = Setup::new().await.start().await;
    let (ann, product) = (customer(&mart).await, product(&mart, "2.00", 50).await);
    let first = paid_order(&ann, &product, 1).await;
    let before = order_now(&ann, &first).await;

    let topic = mart.topic_of("orders");
    let (from, to) = (mart.kafka(), topic.clone());
    let written = tokio::task::spawn_blocking(move || {
        let published = topics::read(&from, &to);
        let poison = |record: &Record, payload: &[u8]| Record { payload: payload.to_vec(), ..record.clone() };
        let mut strange = published.clone();
        strange.extend(published.iter().rev().cloned());
        for (index, record) in published.iter().enumerate() {
            strange.push(poison(record, b""));
            strange.push(poison(record, b"\xff\xff\xff\xff no event"));
            strange.push(Record { headers: Vec::new(), ..record.clone() });
            // A record that claims to come next, and is none.
            let mut next = poison(record, b"\x08\x96\x01 nonsense");
            for (name, value) in &mut next.headers {
                if name == "mart-position" || name == "mart-previous" {
                    *value = (1_000_000 + index).to_string().into_bytes();
                }
            }
            strange.push(next);
        }
        topics::write(&from, &to, &strange);
        published.len()
    });
    assert!(written.await.expect("the topic can be written") > 0, "nothing was published");

    // The shop goes on, and nothing was done twice.
    for _each in 0..5 {
        paid_order(&ann, &product, 1).await;
    }
    assert_eq!(order_now(&ann, &first).await, before);
    stock_becomes(&mart.admin().await, &product, [50, 44, 0, 6]).await;
    let mails = ["order_received", "payment_received"].map(|template| [template; 6]);
    let wanted = std::iter::once("registration").chain(mails.into_iter().flatten()).collect();
    shop::mails_become(&ann, wanted).await;
    let verified = mart.run(&["verify"]).await;
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    mart.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shop_goes_on_while_the_broker_is_down() {
    let _room = room().await;
    let mut broker = testing::broker_apart().await;
    let mut mart = Setup::on(&broker).await.start().await;
    let (ann, product) = (customer(&mart).await, product(&mart, "2.00", 20).await);
    paid_order(&ann, &product, 1).await;
    broker.down();
    paid_order(&ann, &product, 2).await;
    eventually(PATIENCE, async || {
        let ready = mart.client().get("/readyz").await;
        if ready.status == 200 && ready.text.contains("kafka") { Ok(()) } else { Err(ready.to_string()) }
    })
    .await;
    broker.up().await;
    paid_order(&ann, &product, 3).await;
    stock_becomes(&mart.admin().await, &product, [20, 14, 0, 6]).await;
    mart.stop().await;
}
