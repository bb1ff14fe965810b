//! Orders (T-M16 to T-M29).

use features::TestMart;
use features::shop::{
    ADDRESS, Person, customer, order, order_now, order_of, paid_order, product, stock, stock_becomes,
};
use serde_json::{Value, json};

use crate::MISSING;

async fn shop(pieces: u32) -> (&'static TestMart, Person, String) {
    let mart = TestMart::shared().await;
    let (ann, product) = tokio::join!(customer(mart), product(mart, "12.50", pieces));
    (mart, ann, product)
}

fn lines(product: &str, quantity: i64) -> Value {
    json!({"items": [{"product_id": product, "quantity": quantity}]})
}

#[tokio::test]
async fn an_order_holds_stock_and_shows_everything_it_says() {
    let (mart, ann, product) = shop(10).await;
    let placed = order(&ann, &product, 2).await.is(201);
    let id = placed.text_of("id");
    assert_eq!(placed.header("location"), Some(format!("/v1/orders/{id}").as_str()));
    let told = |field: &str| placed.body[field].clone();
    assert_eq!(told("order_status"), "awaiting_payment");
    assert_eq!(told("payment_status"), "pending");
    assert_eq!((told("total"), told("currency")), (json!("25.00"), json!("USD")));
    assert_eq!((told("user_id"), told("shipping_address")), (json!(ann.id), json!(ADDRESS)));
    let line = &placed.body["items"][0];
    assert_eq!((&line["product_id"], &line["quantity"]), (&json!(product), &json!(2)));
    assert_eq!((&line["unit_price"], &line["line_total"]), (&json!("12.50"), &json!("25.00")));
    assert!(told("pay_by").is_string() && told("created_at").is_string() && told("version").is_i64());
    let version = told("version");
    assert_eq!(placed.header("etag"), Some(format!("\"{version}\"").as_str()));
    assert_eq!(order_now(&ann, &id).await, placed.body);
    stock_becomes(&mart.admin().await, &product, [10, 8, 2, 0]).await;
}

#[tokio::test]
async fn an_order_beyond_the_stock_is_refused_with_its_lines_and_takes_nothing() {
    let (mart, ann, scarce) = shop(1).await;
    let admin = mart.admin().await;
    let plenty = product(mart, "1.00", 10).await;
    let body = json!({
        "items": [{"product_id": plenty, "quantity": 3}, {"product_id": scarce, "quantity": 2}],
        "shipping_address": ADDRESS,
    });
    let refused = ann.post("/v1/orders").json(&body).await;
    let refused = refused.refuses_fields(409, "insufficient_stock", &["items"]);
    let short = json!([{"product_id": scarce, "requested": 2, "available": 1}]);
    assert_eq!(refused.body["errors"]["items"], short);
    stock_becomes(&admin, &scarce, [1, 1, 0, 0]).await;
    stock_becomes(&admin, &plenty, [10, 10, 0, 0]).await;
    let empty = product(mart, "1.00", 0).await;
    order(&ann, &empty, 1).await.refuses(409, "insufficient_stock");
}

#[tokio::test]
async fn an_order_that_makes_no_sense_is_refused_and_disturbs_nobody() {
    let (_, ann, product) = shop(10).await;
    for wrong in [0, -1, -5, 1_000_000] {
        order(&ann, &product, wrong).await.refuses_fields(422, "validation_failed", &["items.0.quantity"]);
    }
    // B14: the next order works.
    order(&ann, MISSING, 1).await.refuses(404, "product_unknown");
    order(&ann, "x", 1).await.refuses_fields(422, "validation_failed", &["items.0.product_id"]);
    let post = async |body: Value| ann.post("/v1/orders").json(&body).await;
    post(json!({})).await.refuses_fields(422, "validation_failed", &["items", "shipping_address"]);
    let mut twice = order_of(&product, 1);
    twice["items"] = json!([twice["items"][0], twice["items"][0]]);
    post(twice).await.refuses_fields(422, "validation_failed", &["items.1.product_id"]);
    // B25, B53: nobody names a price.
    let mut priced = order_of(&product, 1);
    priced["items"][0]["price"] = json!("0.01");
    post(priced).await.refuses(422, "validation_failed");
    drop(order(&ann, &product, 1).await.is(201));
}

#[tokio::test]
async fn an_unpaid_order_can_be_changed_as_far_as_the_stock_goes() {
    let (mart, ann, product) = shop(5).await;
    let admin = mart.admin().await;
    let id = order(&ann, &product, 3).await.is(201).text_of("id");
    let path = format!("/v1/orders/{id}");
    let change = async |body: Value| ann.patch(&path).json(&body).await;
    assert_eq!(change(lines(&product, 2)).await.is(200).body["total"], "25.00");
    stock_becomes(&admin, &product, [5, 3, 2, 0]).await;
    assert_eq!(change(lines(&product, 5)).await.is(200).body["total"], "62.50");
    stock_becomes(&admin, &product, [5, 0, 5, 0]).await;
    // T-M22
    let before = order_now(&ann, &id).await;
    change(lines(&product, 6)).await.refuses(409, "insufficient_stock");
    let after = order_now(&ann, &id).await;
    assert_eq!((&after["items"], &after["total"]), (&before["items"], &before["total"]));
    // T-M25, B17
    change(lines(&product, -5)).await.refuses_fields(422, "validation_failed", &["items.0.quantity"]);
    change(json!({"shipping_address": ""})).await.refuses_fields(
        422,
        "validation_failed",
        &["shipping_address"],
    );
    let noted = change(json!({"customer_notes": "at the back door"})).await.is(200);
    assert_eq!(
        (&noted.body["customer_notes"], &noted.body["shipping_address"]),
        (&json!("at the back door"), &json!(ADDRESS))
    );
    // T-M23, B16: with nothing left, fewer and none are still possible.
    assert_eq!(change(lines(&product, 4)).await.is(200).body["total"], "50.00");
    assert_eq!(ann.delete(&path).await.is(200).body["order_status"], "cancelled");
    stock_becomes(&admin, &product, [5, 5, 0, 0]).await;
    change(lines(&product, 1)).await.refuses(409, "not_editable");
}

#[tokio::test]
async fn orders_are_seen_by_their_owner_and_admins_only() {
    let (mart, ann, product) = shop(10).await;
    let (admin, bob) = (mart.admin().await, customer(mart).await);
    let id = order(&ann, &product, 1).await.is(201).text_of("id");
    drop(order(&bob, &product, 1).await.is(201));
    let missing = bob.get(&format!("/v1/orders/{MISSING}")).await.refuses(404, "not_found");
    for path in [format!("/v1/orders/{id}"), format!("/v1/orders/{id}/history")] {
        drop(admin.get(&path).await.is(200));
        let foreign = bob.get(&path).await.refuses(404, "not_found");
        assert_eq!(foreign.body["detail"], missing.body["detail"]);
    }
    bob.patch(&format!("/v1/orders/{id}"))
        .json(&json!({"customer_notes": "mine"}))
        .await
        .refuses(404, "not_found");
    bob.post(&format!("/v1/orders/{id}/cancel")).await.refuses(404, "not_found");
    bob.delete(&format!("/v1/orders/{id}")).await.refuses(404, "not_found");
    let mine = ann.all("/v1/orders").await;
    assert_eq!(mine, [order_now(&ann, &id).await]);
    ann.post(&format!("/v1/orders/{id}/shipments")).json(&json!({})).await.refuses(403, "forbidden");
}

#[tokio::test]
async fn a_paid_order_is_neither_changed_nor_cancelled_by_its_owner() {
    let (mart, ann, product) = shop(5).await;
    let id = paid_order(&ann, &product, 2).await;
    let path = format!("/v1/orders/{id}");
    ann.delete(&path).await.refuses(409, "not_cancellable");
    ann.post(&format!("{path}/cancel")).await.refuses(409, "not_cancellable");
    // B24
    ann.patch(&path).json(&lines(&product, 5)).await.refuses(409, "not_editable");
    assert_eq!(stock(&mart.admin().await, &product).await, [5, 3, 0, 2]);
}

#[tokio::test]
async fn lists_go_on_page_by_page() {
    let (_, ann, product) = shop(10).await;
    for _each in 0..3 {
        drop(order(&ann, &product, 1).await.is(201));
    }
    let first = ann.get("/v1/orders?limit=2").await.is(200);
    assert_eq!(first.body["data"].as_array().map(Vec::len), Some(2));
    let second =
        ann.get(&format!("/v1/orders?limit=2&cursor={}", first.text_of("next_cursor"))).await.is(200);
    assert_eq!(second.body["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(second.body["next_cursor"], Value::Null);
    for (query, field) in
        [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("cursor=x", "cursor")]
    {
        let reply = ann.get(&format!("/v1/orders?{query}")).await;
        reply.refuses_fields(422, "validation_failed", &[field]);
    }
}

#[tokio::test]
async fn an_order_can_be_read_as_it_was() {
    let (_, ann, product) = shop(10).await;
    let id = order(&ann, &product, 1).await.is(201).text_of("id");
    drop(ann.delete(&format!("/v1/orders/{id}")).await.is(200));
    let history = ann.all(&format!("/v1/orders/{id}/history")).await;
    let awaited =
        history.iter().find(|entry| entry["type"] == "OrderAwaitingPayment").expect("it was so once");
    let moment = awaited["at"].as_str().expect("an entry has a time");
    let then = ann.get(&format!("/v1/orders/{id}?as_of={moment}")).await.is(200);
    assert_eq!(then.body["order_status"], "awaiting_payment");
    assert_eq!(history[0]["actor"], ann.id.as_str());
}
