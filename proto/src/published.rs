//! The tables that say which event of the domain is which message, and what is the same in all of them.

use aggregates::carts::CartEvent;
use aggregates::catalog::ProductEvent;
use aggregates::inventory::StockItemEvent;
use aggregates::notifications::NotificationEvent;
use aggregates::orders::OrderEvent;
use aggregates::payments::PaymentEvent;
use aggregates::users::UserEvent;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::envelope::Envelope;
use crate::error::WireError;
use crate::service::Service;
use crate::{catalog, inventory, notifications, orders, payments, users};

/// An event of any aggregate of the mart. Its JSON is that of the event itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum MartEvent {
    /// Of a user.
    User(UserEvent),
    /// Of a product.
    Product(ProductEvent),
    /// Of a stock item.
    StockItem(StockItemEvent),
    /// Of an order.
    Order(OrderEvent),
    /// Of a cart.
    Cart(CartEvent),
    /// Of a payment.
    Payment(PaymentEvent),
    /// Of a notification.
    Notification(NotificationEvent),
}

impl MartEvent {
    /// The event from the JSON it is stored as.
    ///
    /// # Errors
    /// When it is not one of the domain's, or another one than the envelope says.
    pub fn from_stored(service: Service, envelope: &Envelope, payload: &str) -> Result<Self, WireError> {
        service.check_owns(&envelope.aggregate_type)?;
        let event = match service {
            Service::Users => Self::User(stored(envelope, payload)?),
            Service::Catalog => Self::Product(stored(envelope, payload)?),
            Service::Inventory => Self::StockItem(stored(envelope, payload)?),
            Service::Orders if envelope.aggregate_type == CartEvent::AGGREGATE_TYPE => {
                Self::Cart(stored(envelope, payload)?)
            }
            Service::Orders => Self::Order(stored(envelope, payload)?),
            Service::Payments => Self::Payment(stored(envelope, payload)?),
            Service::Notifications => Self::Notification(stored(envelope, payload)?),
        };
        event.check_is(&envelope.aggregate_type, &envelope.event_type)?;
        Ok(event)
    }

    /// The event from the message it was sent as; what is withheld reads as gone.
    ///
    /// # Errors
    /// When the bytes hold no event of that service, or not all of it.
    pub fn from_wire(service: Service, bytes: &[u8]) -> Result<Self, WireError> {
        match service {
            Service::Users => users::read(bytes),
            Service::Catalog => catalog::read(bytes),
            Service::Inventory => inventory::read(bytes),
            Service::Orders => orders::read(bytes),
            Service::Payments => payments::read(bytes),
            Service::Notifications => notifications::read(bytes),
        }
    }

    /// The name of the event's type.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.published().name()
    }

    /// The full name of the message that it is published as.
    #[must_use]
    pub fn message_type(&self) -> &'static str {
        self.published().message_type()
    }

    /// The fields that do not leave the service: personal data and secrets.
    #[must_use]
    pub fn withheld_fields(&self) -> &'static [&'static str] {
        self.published().withheld_fields()
    }

    /// The fields of the event as JSON, without those that are withheld.
    ///
    /// # Errors
    /// Never for the events of the domain: they all have a JSON form.
    pub fn public_fields(&self) -> Result<Value, WireError> {
        let mut stored = serde_json::to_value(self)
            .map_err(|source| WireError::Stored { event_type: self.name().to_owned(), source })?;
        // An event without fields is stored as its name alone.
        let mut fields = match stored.get_mut(self.name()).map(Value::take) {
            Some(Value::Object(fields)) => fields,
            Some(_) | None => Map::new(),
        };
        fields.retain(|field, _| !self.withheld_fields().contains(&field.as_str()));
        Ok(Value::Object(fields))
    }

    pub(crate) fn check_is(&self, aggregate_type: &str, event_type: &str) -> Result<(), WireError> {
        let published = self.published();
        if aggregate_type != published.aggregate_type() {
            return Err(WireError::AnotherEvent {
                envelope: aggregate_type.to_owned(),
                event: published.name(),
            });
        }
        if event_type != published.name() {
            return Err(WireError::AnotherEvent { envelope: event_type.to_owned(), event: published.name() });
        }
        Ok(())
    }

    pub(crate) fn published(&self) -> &dyn Published {
        match self {
            Self::User(event) => event,
            Self::Product(event) => event,
            Self::StockItem(event) => event,
            Self::Order(event) => event,
            Self::Cart(event) => event,
            Self::Payment(event) => event,
            Self::Notification(event) => event,
        }
    }
}

/// An event enum of the domain that can be read from the wire.
pub trait Wire: Sized {
    /// The service that publishes it.
    const SERVICE: Service;
    /// The type of its aggregate.
    const AGGREGATE_TYPE: &'static str;

    /// The event inside a message. Withheld fields read as [`Gone`](aggregates::personal::Personal::Gone),
    /// none, or the empty text.
    ///
    /// # Errors
    /// When the bytes hold no event of this aggregate, or not all of it.
    fn from_wire(bytes: &[u8]) -> Result<Self, WireError>;
}

/// What the tables give of an event.
pub(crate) trait Published {
    fn aggregate_type(&self) -> &'static str;
    fn name(&self) -> &'static str;
    fn message_type(&self) -> &'static str;
    fn withheld_fields(&self) -> &'static [&'static str];

    /// The event's part of the message, without the envelope.
    fn body(&self) -> Vec<u8>;
}

fn stored<E: DeserializeOwned>(envelope: &Envelope, payload: &str) -> Result<E, WireError> {
    serde_json::from_str(payload)
        .map_err(|source| WireError::Stored { event_type: envelope.event_type.clone(), source })
}

/// The table of a service: its aggregates, their events, and the fields of each that are published under the
/// same name or withheld. Both directions come from the one table. The domain's events are matched without
/// a catch-all and with every field, so that a new event or field does not compile before it has its place.
macro_rules! published {
    (
        $service:ident in $package:literal, $message:ident with $choice:ident::$event:ident:
        $($aggregate:ident($domain:ident, $aggregate_type:literal) {
            $($variant:ident { $($field:ident),* } $(withholds { $($withheld:ident),+ })?),+ $(,)?
        })+
    ) => {
        pub(crate) fn read(bytes: &[u8]) -> Result<crate::published::MartEvent, crate::error::WireError> {
            use crate::published::MartEvent;
            use v1::$choice::$event as Event;

            let message = <v1::$message as prost::Message>::decode(bytes)?;
            let event = match message.event.ok_or(crate::error::WireError::NoEvent)? {
                $($(
                    Event::$variant(v1::$variant { $($field),* }) => MartEvent::$aggregate($domain::$variant {
                        $($field: crate::field::Field::read($field, stringify!($field))?,)*
                        $($($withheld: crate::field::Withheld::withheld(),)+)?
                    }),
                )+)+
            };
            event.check_is(&message.aggregate_type, &message.event_type)?;
            Ok(event)
        }

        $(
            impl crate::published::Wire for $domain {
                const SERVICE: crate::service::Service = crate::service::Service::$service;
                const AGGREGATE_TYPE: &'static str = $aggregate_type;

                fn from_wire(bytes: &[u8]) -> Result<Self, crate::error::WireError> {
                    match read(bytes)? {
                        crate::published::MartEvent::$aggregate(event) => Ok(event),
                        other => Err(crate::error::WireError::Foreign {
                            event: other.name(),
                            aggregate: $aggregate_type,
                        }),
                    }
                }
            }

            impl crate::published::Published for $domain {
                fn aggregate_type(&self) -> &'static str {
                    $aggregate_type
                }

                fn name(&self) -> &'static str {
                    self.name()
                }

                fn message_type(&self) -> &'static str {
                    match self {
                        $(Self::$variant { .. } => concat!($package, ".", stringify!($variant)),)+
                    }
                }

                fn withheld_fields(&self) -> &'static [&'static str] {
                    match self {
                        $(Self::$variant { .. } => &[$($(stringify!($withheld)),+)?],)+
                    }
                }

                fn body(&self) -> Vec<u8> {
                    use v1::$choice::$event as Event;

                    let event = match self {
                        $(
                            Self::$variant { $($field,)* $($($withheld: _,)+)? } => {
                                Event::$variant(v1::$variant { $($field: crate::field::Field::write($field)),* })
                            }
                        )+
                    };
                    let message = v1::$message { event: Some(event), ..Default::default() };
                    prost::Message::encode_to_vec(&message)
                }
            }
        )+
    };
}

pub(crate) use published;
