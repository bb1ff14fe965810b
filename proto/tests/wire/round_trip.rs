//! Every event goes over the wire and comes back as it was, but for what is withheld.

use std::collections::BTreeSet;

use aggregates::carts::{Cart, CartEvent};
use aggregates::catalog::{Product, ProductEvent};
use aggregates::inventory::{StockItem, StockItemEvent};
use aggregates::notifications::{Notification, NotificationEvent};
use aggregates::orders::{Order, OrderEvent};
use aggregates::payments::{Payment, PaymentEvent};
use aggregates::users::{User, UserEvent};
use cqrs_es::Aggregate;
use proptest::prelude::{any, proptest};
use proptest::{option, prop_assert_eq};
use proto::{Envelope, MartEvent, Service, Wire, encode, read_envelope, to_json};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::descriptors;
use crate::samples::{self, Sample};

fn assert_survives(sample: &Sample) {
    let sent = sample.sent();
    let read = MartEvent::from_wire(sample.service, &sent.bytes).expect("what was sent can be read");
    assert_eq!(read, sample.published().event(), "{}", sample.stored);
    let envelope = read_envelope(sample.service.name(), &sent.bytes).expect("an envelope can be read");
    assert_eq!(envelope, sample.envelope());
}

/// The sample with one value replaced, at any depth, by anything that might stand there.
fn variations(sample: &Sample) -> Vec<Sample> {
    let mut others = vec![
        Value::Null,
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(""),
        json!("JPY"),
        json!("Grüße, 世界 🫖"),
        json!("1969-12-31T23:59:59.999999999Z"),
        json!([]),
        json!({}),
        json!({ "": "", "é": "x" }),
    ];
    // So that the variations go through every value of every enum.
    others.extend(descriptors::choices().into_iter().map(Value::from));
    let mut paths = Vec::new();
    paths_in(&sample.stored[&sample.event_type], format!("/{}", sample.event_type), &mut paths);
    let mut variations = Vec::new();
    for path in paths {
        for other in &others {
            let mut stored = sample.stored.clone();
            if let Some(value) = stored.pointer_mut(&path) {
                *value = other.clone();
            }
            variations.push(sample.with(stored));
        }
    }
    variations
}

fn paths_in(value: &Value, here: String, paths: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                paths_in(field, format!("{here}/{name}"), paths);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                paths_in(item, format!("{here}/{index}"), paths);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    paths.push(here);
}

#[test]
fn every_event_survives_the_wire() {
    for sample in samples::all() {
        assert_survives(&sample);
    }
}

#[test]
fn every_value_a_field_can_hold_survives_the_wire() {
    let mut survived = 0;
    for sample in samples::all() {
        for variation in variations(&sample) {
            let payload = variation.stored.to_string();
            if MartEvent::from_stored(variation.service, &variation.envelope(), &payload).is_ok() {
                assert_survives(&variation);
                survived += 1;
            }
        }
    }
    assert!(survived > 1_000, "only {survived} variations were events");
}

#[test]
fn every_event_of_the_domain_has_a_sample() {
    let sampled: BTreeSet<(&str, String)> =
        samples::all().into_iter().map(|sample| (sample.aggregate_type, sample.event_type)).collect();
    let known: BTreeSet<(&str, String)> = [
        (User::TYPE, UserEvent::TYPES),
        (Product::TYPE, ProductEvent::TYPES),
        (StockItem::TYPE, StockItemEvent::TYPES),
        (Order::TYPE, OrderEvent::TYPES),
        (Cart::TYPE, CartEvent::TYPES),
        (Payment::TYPE, PaymentEvent::TYPES),
        (Notification::TYPE, NotificationEvent::TYPES),
    ]
    .into_iter()
    .flat_map(|(aggregate, types)| types.iter().map(move |name| (aggregate, (*name).to_owned())))
    .collect();
    assert_eq!(sampled, known);
}

#[test]
fn every_aggregate_reads_its_own_events_and_no_others() {
    fn check<E: Wire + DeserializeOwned + PartialEq + std::fmt::Debug>() {
        for sample in samples::all() {
            let read = E::from_wire(&sample.sent().bytes);
            if sample.aggregate_type == E::AGGREGATE_TYPE {
                let expected: E =
                    serde_json::from_value(sample.published().stored).expect("a sample can be read");
                assert_eq!(read.expect("an event of this aggregate can be read"), expected);
                assert!(E::SERVICE.aggregate_types().contains(&E::AGGREGATE_TYPE));
            } else {
                let refusal = read.expect_err("an event of another aggregate must be refused");
                assert!(!refusal.to_string().is_empty());
            }
        }
    }
    check::<UserEvent>();
    check::<ProductEvent>();
    check::<StockItemEvent>();
    check::<OrderEvent>();
    check::<CartEvent>();
    check::<PaymentEvent>();
    check::<NotificationEvent>();
}

#[test]
fn the_message_type_is_the_package_and_the_event() {
    for sample in samples::all() {
        let expected = format!("mart.{}.v1.{}", sample.service, sample.event_type);
        assert_eq!(sample.sent().message_type, expected);
    }
}

#[test]
fn an_event_reads_as_json_for_people() {
    let sample = samples::all()
        .into_iter()
        .find(|sample| sample.event_type == "OrderAddressEdited")
        .expect("there is a sample");
    let shown = to_json("orders", &sample.sent().bytes).expect("a message can be shown");
    assert_eq!(
        shown,
        json!({
            "service": "orders",
            "event_id": "019551a0-0000-7000-8000-000000000385",
            "aggregate_type": "order",
            "aggregate_id": "019551a0-0000-7000-8000-000000000386",
            "sequence": 7,
            "position": 4711,
            "recorded_at": "2026-03-01T12:30:00.123456Z",
            "event_type": "OrderAddressEdited",
            "event_version": "1.0",
            "correlation_id": "019551a0-0000-7000-8000-000000000387",
            "causation_id": "019551a0-0000-7000-8000-000000000388",
            "command_id": "019551a0-0000-7000-8000-000000000389",
            "actor": "019551a0-0000-7000-8000-00000000038a",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "data": { "user_id": "019551a0-0000-7000-8000-000000000001" },
        })
    );
}

#[test]
fn an_event_without_fields_reads_as_json_without_data() {
    let sample = samples::all()
        .into_iter()
        .find(|sample| sample.event_type == "CartCleared")
        .expect("there is a sample");
    let shown = to_json("orders", &sample.sent().bytes).expect("a message can be shown");
    assert_eq!(shown["data"], json!({}));
}

proptest! {
    #[test]
    fn any_envelope_survives_the_wire(
        event_id in any::<u128>(),
        aggregate_id in ".{1,80}",
        sequence in 1..=i64::MAX,
        position in 1..=i64::MAX,
        (seconds, nanos) in (-10_000_000_000_i64..100_000_000_000, 0_u32..1_000_000_000),
        event_version in "[0-9]\\.[0-9]",
        (correlation, causation, command, actor) in
            (option::of(any::<u128>()), option::of(any::<u128>()), option::of(any::<u128>()), option::of(any::<u128>())),
        traceparent in option::of(".{0,60}"),
    ) {
        let envelope = Envelope {
            event_id: Uuid::from_u128(event_id),
            aggregate_type: "order".to_owned(),
            aggregate_id,
            sequence,
            position,
            recorded_at: chrono::DateTime::from_timestamp(seconds, nanos).expect("the range is that of chrono"),
            event_type: "OrderExpiryDeferred".to_owned(),
            event_version,
            correlation_id: correlation.map(Uuid::from_u128),
            causation_id: causation.map(Uuid::from_u128),
            command_id: command.map(Uuid::from_u128),
            actor: actor.map(Uuid::from_u128),
            traceparent,
        };
        let sent = encode("orders", &envelope, "\"OrderExpiryDeferred\"").expect("an event can be sent");
        prop_assert_eq!(read_envelope("orders", &sent.bytes).expect("an envelope can be read"), envelope);
        let event = MartEvent::from_wire(Service::Orders, &sent.bytes).expect("an event can be read");
        prop_assert_eq!(event, MartEvent::Order(OrderEvent::OrderExpiryDeferred));
    }
}
