//! What happened, as folds and process managers see it: an event of the domain and where it stands.

use chrono::{DateTime, Utc};
use std::sync::Arc;

use event_store::subscription::{ApplyError, Body, Delivered};
use proto::Wire;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use aggregates::carts::CartEvent;
use aggregates::catalog::ProductEvent;
use aggregates::inventory::StockItemEvent;
use aggregates::notifications::NotificationEvent;
use aggregates::orders::OrderEvent;
use aggregates::payments::PaymentEvent;
use aggregates::users::UserEvent;

/// An event of any context.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Something happened to a user.
    User(UserEvent),
    /// Something happened to a product.
    Product(ProductEvent),
    /// Something happened to a stock item.
    StockItem(StockItemEvent),
    /// Something happened to a cart.
    Cart(CartEvent),
    /// Something happened to an order.
    Order(OrderEvent),
    /// Something happened to a payment.
    Payment(PaymentEvent),
    /// Something happened to a notification.
    Notification(NotificationEvent),
}

/// An event and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Happened {
    /// The identity of the event.
    pub event_id: Uuid,
    /// The service whose log holds it.
    pub source: &'static str,
    /// Its place there.
    pub position: i64,
    /// Its aggregate.
    pub aggregate_id: String,
    /// Its place in the aggregate's stream: the aggregate's version after it.
    pub sequence: i64,
    /// When it was committed.
    pub recorded_at: DateTime<Utc>,
    /// Who caused it, where a person did.
    pub actor: Option<Uuid>,
    /// What happened.
    pub event: Event,
}

/// The services, by the names of their logs.
pub const SERVICES: [&str; 6] = ["users", "catalog", "inventory", "orders", "payments", "notifications"];

impl Happened {
    /// As [`Happened::read`], once for all subscribers of this process that get the event.
    ///
    /// # Errors
    /// Those of [`Happened::read`].
    pub fn shared(delivered: &Delivered) -> Result<Arc<Self>, ApplyError> {
        delivered.read_as(Self::read)
    }

    /// Reads a delivered event, in either of its forms.
    ///
    /// # Errors
    /// [`ApplyError::Event`] when it cannot be read: an unknown event is never skipped in silence.
    pub fn read(delivered: &Delivered) -> Result<Self, ApplyError> {
        let source = SERVICES
            .into_iter()
            .find(|service| **service == *delivered.source)
            .ok_or_else(|| ApplyError::Event(format!("unknown source {}", delivered.source)))?;
        let body = delivered.body();
        let event = match delivered.aggregate_type.as_str() {
            "user" => Event::User(read(body)?),
            "product" => Event::Product(read(body)?),
            "stock_item" => Event::StockItem(read(body)?),
            "cart" => Event::Cart(read(body)?),
            "order" => Event::Order(read(body)?),
            "payment" => Event::Payment(read(body)?),
            "notification" => Event::Notification(read(body)?),
            other => return Err(ApplyError::Event(format!("unknown aggregate type {other}"))),
        };
        Ok(Self {
            event_id: delivered.event_id(),
            source,
            position: delivered.position,
            aggregate_id: delivered.aggregate_id.clone(),
            sequence: delivered.sequence,
            recorded_at: delivered.recorded_at,
            actor: delivered.metadata.actor,
            event,
        })
    }
}

fn read<E: DeserializeOwned + Wire>(body: Body<'_>) -> Result<E, ApplyError> {
    match body {
        Body::Stored(json) => {
            serde_json::from_str(json).map_err(|error| ApplyError::Event(error.to_string()))
        }
        Body::Published(bytes) => E::from_wire(bytes).map_err(|error| ApplyError::Event(error.to_string())),
    }
}

/// The encoder of the relay of any log: stored event in, message of the published language out.
pub fn encoder(source: &str) -> event_store::relay::Encoder {
    let source = source.to_owned();
    std::sync::Arc::new(move |recorded| {
        let envelope = proto::Envelope {
            event_id: recorded.event_id(),
            aggregate_type: recorded.aggregate_type.clone(),
            aggregate_id: recorded.aggregate_id.clone(),
            sequence: recorded.sequence,
            position: recorded.position,
            recorded_at: recorded.recorded_at,
            event_type: recorded.event_type.clone(),
            event_version: recorded.event_version.clone(),
            correlation_id: recorded.metadata.correlation_id,
            causation_id: recorded.metadata.causation_id,
            command_id: recorded.metadata.command_id,
            actor: recorded.metadata.actor,
            traceparent: recorded.metadata.traceparent.clone(),
        };
        let message = proto::encode(&source, &envelope, &recorded.payload)
            .map_err(|error| event_store::Error::Malformed(error.to_string()))?;
        Ok(event_store::relay::Published {
            payload: message.bytes,
            message_type: message.message_type.to_owned(),
        })
    })
}

/// The reader of the records of any topic.
pub fn reader() -> event_store::subscription::Reader {
    std::sync::Arc::new(|source, partition, position, bytes| {
        let envelope = proto::read_envelope(source, &bytes)
            .map_err(|error| event_store::Error::Malformed(error.to_string()))?;
        if envelope.position != position {
            return Err(event_store::Error::Malformed(format!(
                "the record of position {position} holds the event of position {}",
                envelope.position
            )));
        }
        let recorded = event_store::Recorded {
            position,
            partition,
            aggregate_type: envelope.aggregate_type,
            aggregate_id: envelope.aggregate_id,
            sequence: envelope.sequence,
            event_type: envelope.event_type,
            event_version: envelope.event_version,
            metadata: event_store::Metadata {
                event_id: Some(envelope.event_id),
                command_id: envelope.command_id,
                correlation_id: envelope.correlation_id,
                causation_id: envelope.causation_id,
                actor: envelope.actor,
                person: None,
                traceparent: envelope.traceparent,
            },
            recorded_at: envelope.recorded_at,
            payload: String::new(),
        };
        Ok(Delivered::published(source, recorded, bytes))
    })
}
