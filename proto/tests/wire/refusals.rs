//! What is not an event is an error, never an event full of defaults.

use aggregates::orders::OrderEvent;
use proptest::prelude::{any, proptest};
use proptest::{collection, prop_assert};
use prost::Message as _;
use proto::mart::orders::v1;
use proto::{MartEvent, Service, Wire, WireError, encode, read_envelope, to_json};

use crate::samples::{self, Sample};

fn sample(event_type: &str) -> Sample {
    samples::all().into_iter().find(|sample| sample.event_type == event_type).expect("there is a sample")
}

/// A sent sample, changed on the way.
fn changed(event_type: &str, change: impl FnOnce(&mut v1::OrdersEvent)) -> Result<OrderEvent, WireError> {
    let mut message =
        v1::OrdersEvent::decode(sample(event_type).sent().bytes).expect("what was sent can be read");
    change(&mut message);
    OrderEvent::from_wire(&message.encode_to_vec())
}

fn placed(message: &mut v1::OrdersEvent) -> &mut v1::OrderPlaced {
    match message.event.as_mut() {
        Some(v1::orders_event::Event::OrderPlaced(placed)) => placed,
        other => panic!("{other:?} is not the placing of an order"),
    }
}

#[test]
fn nothing_is_not_an_event() {
    for service in Service::ALL {
        assert!(matches!(MartEvent::from_wire(service, &[]), Err(WireError::NoEvent)));
        assert!(matches!(read_envelope(service.name(), &[]), Err(WireError::Missing("event_id"))));
        assert!(to_json(service.name(), &[]).is_err());
    }
}

#[test]
fn a_message_of_another_service_is_refused() {
    for sample in samples::all() {
        let bytes = sample.sent().bytes;
        for service in Service::ALL.into_iter().filter(|service| *service != sample.service) {
            let read = MartEvent::from_wire(service, &bytes);
            assert!(read.is_err(), "{service} takes {} for {read:?}", sample.event_type);
            assert!(matches!(
                read_envelope(service.name(), &bytes),
                Err(WireError::UnknownAggregate { service: name, .. }) if name == service.name()
            ));
        }
    }
}

#[test]
fn half_a_message_is_refused() {
    for sample in samples::all() {
        let bytes = sample.sent().bytes;
        for length in 0..bytes.len() {
            let read = MartEvent::from_wire(sample.service, &bytes[..length]);
            assert!(read.is_err(), "{length} bytes of {} are {read:?}", sample.event_type);
        }
    }
}

#[test]
fn an_event_that_is_not_known_yet_is_refused() {
    let read = changed("OrderDelivered", |message| message.event = None);
    assert!(matches!(read, Err(WireError::NoEvent)));
}

#[test]
fn an_event_that_its_envelope_does_not_name_is_refused() {
    let renamed = changed("OrderDelivered", |message| "OrderShipped".clone_into(&mut message.event_type));
    assert!(matches!(renamed, Err(WireError::AnotherEvent { event: "OrderDelivered", .. })));
    let moved = changed("OrderDelivered", |message| "cart".clone_into(&mut message.aggregate_type));
    assert!(matches!(moved, Err(WireError::AnotherEvent { event: "OrderDelivered", .. })));
}

#[test]
fn an_event_of_a_cart_is_no_event_of_an_order() {
    let read = OrderEvent::from_wire(&sample("CartCleared").sent().bytes);
    assert!(matches!(read, Err(WireError::Foreign { event: "CartCleared", aggregate: "order" })));
}

#[test]
fn a_field_that_is_missing_or_malformed_is_named() {
    let missing = changed("OrderPlaced", |message| placed(message).total = None);
    assert!(matches!(missing, Err(WireError::Missing("total"))));
    let empty = changed("OrderPlaced", |message| placed(message).user_id.clear());
    assert!(matches!(empty, Err(WireError::Missing("user_id"))));
    let malformed = changed("OrderPlaced", |message| "somebody".clone_into(&mut placed(message).user_id));
    assert!(matches!(malformed, Err(WireError::Malformed("user_id"))));
    let currency = changed("OrderPlaced", |message| {
        if let Some(total) = placed(message).total.as_mut() {
            "XXX".clone_into(&mut total.currency);
        }
    });
    assert!(matches!(currency, Err(WireError::Malformed("currency"))));
}

#[test]
fn a_choice_that_is_unspecified_or_unknown_is_refused() {
    for (status, unspecified) in [(0, true), (99, false), (-1, false)] {
        let read = changed("OrderShipped", |message| match message.event.as_mut() {
            Some(v1::orders_event::Event::OrderShipped(shipped)) => shipped.status = status,
            other => panic!("{other:?} is not the shipping of an order"),
        });
        match read {
            Err(WireError::Missing("status")) => assert!(unspecified),
            Err(WireError::Malformed("status")) => assert!(!unspecified),
            other => panic!("status {status} gives {other:?}"),
        }
    }
}

#[test]
fn what_is_not_an_event_of_the_domain_is_not_sent() {
    let sample = sample("OrderDelivered");
    let envelope = sample.envelope();
    let payload = sample.stored.to_string();
    assert!(matches!(encode("accounting", &envelope, &payload), Err(WireError::UnknownService(_))));
    assert!(matches!(encode("users", &envelope, &payload), Err(WireError::UnknownAggregate { .. })));
    assert!(matches!(encode("orders", &envelope, "{}"), Err(WireError::Stored { .. })));
    assert!(matches!(encode("orders", &envelope, "\"OrderVanished\""), Err(WireError::Stored { .. })));
    assert!(matches!(
        encode("orders", &envelope, "\"OrderPaymentClosed\""),
        Err(WireError::AnotherEvent { event: "OrderPaymentClosed", .. })
    ));
    for place in [0, -1, i64::MIN] {
        let mut nowhere = sample.envelope();
        nowhere.position = place;
        assert!(matches!(encode("orders", &nowhere, &payload), Err(WireError::Malformed("position"))));
    }
}

proptest! {
    #[test]
    fn any_bytes_at_all_are_refused(bytes in collection::vec(any::<u8>(), 0..200)) {
        for service in Service::ALL {
            prop_assert!(MartEvent::from_wire(service, &bytes).is_err());
            prop_assert!(read_envelope(service.name(), &bytes).is_err());
        }
    }
}
