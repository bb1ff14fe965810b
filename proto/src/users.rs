//! The events of users on the wire. What could name a person or open an account stays behind.

use aggregates::users::{Role, SessionEnd, UserEvent};

use crate::field::wire_choice;
use crate::mart::users::v1;
use crate::published::published;

published! {
    Users in "mart.users.v1", UsersEvent with users_event::Event:
    User(UserEvent, "user") {
        UserRegistered { user_id, role }
            withholds { email, username, first_name, last_name, phone, password_hash },
        ProfileChanged {} withholds { username, first_name, last_name, phone },
        EmailChanged {} withholds { email },
        PasswordChanged {} withholds { password_hash },
        RoleGranted { role },
        RoleRevoked { role },
        UserDisabled {},
        UserEnabled {},
        UserErased { user_id },
        SessionStarted { session_id, expires_at } withholds { refresh_hash },
        SessionRotated { session_id, expires_at } withholds { refresh_hash },
        SessionReuseDetected { session_id },
        SessionEnded { session_id, why },
    }
}

wire_choice!(Role as v1::Role { Customer, Staff, Admin });

wire_choice!(SessionEnd as v1::SessionEnd {
    LoggedOut,
    Expired,
    Displaced,
    PasswordChanged,
    Disabled,
    Erased,
});
