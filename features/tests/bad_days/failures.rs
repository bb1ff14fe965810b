//! Power failures while the shop is full, and records on a topic that do not belong there.

use std::time::Duration;

use embedded::testing;
use features::PATIENCE;
use features::crowd::{Crowd, Told, adds_up};
use features::eventually::eventually;
use features::mart::Setup;
use features::shop::{self, customer, order_now, paid_order, product, stock_becomes};
use features::topics::{self, Record};
use rand::Rng;

use crate::room;

/// How often the power fails.
const FAILURES: usize = 3;
/// How many buy at the same time.
const BUYERS: usize = 6;
/// Pieces in stock: more than are bought.
const PIECES: u32 = 10_000;
/// How long everything may take to come to rest after the last failure.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_power_failures_at_any_moment() {
    let _room = room().await;
    let mut mart = Setup::new().await.start().await;
    let (ann, product) = (customer(&mart).await, product(&mart, "2.00", PIECES).await);
    let token = ann.token().unwrap_or_default().to_owned();
    let mut told = Told::default();
    for _failure in 0..FAILURES {
        let buyer = mart.client().with_token(&token);
        let crowd = Crowd::of(std::iter::repeat_n(buyer, BUYERS), &product);
        let moment = Duration::from_millis(rand::rng().random_range(200..2_500));
        // The moment of the failure is what is tested, not something to wait for.
        let _ = tokio::time::timeout(moment, std::future::pending::<()>()).await;
        mart.kill9();
        told.add(crowd.stop().await);
        mart.start().await;
    }
    assert!(!told.placed.is_empty(), "nobody bought anything");
    let buyer = mart.client().with_token(&token);
    adds_up(&mart.admin().await, &buyer, &product, PIECES, &told, SETTLED_WITHIN).await;
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
