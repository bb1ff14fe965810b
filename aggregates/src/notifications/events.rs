//! What happens to a notification.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identifiers::{OrderId, UserId};
use crate::records::domain_event;

/// By what way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// E-mail.
    Email,
    /// Text message, for users with a phone.
    Sms,
}

impl Channel {
    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Sms => "sms",
        }
    }
}

/// Which text a message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Template {
    /// Welcome.
    Registration,
    /// The order is placed and waits for payment.
    OrderReceived,
    /// The payment came in.
    PaymentReceived,
    /// The order was cancelled.
    OrderCancelled,
    /// The order was not paid in time.
    OrderExpired,
}

impl Template {
    /// The template's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::OrderReceived => "order_received",
            Self::PaymentReceived => "payment_received",
            Self::OrderCancelled => "order_cancelled",
            Self::OrderExpired => "order_expired",
        }
    }
}

/// Why a message could not be delivered. A class only: what a mail server answers may name the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryError {
    /// The gateway could not be reached or did not answer.
    Unreachable,
    /// The gateway refused for now.
    Deferred,
    /// The gateway refused for good.
    Rejected,
    /// The user has no address for the channel, or is gone.
    NoAddress,
}

/// What happens to a notification.
#[allow(missing_docs, reason = "the variant says what happened, the names of its fields say with what")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NotificationEvent {
    /// A message is to be sent.
    NotificationQueued {
        user_id: UserId,
        template: Template,
        channel: Channel,
        cause: Uuid,
        order_id: Option<OrderId>,
    },
    /// It was handed to the gateway.
    NotificationSent { attempts: u32 },
    /// An attempt failed; there will be another.
    NotificationFailed { error: DeliveryError, attempts: u32 },
    /// The last attempt failed.
    NotificationGivenUp { error: DeliveryError, attempts: u32 },
    /// Somebody asked for another try.
    NotificationRequeued,
}

domain_event!(NotificationEvent {
    NotificationQueued,
    NotificationSent,
    NotificationFailed,
    NotificationGivenUp,
    NotificationRequeued,
});
