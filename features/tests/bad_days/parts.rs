//! The parts of the mart as processes of their own do the same as all in one.

use embedded::testing;
use features::PATIENCE;
use features::client::Client;
use features::eventually::eventually;
use features::mart::Setup;
use features::program::Program;
use features::shop::{
    GOOD_CARD, customer, mails_become, order, order_now, order_reads, paid_order, pay, product, stock_becomes,
};
use serde_json::json;

use crate::room;

/// A role that serves no routes is asked how it is, and for nothing else.
async fn tells_how_it_is(role: &Program) {
    let line = role.says("Online Mart").await.expect("it is ready");
    let address = line.split_once("http://").and_then(|(_, rest)| rest.strip_suffix("/readyz"));
    let client = Client::new(&format!("http://{}", address.expect("it says where it tells how it is")));
    for path in ["/livez", "/metrics"] {
        drop(client.get(path).await.is(200));
    }
    assert_eq!(client.get("/readyz").await.is(200).body, json!({ "ready": true }));
    drop(client.get("/v1/products").await.is(404));
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_working_and_projecting_apart_is_the_same_as_all_in_one() {
    let _room = room().await;
    let broker = testing::broker();
    let mut mart = Setup::on(&broker).await.command(&["serve", "all"]).start().await;
    for arguments in [&["migrate"], &["seed"]] {
        let output = mart.run(arguments).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut projecting = mart.role(&["project", "all"]).await;
    let mut working = [mart.role(&["work", "all"]).await, mart.role(&["work", "all"]).await];

    tells_how_it_is(&projecting).await;
    tells_how_it_is(&working[1]).await;

    let (ann, product) = (customer(&mart).await, product(&mart, "2.00", 10).await);
    let first = paid_order(&ann, &product, 1).await;
    let before = order_now(&ann, &first).await;
    // One of two workers fails; the other takes over, which an order may be too early for.
    working[0].kill();
    let placed = order(&ann, &product, 2).await;
    assert!([201, 202].contains(&placed.status), "{placed}");
    let second = placed.text_of("id");
    order_reads(&ann, &second, "awaiting_payment", "pending").await;
    drop(pay(&ann, &second, GOOD_CARD).await.is(200));
    order_reads(&ann, &second, "confirmed", "paid").await;
    // The read models lag while nobody keeps them, and catch up.
    projecting.kill();
    let mut projecting = mart.role(&["project", "all"]).await;
    let third = order(&ann, &product, 3).await.is(201).text_of("id");
    drop(pay(&ann, &third, GOOD_CARD).await.is(200));
    let path = format!("/v1/orders/{third}");
    let shown = eventually(PATIENCE, async || {
        let reply = ann.get(&path).await;
        if reply.status == 200 { Ok(()) } else { Err(reply.to_string()) }
    });
    shown.await;
    order_reads(&ann, &third, "confirmed", "paid").await;
    assert_eq!(order_now(&ann, &first).await, before);
    stock_becomes(&mart.admin().await, &product, [10, 4, 0, 6]).await;
    let mails = ["order_received", "payment_received"].map(|template| [template; 3]);
    mails_become(&ann, std::iter::once("registration").chain(mails.into_iter().flatten()).collect()).await;

    assert!(working[1].stop().await.success(), "the worker stopped badly");
    assert!(projecting.stop().await.success(), "the projector stopped badly");
    mart.stop().await;
}
