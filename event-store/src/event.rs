//! Events as they are stored: what a writer hands in, and what a reader gets back.

use chrono::{DateTime, Utc};
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::personal::PersonalKeys;
use crate::{Error, PARTITIONS, Result};

/// What is stored beside an event. All values are strings, because postgres-es reads metadata as a map of
/// strings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The identity of the event, unique over all logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Uuid>,
    /// The idempotent command that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_id: Option<Uuid>,
    /// The request all of this belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Uuid>,
    /// The event a process manager reacted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// The user who asked for it; none for the mart itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Uuid>,
    /// The person whose key seals the personal fields of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<Uuid>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// An event on its way into the log.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// The name of the event type.
    pub event_type: String,
    /// The version of the event type.
    pub event_version: String,
    /// The event as JSON, personal fields already sealed.
    pub payload: String,
    /// Identity and origin.
    pub metadata: Metadata,
}

/// An event as it stands in a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The place in the log, dense from 1.
    pub position: i64,
    /// The partition of its aggregate.
    pub partition: i16,
    /// The type of the aggregate.
    pub aggregate_type: String,
    /// The aggregate.
    pub aggregate_id: String,
    /// The place in the aggregate's stream, dense from 1.
    pub sequence: i64,
    /// The name of the event type.
    pub event_type: String,
    /// The version of the event type.
    pub event_version: String,
    /// The event as JSON, personal fields sealed.
    pub payload: String,
    /// Identity and origin.
    pub metadata: Metadata,
    /// When it was committed, by the database's clock.
    pub recorded_at: DateTime<Utc>,
}

impl Recorded {
    /// The identity of the event; see [`event_id`].
    pub fn event_id(&self) -> Uuid {
        event_id(&self.metadata, self.recorded_at, &self.aggregate_type, &self.aggregate_id, self.sequence)
    }

    /// Opens the personal fields in place; those of an erased person become `null`.
    ///
    /// # Errors
    /// When the person's key cannot be read, or the payload is not JSON.
    pub async fn open(&mut self, keys: &PersonalKeys) -> Result<()> {
        let Some(person) = self.metadata.person else { return Ok(()) };
        let mut payload: serde_json::Value = self.decode()?;
        keys.open(person, &mut payload).await?;
        self.payload = payload.to_string();
        Ok(())
    }

    /// The payload as the domain's own event type.
    ///
    /// # Errors
    /// [`Error::Decode`] with the position and type of the event that cannot be read.
    pub fn decode<E: serde::de::DeserializeOwned>(&self) -> Result<E> {
        serde_json::from_str(&self.payload).map_err(|source| Error::Decode {
            what: format!("{} {} at position {}", self.event_type, self.event_version, self.position),
            source,
        })
    }
}

/// The identity of an event: what its metadata say. Events written by postgres-es have none of their own: theirs
/// follows from the stream and the sequence, with the time of the commit in front, like the time in a UUID of version 7.
pub(crate) fn event_id(
    metadata: &Metadata,
    recorded_at: DateTime<Utc>,
    aggregate_type: &str,
    aggregate_id: &str,
    sequence: i64,
) -> Uuid {
    metadata.event_id.unwrap_or_else(|| {
        let name = format!("{aggregate_type}/{aggregate_id}/{sequence}");
        let mut bytes = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).into_bytes();
        let milliseconds = recorded_at.timestamp_millis().to_be_bytes();
        bytes[..6].copy_from_slice(&milliseconds[2..]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    })
}

/// The partition of an aggregate: the first 28 bits of the MD5 of its id, modulo [`PARTITIONS`]. The same
/// as `event_store.partition_of` in SQL.
pub fn partition_of(aggregate_id: &str) -> i16 {
    let digest = Md5::digest(aggregate_id.as_bytes());
    let bits = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) >> 4;
    (bits % PARTITIONS as u32) as i16
}
