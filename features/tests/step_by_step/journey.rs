//! The journey that is made for each place: an order is bought and paid, another cancelled.

use features::client::Call;
use features::shop::{GOOD_CARD, card, order_of, stock_becomes, unique};
use features::{Client, Reply, eventually};
use serde_json::Value;

use crate::lane::{Lane, WITHIN};
use crate::places::{ABORT, Place};

/// Pieces in stock; 2 are bought, 3 more are ordered and given back.
const PIECES: u32 = 10;

/// A request of the customer under a key of its own, and the first answer to it.
struct Asked {
    path: String,
    body: Value,
    key: String,
    answer: Reply,
}

impl Asked {
    async fn post(lane: &mut Lane, path: String, body: Value, expected: &[u16]) -> Self {
        let key = unique("key");
        let answer = lane.ask(|client| call(client, &path, &body, &key)).await;
        assert!(expected.contains(&answer.status), "{answer}");
        Self { path, body, key, answer }
    }

    /// Asked again, it is answered the same, and nothing is done.
    async fn is_answered_again(&self, lane: &mut Lane) {
        let again = lane.ask(|client| call(client, &self.path, &self.body, &self.key)).await;
        assert_eq!((again.status, &again.body), (self.answer.status, &self.answer.body), "{again}");
        assert_eq!(again.header("idempotency-replayed"), Some("true"), "{again}");
    }
}

fn call(client: &Client, path: &str, body: &Value, key: &str) -> Call {
    client.post(path).json(body).header("idempotency-key", key)
}

/// Makes the journey while something happens at a place.
pub(crate) async fn with(lane: &mut Lane, place: &Place, what: &str) {
    let point = lane.point(place).await;
    let told = format!("{point} after {} passes: {what}", place.passes);
    println!("{told}");
    let product = lane.product(PIECES).await;
    let (happened_before, started_before) = (happened(lane, &point), started(lane));
    let passes = if place.passes > 0 { format!("{}*off->", place.passes) } else { String::new() };
    lane.mart.arm(&format!("{point}={passes}1*{what}->off")).await;

    let bought = Asked::post(lane, "/v1/orders".to_owned(), order_of(&product, 2), &[201, 202]).await;
    let id = bought.answer.text_of("id");
    lane.order_reads(&id, "awaiting_payment", "pending").await;
    let paid = Asked::post(lane, format!("/v1/orders/{id}/payments"), card(GOOD_CARD), &[200, 202]).await;
    lane.order_reads(&id, "confirmed", "paid").await;
    let ordered = Asked::post(lane, "/v1/orders".to_owned(), order_of(&product, 3), &[201, 202]).await;
    let other = ordered.answer.text_of("id");
    lane.order_reads(&other, "awaiting_payment", "pending").await;
    let cancelled = Asked::post(lane, format!("/v1/orders/{other}/cancel"), Value::Null, &[200, 202]).await;

    eventually(WITHIN, async || {
        lane.mart.revive().await;
        // One that dies says so first, and may still be there for a moment.
        let is_over = what != ABORT || started(lane) > started_before;
        if happened(lane, &point) > happened_before && is_over {
            Ok(())
        } else {
            Err(format!("nothing happened at {told}"))
        }
    })
    .await;
    lane.mart.arm(&format!("{point}=off")).await;

    lane.order_reads(&id, "confirmed", "paid").await;
    lane.order_reads(&other, "cancelled", "pending").await;
    for asked in [&bought, &paid, &ordered, &cancelled] {
        asked.is_answered_again(lane).await;
    }
    let pieces = i64::from(PIECES);
    stock_becomes(&lane.mart.admin().await, &product, [pieces, pieces - 2, 0, 2]).await;
    lane.mails_arrive(&["order_received", "payment_received", "order_received", "order_cancelled"]).await;
    let payment = paid.answer.text_of("id");
    for (service, aggregate, event) in [
        ("orders", &id, "OrderConfirmed"),
        ("orders", &other, "OrderCancelled"),
        ("payments", &payment, "PaymentAttemptRequested"),
        ("payments", &payment, "PaymentAuthorised"),
        ("payments", &payment, "PaymentCaptured"),
    ] {
        assert_eq!(lane.events(service, aggregate, event).await, 1, "{event} after {told}");
    }
}

/// How often the mart was started.
fn started(lane: &Lane) -> usize {
    lane.mart.log().matches("Online Mart is ready").count()
}

/// How often something happened at a failpoint, as the mart logs it.
fn happened(lane: &Lane, point: &str) -> usize {
    let log = lane.mart.log();
    let at = format!("here failpoint=\"{point}\"");
    log.lines().filter(|line| line.contains(&at)).count()
}
