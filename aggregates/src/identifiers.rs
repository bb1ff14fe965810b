//! Identifiers: one type per kind of thing, so that an order's id is never taken for a user's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use uuid::{Builder, Uuid};

/// How many bytes of a time-ordered id are its time, in milliseconds since 1970.
const TIME_BYTES: usize = 6;

macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// An id that follows from this one and a step; see [`derive`].
            #[must_use]
            pub fn derive(&self, step: &str) -> Uuid {
                derive(self.0, step.as_bytes())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }

        impl FromStr for $name {
            type Err = MalformedId;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self).map_err(|_| MalformedId)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    )+};
}

identifiers! {
    /// A user; also the id of the user's cart.
    UserId,
    /// One log-in of a user, with all its refresh tokens.
    SessionId,
    /// A product of the catalogue.
    ProductId,
    /// An order; also the name of its reservation in every stock item it draws on.
    OrderId,
    /// A line of a cart.
    CartItemId,
    /// The payment of an order.
    PaymentId,
    /// A refund of a payment.
    RefundId,
    /// A message to a user.
    NotificationId,
}

/// An id that follows from another one and a step: the same step, the same id.
///
/// It has the time of an id that has one (UUID versions 7 and 8), so that what comes of it stands next to it in an
/// index, and is of version 8; otherwise it is of version 5.
#[must_use]
pub fn derive(id: Uuid, step: &[u8]) -> Uuid {
    let hash = Uuid::new_v5(&id, step);
    if !matches!(id.get_version_num(), 7 | 8) {
        return hash;
    }
    let (time, mut bytes) = (id.into_bytes(), hash.into_bytes());
    bytes[..TIME_BYTES].copy_from_slice(&time[..TIME_BYTES]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

impl PaymentId {
    /// The one payment of an order.
    #[must_use]
    pub fn of(order_id: OrderId) -> Self {
        Self(order_id.derive("payment"))
    }
}

impl NotificationId {
    /// The one message that an event causes by a template and a channel, so that a redelivered event sends
    /// nothing twice.
    #[must_use]
    pub fn of(event_id: Uuid, template: &str, channel: &str) -> Self {
        Self(derive(event_id, format!("{template}/{channel}").as_bytes()))
    }
}

/// Where stock lies when nobody says otherwise.
pub const MAIN_LOCATION: &str = "main";

/// A stock item: a product at a location. Written as the product's id alone at the main location, else as
/// `product@location`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StockItemId {
    /// What lies there.
    pub product_id: ProductId,
    /// Where it lies.
    pub location: String,
}

impl StockItemId {
    /// A product at the main location.
    #[must_use]
    pub fn main(product_id: ProductId) -> Self {
        Self { product_id, location: MAIN_LOCATION.to_owned() }
    }
}

impl fmt::Display for StockItemId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.location.as_str() {
            MAIN_LOCATION => self.product_id.fmt(formatter),
            location => write!(formatter, "{}@{location}", self.product_id),
        }
    }
}

impl FromStr for StockItemId {
    type Err = MalformedId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (product_id, location) = text.split_once('@').unwrap_or((text, MAIN_LOCATION));
        if location.is_empty() {
            return Err(MalformedId);
        }
        Ok(Self { product_id: product_id.parse()?, location: location.to_owned() })
    }
}

impl Serialize for StockItemId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StockItemId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that is not an id of the wanted kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize)]
#[error("malformed id")]
pub struct MalformedId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_an_id_stands_next_to_it() {
        let earlier = Uuid::try_parse("019aa000-0000-7abc-8def-0123456789ab").expect("an id");
        let later = Uuid::try_parse("019aa000-0001-7abc-8def-0123456789ab").expect("an id");
        let (first, second) = (derive(earlier, b"a step"), derive(later, b"a step"));
        assert!(earlier.as_bytes()[..6] == first.as_bytes()[..6] && first < later && first < second);
        assert_eq!(derive(first, b"and on").as_bytes()[..6], first.as_bytes()[..6]);
        assert_eq!(first.get_version_num(), 8);
    }

    #[test]
    fn the_same_step_gives_the_same_id_and_another_one_another() {
        let id = Uuid::try_parse("019aa000-0000-7abc-8def-0123456789ab").expect("an id");
        assert_eq!(derive(id, b"a step"), derive(id, b"a step"));
        assert_ne!(derive(id, b"a step"), derive(id, b"another"));
        let same_time = Uuid::from_u128(id.as_u128() ^ 1);
        assert_ne!(derive(id, b"a step"), derive(same_time, b"a step"));
    }

    #[test]
    fn what_follows_from_an_id_without_a_time_has_none() {
        assert_eq!(derive(Uuid::from_u128(7), b"a step").get_version_num(), 5);
    }
}
