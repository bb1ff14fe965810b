//! Notices: which events are told to their user, and how the messages get out.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identifiers::{NotificationId, OrderId, UserId, derive};
use crate::notifications::{Channel, NotificationCommand, NotificationEvent, NotificationsCommand, Template};
use crate::orders::OrderEvent;
use crate::payments::PaymentEvent;
use crate::process::{Cause, ProcessManager, Reaction, Reactions};
use crate::users::UserEvent;

/// The process that tells users what happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Notices;

/// What notices listen to.
#[derive(Clone, Debug, PartialEq)]
pub enum NoticesEvent {
    /// Something happened to a user.
    Users(UserEvent),
    /// Something happened to an order.
    Orders(OrderEvent),
    /// Something happened to a payment.
    Payments(PaymentEvent),
    /// Something happened to a notification.
    Notifications(NotificationEvent),
}

/// Durable work of notices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoticesJob {
    /// Send the message and tell the notification how it went; while it stays queued, try again later. Whoever is
    /// sent an e-mail and has a phone is given a [`text_message`] of the same first.
    Deliver {
        /// Which message.
        notification_id: NotificationId,
    },
}

/// The notification by text message that an event leads to, with the command that queues it.
#[must_use]
pub fn text_message(
    user_id: UserId,
    template: Template,
    cause: Uuid,
    order_id: Option<OrderId>,
) -> (NotificationId, NotificationCommand) {
    message(Channel::Sms, user_id, template, cause, order_id)
}

impl ProcessManager for Notices {
    const NAME: &'static str = "notices";
    type Event = NoticesEvent;
    type Command = NotificationsCommand;
    type Job = NoticesJob;

    fn react(&self, cause: &Cause, event: &NoticesEvent) -> Reactions<Self> {
        Ok(match event {
            NoticesEvent::Users(UserEvent::UserRegistered { user_id, .. }) => {
                vec![tell(cause, *user_id, Template::Registration, None)]
            }
            NoticesEvent::Users(_) => Vec::new(),
            NoticesEvent::Orders(event) => {
                let order_id: OrderId = cause.aggregate_id.parse()?;
                told_of_order(event)
                    .map(|(user_id, template)| tell(cause, user_id, template, Some(order_id)))
                    .into_iter()
                    .collect()
            }
            NoticesEvent::Payments(PaymentEvent::PaymentCaptured { user_id, order_id, .. }) => {
                vec![tell(cause, *user_id, Template::PaymentReceived, Some(*order_id))]
            }
            NoticesEvent::Payments(_) => Vec::new(),
            NoticesEvent::Notifications(event) => match event {
                NotificationEvent::NotificationQueued { .. } | NotificationEvent::NotificationRequeued => {
                    let notification_id = cause.aggregate_id.parse()?;
                    vec![Reaction::Schedule {
                        id: derive(cause.event_id, b"deliver"),
                        due_at: None,
                        job: NoticesJob::Deliver { notification_id },
                    }]
                }
                NotificationEvent::NotificationSent { .. }
                | NotificationEvent::NotificationFailed { .. }
                | NotificationEvent::NotificationGivenUp { .. } => Vec::new(),
            },
        })
    }
}

type NoticesReaction = Reaction<NotificationsCommand, NoticesJob>;

fn told_of_order(event: &OrderEvent) -> Option<(UserId, Template)> {
    match event {
        OrderEvent::OrderAwaitingPayment { user_id, .. } => Some((*user_id, Template::OrderReceived)),
        OrderEvent::OrderCancelled { user_id, .. } => Some((*user_id, Template::OrderCancelled)),
        OrderEvent::OrderExpired { user_id, .. } => Some((*user_id, Template::OrderExpired)),
        OrderEvent::OrderPlaced { .. }
        | OrderEvent::OrderLineReserved { .. }
        | OrderEvent::OrderLineRejected { .. }
        | OrderEvent::OrderRejected { .. }
        | OrderEvent::OrderLinesEdited { .. }
        | OrderEvent::OrderAddressEdited { .. }
        | OrderEvent::OrderEditRequested { .. }
        | OrderEvent::OrderEditLineReserved { .. }
        | OrderEvent::OrderEditLineRejected { .. }
        | OrderEvent::OrderEditRejected { .. }
        | OrderEvent::OrderPaymentAttempted { .. }
        | OrderEvent::OrderPaymentDeclined { .. }
        | OrderEvent::OrderPaymentAuthorised { .. }
        | OrderEvent::OrderCommitting { .. }
        | OrderEvent::OrderLineCommitted { .. }
        | OrderEvent::OrderLineLost { .. }
        | OrderEvent::OrderConfirmed { .. }
        | OrderEvent::OrderPaymentCaptured { .. }
        | OrderEvent::OrderCaptureFailed { .. }
        | OrderEvent::OrderPaymentVoided { .. }
        | OrderEvent::OrderPaymentRefunded { .. }
        | OrderEvent::OrderPaymentClosed
        | OrderEvent::OrderCancelling { .. }
        | OrderEvent::OrderExpiryDeferred
        | OrderEvent::OrderLineReleased { .. }
        | OrderEvent::OrderShipped { .. }
        | OrderEvent::OrderDelivered { .. }
        | OrderEvent::OrderReturnRequested { .. }
        | OrderEvent::OrderReturned { .. } => None,
    }
}

fn tell(cause: &Cause, user_id: UserId, template: Template, order_id: Option<OrderId>) -> NoticesReaction {
    let (notification_id, command) = message(Channel::Email, user_id, template, cause.event_id, order_id);
    Reaction::Command {
        step: format!("{}/{}", template.name(), Channel::Email.name()),
        target: NotificationsCommand::Notification(notification_id, command),
    }
}

fn message(
    channel: Channel,
    user_id: UserId,
    template: Template,
    cause: Uuid,
    order_id: Option<OrderId>,
) -> (NotificationId, NotificationCommand) {
    let id = NotificationId::of(cause, template.name(), channel.name());
    (id, NotificationCommand::Queue { user_id, template, channel, cause, order_id })
}
