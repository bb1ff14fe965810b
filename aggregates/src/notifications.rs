//! Notifications: messages to users, by e-mail and text message.

mod commands;
mod events;
mod notification;
mod refusals;

pub mod notices;
pub mod texts;

pub use commands::NotificationCommand;
pub use events::{Channel, DeliveryError, NotificationEvent, Template};
pub use notification::{MAX_ATTEMPTS, Notification, Progress};
pub use refusals::NotificationError;

/// A command to an aggregate of this service.
#[derive(Clone, Debug, PartialEq)]
pub enum NotificationsCommand {
    /// To a notification.
    Notification(crate::identifiers::NotificationId, NotificationCommand),
}
