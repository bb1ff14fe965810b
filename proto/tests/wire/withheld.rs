//! What belongs to a person, or opens an account, does not leave the service.

use aggregates::carts::Cart;
use aggregates::catalog::Product;
use aggregates::inventory::StockItem;
use aggregates::notifications::Notification;
use aggregates::orders::Order;
use aggregates::payments::Payment;
use aggregates::records::Recorded;
use aggregates::users::User;
use proto::to_json;
use serde_json::{Value, json};

use crate::samples::{self, Sample, is_secret};

/// Stands in every field that must not be seen.
const MARKER: &str = "nobody-may-see-this";

fn personal_fields(sample: &Sample) -> &'static [&'static str] {
    let name = sample.event_type.as_str();
    match sample.aggregate_type {
        "user" => User::personal_fields(name),
        "product" => Product::personal_fields(name),
        "stock_item" => StockItem::personal_fields(name),
        "order" => Order::personal_fields(name),
        "cart" => Cart::personal_fields(name),
        "payment" => Payment::personal_fields(name),
        "notification" => Notification::personal_fields(name),
        other => panic!("{other} is no aggregate"),
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The sample with personal data and secrets in plain text.
fn plain(sample: &Sample) -> Sample {
    sample.with_withheld(|field| Value::from(format!("{MARKER} {field}")))
}

#[test]
fn every_personal_field_is_withheld() {
    for sample in samples::all() {
        let event = sample.event();
        let withheld = event.withheld_fields();
        for field in personal_fields(&sample) {
            assert!(withheld.contains(field), "{} publishes {field}", sample.event_type);
        }
        for field in withheld {
            assert!(
                personal_fields(&sample).contains(field) || is_secret(field),
                "{} withholds {field} without need",
                sample.event_type
            );
        }
    }
}

#[test]
fn no_withheld_value_is_in_the_bytes_or_in_the_json_for_people() {
    let mut withholding = 0;
    for sample in samples::all() {
        let sent = plain(&sample).sent();
        assert!(!contains(&sent.bytes, MARKER), "{} tells", sample.event_type);
        let shown = to_json(sample.service.name(), &sent.bytes).expect("a message can be shown");
        assert!(!shown.to_string().contains(MARKER), "{} tells", sample.event_type);
        for field in sample.event().withheld_fields() {
            assert_eq!(shown["data"].get(field), None, "{} shows {field}", sample.event_type);
            withholding += 1;
        }
    }
    assert!(withholding > 20, "only {withholding} fields are withheld");
}

#[test]
fn sealed_plain_and_erased_data_give_the_same_bytes() {
    for sample in samples::all() {
        let sealed = sample.sent();
        assert!(!contains(&sealed.bytes, "c2VhbGVk"), "{} tells its ciphertext", sample.event_type);
        assert_eq!(plain(&sample).sent(), sealed);
        let erased = sample.with_withheld(|field| if is_secret(field) { json!("") } else { Value::Null });
        assert_eq!(erased.sent(), sealed);
    }
}

#[test]
fn of_a_card_only_brand_and_last_digits_are_published() {
    let sample = samples::all()
        .into_iter()
        .find(|sample| sample.event_type == "PaymentAttemptRequested")
        .expect("there is a sample");
    let shown = to_json("payments", &sample.sent().bytes).expect("a message can be shown");
    assert_eq!(shown["data"]["card_brand"], json!("visa"));
    assert_eq!(shown["data"]["card_last4"], json!("4242"));
    assert_eq!(shown["data"].get("token"), None);
}
