//! Many at once: copies of a request, versions, stock; and reading what was written.

use features::shop::{customer, order, order_of, product, stock, stock_becomes, unique};
use features::{Reply, TestMart};
use futures::future::join_all;
use serde_json::json;

#[tokio::test]
async fn twenty_copies_of_an_order_are_one_order() {
    let mart = TestMart::shared().await;
    let (ann, product) = tokio::join!(customer(mart), product(mart, "2.00", 30));
    let key = unique("key");
    let copy = |quantity: i64| {
        ann.post("/v1/orders").header("idempotency-key", &key).json(&order_of(&product, quantity))
    };
    let replies = join_all((0..20).map(|_| copy(1).into_future())).await;
    for reply in &replies {
        assert_eq!((reply.status, &reply.body), (201, &replies[0].body), "{reply}");
    }
    assert_eq!(ann.all("/v1/orders").await.len(), 1);
    assert_eq!(copy(1).await.is(201).header("idempotency-replayed"), Some("true"));
    copy(2).await.refuses(422, "idempotency_key_reused");
    // A key belongs to who uses it.
    let bob = customer(mart).await;
    let other =
        bob.post("/v1/orders").header("idempotency-key", &key).json(&order_of(&product, 1)).await.is(201);
    assert_ne!(other.body["id"], replies[0].body["id"]);
    for wrong in ["", &"k".repeat(256), "with space"] {
        let reply =
            ann.post("/v1/orders").header("idempotency-key", wrong).json(&order_of(&product, 1)).await;
        reply.refuses(400, "bad_header");
    }
}

#[tokio::test]
async fn of_parallel_writes_of_one_version_one_succeeds() {
    let mart = TestMart::shared().await;
    let admin = mart.admin().await;
    let id = product(mart, "2.00", 0).await;
    let path = format!("/v1/products/{id}");
    let version = admin.get(&path).await.is(200).header("etag").unwrap_or_default().to_owned();
    let write = |cents: usize| {
        let body = json!({"price": format!("3.{cents:02}")});
        admin.patch(&path).header("if-match", &version).json(&body).into_future()
    };
    let replies = join_all((10..18).map(write)).await;
    let (won, lost): (Vec<Reply>, Vec<Reply>) = replies.into_iter().partition(|reply| reply.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 7));
    for reply in lost {
        reply.refuses(412, "version_changed");
    }
    assert_eq!(admin.get(&path).await.is(200).body, won[0].body);
    admin
        .patch(&path)
        .header("if-match", "abc")
        .json(&json!({"price": "1.00"}))
        .await
        .refuses(400, "bad_header");
}

#[tokio::test]
async fn one_product_sold_to_fifty_at_once_is_never_oversold() {
    let mart = TestMart::shared().await;
    let product = product(mart, "2.00", 20).await;
    let buyers = join_all((0..5).map(|_| customer(mart))).await;
    let replies = join_all((0..50).map(|buyer| order(&buyers[buyer % buyers.len()], &product, 1))).await;
    let sold = replies.iter().filter(|reply| reply.status == 201).count();
    assert_eq!(sold, 20);
    for reply in replies.into_iter().filter(|reply| reply.status != 201) {
        reply.refuses(409, "insufficient_stock");
    }
    let admin = mart.admin().await;
    stock_becomes(&admin, &product, [20, 0, 20, 0]).await;
}

#[tokio::test]
async fn every_write_is_in_the_next_read() {
    let mart = TestMart::shared().await;
    let admin = mart.admin().await;
    let (ann, id) = tokio::join!(customer(mart), product(mart, "2.00", 0));
    for pieces in 1..=10 {
        let added =
            admin.post(&format!("/v1/inventory/{id}/additions")).json(&json!({"quantity": 1})).await.is(200);
        assert_eq!(stock(&admin, &id).await[0], pieces, "{added}");
        let name = json!({"first_name": format!("Ann{pieces}")});
        let patched = ann.patch("/v1/users/me").json(&name).await.is(200);
        let position = patched.header("mart-position").expect("a write has a position").to_owned();
        assert!(position.starts_with("users:"), "{position}");
        let read = ann.get("/v1/users/me").header("mart-min-position", &position).await.is(200);
        assert_eq!(read.body["first_name"], name["first_name"]);
        let price = json!({"price": format!("2.{pieces:02}")});
        drop(admin.patch(&format!("/v1/products/{id}")).json(&price).await.is(200));
        let listed = admin.get(&format!("/v1/products/{id}")).await.is(200);
        assert_eq!(listed.body["price"], price["price"]);
    }
    let cart = json!({"product_id": id, "quantity": 1});
    drop(ann.post("/v1/carts/me/items").json(&cart).await.is(201));
    let placed = order(&ann, &id, 2).await.is(201);
    assert_eq!(ann.all("/v1/orders").await, [placed.body]);
}

#[tokio::test]
async fn a_position_that_is_not_there_yet_is_waited_for_in_vain() {
    let ann = customer(TestMart::shared().await).await;
    let read = async |position: &str| ann.get("/v1/users/me").header("mart-min-position", position).await;
    let reply = read("users:999999999").await.refuses(503, "service_unavailable");
    assert!(reply.header("retry-after").is_some());
    for wrong in ["users", "users:x", "users:-1", ":1"] {
        read(wrong).await.refuses(400, "bad_header");
    }
}
