//! The events of notifications on the wire.

use aggregates::notifications::{Channel, DeliveryError, NotificationEvent, Template};

use crate::field::wire_choice;
use crate::mart::notifications::v1;
use crate::published::published;

published! {
    Notifications in "mart.notifications.v1", NotificationsEvent with notifications_event::Event:
    Notification(NotificationEvent, "notification") {
        NotificationQueued { user_id, template, channel, cause, order_id },
        NotificationSent { attempts },
        NotificationFailed { error, attempts },
        NotificationGivenUp { error, attempts },
        NotificationRequeued {},
    }
}

wire_choice!(Channel as v1::Channel { Email, Sms });

wire_choice!(Template as v1::Template {
    Registration,
    OrderReceived,
    PaymentReceived,
    OrderCancelled,
    OrderExpired,
});

wire_choice!(DeliveryError as v1::DeliveryError { Unreachable, Deferred, Rejected, NoAddress });
