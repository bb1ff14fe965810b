//! What the log must know of an aggregate beside its events: whose data they hold and what they claim.

use cqrs_es::Aggregate;
use uuid::Uuid;

/// Something only one living aggregate may have (an e-mail address, an SKU), taken or given up with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What kind of thing is claimed.
    pub scope: &'static str,
    /// Which one, folded so that equal things have equal keys. It may be personal: keep its hash only.
    pub key: String,
    /// Taken, or given up.
    pub take: bool,
}

impl Claim {
    /// The claim is taken.
    #[must_use]
    pub fn take(scope: &'static str, key: String) -> Self {
        Self { scope, key, take: true }
    }

    /// The claim is given up.
    #[must_use]
    pub fn release(scope: &'static str, key: String) -> Self {
        Self { scope, key, take: false }
    }
}

/// What an event takes and gives up, seen from the state before it. Old values come from that state, not from the
/// event, so that the event that erases a person need not name what it frees.
pub type Claims<A> = fn(before: &A, event: &<A as Aggregate>::Event) -> Vec<Claim>;

/// How the events of an aggregate are kept.
pub trait Recorded: Aggregate {
    /// What its events claim; none when they never claim anything, and the state before them need not be kept for it.
    const CLAIMS: Option<Claims<Self>> = None;

    /// The names of the fields inside the variant's object that hold personal data.
    #[must_use]
    fn personal_fields(_event_type: &str) -> &'static [&'static str] {
        &[]
    }

    /// The person whose key protects those fields.
    #[must_use]
    fn person_of(_aggregate_id: &str, _event: &Self::Event) -> Option<Uuid> {
        None
    }

    /// The person whose key protects the whole state when it is stored, where it holds personal data.
    #[must_use]
    fn person_of_state(_aggregate_id: &str, _state: &Self) -> Option<Uuid> {
        None
    }
}

/// Names the events of an aggregate by their variants, all in version 1.0.
macro_rules! domain_event {
    ($event:ident { $($variant:ident),+ $(,)? }) => {
        impl $event {
            /// The names of all event types.
            pub const TYPES: &[&str] = &[$(stringify!($variant)),+];

            /// The name of this event's type.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => stringify!($variant)),+
                }
            }
        }

        impl cqrs_es::DomainEvent for $event {
            fn event_type(&self) -> String {
                self.name().to_owned()
            }

            fn event_version(&self) -> String {
                "1.0".to_owned()
            }
        }
    };
}

/// Runs an aggregate on its `decide`: the decision is pure and synchronous, the sink only keeps what it gave.
macro_rules! decided_aggregate {
    ($aggregate:ident, $name:literal, $command:ident, $event:ident, $error:ident) => {
        impl cqrs_es::Aggregate for $aggregate {
            const TYPE: &'static str = $name;
            type Command = $command;
            type Event = $event;
            type Error = $error;
            type Services = ();

            async fn handle(
                &mut self,
                command: Self::Command,
                _services: &Self::Services,
                sink: &cqrs_es::event_sink::EventSink<Self>,
            ) -> Result<(), Self::Error> {
                for event in self.decide(command)? {
                    sink.write(event, self).await;
                }
                Ok(())
            }

            fn apply(&mut self, event: Self::Event) {
                self.evolve(event);
            }
        }
    };
}

pub(crate) use decided_aggregate;
pub(crate) use domain_event;
