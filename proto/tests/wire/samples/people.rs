//! Samples of what happens to users and notifications.

use aggregates::notifications::{Channel, DeliveryError, NotificationEvent, Template};
use aggregates::users::{Role, SessionEnd, UserEvent};

use super::{id, order, sealed, time, user, uuid};

pub(super) fn users() -> Vec<UserEvent> {
    vec![
        UserEvent::UserRegistered {
            user_id: user(),
            email: sealed(),
            username: Some(sealed()),
            first_name: sealed(),
            last_name: sealed(),
            phone: Some(sealed()),
            password_hash: sealed(),
            role: Role::Customer,
        },
        UserEvent::ProfileChanged {
            username: Some(sealed()),
            first_name: sealed(),
            last_name: sealed(),
            phone: Some(sealed()),
        },
        UserEvent::EmailChanged { email: sealed() },
        UserEvent::PasswordChanged { password_hash: sealed() },
        UserEvent::RoleGranted { role: Role::Admin },
        UserEvent::RoleRevoked { role: Role::Staff },
        UserEvent::UserDisabled,
        UserEvent::UserEnabled,
        UserEvent::UserErased { user_id: user() },
        UserEvent::SessionStarted {
            session_id: id(10),
            refresh_hash: "9f86d081884c7d659a2feaa0c55ad015".to_owned(),
            expires_at: time("2026-03-31T12:30:00Z"),
        },
        UserEvent::SessionRotated {
            session_id: id(10),
            refresh_hash: "60303ae22b998861bce3b28f33eec1be".to_owned(),
            expires_at: time("2026-03-31T13:30:00Z"),
        },
        UserEvent::SessionReuseDetected { session_id: id(10) },
        UserEvent::SessionEnded { session_id: id(10), why: SessionEnd::LoggedOut },
    ]
}

pub(super) fn notifications() -> Vec<NotificationEvent> {
    vec![
        NotificationEvent::NotificationQueued {
            user_id: user(),
            template: Template::OrderReceived,
            channel: Channel::Email,
            cause: uuid(20),
            order_id: Some(order()),
        },
        NotificationEvent::NotificationSent { attempts: 1 },
        NotificationEvent::NotificationFailed { error: DeliveryError::Unreachable, attempts: 1 },
        NotificationEvent::NotificationGivenUp { error: DeliveryError::Rejected, attempts: 5 },
        NotificationEvent::NotificationRequeued,
    ]
}
