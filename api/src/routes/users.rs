//! The routes of the users service: registration, profiles, roles, passwords, sessions and tokens.

mod authentication;
mod password;
mod profile;
mod registration;
mod sessions;

use axum::extract::{FromRequestParts, Request};
use axum::http::HeaderName;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use event_store::{Context, Target};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use aggregates::personal::Personal;
use aggregates::users::{Account, Role, User, UserCommand, UserError};
use projections::users::user_directory::{self, UserRow};

use crate::auth::Caller;
use crate::extract::IdempotencyKey;
use crate::problem::Problem;
use crate::routes::executed::{Done, carry_out_claiming};
use crate::service::{Answer, engine, surround};
use crate::services::UsersService;
use crate::text;

/// The service as positions name it.
const SERVICE: &str = "users";
/// How the path names the caller.
const MYSELF: &str = "me";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// All routes, without their surroundings: for the document.
pub fn paths() -> OpenApiRouter<UsersService> {
    user_paths().merge(token_paths())
}

/// All routes of a running service.
pub fn routes(service: UsersService) -> OpenApiRouter {
    let surroundings = service.surroundings.clone();
    let users = surround(user_paths().with_state(service.clone()), surroundings.clone());
    let tokens = surround(token_paths().with_state(service), surroundings);
    users.merge(tokens.layer(middleware::from_fn(keep_no_answer)))
}

fn user_paths() -> OpenApiRouter<UsersService> {
    OpenApiRouter::new()
        .routes(routes!(registration::register_user, profile::list_users))
        .routes(routes!(profile::get_user, profile::change_user, profile::erase_user))
        .routes(routes!(profile::change_role))
        .routes(routes!(password::change_password))
        .routes(routes!(sessions::list_sessions))
        .routes(routes!(sessions::end_session))
        .routes(routes!(authentication::log_out))
        .routes(routes!(authentication::published_keys))
}

/// The routes that answer with tokens, and so take no `Idempotency-Key`.
pub(crate) fn token_paths() -> OpenApiRouter<UsersService> {
    OpenApiRouter::new()
        .routes(routes!(authentication::log_in))
        .routes(routes!(authentication::refresh_tokens))
}

/// Takes the `Idempotency-Key` away from requests that are answered with tokens: the answer to a repeated
/// request is kept in the database, and no secret may be.
async fn keep_no_answer(request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    if let Err(problem) = IdempotencyKey::from_request_parts(&mut parts, &()).await {
        return problem.into_response();
    }
    parts.headers.remove(IDEMPOTENCY_KEY);
    next.run(Request::from_parts(parts, body)).await
}

/// A user as those see them who may.
#[derive(Serialize, ToSchema)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub struct UserView {
    id: Uuid,
    #[schema(example = "ann@example.org")]
    email: String,
    #[schema(example = "ann")]
    username: Option<String>,
    first_name: String,
    last_name: String,
    phone: Option<String>,
    /// `customer`, `staff` or `admin`.
    #[schema(value_type = String, example = "customer")]
    role: Role,
    created_at: DateTime<Utc>,
}

impl From<UserRow> for UserView {
    fn from(row: UserRow) -> Self {
        Self {
            id: row.id,
            email: row.email,
            username: row.username,
            first_name: row.first_name,
            last_name: row.last_name,
            phone: row.phone,
            role: row.role,
            created_at: row.created_at,
        }
    }
}

impl UserView {
    fn of(account: &Account, created_at: DateTime<Utc>) -> Self {
        let known = |value: &Personal<String>| value.known().cloned();
        Self {
            id: account.user_id.0,
            email: account.email.text().to_owned(),
            username: account.username.as_ref().and_then(known),
            first_name: account.first_name.text().to_owned(),
            last_name: account.last_name.text().to_owned(),
            phone: account.phone.as_ref().and_then(known),
            role: account.role,
            created_at,
        }
    }
}

/// Carries out a command.
async fn carry_out(
    service: &UsersService,
    target: Target,
    command: UserCommand,
    context: Context<User>,
) -> Result<Done<User>, Problem> {
    carry_out_claiming(&service.users, target, command, context, problem, taken).await
}

/// The answer with the place of the write.
fn placed<T>(answer: Answer<T>, done: &Done<User>) -> Answer<T> {
    answer.with_position(SERVICE, &done.id, done.position)
}

/// The user after a command.
///
/// # Errors
/// 404 when a later request has erased the user.
fn account_of(done: &Done<User>) -> Result<&Account, Problem> {
    done.state.account().ok_or_else(Problem::not_found)
}

/// The stable problem of each refusal.
fn problem(error: UserError) -> Problem {
    let detail = error.to_string();
    match error {
        UserError::Unregistered | UserError::Erased => Problem::not_found(),
        UserError::AlreadyRegistered => Problem::conflict("already_registered", detail),
        UserError::Disabled => Problem::conflict("user_disabled", detail),
        UserError::LastAdmin => Problem::conflict("last_admin", detail),
        // Only who shows a refresh token is refused for these.
        UserError::SessionUnknown | UserError::SessionExpired => Problem::unauthorized(),
        UserError::Invalid { field, reason } => Problem::invalid_field(field, reason.to_string()),
    }
}

/// 409 that names the field whose value belongs to another user.
fn taken(scope: &str) -> Problem {
    let message = taken_message(scope);
    Problem::conflict(format!("{scope}_taken"), message.clone()).with_error(scope, vec![message])
}

fn taken_message(scope: &str) -> String {
    format!("User with this {scope} already exists.")
}

/// A refusal of names that tells all of them: the log names the first that belongs to another user, and the
/// directory knows of the rest. `own` is who may have them.
async fn naming_all_taken(
    service: &UsersService,
    own: Uuid,
    [email, username]: [Option<String>; 2],
    mut problem: Problem,
) -> Problem {
    let names = [("email", email), ("username", username)];
    if !names.iter().any(|(scope, _)| problem.code() == format!("{scope}_taken")) {
        return problem;
    }
    for (scope, name) in names {
        let Some(name) = name.filter(|_| !problem.errors().contains_key(scope)) else { continue };
        match user_directory::find_user_by_login(&service.directory, &name).await {
            Ok(Some(row)) if row.id != own => {
                problem = problem.with_error(scope, vec![taken_message(scope)]);
            }
            // Without the directory the refusal is right, and names one field.
            Ok(Some(_) | None) | Err(_) => {}
        }
    }
    problem
}

/// The user that a path names, if the caller may ask for that user at all.
fn allowed(caller: &Caller, name: &str) -> Result<Uuid, Problem> {
    let user_id = named(caller, name)?;
    caller.must_be(user_id)?;
    Ok(user_id)
}

fn named(caller: &Caller, name: &str) -> Result<Uuid, Problem> {
    if name == MYSELF { Ok(caller.user_id) } else { text::uuid(name).map_err(|_| Problem::not_found()) }
}

/// What was checked; or, when it is not right, first of all whether there is such a user: 404 goes before 422.
async fn for_user<T>(
    service: &UsersService,
    user_id: Uuid,
    checked: Result<T, Problem>,
) -> Result<T, Problem> {
    match checked {
        Ok(checked) => Ok(checked),
        Err(problem) => {
            find(service, user_id).await?;
            Err(problem)
        }
    }
}

/// The account of a living user, as the log has it.
async fn find(service: &UsersService, user_id: Uuid) -> Result<Account, Problem> {
    let loaded = service.users.load(&user_id.to_string()).await.map_err(engine)?;
    loaded.aggregate.account().cloned().ok_or_else(Problem::not_found)
}

/// When a user registered. The directory knows; should it not show the user yet, the id tells when it was
/// made, which is a moment before.
async fn registered_at(service: &UsersService, user_id: Uuid) -> Result<DateTime<Utc>, Problem> {
    let row = user_directory::find_user(&service.directory, user_id).await.map_err(engine)?;
    Ok(row.map(|row| row.created_at).or_else(|| made_at(user_id)).unwrap_or_default())
}

/// When an id of version 7 was made.
fn made_at(id: Uuid) -> Option<DateTime<Utc>> {
    let (seconds, nanoseconds) = id.get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanoseconds)
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    fn caller(role: Role) -> Caller {
        Caller {
            user_id: Uuid::from_u128(1),
            session_id: Uuid::from_u128(2),
            role,
            email: "ann@example.org".to_owned(),
        }
    }

    #[test]
    fn a_path_names_the_caller_or_one_whom_the_caller_may_see() {
        let (me, other) = (Uuid::from_u128(1), Uuid::from_u128(3).to_string());
        let status = |role, name: &str| allowed(&caller(role), name).map_err(|problem| problem.status());
        assert_eq!(status(Role::Customer, "me"), Ok(me));
        assert_eq!(status(Role::Customer, &me.to_string()), Ok(me));
        assert_eq!(status(Role::Customer, &other), Err(StatusCode::FORBIDDEN));
        assert_eq!(status(Role::Staff, &other), Err(StatusCode::FORBIDDEN));
        assert_eq!(status(Role::Admin, &other), Ok(Uuid::from_u128(3)));
        assert_eq!(status(Role::Customer, "x"), Err(StatusCode::NOT_FOUND));
    }

    #[test]
    fn a_taken_name_is_told_by_its_field() {
        let problem = taken("email");
        assert_eq!((problem.status(), problem.code()), (StatusCode::CONFLICT, "email_taken"));
        let errors = serde_json::to_value(problem.errors()).expect("errors are JSON");
        assert_eq!(errors, serde_json::json!({"email": ["User with this email already exists."]}));
    }

    #[test]
    fn an_id_tells_when_it_was_made() {
        let id = Uuid::new_v7(uuid::Timestamp::from_unix_time(1_700_000_000, 0, 0, 0));
        assert_eq!(made_at(id), DateTime::from_timestamp(1_700_000_000, 0));
        assert_eq!(made_at(Uuid::new_v4()), None);
    }

    #[test]
    fn every_route_of_the_interface_is_in_the_document() {
        let document = paths().into_openapi();
        let paths = document.paths.paths.keys().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(
            paths,
            [
                "/.well-known/jwks.json",
                "/v1/auth/login",
                "/v1/auth/logout",
                "/v1/auth/refresh",
                "/v1/users",
                "/v1/users/{id}",
                "/v1/users/{id}/password",
                "/v1/users/{id}/role",
                "/v1/users/{id}/sessions",
                "/v1/users/{id}/sessions/{session_id}",
            ]
        );
    }
}
