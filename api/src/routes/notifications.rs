//! Messages to users, and trying those again that could not be delivered.

use axum::extract::State;
use chrono::{DateTime, Utc};
use event_store::Target;
use projections::TimeCursor;
use projections::notifications::message_log::{self, MessageRow, MessageStatus};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use aggregates::notifications::{Notification, NotificationCommand, NotificationError, Progress};

use crate::auth::Caller;
use crate::extract::{Page, PageDraft, Path, Query};
use crate::listing::Listed;
use crate::problem::{Problem, ProblemBody};
use crate::routes::executed::carry_out;
use crate::service::{self, Answer, Write, engine, ok};
use crate::services::NotificationsService;

/// The name of the service in positions.
const NOTIFICATIONS: &str = "notifications";

/// The routes of the notifications, without what surrounds them.
pub fn paths() -> OpenApiRouter<NotificationsService> {
    OpenApiRouter::new().routes(routes!(list_notifications)).routes(routes!(retry_notification))
}

/// The routes of the notifications.
pub fn routes(service: NotificationsService) -> OpenApiRouter {
    let surroundings = service.surroundings.clone();
    service::surround(paths().with_state(service), surroundings)
}

/// A message. Its address is not kept: it is asked for when the message is sent.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct NotificationView {
    id: Uuid,
    user_id: Uuid,
    /// `email` or `sms`.
    #[schema(example = "email")]
    channel: &'static str,
    #[schema(example = "order_received")]
    template: &'static str,
    subject: String,
    /// `queued`, `sent`, `failed` (there will be another attempt) or `given_up`.
    #[schema(example = "sent")]
    status: &'static str,
    /// How often it was tried.
    attempts: u32,
    created_at: DateTime<Utc>,
    sent_at: Option<DateTime<Utc>>,
}

impl NotificationView {
    fn of_row(row: MessageRow) -> Self {
        Self {
            id: row.id,
            user_id: row.user_id,
            channel: row.channel.name(),
            template: row.template.name(),
            subject: row.subject,
            status: match row.status {
                MessageStatus::Queued => "queued",
                MessageStatus::Sent => "sent",
                MessageStatus::Failed => "failed",
                MessageStatus::GivenUp => "given_up",
            },
            attempts: row.attempts,
            created_at: row.created_at,
            sent_at: row.sent_at,
        }
    }

    /// The row of a message that has moved on since.
    fn after(row: MessageRow, notification: &Notification) -> Self {
        let view = Self::of_row(row);
        match notification {
            Notification::Unqueued => view,
            Notification::Queued { attempts, progress, .. } => {
                let status = match progress {
                    Progress::Waiting if *attempts == 0 => "queued",
                    Progress::Waiting => "failed",
                    Progress::Sent => "sent",
                    Progress::GivenUp => "given_up",
                };
                Self { status, attempts: *attempts, ..view }
            }
        }
    }
}

/// Lists the messages to the caller, to an admin those to everybody; the newest first.
#[utoipa::path(get, path = "/v1/notifications", tag = "notifications", params(PageDraft),
    security(("bearer" = [])),
    responses(
        (status = OK, body = Listed<NotificationView>),
        (status = UNAUTHORIZED, body = ProblemBody),
        (status = UNPROCESSABLE_ENTITY, body = ProblemBody),
    ))]
async fn list_notifications(
    State(service): State<NotificationsService>,
    caller: Caller,
    Query(page): Query<PageDraft>,
) -> Result<Answer<Listed<NotificationView>>, Problem> {
    let page = Page::try_from(page)?;
    let after = page.cursor.as_ref().map(|cursor| cursor.key::<TimeCursor>()).transpose()?;
    let of = if caller.is_admin() { None } else { Some(caller.user_id) };
    let messages = message_log::list_messages(&service.messages, of, after, page.limit);
    let messages = messages.await.map_err(engine)?;
    Ok(ok(Listed::of(messages, NotificationView::of_row)))
}

/// Tries a message again that was given up. One that waits for its next attempt stays as it is.
#[utoipa::path(post, path = "/v1/notifications/{id}/retry", tag = "notifications",
    params(("id" = Uuid, Path)), security(("bearer" = [])),
    responses(
        (status = OK, body = NotificationView, headers(("ETag" = String))),
        (status = UNAUTHORIZED, body = ProblemBody),
        (status = NOT_FOUND, body = ProblemBody),
        (status = CONFLICT, body = ProblemBody, description = "it was sent: `already_sent`"),
        (status = PRECONDITION_FAILED, body = ProblemBody, description = "If-Match names another version"),
    ))]
async fn retry_notification(
    State(service): State<NotificationsService>,
    caller: Caller,
    Path(id): Path<Uuid>,
    write: Write,
) -> Result<Answer<NotificationView>, Problem> {
    let row = message_log::find_message(&service.messages, id).await.map_err(engine)?;
    let row = row.filter(|row| caller.is_admin() || row.user_id == caller.user_id);
    let row = row.ok_or_else(Problem::not_found)?;
    let target = Target::Existing(id.to_string());
    let command = NotificationCommand::Retry;
    let done = carry_out(&service.notifications, target, command, write.context(), problem).await?;
    let view = NotificationView::after(row, &done.state);
    Ok(ok(view).with_version(done.version).with_position(NOTIFICATIONS, &done.id, done.position))
}

fn problem(refusal: NotificationError) -> Problem {
    match refusal {
        NotificationError::NotQueued => Problem::not_found(),
        NotificationError::AlreadySent => Problem::conflict("already_sent", "this message was sent already"),
        NotificationError::GivenUp => Problem::conflict("given_up", "this message was given up"),
    }
}

#[cfg(test)]
mod tests {
    use aggregates::identifiers::UserId;
    use aggregates::notifications::{Channel, DeliveryError, Template};
    use serde_json::json;

    use super::*;

    fn row() -> MessageRow {
        MessageRow {
            id: Uuid::from_u128(1),
            user_id: Uuid::from_u128(2),
            channel: Channel::Email,
            template: Template::OrderReceived,
            subject: "Order Confirmation".to_owned(),
            status: MessageStatus::GivenUp,
            attempts: 8,
            error: Some(DeliveryError::Unreachable),
            cause: Uuid::from_u128(3),
            order_id: None,
            created_at: DateTime::UNIX_EPOCH,
            sent_at: None,
            version: 9,
        }
    }

    #[test]
    fn a_message_is_shown_without_its_address() {
        assert_eq!(
            serde_json::to_value(NotificationView::of_row(row())).expect("a view is JSON"),
            json!({
                "id": Uuid::from_u128(1), "user_id": Uuid::from_u128(2), "channel": "email",
                "template": "order_received", "subject": "Order Confirmation", "status": "given_up",
                "attempts": 8, "created_at": "1970-01-01T00:00:00Z", "sent_at": null,
            })
        );
    }

    #[test]
    fn a_message_that_is_tried_again_is_shown_as_queued() {
        let notification = Notification::Queued {
            user_id: UserId(Uuid::from_u128(2)),
            template: Template::OrderReceived,
            channel: Channel::Email,
            cause: Uuid::from_u128(3),
            order_id: None,
            attempts: 0,
            progress: Progress::Waiting,
        };
        let view = NotificationView::after(row(), &notification);
        assert_eq!((view.status, view.attempts), ("queued", 0));
    }

    #[test]
    fn a_message_that_was_sent_is_not_sent_again() {
        let problem = problem(NotificationError::AlreadySent);
        assert_eq!((problem.status().as_u16(), problem.code()), (409, "already_sent"));
    }
}
