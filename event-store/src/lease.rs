//! Who does a piece of work that must be done by one process at a time.
//!
//! Every process that could do it joins the group; the slots of a group (the partitions of a
//! subscription, or the single one of a relay) are shared out evenly among its members. A slot is held as
//! a lease with an end, by the database's clock, so that a frozen process loses its slots as surely as a
//! dead one. A lease only keeps others from wasted work: what makes a late writer harmless is the
//! compare-and-set of its checkpoint.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::{Connection, PgPool, Row};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::Result;

/// How long a lease holds without renewal.
const HELD_FOR: Duration = Duration::from_secs(6);
/// How often leases are renewed and shared out.
const RENEWED_EVERY: Duration = Duration::from_secs(2);

/// The slots of a group this process holds.
pub type Slots = BTreeSet<i16>;

/// Keeps the leases of one process in one database.
#[derive(Clone)]
pub struct Leases {
    inner: Arc<Inner>,
    _guard: Arc<DropGuard>,
}

struct Inner {
    database: PgPool,
    owner: Uuid,
    groups: Mutex<HashMap<String, Group>>,
    changed: Notify,
}

struct Group {
    slots: i16,
    held: watch::Sender<Slots>,
}

/// A place in a group; leaving it gives the slots back.
pub struct Membership {
    inner: Arc<Inner>,
    group: String,
    held: watch::Receiver<Slots>,
}

/// Holds a name alone among all processes on a database, until it is dropped.
pub struct Alone {
    _connection: sqlx::PgConnection,
}

/// Waits until nobody else holds `name`, for decisions that need a fact no single aggregate knows.
///
/// # Errors
/// When the database is unreachable.
pub async fn alone(log: &crate::Log, name: &str) -> Result<Alone> {
    // The lock lives on a connection of its own, so that it goes with whoever holds it, however that ends.
    let mut connection = sqlx::PgConnection::connect_with(log.connect_options()).await?;
    sqlx::query("select pg_advisory_lock(hashtextextended('alone ' || $1, 0))")
        .bind(name)
        .execute(&mut connection)
        .await?;
    Ok(Alone { _connection: connection })
}

impl Leases {
    pub(crate) fn start(database: PgPool) -> Self {
        let inner = Arc::new(Inner {
            database,
            owner: Uuid::now_v7(),
            groups: Mutex::default(),
            changed: Notify::new(),
        });
        let stop = CancellationToken::new();
        let (keeper, token) = (Arc::clone(&inner), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = keeper.keep() => {}
            }
        });
        Self { inner, _guard: Arc::new(stop.drop_guard()) }
    }

    /// Joins a group of `slots` slots.
    pub fn join(&self, group: &str, slots: i16) -> Membership {
        let (sender, held) = watch::channel(Slots::new());
        if let Ok(mut groups) = self.inner.groups.lock() {
            groups.insert(group.to_owned(), Group { slots, held: sender });
        }
        self.inner.changed.notify_one();
        Membership { inner: Arc::clone(&self.inner), group: group.to_owned(), held }
    }
}

impl Membership {
    /// The slots held now; changes wake the receiver.
    pub fn held(&mut self) -> &mut watch::Receiver<Slots> {
        &mut self.held
    }

    /// Leaves the group and gives its slots back at once.
    ///
    /// # Errors
    /// When the database is unreachable; then the leases run out by themselves.
    pub async fn leave(self) -> Result<()> {
        if !self.retire() {
            return Ok(());
        }
        let prefix = format!("{}/%", self.group);
        sqlx::query("delete from event_store.leases where owner = $1 and name like $2")
            .bind(self.inner.owner)
            .bind(prefix)
            .execute(&self.inner.database)
            .await?;
        Ok(())
    }

    /// Ends the membership, unless somebody in this process has joined the group since: then the slots are
    /// theirs. Says whether it did.
    fn retire(&self) -> bool {
        let Ok(mut groups) = self.inner.groups.lock() else { return false };
        let ours =
            groups.get(&self.group).is_some_and(|group| group.held.subscribe().same_channel(&self.held));
        if ours {
            groups.remove(&self.group);
        }
        ours
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.retire();
    }
}

impl Inner {
    async fn keep(&self) {
        let mut renewed = Instant::now();
        loop {
            if self.has_groups() {
                let begun = Instant::now();
                match self.share_out().await {
                    Ok(()) => renewed = begun,
                    // The leases hold until they run out: one failed renewal gives nothing away.
                    Err(error) => {
                        tracing::debug!(%error, "leases could not be renewed");
                        if renewed.elapsed() >= HELD_FOR {
                            self.give_up();
                        }
                    }
                }
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(RENEWED_EVERY) => {}
            }
        }
    }

    fn has_groups(&self) -> bool {
        self.groups.lock().is_ok_and(|groups| !groups.is_empty())
    }

    /// Without the database nobody can know who holds what; the checkpoints decide when it is back.
    fn give_up(&self) {
        if let Ok(groups) = self.groups.lock() {
            for group in groups.values() {
                group.held.send_if_modified(|held| {
                    let any = !held.is_empty();
                    held.clear();
                    any
                });
            }
        }
    }

    async fn share_out(&self) -> Result<()> {
        let rows =
            sqlx::query("select name, owner from event_store.leases where expires_at > clock_timestamp()")
                .fetch_all(&self.database)
                .await?;
        let mut living: HashMap<String, Uuid> = HashMap::with_capacity(rows.len());
        for row in rows {
            living.insert(row.try_get("name")?, row.try_get("owner")?);
        }

        let mut wanted = Vec::new();
        let mut released = Vec::new();
        if let Ok(groups) = self.groups.lock() {
            for (name, group) in groups.iter() {
                let member = format!("{name}/member/{}", self.owner);
                let others = format!("{name}/member/");
                let members =
                    1 + living.keys().filter(|key| key.starts_with(&others) && **key != member).count()
                        as i16;
                let share = (group.slots + members - 1) / members;
                let mine = |slot: &i16| living.get(&format!("{name}/{slot}")) == Some(&self.owner);
                let free = |slot: &i16| !living.contains_key(&format!("{name}/{slot}"));
                let mut keep: Vec<i16> = (0..group.slots).filter(mine).collect();
                released.extend(keep.iter().skip(share as usize).map(|slot| format!("{name}/{slot}")));
                keep.truncate(share as usize);
                let room = share as usize - keep.len();
                keep.extend((0..group.slots).filter(free).take(room));
                wanted.push(member);
                wanted.extend(keep.iter().map(|slot| format!("{name}/{slot}")));
            }
        }
        if !released.is_empty() {
            self.publish(|name| !released.contains(name));
            sqlx::query("delete from event_store.leases where name = any($1) and owner = $2")
                .bind(&released)
                .bind(self.owner)
                .execute(&self.database)
                .await?;
        }
        let held: Vec<String> = sqlx::query_scalar(
            "insert into event_store.leases as l (name, owner, expires_at) \
             select name, $2, clock_timestamp() + make_interval(secs => $3) from unnest($1::text[]) as name order by name \
             on conflict (name) do update set owner = excluded.owner, expires_at = excluded.expires_at \
             where l.owner = excluded.owner or l.expires_at < clock_timestamp() \
             returning name",
        )
        .bind(&wanted)
        .bind(self.owner)
        .bind(HELD_FOR.as_secs_f64())
        .fetch_all(&self.database)
        .await?;
        let held: std::collections::HashSet<String> = held.into_iter().collect();
        self.publish_exactly(&held);
        Ok(())
    }

    /// Drops from what is held the slots that `keep` does not name.
    fn publish(&self, keep: impl Fn(&String) -> bool) {
        if let Ok(groups) = self.groups.lock() {
            for (name, group) in groups.iter() {
                group.held.send_if_modified(|held| {
                    let before = held.len();
                    held.retain(|slot| keep(&format!("{name}/{slot}")));
                    held.len() != before
                });
            }
        }
    }

    fn publish_exactly(&self, names: &std::collections::HashSet<String>) {
        if let Ok(groups) = self.groups.lock() {
            for (name, group) in groups.iter() {
                let slots: Slots =
                    (0..group.slots).filter(|slot| names.contains(&format!("{name}/{slot}"))).collect();
                group.held.send_if_modified(|held| {
                    let changed = *held != slots;
                    *held = slots;
                    changed
                });
            }
        }
    }
}
