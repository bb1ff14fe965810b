//! Logging in and out, and the tokens of a session.

use std::fmt::Write as _;

use axum::body::HttpBody;
use axum::extract::{FromRequest, Request, State};
use chrono::{DateTime, TimeDelta, Utc};
use event_store::{Context, Target};
use jsonwebtoken::jwk::JwkSet;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use aggregates::identifiers::SessionId;
use aggregates::users::{Account, Role, User, UserCommand};
use projections::users::user_directory;

use super::registration::PASSWORD_MAX_CHARS;
use super::{UserView, carry_out, find, placed};
use crate::auth::{Caller, role};
use crate::check::{Check, Field};
use crate::clock;
use crate::extract::{FormOrJson, Json};
use crate::problem::{Problem, ProblemBody};
use crate::routes::executed::Done;
use crate::server::ClientAddress;
use crate::service::{Answer, Write, engine, no_content, ok};
use crate::services::UsersService;
use crate::text;
use crate::tokens::RefreshToken;

/// How long a session goes on without being refreshed.
const SESSION_IDLE: TimeDelta = TimeDelta::days(15);
/// The longest name to log in with, in characters: that of an e-mail address.
const LOGIN_MAX_CHARS: usize = 254;

/// Who wants to come in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginDraft {
    /// The user name or the e-mail address.
    #[serde(default)]
    #[schema(value_type = String, required, example = "ann@example.org")]
    username: Field<String>,
    #[serde(default)]
    #[schema(value_type = String, required)]
    password: Field<String>,
    /// What OAuth 2.0 calls this way of coming in: `password`. It may be left out.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    grant_type: Field<String>,
    /// Taken and not used, like the two that follow: clients of OAuth 2.0 send them.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    scope: Field<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    client_id: Field<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    client_secret: Field<String>,
}

impl LoginDraft {
    fn check(self) -> Result<(String, SecretString), Problem> {
        let mut check = Check::new();
        check.optional("grant_type", self.grant_type, |value| match value.as_str() {
            "" | "password" => Ok(()),
            _ => Err("must be password".to_owned()),
        });
        for (name, field) in
            [("scope", self.scope), ("client_id", self.client_id), ("client_secret", self.client_secret)]
        {
            check.optional(name, field, |_| Ok(()));
        }
        let username =
            check.required("username", self.username, |value| text::line(&value, 1..=LOGIN_MAX_CHARS));
        let password = check.required("password", self.password, |value| {
            text::password(&value, 1..=PASSWORD_MAX_CHARS).map(SecretString::from)
        });
        check.finish(|| username.zip(password))
    }
}

/// The tokens of a session.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenPair {
    access_token: String,
    #[schema(example = "bearer")]
    token_type: &'static str,
    /// How long the access token is good, in seconds.
    expires_in: u64,
    /// Good for one new pair.
    refresh_token: String,
}

/// The tokens of a new session, and whose it is.
#[derive(Serialize, ToSchema)]
pub(super) struct LoggedIn {
    #[serde(flatten)]
    tokens: TokenPair,
    user: UserView,
}

impl TokenPair {
    fn issue(service: &UsersService, role: Role, refresh: &RefreshToken) -> Self {
        let lifetime = service.access_token_ttl;
        let access = service.tokens.issue(refresh.user, refresh.session, role::name_of(role), lifetime);
        Self {
            access_token: access.expose_secret().to_owned(),
            token_type: "bearer",
            expires_in: lifetime.as_secs(),
            refresh_token: refresh.expose().to_owned(),
        }
    }
}

/// Starts a session. Unknown users and wrong passwords are refused alike.
#[utoipa::path(post, path = "/v1/auth/login", tag = "users",
    request_body(content((LoginDraft = "application/json"), (LoginDraft = "application/x-www-form-urlencoded"))),
    responses(
    (status = OK, body = LoggedIn),
    (status = UNAUTHORIZED, body = ProblemBody, description = "invalid_credentials"),
    (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
    (status = TOO_MANY_REQUESTS, body = ProblemBody),
))]
pub(super) async fn log_in(
    State(service): State<UsersService>,
    ClientAddress(address): ClientAddress,
    write: Write,
    FormOrJson(draft): FormOrJson<LoginDraft>,
) -> Result<Answer<LoggedIn>, Problem> {
    let (username, password) = draft.check()?;
    service.limits.check_login_address(address)?;
    let row = user_directory::find_user_by_login(&service.directory, &username).await.map_err(engine)?;
    // An account has several names, and each is written in several ways.
    let account = row.as_ref().map_or(username, |row| row.id.to_string());
    service.limits.check_login(&account)?;
    let user = match &row {
        Some(row) => service.users.load(&row.id.to_string()).await.map_err(engine)?.aggregate,
        None => User::Unregistered,
    };
    let kept = match &user {
        User::Active(account) => account.password_hash.known().cloned(),
        User::Unregistered | User::Disabled(_) | User::Erased => None,
    };
    let right = service.passwords.verify(password, kept.clone()).await.map_err(Problem::internal)?;
    let (Some(row), true) = (row, right) else { return Err(Problem::wrong_credentials()) };

    let refresh = RefreshToken::generate(row.id, Uuid::now_v7());
    let done = start_session(&service, &refresh, &write).await?;
    let account = done.state.account().ok_or_else(Problem::wrong_credentials)?;
    if account.password_hash.known() != kept.as_ref() {
        // The password was changed while the old one was compared, which ends the sessions that it began.
        let command = UserCommand::EndSession { session_id: SessionId(refresh.session) };
        carry_out(&service, Target::Existing(row.id.to_string()), command, write.step("end")).await?;
        return Err(Problem::wrong_credentials());
    }
    let tokens = TokenPair::issue(&service, account.role, &refresh);
    let user = UserView::of(account, row.created_at);
    Ok(placed(ok(LoggedIn { tokens, user }), &done))
}

async fn start_session(
    service: &UsersService,
    refresh: &RefreshToken,
    write: &Write,
) -> Result<Done<User>, Problem> {
    let now = clock::now();
    let command = UserCommand::StartSession {
        session_id: SessionId(refresh.session),
        refresh_hash: hex(&refresh.hash()),
        expires_at: now + SESSION_IDLE,
        now,
    };
    let target = Target::Existing(refresh.user.to_string());
    let started = carry_out(service, target, command, context(write, refresh.user)).await;
    started.map_err(|problem| if refused(&problem) { Problem::wrong_credentials() } else { problem })
}

/// A refresh token as the client shows it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RefreshDraft {
    #[serde(default)]
    #[schema(value_type = String, required)]
    refresh_token: Field<String>,
}

impl RefreshDraft {
    /// The token, or `None` when there is none.
    fn shown(self) -> Result<Option<RefreshToken>, Problem> {
        let mut check = Check::new();
        // What is no token of ours is refused as such, whatever is wrong with it.
        let text = check.optional("refresh_token", self.refresh_token, Ok);
        let text = check.finish(|| text)?.filter(|text| !text.is_empty());
        text.map(|text| RefreshToken::parse(&text)).transpose().map_err(|_| Problem::unauthorized())
    }
}

/// Gives a new pair of tokens for a refresh token, which is good once: a second use ends the session.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "users", request_body = RefreshDraft, responses(
    (status = OK, body = TokenPair),
    (status = UNAUTHORIZED, body = ProblemBody),
    (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
))]
pub(super) async fn refresh_tokens(
    State(service): State<UsersService>,
    write: Write,
    Json(draft): Json<RefreshDraft>,
) -> Result<Answer<TokenPair>, Problem> {
    let missing = || Problem::invalid_field("refresh_token", "is required");
    let shown = draft.shown()?.ok_or_else(missing)?;
    let next = RefreshToken::generate(shown.user, shown.session);
    let now = clock::now();
    let command = UserCommand::RotateSession {
        session_id: SessionId(shown.session),
        presented_hash: hex(&shown.hash()),
        new_hash: hex(&next.hash()),
        expires_at: now + SESSION_IDLE,
        now,
    };
    let target = Target::Existing(shown.user.to_string());
    let rotated = carry_out(&service, target, command, context(&write, shown.user)).await;
    let done =
        rotated.map_err(|problem| if refused(&problem) { Problem::unauthorized() } else { problem })?;
    // A token that had been used before is no refusal of the domain: it ends the session.
    let account = done.state.account().filter(|account| holds(account, &next, now));
    let role = account.ok_or_else(Problem::unauthorized)?.role;
    Ok(placed(ok(TokenPair::issue(&service, role, &next)), &done))
}

/// Ends the session of the access token, or that of the refresh token when one is sent.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "users", security(("bearer" = []), ()),
    request_body = Option<RefreshDraft>, responses(
    (status = NO_CONTENT),
    (status = UNAUTHORIZED, body = ProblemBody),
    (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
))]
pub(super) async fn log_out(
    State(service): State<UsersService>,
    caller: Result<Caller, Problem>,
    write: Write,
    request: Request,
) -> Result<Answer<()>, Problem> {
    let shown = if request.body().is_end_stream() {
        None
    } else {
        Json::<RefreshDraft>::from_request(request, &()).await?.0.shown()?
    };
    let (user_id, session_id) = match shown {
        None => caller.map(|caller| (caller.user_id, caller.session_id))?,
        Some(token) => {
            let account = find(&service, token.user).await.ok();
            let account = account.filter(|account| holds(account, &token, clock::now()));
            account.map(|_| (token.user, token.session)).ok_or_else(Problem::unauthorized)?
        }
    };
    let command = UserCommand::EndSession { session_id: SessionId(session_id) };
    let target = Target::Existing(user_id.to_string());
    let context = Context { actor: Some(user_id), ..write.context() };
    let done = carry_out(&service, target, command, context).await?;
    Ok(placed(no_content(), &done))
}

/// Publishes the key that access tokens are signed with, as a JSON Web Key Set (RFC 7517).
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "users",
    responses((status = OK, body = serde_json::Value)))]
pub(super) async fn published_keys(State(service): State<UsersService>) -> axum::Json<JwkSet> {
    axum::Json(service.tokens.jwks())
}

/// A command of somebody who has just proved who they are; versions are no matter of it.
fn context(write: &Write, user_id: Uuid) -> Context<User> {
    Context { actor: Some(user_id), expected: None, ..write.context() }
}

/// Whether a problem is a refusal of the domain, which is told without its reason.
fn refused(problem: &Problem) -> bool {
    problem.status().is_client_error()
}

/// Whether a refresh token is the one that is good now.
fn holds(account: &Account, token: &RefreshToken, now: DateTime<Utc>) -> bool {
    let session = account.sessions.get(&SessionId(token.session));
    session.is_some_and(|session| session.refresh_hash == hex(&token.hash()) && session.expires_at > now)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(body: serde_json::Value) -> Result<Option<Uuid>, u16> {
        let draft: RefreshDraft = serde_json::from_value(body).expect("the body can be read");
        let shown = draft.shown().map_err(|problem| problem.status().as_u16())?;
        Ok(shown.map(|token| token.session))
    }

    #[test]
    fn only_a_refresh_token_is_one() {
        let session = Uuid::now_v7();
        let token = RefreshToken::generate(Uuid::now_v7(), session);
        assert_eq!(shown(json!({ "refresh_token": token.expose() })), Ok(Some(session)));
        assert_eq!(shown(json!({})), Ok(None));
        assert_eq!(shown(json!({"refresh_token": "eyJ.access.token"})), Err(401));
        assert_eq!(shown(json!({ "refresh_token": "x".repeat(5000) })), Err(401));
        assert_eq!(shown(json!({"refresh_token": 5})), Err(422));
    }

    #[test]
    fn hashes_are_kept_in_hexadecimal() {
        assert_eq!(hex(&[0, 15, 255]), "000fff");
    }

    #[test]
    fn a_log_in_needs_a_name_and_a_password() {
        let draft: LoginDraft = serde_json::from_value(json!({})).expect("the body can be read");
        let problem = draft.check().expect_err("both are missing");
        assert_eq!(problem.errors().keys().collect::<Vec<_>>(), ["password", "username"]);
    }
}
