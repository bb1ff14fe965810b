//! What may be asked of a notification.

use uuid::Uuid;

use crate::identifiers::{OrderId, UserId};
use crate::notifications::events::{Channel, DeliveryError, Template};

/// What may be asked of a notification.
#[allow(missing_docs, reason = "the variant says what is asked, the names of its fields say with what")]
#[derive(Clone, Debug, PartialEq)]
pub enum NotificationCommand {
    /// Send a message because of an event.
    Queue { user_id: UserId, template: Template, channel: Channel, cause: Uuid, order_id: Option<OrderId> },
    /// It was handed to the gateway.
    RecordSent,
    /// An attempt failed; `retry`: whether another one could help.
    RecordFailed { error: DeliveryError, retry: bool },
    /// Try again after all.
    Retry,
}

impl NotificationCommand {
    /// Whether it is, unless it is given again, the first that a notification is asked.
    #[must_use]
    pub fn is_first(&self) -> bool {
        matches!(self, Self::Queue { .. })
    }
}
