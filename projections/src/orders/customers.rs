//! Who there is to buy: the orders service's copy of the users, without anything personal.

use event_store::Result;
use event_store::subscription::ApplyError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use aggregates::users::UserEvent;

use crate::event::{Event, Happened};
use crate::live::Live;
use crate::read_model::{Feed, PersonalData, ReadModel};

/// The read model of customers.
pub struct Customers;

/// A user, living or erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerRow {
    /// The user.
    pub id: Uuid,
    /// Whether the user is gone.
    pub erased: bool,
}

impl ReadModel for Customers {
    const NAME: &'static str = "customers";
    const VERSION: u32 = 1;
    const FEEDS: &'static [Feed] =
        &[Feed { service: "users", aggregates: &["user"], personal: PersonalData::Withheld }];
    const KEY: &'static str = "id";
    const COLUMNS: &'static str = "id uuid primary key,
        erased boolean not null";

    type Row = CustomerRow;

    fn fold(
        row: Option<CustomerRow>,
        _key: &str,
        happened: &Happened,
    ) -> std::result::Result<Option<CustomerRow>, ApplyError> {
        let Event::User(event) = &happened.event else { return Ok(row) };
        Ok(match event {
            UserEvent::UserRegistered { user_id, .. } => Some(CustomerRow { id: user_id.0, erased: false }),
            UserEvent::UserErased { user_id } => Some(CustomerRow { id: user_id.0, erased: true }),
            UserEvent::ProfileChanged { .. }
            | UserEvent::EmailChanged { .. }
            | UserEvent::PasswordChanged { .. }
            | UserEvent::RoleGranted { .. }
            | UserEvent::RoleRevoked { .. }
            | UserEvent::UserDisabled
            | UserEvent::UserEnabled
            | UserEvent::SessionStarted { .. }
            | UserEvent::SessionRotated { .. }
            | UserEvent::SessionReuseDetected { .. }
            | UserEvent::SessionEnded { .. } => row,
        })
    }
}

/// Whether there is such a user, not erased.
///
/// # Errors
/// When the database is unreachable.
pub async fn customer_exists(live: &Live<Customers>, id: Uuid) -> Result<bool> {
    Ok(live.find(&id.to_string()).await?.is_some_and(|row| !row.erased))
}
