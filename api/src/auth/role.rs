//! Roles as they are called outside.

use aggregates::users::Role;

/// All roles.
const ALL: [Role; 3] = [Role::Customer, Role::Staff, Role::Admin];

/// What a role is called.
pub fn name_of(role: Role) -> &'static str {
    match role {
        Role::Customer => "customer",
        Role::Staff => "staff",
        Role::Admin => "admin",
    }
}

/// The role that is called so.
pub fn named(name: &str) -> Option<Role> {
    ALL.into_iter().find(|role| name_of(*role) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_called_outside_as_in_events() {
        for role in ALL {
            assert_eq!(named(name_of(role)), Some(role));
            let stored = serde_json::to_value(role).expect("a role is a plain value");
            assert_eq!(stored, name_of(role));
        }
        assert_eq!(named("Admin"), None);
    }
}
