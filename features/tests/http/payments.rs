//! Payments (T-M30 to T-M35).

use features::shop::{
    DECLINED_CARD, GOOD_CARD, Person, card, customer, order, order_now, order_reads, paid_order, pay,
    product, stock_becomes,
};
use features::{Client, TestMart};
use serde_json::json;

use crate::MISSING;

async fn ordered(quantity: i64) -> (&'static TestMart, Person, String, String) {
    let mart = TestMart::shared().await;
    let (ann, product) = tokio::join!(customer(mart), product(mart, "12.50", 10));
    let id = order(&ann, &product, quantity).await.is(201).text_of("id");
    (mart, ann, product, id)
}

#[tokio::test]
async fn an_order_is_paid_at_once_and_its_payment_can_be_read() {
    let (mart, ann, product, id) = ordered(2).await;
    // T-M35, B29: nobody has to wait until the payment is prepared.
    let paid = pay(&ann, &id, GOOD_CARD).await.is(200);
    assert_eq!((&paid.body["order_id"], &paid.body["status"]), (&json!(id), &json!("captured")));
    assert_eq!((&paid.body["amount"], &paid.body["currency"]), (&json!("25.00"), &json!("USD")));
    assert_eq!((&paid.body["card_brand"], &paid.body["card_last4"]), (&json!("visa"), &json!("4242")));
    let payment = ann.get(&format!("/v1/payments/{}", paid.text_of("id"))).await.is(200);
    assert_eq!(payment.body, paid.body);
    assert_eq!(ann.all("/v1/payments").await, std::slice::from_ref(&paid.body));
    let bob = customer(mart).await;
    bob.get(&format!("/v1/payments/{}", paid.text_of("id"))).await.refuses(404, "not_found");
    order_reads(&ann, &id, "confirmed", "paid").await;
    stock_becomes(&mart.admin().await, &product, [10, 8, 0, 2]).await;
    // T-M32, B06
    pay(&ann, &id, GOOD_CARD).await.refuses(409, "already_paid");
}

#[tokio::test]
async fn a_declined_card_leaves_the_order_open_for_another() {
    let (_, ann, _, id) = ordered(1).await;
    for _attempt in 0..2 {
        pay(&ann, &id, DECLINED_CARD).await.refuses(402, "card_declined");
    }
    order_reads(&ann, &id, "awaiting_payment", "failed").await;
    drop(pay(&ann, &id, GOOD_CARD).await.is(200));
    order_reads(&ann, &id, "confirmed", "paid").await;
}

#[tokio::test]
async fn only_the_owner_pays_and_only_what_is_due() {
    let (mart, ann, _, id) = ordered(1).await;
    let bob = customer(mart).await;
    // B07
    pay(&bob, &id, GOOD_CARD).await.refuses(404, "not_found");
    pay(&ann, MISSING, GOOD_CARD).await.refuses(404, "not_found");
    // B25
    let mut cheap = card(GOOD_CARD);
    cheap["amount"] = json!("0.01");
    let path = format!("/v1/orders/{id}/payments");
    ann.post(&path).json(&cheap).await.refuses_fields(422, "validation_failed", &["amount"]);
    ann.post(&path).json(&json!({})).await.refuses(422, "validation_failed");
    let mut expired = card(GOOD_CARD);
    expired["card"]["exp_year"] = json!(2001);
    ann.post(&path).json(&expired).await.refuses(422, "validation_failed");
    ann.post(&path).json(&card("4242424242424241")).await.refuses(422, "validation_failed");
    assert_eq!(order_now(&ann, &id).await["payment_status"], "pending");
    cheap["amount"] = json!("12.50");
    drop(ann.post(&path).json(&cheap).await.is(200));
}

#[tokio::test]
async fn an_order_paid_many_times_at_once_is_charged_once() {
    let (mart, ann, product, id) = ordered(1).await;
    let payments = futures::future::join_all((0..8).map(|_| pay(&ann, &id, GOOD_CARD))).await;
    let paid = payments.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(paid, 1);
    for refused in payments.iter().filter(|reply| reply.status != 200) {
        assert_eq!(refused.status, 409, "{refused}");
        let code = refused.body["code"].as_str().unwrap_or_default();
        assert!(["already_paid", "payment_in_progress"].contains(&code), "{refused}");
    }
    let payment = &ann.all("/v1/payments").await[0];
    assert_eq!((&payment["amount"], &payment["status"]), (&json!("12.50"), &json!("captured")));
    stock_becomes(&mart.admin().await, &product, [10, 9, 0, 1]).await;
}

#[tokio::test]
async fn a_cancelled_order_cannot_be_paid() {
    let (_, ann, _, id) = ordered(1).await;
    drop(ann.post(&format!("/v1/orders/{id}/cancel")).await.is(200));
    pay(&ann, &id, GOOD_CARD).await.refuses(409, "payment_closed");
}

#[tokio::test]
async fn money_goes_back_up_to_what_was_paid() {
    let (mart, ann, product, _) = ordered(1).await;
    let admin = mart.admin().await;
    let id = paid_order(&ann, &product, 2).await;
    let payments = ann.all("/v1/payments").await;
    let payment = payments.iter().find(|payment| payment["order_id"] == id.as_str()).expect("it was paid");
    let refunds = format!("/v1/payments/{}/refunds", payment["id"].as_str().expect("it has an id"));
    let body = json!({"amount": "10.00", "reason": "a scratch"});
    ann.post(&refunds).json(&body).await.refuses(403, "forbidden");
    let refund = admin.post(&refunds).json(&body).await.is(201);
    assert_eq!(refund.body["amount"], "10.00");
    let more = json!({"amount": "15.01", "reason": "too much"});
    admin.post(&refunds).json(&more).await.refuses(409, "refund_exceeds_payment");
    order_reads(&ann, &id, "confirmed", "partially_refunded").await;
    assert_eq!(
        admin.post(&refunds).json(&json!({"reason": "the rest"})).await.is(201).body["amount"],
        "15.00"
    );
    order_reads(&ann, &id, "confirmed", "refunded").await;
}

/// Ships an order, lets it arrive, and takes all of it back.
async fn comes_back(admin: &Client, ann: &Client, id: &str) {
    let path = format!("/v1/orders/{id}");
    for step in ["shipments", "deliveries"] {
        drop(admin.post(&format!("{path}/{step}")).json(&json!({})).await.is(200));
    }
    drop(ann.post(&format!("{path}/returns")).json(&json!({})).await.is(200));
    drop(admin.post(&format!("{path}/returns")).json(&json!({})).await.is(200));
}

#[tokio::test]
async fn goods_that_come_back_bring_back_what_is_left_of_the_money() {
    let (mart, ann, product, _) = ordered(1).await;
    let admin = mart.admin().await;
    let id = paid_order(&ann, &product, 2).await;
    let payment = ann.all("/v1/payments").await[0]["id"].as_str().expect("it has an id").to_owned();
    let scratch = json!({"amount": "10.00", "reason": "a scratch"});
    drop(admin.post(&format!("/v1/payments/{payment}/refunds")).json(&scratch).await.is(201));
    order_reads(&ann, &id, "confirmed", "partially_refunded").await;
    comes_back(&admin, &ann, &id).await;
    order_reads(&ann, &id, "returned", "refunded").await;
}

#[tokio::test]
async fn what_was_refunded_altogether_is_not_sent() {
    let (mart, ann, product, _) = ordered(1).await;
    let admin = mart.admin().await;
    let id = paid_order(&ann, &product, 1).await;
    let payment = ann.all("/v1/payments").await[0]["id"].as_str().expect("it has an id").to_owned();
    let all = json!({"reason": "it cannot be had"});
    drop(admin.post(&format!("/v1/payments/{payment}/refunds")).json(&all).await.is(201));
    order_reads(&ann, &id, "confirmed", "refunded").await;
    admin.post(&format!("/v1/orders/{id}/shipments")).json(&json!({})).await.refuses(409, "not_paid");
}
