//! Housekeeping: the cart of a user who is gone is dropped.

use crate::carts::CartCommand;
use crate::identifiers::UserId;
use crate::orders::OrdersCommand;
use crate::process::{Cause, ProcessManager, Reaction, Reactions};
use crate::users::UserEvent;

/// The process that cleans up behind users.
#[derive(Clone, Copy, Debug, Default)]
pub struct Housekeeping;

/// What housekeeping listens to.
#[derive(Clone, Debug, PartialEq)]
pub enum HousekeepingEvent {
    /// Something happened to a user.
    Users(UserEvent),
}

impl ProcessManager for Housekeeping {
    const NAME: &'static str = "housekeeping";
    type Event = HousekeepingEvent;
    type Command = OrdersCommand;
    type Job = ();

    fn react(&self, cause: &Cause, event: &HousekeepingEvent) -> Reactions<Self> {
        let HousekeepingEvent::Users(event) = event;
        Ok(match event {
            UserEvent::UserErased { .. } => {
                let user_id: UserId = cause.aggregate_id.parse()?;
                let target = OrdersCommand::Cart(user_id, CartCommand::Abandon);
                vec![Reaction::Command { step: format!("cart {user_id}"), target }]
            }
            UserEvent::UserRegistered { .. }
            | UserEvent::ProfileChanged { .. }
            | UserEvent::EmailChanged { .. }
            | UserEvent::PasswordChanged { .. }
            | UserEvent::RoleGranted { .. }
            | UserEvent::RoleRevoked { .. }
            | UserEvent::UserDisabled
            | UserEvent::UserEnabled
            | UserEvent::SessionStarted { .. }
            | UserEvent::SessionRotated { .. }
            | UserEvent::SessionReuseDetected { .. }
            | UserEvent::SessionEnded { .. } => Vec::new(),
        })
    }
}
