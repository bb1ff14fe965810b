//! Carts (T-C01 to T-C28).

use features::shop::{ADDRESS, Person, customer, product};
use features::{Client, Reply, TestMart};
use serde_json::{Value, json};

use crate::MISSING;

async fn put(who: &Client, owner: &str, product: &str, quantity: i64) -> Reply {
    let body = json!({"product_id": product, "quantity": quantity});
    who.post(&format!("/v1/carts/{owner}/items")).json(&body).await
}

async fn cart(who: &Client, owner: &str) -> Value {
    who.get(&format!("/v1/carts/{owner}")).await.is(200).body
}

fn line_of(cart: &Value) -> String {
    cart["items"][0]["id"].as_str().expect("there is a line").to_owned()
}

async fn two() -> (&'static TestMart, Person, Person, String) {
    let mart = TestMart::shared().await;
    let (ann, bob) = tokio::join!(customer(mart), customer(mart));
    let product = product(mart, "19.99", 50).await;
    (mart, ann, bob, product)
}

#[tokio::test]
async fn a_cart_that_was_never_used_is_empty() {
    let (_, ann, _, _) = two().await;
    let cart = cart(&ann, &ann.id).await;
    assert_eq!(
        (&cart["items"], &cart["total"], &cart["user_id"]),
        (&json!([]), &json!("0.00"), &json!(ann.id))
    );
}

#[tokio::test]
async fn a_product_is_put_into_the_cart_once_changed_and_taken_out() {
    let (_, ann, _, product) = two().await;
    let full = put(&ann, &ann.id, &product, 3).await.is(201);
    assert_eq!((&full.body["total"], &full.body["items"][0]["quantity"]), (&json!("59.97"), &json!(3)));
    assert_eq!(cart(&ann, "me").await, full.body);
    put(&ann, &ann.id, &product, 3).await.refuses_fields(409, "already_in_cart", &["product_id"]);

    let line = format!("/v1/carts/me/items/{}", line_of(&full.body));
    for wrong in [0, 6] {
        let reply = ann.patch(&line).json(&json!({"quantity": wrong})).await;
        reply.refuses_fields(422, "validation_failed", &["quantity"]);
    }
    let changed = ann.patch(&line).json(&json!({"quantity": 5})).await.is(200);
    assert_eq!(changed.body["total"], "99.95");
    assert_eq!(cart(&ann, "me").await, changed.body);
    drop(ann.delete(&line).await.is(204));
    assert_eq!(cart(&ann, "me").await["items"], json!([]));
    ann.delete(&line).await.refuses(404, "not_found");

    drop(put(&ann, "me", &product, 1).await.is(201));
    drop(ann.delete("/v1/carts/me").await.is(204));
    assert_eq!(cart(&ann, "me").await["total"], "0.00");
}

#[tokio::test]
async fn what_cannot_be_put_into_a_cart_is_named() {
    let (_, ann, _, product) = two().await;
    let reply = ann.post("/v1/carts/me/items").json(&json!({"quantity": 3})).await;
    reply.refuses_fields(422, "validation_failed", &["product_id"]);
    for wrong in [0, 6, -1] {
        put(&ann, "me", &product, wrong).await.refuses_fields(422, "validation_failed", &["quantity"]);
    }
    put(&ann, "me", "no-id", 1).await.refuses_fields(422, "validation_failed", &["product_id"]);
    put(&ann, "me", MISSING, 1).await.refuses(404, "product_unknown");
    assert_eq!(cart(&ann, "me").await["items"], json!([]));
}

#[tokio::test]
async fn adding_with_merge_adds_up_to_the_most_of_a_line() {
    let (_, ann, _, product) = two().await;
    let merge = async |quantity: i64| {
        let body = json!({"product_id": product, "quantity": quantity});
        ann.post("/v1/carts/me/items?merge=true").json(&body).await
    };
    drop(merge(2).await.is(201));
    assert_eq!(merge(3).await.is(200).body["items"][0]["quantity"], 5);
    merge(1).await.refuses_fields(422, "validation_failed", &["quantity"]);
}

#[tokio::test]
async fn a_cart_belongs_to_its_owner_and_admins() {
    let (mart, ann, bob, product) = two().await;
    let admin = mart.admin().await;
    drop(put(&bob, &bob.id, &product, 2).await.is(201));
    let before = cart(&bob, &bob.id).await;
    let line = format!("/v1/carts/{}/items/{}", bob.id, line_of(&before));
    for other in [bob.id.as_str(), MISSING] {
        ann.get(&format!("/v1/carts/{other}")).await.refuses(403, "forbidden");
        ann.delete(&format!("/v1/carts/{other}")).await.refuses(403, "forbidden");
        put(&ann, other, &product, 1).await.refuses(403, "forbidden");
    }
    ann.patch(&line).json(&json!({"quantity": 1})).await.refuses(403, "forbidden");
    ann.delete(&line).await.refuses(403, "forbidden");
    assert_eq!(cart(&bob, &bob.id).await, before);

    assert_eq!(cart(&admin, &bob.id).await, before);
    assert_eq!(cart(&admin, &ann.id).await["items"], json!([]));
    assert_eq!(admin.patch(&line).json(&json!({"quantity": 4})).await.is(200).body["total"], "79.96");
    drop(admin.delete(&line).await.is(204));
    admin.patch(&line).json(&json!({"quantity": 4})).await.refuses(404, "not_found");
    admin.delete(&line).await.refuses(404, "not_found");
    drop(put(&admin, &ann.id, &product, 1).await.is(201));
    drop(admin.delete(&format!("/v1/carts/{}", ann.id)).await.is(204));
    assert_eq!(cart(&ann, &ann.id).await["items"], json!([]));
    // T-C13, T-C20
    admin.delete(&format!("/v1/carts/{MISSING}")).await.refuses(404, "not_found");
    put(&admin, MISSING, &product, 1).await.refuses(404, "not_found");
}

#[tokio::test]
async fn an_empty_cart_cannot_be_checked_out_and_a_refused_one_keeps_its_lines() {
    let (mart, ann, _, _) = two().await;
    let check_out =
        async || ann.post("/v1/carts/me/checkout").json(&json!({"shipping_address": ADDRESS})).await;
    check_out().await.refuses(409, "cart_empty");
    let scarce = product(mart, "5.00", 1).await;
    drop(put(&ann, "me", &scarce, 3).await.is(201));
    check_out().await.refuses(409, "insufficient_stock");
    assert_eq!(cart(&ann, "me").await["items"][0]["quantity"], 3);
}

#[tokio::test]
async fn parallel_adds_never_lose_a_line() {
    let (mart, ann, _, _) = two().await;
    let products = futures::future::join_all((0..8).map(|_| product(mart, "1.00", 1))).await;
    let adds = products.iter().map(|product| put(&ann, "me", product, 1));
    for reply in futures::future::join_all(adds).await {
        drop(reply.is(201));
    }
    let cart = cart(&ann, "me").await;
    assert_eq!((cart["items"].as_array().map(Vec::len), &cart["total"]), (Some(8), &json!("8.00")));
}

#[tokio::test]
async fn a_cart_checked_out_many_times_at_once_becomes_one_order() {
    let (_, ann, _, product) = two().await;
    drop(put(&ann, "me", &product, 1).await.is(201));
    let check_out = || async {
        ann.post("/v1/carts/me/checkout").json(&json!({"shipping_address": ADDRESS})).await.status
    };
    let mut statuses = futures::future::join_all((0..5).map(|_| check_out())).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409]);
    assert_eq!(ann.all("/v1/orders").await.len(), 1);
}
