//! The sessions of a user.

use axum::extract::State;
use chrono::{DateTime, Utc};
use event_store::Target;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use aggregates::identifiers::SessionId;
use aggregates::users::{Account, UserCommand};

use super::{allowed, carry_out, find, made_at, placed};
use crate::auth::Caller;
use crate::clock;
use crate::extract::{Cursor, Page, PageDraft, Path, Query};
use crate::listing::Listed;
use crate::problem::{Problem, ProblemBody};
use crate::service::{Answer, Write, no_content, ok};
use crate::services::UsersService;
use crate::text;

/// A log-in that goes on.
#[derive(Serialize, ToSchema)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(super) struct SessionView {
    id: Uuid,
    /// When the user logged in.
    created_at: Option<DateTime<Utc>>,
    /// When it is over unless it is refreshed.
    expires_at: DateTime<Utc>,
    /// Whether this is the session of the request.
    current: bool,
}

/// Lists the sessions of a user, in the order in which they began.
#[utoipa::path(get, path = "/v1/users/{id}/sessions", tag = "users", security(("bearer" = [])),
    params(("id" = String, Path, description = "the user's id, or `me`"), PageDraft), responses(
    (status = OK, body = Listed<SessionView>),
    (status = UNAUTHORIZED, body = ProblemBody),
    (status = FORBIDDEN, body = ProblemBody),
    (status = NOT_FOUND, body = ProblemBody),
    (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
))]
pub(super) async fn list_sessions(
    State(service): State<UsersService>,
    caller: Caller,
    Path(user): Path<String>,
    query: Result<Query<PageDraft>, Problem>,
) -> Result<Answer<Listed<SessionView>>, Problem> {
    let user_id = allowed(&caller, &user)?;
    let account = find(&service, user_id).await?;
    let page = Page::try_from(query?.0)?;
    let after = page.cursor.as_ref().map(Cursor::key::<u64>).transpose()?;
    let limit = usize::try_from(page.limit).map_err(Problem::internal)?;
    let (sessions, next) = living(&account, caller.session_id, clock::now(), after, limit);
    Ok(ok(Listed::new(sessions, next)))
}

/// The sessions that go on, after one of them, and the ordinal of the last if there are more.
fn living(
    account: &Account,
    current: Uuid,
    now: DateTime<Utc>,
    after: Option<u64>,
    limit: usize,
) -> (Vec<SessionView>, Option<u64>) {
    let mut living = account
        .sessions
        .iter()
        .filter(|(_, session)| session.expires_at > now && after.is_none_or(|after| session.ordinal > after))
        .collect::<Vec<_>>();
    living.sort_by_key(|(_, session)| session.ordinal);
    let more = living.len() > limit;
    living.truncate(limit);
    let next = living.last().filter(|_| more).map(|(_, session)| session.ordinal);
    let views = living.into_iter().map(|(id, session)| SessionView {
        id: id.0,
        created_at: made_at(id.0),
        expires_at: session.expires_at,
        current: id.0 == current,
    });
    (views.collect(), next)
}

/// Ends a session: its tokens are refused from now on.
#[utoipa::path(delete, path = "/v1/users/{id}/sessions/{session_id}", tag = "users",
    security(("bearer" = [])), params(
    ("id" = String, Path, description = "the user's id, or `me`"),
    ("session_id" = Uuid, Path)), responses(
    (status = NO_CONTENT),
    (status = UNAUTHORIZED, body = ProblemBody),
    (status = FORBIDDEN, body = ProblemBody),
    (status = NOT_FOUND, body = ProblemBody),
))]
pub(super) async fn end_session(
    State(service): State<UsersService>,
    caller: Caller,
    Path((user, session)): Path<(String, String)>,
    write: Write,
) -> Result<Answer<()>, Problem> {
    let user_id = allowed(&caller, &user)?;
    // Read only now: 403 goes before the 404 of an id that names nothing.
    let session_id = text::uuid(&session).map_err(|_| Problem::not_found())?;
    let command = UserCommand::EndSession { session_id: SessionId(session_id) };
    let target = Target::Existing(user_id.to_string());
    let done = carry_out(&service, target, command, write.context()).await?;
    // The domain is content when there is no such session; whoever names one here wants to know.
    if done.position == 0 {
        return Err(Problem::not_found());
    }
    Ok(placed(no_content(), &done))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aggregates::identifiers::UserId;
    use aggregates::users::{Role, Session};
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn living_sessions_are_listed_in_the_order_in_which_they_began() {
        let now = Utc::now();
        let session = |id: u128, ordinal: u64, seconds: i64| {
            let expires_at = now + TimeDelta::seconds(seconds);
            (SessionId(Uuid::from_u128(id)), Session { refresh_hash: String::new(), expires_at, ordinal })
        };
        let account = Account {
            user_id: UserId(Uuid::from_u128(1)),
            email: String::new().into(),
            username: None,
            first_name: String::new().into(),
            last_name: String::new().into(),
            phone: None,
            password_hash: String::new().into(),
            role: Role::Customer,
            sessions: BTreeMap::from([
                session(4, 1, 9),
                session(3, 2, 9),
                session(2, 3, 0),
                session(5, 4, 9),
            ]),
        };
        let ids = |after, limit| {
            let (views, next) = living(&account, Uuid::from_u128(3), now, after, limit);
            let ids = views.iter().map(|view| (view.id.as_u128(), view.current)).collect::<Vec<_>>();
            (ids, next)
        };
        assert_eq!(ids(None, 2), (vec![(4, false), (3, true)], Some(2)));
        assert_eq!(ids(Some(2), 2), (vec![(5, false)], None));
    }
}
