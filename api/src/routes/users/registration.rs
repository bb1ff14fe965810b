//! Registration.

use axum::extract::State;
use event_store::Target;
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use aggregates::identifiers::UserId;
use aggregates::users::{Role, UserCommand};

use super::{UserView, account_of, carry_out, naming_all_taken, placed, registered_at};
use crate::check::{Check, Field};
use crate::extract::Json;
use crate::problem::{Problem, ProblemBody};
use crate::server::ClientAddress;
use crate::service::{Answer, Write, created};
use crate::services::UsersService;
use crate::text;

/// The shortest password, in characters.
pub(super) const PASSWORD_MIN_CHARS: usize = 8;
/// The longest password, in characters.
pub(super) const PASSWORD_MAX_CHARS: usize = 128;
/// The longest first or last name, in characters.
const NAME_MAX_CHARS: usize = 256;

/// Somebody who wants to be a customer. The role is not asked for: nobody gives one to themselves.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RegistrationDraft {
    #[serde(default)]
    #[schema(value_type = String, required, example = "ann@example.org")]
    email: Field<String>,
    #[serde(default)]
    #[schema(value_type = String, required, min_length = 8, max_length = 128)]
    password: Field<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 3, max_length = 30)]
    username: Field<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 256)]
    first_name: Field<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 256)]
    last_name: Field<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "+49 30 123456")]
    phone: Field<String>,
}

struct Registration {
    email: String,
    password: SecretString,
    username: Option<String>,
    first_name: String,
    last_name: String,
    phone: Option<String>,
}

impl RegistrationDraft {
    fn check(self) -> Result<Registration, Problem> {
        let mut check = Check::new();
        let email = check.required("email", self.email, |value| text::email(&value));
        let password = check.required("password", self.password, |value| new_password(&value));
        let username = check.optional("username", self.username, |value| text::username(&value));
        let first_name = check.optional("first_name", self.first_name, |value| name(&value));
        let last_name = check.optional("last_name", self.last_name, |value| name(&value));
        let phone = check.optional("phone", self.phone, |value| phone(&value));
        check.finish(|| {
            Some(Registration {
                email: email?,
                password: password?,
                username: username?,
                first_name: first_name?.unwrap_or_default(),
                last_name: last_name?.unwrap_or_default(),
                phone: phone?.filter(|phone| !phone.is_empty()),
            })
        })
    }
}

/// A password that somebody chooses.
pub(super) fn new_password(value: &str) -> Result<SecretString, String> {
    text::password(value, PASSWORD_MIN_CHARS..=PASSWORD_MAX_CHARS).map(SecretString::from)
}

/// A first or last name; it may be empty.
pub(super) fn name(value: &str) -> Result<String, String> {
    text::line(value, 0..=NAME_MAX_CHARS)
}

/// A phone number; empty for none.
pub(super) fn phone(value: &str) -> Result<String, String> {
    if value.is_empty() { Ok(String::new()) } else { text::phone(value) }
}

/// Registers a customer.
#[utoipa::path(post, path = "/v1/users", tag = "users", request_body = RegistrationDraft, responses(
    (status = CREATED, body = UserView, headers(("Location" = String))),
    (status = CONFLICT, body = ProblemBody, description = "email_taken, username_taken"),
    (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
    (status = TOO_MANY_REQUESTS, body = ProblemBody),
))]
pub(super) async fn register_user(
    State(service): State<UsersService>,
    ClientAddress(address): ClientAddress,
    write: Write,
    Json(draft): Json<RegistrationDraft>,
) -> Result<Answer<UserView>, Problem> {
    let registration = draft.check()?;
    service.limits.check_registration(address, &registration.email)?;
    let password_hash = service.passwords.hash(registration.password).await.map_err(Problem::internal)?;
    let user_id = Uuid::now_v7();
    let names = [Some(registration.email.clone()), registration.username.clone()];
    let command = UserCommand::Register {
        user_id: UserId(user_id),
        email: registration.email,
        username: registration.username,
        first_name: registration.first_name,
        last_name: registration.last_name,
        phone: registration.phone,
        password_hash,
        role: Role::Customer,
    };
    let target = Target::New(user_id.to_string());
    let done = match carry_out(&service, target, command, write.context()).await {
        Ok(done) => done,
        Err(problem) => return Err(naming_all_taken(&service, user_id, names, problem).await),
    };
    let account = account_of(&done)?;
    let created_at = match done.recorded_at {
        Some(recorded_at) => recorded_at,
        None => registered_at(&service, account.user_id.0).await?,
    };
    let location = format!("/v1/users/{}", done.id);
    let answer = created(&location, UserView::of(account, created_at)).with_version(done.version);
    Ok(placed(answer, &done))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use serde_json::{Value, json};

    use super::*;

    fn check(body: Value) -> Result<Registration, Value> {
        let draft: RegistrationDraft = serde_json::from_value(body).expect("the body can be read");
        draft.check().map_err(|problem| serde_json::to_value(problem.errors()).expect("errors are JSON"))
    }

    fn wrong_fields(body: Value) -> Vec<String> {
        let errors = check(body).err().expect("it is refused");
        errors.as_object().expect("errors are an object").keys().cloned().collect()
    }

    #[test]
    fn an_address_and_a_password_are_enough() {
        let right = check(json!({"email": "ann@example.org", "password": "testPass123", "phone": ""}));
        let right = right.expect("it is right");
        assert_eq!(right.email, "ann@example.org");
        assert_eq!(right.password.expose_secret(), "testPass123");
        assert_eq!((right.username, right.phone), (None, None));
        assert_eq!((right.first_name.as_str(), right.last_name.as_str()), ("", ""));
    }

    #[test]
    fn a_missing_or_wrong_address_and_password_are_told_together() {
        let both = ["email", "password"];
        assert_eq!(wrong_fields(json!({"first_name": "John", "last_name": "Doe"})), both);
        assert_eq!(wrong_fields(json!({"email": "invalid_email.com", "password": "testP"})), both);
    }

    #[test]
    fn nobody_gives_a_role_to_themselves() {
        for field in ["is_admin", "role"] {
            let body = json!({"email": "ann@example.org", "password": "testPass123", field: "admin"});
            assert!(serde_json::from_value::<RegistrationDraft>(body).is_err(), "{field}");
        }
    }
}
