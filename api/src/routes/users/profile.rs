//! Users as they are found, changed, given a role and erased.

use axum::extract::State;
use event_store::Target;
use event_store::lease::alone;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use aggregates::users::{Role, UserCommand};
use projections::users::user_directory;

use super::registration::{name, phone};
use super::{
    UserView, account_of, allowed, carry_out, for_user, named, naming_all_taken, placed, registered_at,
};
use crate::auth::{Caller, role};
use crate::check::{Check, Field};
use crate::extract::{Cursor, Json, Page, Path, Query};
use crate::listing::Listed;
use crate::problem::{Problem, ProblemBody};
use crate::service::{Answer, READ_WITHIN, Write, engine, no_content, ok};
use crate::services::UsersService;
use crate::text;

/// The longest search, in characters: that of an e-mail address.
const SEARCH_MAX_CHARS: usize = 254;

/// Which users are wanted.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UserSearch {
    /// What the e-mail address or a name contains, in whatever case.
    search: Option<String>,
    /// The most rows to answer.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<String>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Lists users, for admins.
#[utoipa::path(get, path = "/v1/users", tag = "users", security(("bearer" = [])), params(UserSearch), responses(
    (status = OK, body = Listed<UserView>),
    (status = UNAUTHORIZED, body = ProblemBody),
    (status = FORBIDDEN, body = ProblemBody),
    (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
))]
pub(super) async fn list_users(
    State(service): State<UsersService>,
    caller: Caller,
    query: Result<Query<UserSearch>, Problem>,
) -> Result<Answer<Listed<UserView>>, Problem> {
    caller.must_be_admin()?;
    let Query(wanted) = query?;
    let page = Page::new(wanted.limit.as_deref(), wanted.cursor.as_deref())?;
    let search = wanted
        .search
        .map(|text| text::line(&text, 0..=SEARCH_MAX_CHARS))
        .transpose()
        .map_err(|message| Problem::invalid_field("search", message))?;
    let after = page.cursor.as_ref().map(Cursor::key::<Uuid>).transpose()?;
    let found = user_directory::list_users(&service.directory, search.as_deref(), after, page.limit).await;
    Ok(ok(Listed::of(found.map_err(engine)?, UserView::from)))
}

/// Shows a user.
#[utoipa::path(get, path = "/v1/users/{id}", tag = "users", security(("bearer" = [])),
    params(("id" = String, Path, description = "the user's id, or `me`")), responses(
    (status = OK, body = UserView),
    (status = UNAUTHORIZED, body = ProblemBody),
    (status = FORBIDDEN, body = ProblemBody),
    (status = NOT_FOUND, body = ProblemBody),
))]
pub(super) async fn get_user(
    State(service): State<UsersService>,
    caller: Caller,
    Path(user): Path<String>,
) -> Result<Answer<UserView>, Problem> {
    let user_id = allowed(&caller, &user)?;
    let row = user_directory::find_user(&service.directory, user_id).await.map_err(engine)?;
    let row = row.ok_or_else(Problem::not_found)?;
    let version = row.version;
    Ok(ok(UserView::from(row)).with_version(version))
}

/// What is to change of a user; an empty name or phone clears it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileDraft {
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "ann@example.org")]
    email: Field<String>,
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
    #[schema(value_type = Option<String>)]
    phone: Field<String>,
}

impl ProfileDraft {
    fn check(self) -> Result<UserCommand, Problem> {
        let mut check = Check::new();
        let email = check.optional("email", self.email, |value| text::email(&value));
        let username = check.optional("username", self.username, |value| text::username(&value));
        let first_name = check.optional("first_name", self.first_name, |value| name(&value));
        let last_name = check.optional("last_name", self.last_name, |value| name(&value));
        let phone = check.optional("phone", self.phone, |value| phone(&value));
        check.finish(|| {
            Some(UserCommand::ChangeProfile {
                email: email?,
                username: username?,
                first_name: first_name?,
                last_name: last_name?,
                phone: phone?,
            })
        })
    }
}

/// Changes what is sent of a user.
#[utoipa::path(patch, path = "/v1/users/{id}", tag = "users", security(("bearer" = [])),
    params(("id" = String, Path, description = "the user's id, or `me`")),
    request_body = ProfileDraft, responses(
    (status = OK, body = UserView),
    (status = UNAUTHORIZED, body = ProblemBody),
    (status = FORBIDDEN, body = ProblemBody),
    (status = NOT_FOUND, body = ProblemBody),
    (status = CONFLICT, body = ProblemBody, description = "email_taken, username_taken"),
    (status = PRECONDITION_FAILED, body = ProblemBody),
    (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
))]
pub(super) async fn change_user(
    State(service): State<UsersService>,
    caller: Caller,
    Path(user): Path<String>,
    write: Write,
    body: Result<Json<ProfileDraft>, Problem>,
) -> Result<Answer<UserView>, Problem> {
    let user_id = allowed(&caller, &user)?;
    let checked = body.and_then(|Json(draft)| draft.check());
    let command = for_user(&service, user_id, checked).await?;
    change(&service, user_id, command, &write).await
}

/// Erases a user: the name and address are free again, and what is known of the user can no longer be read.
#[utoipa::path(delete, path = "/v1/users/{id}", tag = "users", security(("bearer" = [])),
    params(("id" = String, Path, description = "the user's id, or `me`")), responses(
    (status = NO_CONTENT),
    (status = UNAUTHORIZED, body = ProblemBody),
    (status = FORBIDDEN, body = ProblemBody),
    (status = NOT_FOUND, body = ProblemBody),
    (status = CONFLICT, body = ProblemBody, description = "last_admin"),
    (status = PRECONDITION_FAILED, body = ProblemBody),
))]
pub(super) async fn erase_user(
    State(service): State<UsersService>,
    caller: Caller,
    Path(user): Path<String>,
    write: Write,
) -> Result<Answer<()>, Problem> {
    let user_id = allowed(&caller, &user)?;
    let _alone = alone(service.users.log(), ADMINS).await.map_err(engine)?;
    let command = UserCommand::Erase { other_admins: other_admins(&service, user_id).await? };
    let target = Target::Existing(user_id.to_string());
    let done = carry_out(&service, target, command, write.context()).await?;
    // The user is gone whether this succeeds or not: whoever follows the log does it again.
    if let Err(error) = service.users.log().personal().forget(user_id).await {
        tracing::warn!(%error, user.id = %user_id, "the key of an erased user is not destroyed yet");
    }
    Ok(placed(no_content(), &done))
}

/// Held while it is decided whether a user may cease to be an admin.
const ADMINS: &str = "admins";

/// A role to give.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RoleDraft {
    /// `customer`, `staff` or `admin`.
    #[serde(default)]
    #[schema(value_type = String, required, example = "staff")]
    role: Field<String>,
}

impl RoleDraft {
    fn check(self) -> Result<Role, Problem> {
        let mut check = Check::new();
        let expected = || "must be customer, staff or admin".to_owned();
        let role = check.required("role", self.role, |value| role::named(&value).ok_or_else(expected));
        check.finish(|| role)
    }
}

/// Gives a user a role in place of the present one, for admins.
#[utoipa::path(put, path = "/v1/users/{id}/role", tag = "users", security(("bearer" = [])),
    params(("id" = String, Path, description = "the user's id, or `me`")),
    request_body = RoleDraft, responses(
    (status = OK, body = UserView),
    (status = UNAUTHORIZED, body = ProblemBody),
    (status = FORBIDDEN, body = ProblemBody),
    (status = NOT_FOUND, body = ProblemBody),
    (status = CONFLICT, body = ProblemBody, description = "last_admin"),
    (status = PRECONDITION_FAILED, body = ProblemBody),
    (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
))]
pub(super) async fn change_role(
    State(service): State<UsersService>,
    caller: Caller,
    Path(user): Path<String>,
    write: Write,
    body: Result<Json<RoleDraft>, Problem>,
) -> Result<Answer<UserView>, Problem> {
    caller.must_be_admin()?;
    let user_id = named(&caller, &user)?;
    let checked = body.and_then(|Json(draft)| draft.check());
    let role = for_user(&service, user_id, checked).await?;
    let _alone = alone(service.users.log(), ADMINS).await.map_err(engine)?;
    let other_admins = other_admins(&service, user_id).await?;
    let command = match role {
        Role::Customer => UserCommand::RevokeRole { other_admins },
        Role::Staff | Role::Admin => UserCommand::GrantRole { role, other_admins },
    };
    change(&service, user_id, command, &write).await
}

/// Whether there are admins beside the user. Two admins who take the role from each other at the same moment
/// must not both be told so: the caller holds [`ADMINS`], and the directory is asked when it shows all there is.
async fn other_admins(service: &UsersService, user_id: Uuid) -> Result<bool, Problem> {
    let current = service.surroundings.reads.hear("users", READ_WITHIN).await.map_err(engine)?;
    if !current {
        return Err(Problem::service_unavailable("the directory of users is not up to date"));
    }
    user_directory::has_other_admins(&service.directory, user_id).await.map_err(engine)
}

async fn change(
    service: &UsersService,
    user_id: Uuid,
    command: UserCommand,
    write: &Write,
) -> Result<Answer<UserView>, Problem> {
    let names = match &command {
        UserCommand::ChangeProfile { email, username, .. } => [email.clone(), username.clone()],
        _ => [None, None],
    };
    let target = Target::Existing(user_id.to_string());
    let done = match carry_out(service, target, command, write.context()).await {
        Ok(done) => done,
        Err(problem) => return Err(naming_all_taken(service, user_id, names, problem).await),
    };
    let view = UserView::of(account_of(&done)?, registered_at(service, user_id).await?);
    Ok(placed(ok(view).with_version(done.version), &done))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(body: Value) -> Result<UserCommand, Value> {
        let draft: ProfileDraft = serde_json::from_value(body).expect("the body can be read");
        draft.check().map_err(|problem| serde_json::to_value(problem.errors()).expect("errors are JSON"))
    }

    #[test]
    fn only_what_is_sent_is_changed_and_an_empty_phone_clears_it() {
        let expected = UserCommand::ChangeProfile {
            email: Some("new@example.org".to_owned()),
            username: None,
            first_name: None,
            last_name: None,
            phone: Some(String::new()),
        };
        let command = check(json!({"email": "new@example.org", "phone": "", "last_name": null}));
        assert!(command == Ok(expected));
    }

    #[test]
    fn what_is_wrong_in_a_profile_is_told_by_field() {
        let errors = check(json!({"email": "x", "username": "a@b"})).expect_err("it is refused");
        let fields = errors.as_object().expect("errors are an object").keys().collect::<Vec<_>>();
        assert_eq!(fields, ["email", "username"]);
        assert!(serde_json::from_value::<ProfileDraft>(json!({"is_admin": true})).is_err());
    }

    #[test]
    fn a_role_is_one_of_three() {
        let check = |role: &str| {
            let draft: RoleDraft = serde_json::from_value(json!({ "role": role })).expect("it can be read");
            draft.check().map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(check("staff"), Ok(Role::Staff));
        assert_eq!(check("owner"), Err(422));
    }
}
