//! The published language of the mart: Protobuf messages for its events, and the gRPC service between its
//! services.
//!
//! An event leaves its service as one message per service (`mart.orders.v1.OrdersEvent`, …) on the topic
//! `mart.<service>.events`. Personal data, card numbers, secrets and hashes never do: the messages have no
//! fields for them. This crate knows the domain, and neither the log nor Kafka.
//!
//! To add an event: a message and a line in the `oneof` of the service's `events.proto`, a line in the table
//! of the service here, a sample among the tests and its golden file. Field numbers and names are never used
//! twice.

mod catalog;
mod envelope;
mod error;
mod field;
mod inventory;
pub mod mart;
mod notifications;
mod orders;
mod payments;
mod published;
mod service;
mod users;

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};

pub use crate::envelope::Envelope;
pub use crate::error::WireError;
pub use crate::mart::FILE_DESCRIPTOR_SET;
pub use crate::published::{MartEvent, Wire};
pub use crate::service::Service;

/// An event ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The event message of the service, serialised. The same event always gives the same bytes.
    pub bytes: Bytes,
    /// The full name of the message of this event, such as `mart.orders.v1.OrderPlaced`.
    pub message_type: &'static str,
}

/// Puts a stored event of the service `source` on the wire. `payload` is the event's JSON; its personal
/// fields may be sealed, plain or null: they are left out.
///
/// # Errors
/// When there is no such service, the payload is not an event of that aggregate, or the envelope does not
/// match it.
pub fn encode(source: &str, envelope: &Envelope, payload: &str) -> Result<Message, WireError> {
    let event = MartEvent::from_stored(source.parse()?, envelope, payload)?;
    // Messages written one after the other are one message with the fields of both, and the envelope has
    // the same fields in all services.
    let mut bytes = envelope.to_message()?.encode_to_vec();
    bytes.extend(event.published().body());
    Ok(Message { bytes: bytes.into(), message_type: event.message_type() })
}

/// Reads what a message of the service `source` says about its event, without reading the event.
///
/// # Errors
/// When there is no such service, or the bytes are not one of its events.
pub fn read_envelope(source: &str, bytes: &[u8]) -> Result<Envelope, WireError> {
    Envelope::read(source.parse()?, bytes)
}

/// A message of the service `source` for people to read: the envelope, and the event's fields under `data`.
///
/// # Errors
/// When there is no such service, or the bytes are not one of its events.
pub fn to_json(source: &str, bytes: &[u8]) -> Result<Value, WireError> {
    let service: Service = source.parse()?;
    let envelope = Envelope::read(service, bytes)?;
    let event = MartEvent::from_wire(service, bytes)?;
    Ok(json!({
        "service": service.name(),
        "event_id": envelope.event_id.to_string(),
        "aggregate_type": envelope.aggregate_type,
        "aggregate_id": envelope.aggregate_id,
        "sequence": envelope.sequence,
        "position": envelope.position,
        "recorded_at": envelope.recorded_at,
        "event_type": envelope.event_type,
        "event_version": envelope.event_version,
        "correlation_id": envelope.correlation_id.map(|id| id.to_string()),
        "causation_id": envelope.causation_id.map(|id| id.to_string()),
        "command_id": envelope.command_id.map(|id| id.to_string()),
        "actor": envelope.actor.map(|id| id.to_string()),
        "traceparent": envelope.traceparent,
        "data": event.public_fields()?,
    }))
}
