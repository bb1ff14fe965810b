//! One sample of every event, with all its optional fields, in the form it is stored.

mod buying;
mod keeping;
mod people;

use aggregates::identifiers::{OrderId, ProductId, UserId};
use aggregates::money::{Currency, Money};
use aggregates::personal::Personal;
use chrono::{DateTime, Utc};
use cqrs_es::DomainEvent;
use proto::{Envelope, MartEvent, Message, Service, Wire, encode};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

/// A stored event and where it belongs.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) service: Service,
    pub(crate) aggregate_type: &'static str,
    pub(crate) event_type: String,
    pub(crate) event_version: String,
    pub(crate) stored: Value,
}

impl Sample {
    pub(crate) fn envelope(&self) -> Envelope {
        Envelope {
            event_id: uuid(901),
            aggregate_type: self.aggregate_type.to_owned(),
            aggregate_id: uuid(902).to_string(),
            sequence: 7,
            position: 4711,
            recorded_at: time("2026-03-01T12:30:00.123456Z"),
            event_type: self.event_type.clone(),
            event_version: self.event_version.clone(),
            correlation_id: Some(uuid(903)),
            causation_id: Some(uuid(904)),
            command_id: Some(uuid(905)),
            actor: Some(uuid(906)),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        }
    }

    pub(crate) fn with(&self, stored: Value) -> Self {
        Self { stored, ..self.clone() }
    }

    pub(crate) fn event(&self) -> MartEvent {
        MartEvent::from_stored(self.service, &self.envelope(), &self.stored.to_string())
            .expect("a sample is an event of the domain")
    }

    pub(crate) fn sent(&self) -> Message {
        encode(self.service.name(), &self.envelope(), &self.stored.to_string()).expect("a sample can be sent")
    }

    /// The sample with other values in the fields that do not leave the service.
    pub(crate) fn with_withheld(&self, value: impl Fn(&str) -> Value) -> Self {
        let mut stored = self.stored.clone();
        for field in self.event().withheld_fields() {
            stored[&self.event_type][*field] = value(field);
        }
        self.with(stored)
    }

    /// The sample as readers of the wire see it.
    pub(crate) fn published(&self) -> Self {
        self.with_withheld(|field| if is_secret(field) { Value::from("") } else { Value::Null })
    }
}

/// Withheld fields that are plain texts and not personal data of a user.
pub(crate) fn is_secret(field: &str) -> bool {
    ["token", "refresh_hash"].contains(&field)
}

/// A sample of every event of the mart.
pub(crate) fn all() -> Vec<Sample> {
    [
        stored(people::users()),
        stored(keeping::products()),
        stored(keeping::stock_items()),
        stored(buying::orders()),
        stored(buying::carts()),
        stored(buying::payments()),
        stored(people::notifications()),
    ]
    .concat()
}

fn stored<E: Wire + DomainEvent + Serialize>(events: Vec<E>) -> Vec<Sample> {
    events
        .into_iter()
        .map(|event| Sample {
            service: E::SERVICE,
            aggregate_type: E::AGGREGATE_TYPE,
            event_type: event.event_type(),
            event_version: event.event_version(),
            stored: serde_json::to_value(&event).expect("an event has a JSON form"),
        })
        .collect()
}

fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(0x0195_51a0_0000_7000_8000_0000_0000_0000 + number)
}

fn id<I: From<Uuid>>(number: u128) -> I {
    uuid(number).into()
}

fn user() -> UserId {
    id(1)
}

fn product() -> ProductId {
    id(2)
}

fn order() -> OrderId {
    id(3)
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().expect("a sample time is well-formed")
}

fn dollars(minor: i64) -> Money {
    Money::new(minor, Currency::USD)
}

fn sealed() -> Personal<String> {
    Personal::Sealed("c2VhbGVkIHdpdGggdGhlIGtleSBvZiBpdHMgcGVyc29u".to_owned())
}
