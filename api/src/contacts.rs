//! Where to write to a user: known to the users service alone, and asked for when a message is sent, so that
//! no other service keeps addresses.

use async_trait::async_trait;
use event_store::CommandBus;
use uuid::Uuid;

use aggregates::personal::Personal;
use aggregates::users::{Account, User};

/// How somebody is addressed who gave no name.
const NAMELESS: &str = "there";

/// Where and how to write to a user.
#[derive(Clone, PartialEq, Eq)]
pub struct Contact {
    /// The e-mail address.
    pub email: String,
    /// The phone number.
    pub phone: Option<String>,
    /// How to address the user: the user name, else the first name, else "there".
    pub name: String,
}

/// Tells nothing: all of it is personal.
impl std::fmt::Debug for Contact {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Contact").finish_non_exhaustive()
    }
}

/// It could not be found out where to write to a user.
#[derive(Debug, thiserror::Error)]
#[error("contacts cannot be looked up right now")]
pub struct ContactsError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Knows where to write to users.
#[async_trait]
pub trait Contacts: Send + Sync + 'static {
    /// Where to write to a user; none when there is no such user, or no longer.
    ///
    /// # Errors
    /// [`ContactsError`] when it cannot be found out now.
    async fn contact(&self, user_id: Uuid) -> Result<Option<Contact>, ContactsError>;
}

/// The contacts of the users service itself.
#[derive(Clone)]
pub struct LocalContacts {
    users: CommandBus<User>,
}

impl LocalContacts {
    /// Reads the users' own events.
    pub fn new(users: CommandBus<User>) -> Self {
        Self { users }
    }
}

#[async_trait]
impl Contacts for LocalContacts {
    async fn contact(&self, user_id: Uuid) -> Result<Option<Contact>, ContactsError> {
        let id = user_id.to_string();
        let loaded = match self.users.current(&id) {
            Some(current) => current,
            None => self.users.load(&id).await.map_err(|error| ContactsError(Box::new(error)))?,
        };
        Ok(loaded.aggregate.account().and_then(of_account))
    }
}

/// None without an e-mail address: its key is destroyed a moment before or after the user is erased.
fn of_account(account: &Account) -> Option<Contact> {
    let known = |value: &Personal<String>| value.known().filter(|text| !text.is_empty()).cloned();
    let name = account.username.as_ref().and_then(known).or_else(|| known(&account.first_name));
    Some(Contact {
        email: known(&account.email)?,
        phone: account.phone.as_ref().and_then(known),
        name: name.unwrap_or_else(|| NAMELESS.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aggregates::identifiers::UserId;
    use aggregates::users::Role;

    use super::*;

    fn account(username: Option<&str>, first_name: &str) -> Account {
        Account {
            user_id: UserId(Uuid::from_u128(1)),
            email: "ann@example.org".to_owned().into(),
            username: username.map(|name| name.to_owned().into()),
            first_name: first_name.to_owned().into(),
            last_name: "Doe".to_owned().into(),
            phone: None,
            password_hash: String::new().into(),
            role: Role::Customer,
            sessions: BTreeMap::new(),
        }
    }

    #[test]
    fn a_user_is_addressed_by_user_name_then_first_name_then_there() {
        let name = |account: &Account| of_account(account).map(|contact| contact.name);
        assert_eq!(name(&account(Some("ann"), "Anna")).as_deref(), Some("ann"));
        assert_eq!(name(&account(None, "Anna")).as_deref(), Some("Anna"));
        assert_eq!(name(&account(None, "")).as_deref(), Some("there"));
    }

    #[test]
    fn without_an_address_there_is_no_contact() {
        let forgotten = Account { email: Personal::Gone, ..account(None, "Anna") };
        assert_eq!(of_account(&forgotten), None);
    }
}
