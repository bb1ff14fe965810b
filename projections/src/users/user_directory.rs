//! Users as admins find them and as log-in does: one row for each living user.

use chrono::{DateTime, Utc};
use event_store::Result;
use event_store::subscription::ApplyError;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use uuid::Uuid;

use aggregates::personal::Personal;
use aggregates::text;
use aggregates::users::{Role, UserEvent};

use crate::event::{Event, Happened};
use crate::live::{Live, Page};
use crate::read_model::{Feed, PersonalData, ReadModel};

/// The read model of users.
pub struct UserDirectory;

/// A living user.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct UserRow {
    /// The user.
    pub id: Uuid,
    /// The e-mail address.
    pub email: String,
    /// The name to log in with beside the e-mail address.
    pub username: Option<String>,
    /// The first name.
    pub first_name: String,
    /// The last name.
    pub last_name: String,
    /// The phone number.
    pub phone: Option<String>,
    /// What the user may do.
    pub role: Role,
    /// Whether the user is locked out.
    pub disabled: bool,
    /// When the user registered.
    pub created_at: DateTime<Utc>,
    /// The version of the aggregate.
    pub version: i64,
    /// The e-mail address as it is compared.
    pub email_folded: String,
    /// The user name as it is compared.
    pub username_folded: Option<String>,
    /// What a search looks into.
    pub searched: String,
}

/// Tells which user it is only: the rest is personal.
impl std::fmt::Debug for UserRow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("UserRow")
            .field("id", &self.id)
            .field("role", &self.role)
            .field("disabled", &self.disabled)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl ReadModel for UserDirectory {
    const NAME: &'static str = "user_directory";
    const VERSION: u32 = 1;
    const FEEDS: &'static [Feed] =
        &[Feed { service: "users", aggregates: &["user"], personal: PersonalData::Opened }];
    const KEY: &'static str = "id";
    const COLUMNS: &'static str = "id uuid primary key,
        email text not null,
        username text,
        first_name text not null,
        last_name text not null,
        phone text,
        role text not null,
        disabled boolean not null,
        created_at timestamptz not null,
        version bigint not null,
        email_folded text not null,
        username_folded text,
        searched text not null";
    // The indexes of names are not unique: claims in the log keep names unique, and a name that went from
    // one user to another may for a moment stand in two rows.
    const INDEXES: &'static [&'static str] =
        &["(email_folded)", "(username_folded)", "(id) where role = 'admin' and not disabled"];

    type Row = UserRow;

    fn fold(
        row: Option<UserRow>,
        key: &str,
        happened: &Happened,
    ) -> std::result::Result<Option<UserRow>, ApplyError> {
        let Event::User(event) = &happened.event else { return Ok(row) };
        if let UserEvent::UserRegistered {
            user_id,
            email,
            username,
            first_name,
            last_name,
            phone,
            password_hash: _,
            role,
        } = event
        {
            let mut row = UserRow {
                id: user_id.0,
                email: email.text().to_owned(),
                username: known(username.as_ref()),
                first_name: first_name.text().to_owned(),
                last_name: last_name.text().to_owned(),
                phone: known(phone.as_ref()),
                role: *role,
                disabled: false,
                created_at: happened.recorded_at,
                version: happened.sequence,
                email_folded: String::new(),
                username_folded: None,
                searched: String::new(),
            };
            refold(&mut row);
            return Ok(Some(row));
        }
        let mut row = row.ok_or_else(|| ApplyError::Event(format!("user {key} never registered")))?;
        row.version = happened.sequence;
        match event {
            UserEvent::ProfileChanged { username, first_name, last_name, phone } => {
                row.username = known(username.as_ref());
                row.first_name = first_name.text().to_owned();
                row.last_name = last_name.text().to_owned();
                row.phone = known(phone.as_ref());
                refold(&mut row);
            }
            UserEvent::EmailChanged { email } => {
                row.email = email.text().to_owned();
                refold(&mut row);
            }
            UserEvent::RoleGranted { role } => row.role = *role,
            UserEvent::RoleRevoked { role: _ } => row.role = Role::Customer,
            UserEvent::UserDisabled => row.disabled = true,
            UserEvent::UserEnabled => row.disabled = false,
            UserEvent::UserErased { user_id: _ } => return Ok(None),
            UserEvent::UserRegistered { .. }
            | UserEvent::PasswordChanged { .. }
            | UserEvent::SessionStarted { .. }
            | UserEvent::SessionRotated { .. }
            | UserEvent::SessionReuseDetected { .. }
            | UserEvent::SessionEnded { .. } => {}
        }
        Ok(Some(row))
    }
}

fn known(value: Option<&Personal<String>>) -> Option<String> {
    value.and_then(|value| value.known().cloned())
}

/// Derives the columns that are only looked into.
fn refold(row: &mut UserRow) {
    row.email_folded = text::fold(&row.email);
    row.username_folded = row.username.as_deref().map(text::fold);
    let username = row.username.as_deref().unwrap_or_default();
    let all = format!("{}\n{username}\n{} {}", row.email, row.first_name, row.last_name);
    row.searched = text::fold(&all);
}

/// Users in the order of their ids; with `search` those whose e-mail address or names contain it, in
/// whatever case. All characters of the search stand for themselves.
///
/// # Errors
/// When the database is unreachable.
pub async fn list_users(
    live: &Live<UserDirectory>,
    search: Option<&str>,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Page<UserRow, Uuid>> {
    let statement = live
        .select(
            "where ($1::text is null or strpos(t.searched, $1) > 0) and ($2::uuid is null or t.id > $2) \
             order by t.id limit $3",
        )
        .await?;
    let found = sqlx::query(&statement)
        .bind(search.map(text::fold))
        .bind(after)
        .bind(i64::from(limit) + 1)
        .fetch_all(live.connections())
        .await?;
    Ok(Page::cut(live.rows(&found).await?, limit as usize, |row| row.id))
}

/// The user with an id; none when there is none any more.
///
/// # Errors
/// When the database is unreachable.
pub async fn find_user(live: &Live<UserDirectory>, id: Uuid) -> Result<Option<UserRow>> {
    live.find(&id.to_string()).await
}

/// The user with an e-mail address or user name, in whatever case. A user name has no `@`, so the two are
/// never confused.
///
/// # Errors
/// When the database is unreachable.
pub async fn find_user_by_login(live: &Live<UserDirectory>, login: &str) -> Result<Option<UserRow>> {
    if login.is_empty() {
        return Ok(None);
    }
    let column = if login.contains('@') { "email_folded" } else { "username_folded" };
    // Should a name stand in two rows for a moment, the younger user is the one who took it last.
    let statement = live.select(&format!("where t.{column} = $1 order by t.id desc limit 1")).await?;
    let found = sqlx::query(&statement).bind(text::fold(login)).fetch_all(live.connections()).await?;
    Ok(live.rows(&found).await?.pop())
}

/// How many admins there are who are not locked out.
///
/// # Errors
/// When the database is unreachable.
pub async fn count_admins(live: &Live<UserDirectory>) -> Result<i64> {
    let table = live.table().await?;
    let row = sqlx::query(&format!("select count(*) from {table} where role = 'admin' and not disabled"))
        .fetch_one(live.connections())
        .await?;
    Ok(row.try_get(0)?)
}

/// Whether there are admins beside `id` who are not locked out.
///
/// # Errors
/// When the database is unreachable.
pub async fn has_other_admins(live: &Live<UserDirectory>, id: Uuid) -> Result<bool> {
    let table = live.table().await?;
    let row = sqlx::query(&format!(
        "select exists (select from {table} where role = 'admin' and not disabled and id <> $1)"
    ))
    .bind(id)
    .fetch_one(live.connections())
    .await?;
    Ok(row.try_get(0)?)
}
