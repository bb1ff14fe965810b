//! An order that is paid at one process and changed at another.

use features::Client;
use features::mart::Setup;
use features::shop::{DECLINED_CARD, GOOD_CARD, card, customer, order, order_reads, pay, product};
use serde_json::json;

use crate::{in_parts, room};

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_made_of_an_order_is_what_has_to_be_paid() {
    let _room = room().await;
    let (mut mart, _broker) = in_parts(Setup::new().await).await;
    let (mut other, other_client) = mart.serve_beside(&["serve", "all"]).await;
    let mut running = [mart.role(&["project", "all"]).await, mart.role(&["work", "all"]).await];
    let (ann, product) = (customer(&mart).await, product(&mart, "12.50", 10).await);
    let at_other = other_client.with_token(ann.client.token().unwrap_or_default());

    let offers = async |buyer: &Client, order: &str, amount: &str| {
        let mut offer = card(GOOD_CARD);
        offer["amount"] = json!(amount);
        buyer.post(&format!("/v1/orders/{order}/payments")).json(&offer).await
    };
    for outdated_offer in [true, false] {
        let id = order(&ann, &product, 2).await.is(201).text_of("id");
        // From here on this process remembers the payment with what is due now.
        pay(&ann, &id, DECLINED_CARD).await.refuses(402, "card_declined");
        let fewer = json!({"items": [{"product_id": product, "quantity": 1}]});
        let changed = at_other.patch(&format!("/v1/orders/{id}")).json(&fewer).await.is(200);
        assert_eq!(changed.body["total"], "12.50");
        if outdated_offer {
            let refused = offers(&ann, &id, "25.00").await;
            refused.refuses_fields(422, "validation_failed", &["amount"]);
        }
        let paid = offers(&ann, &id, "12.50").await.is(200);
        assert_eq!((&paid.body["amount"], &paid.body["status"]), (&json!("12.50"), &json!("captured")));
        order_reads(&ann, &id, "confirmed", "paid").await;
    }

    for process in running.iter_mut().chain([&mut other]) {
        assert!(process.stop().await.success(), "a process stopped badly");
    }
    mart.stop().await;
}
