//! Why an event cannot be put on the wire, or a message cannot be read.

use thiserror::Error;

/// Why an event cannot be put on the wire, or a message cannot be read.
#[derive(Debug, Error)]
pub enum WireError {
    /// No service publishes events by this name.
    #[error("no service {0:?} publishes events")]
    UnknownService(String),
    /// The service has no aggregates of this type.
    #[error("the {service} service has no aggregate type {aggregate_type:?}")]
    UnknownAggregate {
        /// Which service.
        service: &'static str,
        /// The type that was named.
        aggregate_type: String,
    },
    /// The stored event is not one of the domain's.
    #[error("the stored {event_type} cannot be read")]
    Stored {
        /// What it says it is.
        event_type: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The event is another one than its envelope says.
    #[error("the envelope says {envelope:?}, the event is {event}")]
    AnotherEvent {
        /// What the envelope says.
        envelope: String,
        /// What the event is.
        event: &'static str,
    },
    /// The bytes are no message of this kind.
    #[error("the bytes are no such message")]
    Bytes(#[from] prost::DecodeError),
    /// The message holds no event that is known here.
    #[error("the message holds no known event")]
    NoEvent,
    /// The message holds an event of another aggregate.
    #[error("{event} is no event of the aggregate {aggregate}")]
    Foreign {
        /// What it is.
        event: &'static str,
        /// What was asked for.
        aggregate: &'static str,
    },
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field holds what it cannot hold. The value is not repeated here: it may be anybody's.
    #[error("{0} is malformed")]
    Malformed(&'static str),
}
