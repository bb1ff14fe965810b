//! How a single value of the domain looks on the wire.
//!
//! [`Personal`] has no such form on purpose: an event with personal data compiles only when its table says
//! that the field is withheld.

use std::collections::BTreeMap;

use aggregates::identifiers::{CartItemId, OrderId, ProductId, RefundId, SessionId, UserId};
use aggregates::money::{Currency, Money};
use aggregates::personal::Personal;
use chrono::{DateTime, Utc};
use prost_types::Timestamp;
use uuid::Uuid;

use crate::error::WireError;
use crate::mart::common::v1;

/// A value of the domain that is `W` in a generated message.
pub(crate) trait Field<W>: Sized {
    /// The value for the message.
    fn write(&self) -> W;

    /// The value from the message; `name` is the field's, for the refusal.
    fn read(wire: W, name: &'static str) -> Result<Self, WireError>;
}

/// A value that does not leave the service.
pub(crate) trait Withheld {
    /// What readers of the wire see in its place.
    fn withheld() -> Self;
}

impl<T> Withheld for Personal<T> {
    fn withheld() -> Self {
        Self::Gone
    }
}

/// None, as at rest once the person is erased: whether a person has a phone is nobody's business either.
impl<T> Withheld for Option<Personal<T>> {
    fn withheld() -> Self {
        None
    }
}

/// A secret that is not personal, such as a token's hash.
impl Withheld for String {
    fn withheld() -> Self {
        Self::new()
    }
}

macro_rules! same_on_the_wire {
    ($($type:ty),+ $(,)?) => {$(
        impl Field<$type> for $type {
            fn write(&self) -> $type {
                self.clone()
            }

            fn read(wire: $type, _name: &'static str) -> Result<Self, WireError> {
                Ok(wire)
            }
        }
    )+};
}

same_on_the_wire!(String, bool, u32, u64, i64, BTreeMap<String, String>);

macro_rules! written_as_text {
    ($($type:ty),+ $(,)?) => {$(
        impl Field<String> for $type {
            fn write(&self) -> String {
                self.to_string()
            }

            fn read(wire: String, name: &'static str) -> Result<Self, WireError> {
                if wire.is_empty() {
                    return Err(WireError::Missing(name));
                }
                wire.parse().map_err(|_| WireError::Malformed(name))
            }
        }
    )+};
}

written_as_text!(Uuid, UserId, SessionId, ProductId, OrderId, CartItemId, RefundId, Currency);

impl Field<Timestamp> for DateTime<Utc> {
    fn write(&self) -> Timestamp {
        // A leap second counts beyond a thousand million in chrono, which Protobuf does not know.
        let nanos = self.timestamp_subsec_nanos().min(999_999_999);
        Timestamp { seconds: self.timestamp(), nanos: i32::try_from(nanos).unwrap_or_default() }
    }

    fn read(wire: Timestamp, name: &'static str) -> Result<Self, WireError> {
        u32::try_from(wire.nanos)
            .ok()
            .and_then(|nanos| Self::from_timestamp(wire.seconds, nanos))
            .ok_or(WireError::Malformed(name))
    }
}

impl Field<Option<Timestamp>> for DateTime<Utc> {
    fn write(&self) -> Option<Timestamp> {
        Some(self.write())
    }

    fn read(wire: Option<Timestamp>, name: &'static str) -> Result<Self, WireError> {
        Self::read(wire.ok_or(WireError::Missing(name))?, name)
    }
}

impl<W, T: Field<W>> Field<Option<W>> for Option<T> {
    fn write(&self) -> Option<W> {
        self.as_ref().map(T::write)
    }

    fn read(wire: Option<W>, name: &'static str) -> Result<Self, WireError> {
        wire.map(|value| T::read(value, name)).transpose()
    }
}

impl<W, T: Field<W>> Field<Vec<W>> for Vec<T> {
    fn write(&self) -> Vec<W> {
        self.iter().map(T::write).collect()
    }

    fn read(wire: Vec<W>, name: &'static str) -> Result<Self, WireError> {
        wire.into_iter().map(|value| T::read(value, name)).collect()
    }
}

/// A record of the domain that is a message with the same fields.
macro_rules! wire_record {
    ($domain:ident as $message:path { $($field:ident),+ $(,)? }) => {
        impl crate::field::Field<$message> for $domain {
            fn write(&self) -> $message {
                let Self { $($field),+ } = self;
                $message { $($field: crate::field::Field::write($field)),+ }
            }

            fn read(wire: $message, _name: &'static str) -> Result<Self, crate::error::WireError> {
                let $message { $($field),+ } = wire;
                Ok(Self { $($field: crate::field::Field::read($field, stringify!($field))?),+ })
            }
        }

        impl crate::field::Field<Option<$message>> for $domain {
            fn write(&self) -> Option<$message> {
                Some(self.write())
            }

            fn read(wire: Option<$message>, name: &'static str) -> Result<Self, crate::error::WireError> {
                Self::read(wire.ok_or(crate::error::WireError::Missing(name))?, name)
            }
        }
    };
}

/// A choice of the domain that is an enum with the same names. What is unspecified, or added by a later
/// version, is refused: a guess could be acted upon.
macro_rules! wire_choice {
    ($domain:ident as $wire:ty { $($choice:ident),+ $(,)? }) => {
        impl crate::field::Field<i32> for $domain {
            fn write(&self) -> i32 {
                type Wire = $wire;
                let choice = match self {
                    $(Self::$choice => Wire::$choice),+
                };
                choice.into()
            }

            fn read(wire: i32, name: &'static str) -> Result<Self, crate::error::WireError> {
                type Wire = $wire;
                match Wire::try_from(wire) {
                    $(Ok(Wire::$choice) => Ok(Self::$choice),)+
                    Ok(Wire::Unspecified) => Err(crate::error::WireError::Missing(name)),
                    Err(_) => Err(crate::error::WireError::Malformed(name)),
                }
            }
        }
    };
}

pub(crate) use wire_choice;
pub(crate) use wire_record;

wire_record!(Money as v1::Money { minor, currency });
