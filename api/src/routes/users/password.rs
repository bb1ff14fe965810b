//! Changing a password.

use axum::extract::State;
use event_store::{Target, commands};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;

use aggregates::identifiers::SessionId;
use aggregates::users::UserCommand;

use super::registration::{PASSWORD_MAX_CHARS, new_password};
use super::{allowed, carry_out, find, for_user, placed};
use crate::auth::Caller;
use crate::check::{Check, Field};
use crate::extract::{Json, Path};
use crate::problem::{Problem, ProblemBody};
use crate::server::ClientAddress;
use crate::service::{Answer, Write, engine, no_content};
use crate::services::UsersService;
use crate::text;

/// A password to change; users prove that they know the present one, admins need not for others.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PasswordDraft {
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    current_password: Field<String>,
    #[serde(default)]
    #[schema(value_type = String, required, min_length = 8, max_length = 128)]
    new_password: Field<String>,
    #[serde(default)]
    #[schema(value_type = String, required)]
    confirm_new_password: Field<String>,
}

struct NewPassword {
    current: Option<SecretString>,
    new: SecretString,
}

impl PasswordDraft {
    fn check(self) -> Result<NewPassword, Problem> {
        let any = |value: String| text::password(&value, 0..=PASSWORD_MAX_CHARS).map(SecretString::from);
        let mut check = Check::new();
        let current = check.optional("current_password", self.current_password, any);
        let new = check.required("new_password", self.new_password, |value| new_password(&value));
        let confirmed = check.required("confirm_new_password", self.confirm_new_password, any);
        if let (Some(new), Some(confirmed)) = (&new, &confirmed)
            && new.expose_secret() != confirmed.expose_secret()
        {
            check.refuse("confirm_new_password", "The two password fields didn't match.");
        }
        check.finish(|| Some(NewPassword { current: current?, new: new? }))
    }
}

/// Changes a password and ends all sessions but the caller's.
#[utoipa::path(put, path = "/v1/users/{id}/password", tag = "users", security(("bearer" = [])),
    params(("id" = String, Path, description = "the user's id, or `me`")),
    request_body = PasswordDraft, responses(
    (status = NO_CONTENT),
    (status = UNAUTHORIZED, body = ProblemBody),
    (status = FORBIDDEN, body = ProblemBody),
    (status = NOT_FOUND, body = ProblemBody),
    (status = PRECONDITION_FAILED, body = ProblemBody),
    (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
    (status = TOO_MANY_REQUESTS, body = ProblemBody),
))]
pub(super) async fn change_password(
    State(service): State<UsersService>,
    caller: Caller,
    Path(user): Path<String>,
    ClientAddress(address): ClientAddress,
    write: Write,
    body: Result<Json<PasswordDraft>, Problem>,
) -> Result<Answer<()>, Problem> {
    let user_id = allowed(&caller, &user)?;
    let checked = body.and_then(|Json(draft)| draft.check());
    let NewPassword { current, new } = for_user(&service, user_id, checked).await?;
    let own = caller.user_id == user_id;
    if own {
        // Whoever found an open session must not guess the password with it.
        service.limits.check_login_address(address)?;
        service.limits.check_login(&user_id.to_string())?;
        prove(&service, &caller, current, &write).await?;
    }
    let password_hash = service.passwords.hash(new).await.map_err(Problem::internal)?;
    let keep = own.then_some(SessionId(caller.session_id));
    let command = UserCommand::ChangePassword { password_hash, keep };
    let target = Target::Existing(user_id.to_string());
    let done = carry_out(&service, target, command, write.context()).await?;
    Ok(placed(no_content(), &done))
}

/// Whether the caller knows the present password. A copy of a request that has been done knows the one before.
async fn prove(
    service: &UsersService,
    caller: &Caller,
    current: Option<SecretString>,
    write: &Write,
) -> Result<(), Problem> {
    let wrong = |message: &str| Problem::invalid_field("current_password", message);
    let current = current.ok_or_else(|| wrong("is required"))?;
    let account = find(service, caller.user_id).await?;
    let kept = account.password_hash.into_known();
    if service.passwords.verify(current, kept).await.map_err(Problem::internal)? {
        return Ok(());
    }
    if let Some(key) = &write.key {
        let first = commands::find(service.users.log().database(), key.command_id).await.map_err(engine)?;
        if first.is_some_and(|first| !first.refused && first.fingerprint == key.fingerprint) {
            return Ok(());
        }
    }
    Err(wrong("is not the present password"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wrong(body: Value) -> Value {
        let draft: PasswordDraft = serde_json::from_value(body).expect("the body can be read");
        let problem = draft.check().err().expect("it is refused");
        serde_json::to_value(problem.errors()).expect("errors are JSON")
    }

    #[test]
    fn a_confirmation_that_differs_is_the_only_thing_wrong() {
        let body = json!({"new_password": "testPass123", "confirm_new_password": "testPass124"});
        let expected = json!({"confirm_new_password": ["The two password fields didn't match."]});
        assert_eq!(wrong(body), expected);
    }

    #[test]
    fn a_short_or_missing_password_is_told_by_field() {
        let expected = json!({
            "new_password": ["must have at least 8 characters"],
            "confirm_new_password": ["is required"],
        });
        assert_eq!(wrong(json!({"new_password": "testP"})), expected);
    }
}
