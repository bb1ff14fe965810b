//! What every event says about itself.

use chrono::{DateTime, Utc};
use prost::Message as _;
use uuid::Uuid;

use crate::error::WireError;
use crate::field::Field;
use crate::mart::common::v1::EventEnvelope;
use crate::service::Service;

/// What every event says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The identity of the event, unique over all services.
    pub event_id: Uuid,
    /// The type of the aggregate.
    pub aggregate_type: String,
    /// The aggregate.
    pub aggregate_id: String,
    /// The place in the aggregate's stream, dense from 1.
    pub sequence: i64,
    /// The place in the log of the service, dense from 1.
    pub position: i64,
    /// When it was committed.
    pub recorded_at: DateTime<Utc>,
    /// The name of the event type.
    pub event_type: String,
    /// The version in which it is stored.
    pub event_version: String,
    /// The request all of this belongs to.
    pub correlation_id: Option<Uuid>,
    /// The event a process manager reacted to.
    pub causation_id: Option<Uuid>,
    /// The command that caused it.
    pub command_id: Option<Uuid>,
    /// The user who asked for it; none for the mart itself.
    pub actor: Option<Uuid>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

impl Envelope {
    pub(crate) fn to_message(&self) -> Result<EventEnvelope, WireError> {
        Ok(EventEnvelope {
            event_id: self.event_id.write(),
            aggregate_type: self.aggregate_type.clone(),
            aggregate_id: self.aggregate_id.clone(),
            sequence: counted(self.sequence, "sequence")?,
            position: counted(self.position, "position")?,
            recorded_at: self.recorded_at.write(),
            event_type: self.event_type.clone(),
            event_version: self.event_version.clone(),
            correlation_id: self.correlation_id.write(),
            causation_id: self.causation_id.write(),
            command_id: self.command_id.write(),
            actor: self.actor.write(),
            traceparent: self.traceparent.clone(),
        })
    }

    /// Reads the envelope of any event message: all have it in the same fields, and the event is skipped.
    pub(crate) fn read(service: Service, bytes: &[u8]) -> Result<Self, WireError> {
        let message = EventEnvelope::decode(bytes)?;
        let envelope = Self {
            event_id: Field::read(message.event_id, "event_id")?,
            aggregate_type: present(message.aggregate_type, "aggregate_type")?,
            aggregate_id: present(message.aggregate_id, "aggregate_id")?,
            sequence: count(message.sequence, "sequence")?,
            position: count(message.position, "position")?,
            recorded_at: Field::read(message.recorded_at, "recorded_at")?,
            event_type: present(message.event_type, "event_type")?,
            event_version: present(message.event_version, "event_version")?,
            correlation_id: Field::read(message.correlation_id, "correlation_id")?,
            causation_id: Field::read(message.causation_id, "causation_id")?,
            command_id: Field::read(message.command_id, "command_id")?,
            actor: Field::read(message.actor, "actor")?,
            traceparent: message.traceparent,
        };
        service.check_owns(&envelope.aggregate_type)?;
        Ok(envelope)
    }
}

fn present(text: String, name: &'static str) -> Result<String, WireError> {
    if text.is_empty() { Err(WireError::Missing(name)) } else { Ok(text) }
}

/// Positions and sequences are signed in the database, and count from 1.
fn counted(place: i64, name: &'static str) -> Result<u64, WireError> {
    match u64::try_from(place) {
        Ok(0) | Err(_) => Err(WireError::Malformed(name)),
        Ok(place) => Ok(place),
    }
}

fn count(place: u64, name: &'static str) -> Result<i64, WireError> {
    match i64::try_from(place) {
        Ok(0) => Err(WireError::Missing(name)),
        Ok(place) => Ok(place),
        Err(_) => Err(WireError::Malformed(name)),
    }
}
