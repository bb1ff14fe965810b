//! Messages to users and what became of them: one row for each.

use std::time::Duration;

use chrono::{DateTime, Utc};
use event_store::Result;
use event_store::subscription::{ApplyError, Pace};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use aggregates::notifications::{Channel, DeliveryError, NotificationEvent, Template, texts};

use crate::event::{Event, Happened};
use crate::live::{Live, Page, TimeCursor};
use crate::read_model::{Feed, PersonalData, ReadModel};

/// The read model of notifications.
pub struct MessageLog;

/// How far a message got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageStatus {
    /// It waits for its first attempt.
    Queued,
    /// It was handed to the gateway.
    Sent,
    /// The last attempt failed; there will be another.
    Failed,
    /// The last attempt failed, and no other follows.
    GivenUp,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRow {
    /// The notification.
    pub id: Uuid,
    /// To whom.
    pub user_id: Uuid,
    /// By what way.
    pub channel: Channel,
    /// With which text.
    pub template: Template,
    /// What it is about.
    pub subject: String,
    /// How far it got.
    pub status: MessageStatus,
    /// How often it was tried.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub error: Option<DeliveryError>,
    /// The event it was sent because of.
    pub cause: Uuid,
    /// The order it is about.
    pub order_id: Option<Uuid>,
    /// When it was queued.
    pub created_at: DateTime<Utc>,
    /// When it was handed to the gateway.
    pub sent_at: Option<DateTime<Utc>>,
    /// The version of the aggregate.
    pub version: i64,
}

impl ReadModel for MessageLog {
    const NAME: &'static str = "message_log";
    const VERSION: u32 = 1;
    const FEEDS: &'static [Feed] =
        &[Feed { service: "notifications", aggregates: &["notification"], personal: PersonalData::Withheld }];
    const KEY: &'static str = "id";
    const COLUMNS: &'static str = "id uuid primary key,
        user_id uuid not null,
        channel text not null,
        template text not null,
        subject text not null,
        status text not null,
        attempts bigint not null,
        error text,
        cause uuid not null,
        order_id uuid,
        created_at timestamptz not null,
        sent_at timestamptz,
        version bigint not null";
    // Most messages are sent within the time that events gather while nobody waits, and so are written once.
    const PACE: Pace = Pace {
        per_event: Duration::from_millis(100),
        most_unasked: Duration::from_millis(400),
        ..Pace::every(Duration::from_millis(100))
    };
    const INDEXES: &'static [&'static str] = &["(user_id, created_at, id)", "(created_at, id)"];

    type Row = MessageRow;

    fn fold(
        row: Option<MessageRow>,
        key: &str,
        happened: &Happened,
    ) -> std::result::Result<Option<MessageRow>, ApplyError> {
        let Event::Notification(event) = &happened.event else { return Ok(row) };
        if let NotificationEvent::NotificationQueued { user_id, template, channel, cause, order_id } = event {
            let id = key
                .parse()
                .map_err(|_| ApplyError::Event(format!("{key} is not the id of a notification")))?;
            return Ok(Some(MessageRow {
                id,
                user_id: user_id.0,
                channel: *channel,
                template: *template,
                subject: texts::subject(*template).to_owned(),
                status: MessageStatus::Queued,
                attempts: 0,
                error: None,
                cause: *cause,
                order_id: order_id.map(Into::into),
                created_at: happened.recorded_at,
                sent_at: None,
                version: happened.sequence,
            }));
        }
        let mut row = row.ok_or_else(|| ApplyError::Event(format!("notification {key} was never queued")))?;
        row.version = happened.sequence;
        match event {
            NotificationEvent::NotificationQueued { .. } => {}
            NotificationEvent::NotificationSent { attempts } => {
                row.status = MessageStatus::Sent;
                row.attempts = *attempts;
                row.error = None;
                row.sent_at = Some(happened.recorded_at);
            }
            NotificationEvent::NotificationFailed { error, attempts } => {
                row.status = MessageStatus::Failed;
                row.attempts = *attempts;
                row.error = Some(*error);
            }
            NotificationEvent::NotificationGivenUp { error, attempts } => {
                row.status = MessageStatus::GivenUp;
                row.attempts = *attempts;
                row.error = Some(*error);
            }
            NotificationEvent::NotificationRequeued => {
                row.status = MessageStatus::Queued;
                row.attempts = 0;
            }
        }
        Ok(Some(row))
    }
}

/// Messages, newest first: those to one user, or all.
///
/// # Errors
/// When the database is unreachable.
pub async fn list_messages(
    live: &Live<MessageLog>,
    user_id: Option<Uuid>,
    after: Option<TimeCursor>,
    limit: u32,
) -> Result<Page<MessageRow, TimeCursor>> {
    let statement = live
        .select(
            "where ($1::uuid is null or t.user_id = $1) \
             and ($2::timestamptz is null or (t.created_at, t.id) < ($2, $3::uuid)) \
             order by t.created_at desc, t.id desc limit $4",
        )
        .await?;
    let found = sqlx::query(&statement)
        .bind(user_id)
        .bind(after.map(|cursor| cursor.created_at))
        .bind(after.map(|cursor| cursor.id))
        .bind(i64::from(limit) + 1)
        .fetch_all(live.connections())
        .await?;
    Ok(Page::cut(live.rows(&found).await?, limit as usize, |row| TimeCursor {
        created_at: row.created_at,
        id: row.id,
    }))
}

/// The message with an id.
///
/// # Errors
/// When the database is unreachable.
pub async fn find_message(live: &Live<MessageLog>, id: Uuid) -> Result<Option<MessageRow>> {
    live.find(&id.to_string()).await
}
