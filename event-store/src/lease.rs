//! Who does a piece of work that must be done by one process at a time.
//!
//! Every process that could do it joins the group; the slots of a group (the partitions of a
//! subscription, or the single one of a relay) are shared out evenly among its members. A slot is held as
//! a lease with an end, by the database's clock, so that a frozen process loses its slots as surely as a
//! dead one. A dead one loses them at once: its leases name an advisory lock of the session that renews
//! them, and PostgreSQL frees that lock as soon as the process is gone. A lease only keeps others from wasted
//! work: what makes a late writer harmless is the compare-and-set of its checkpoint. Slots change hands when whoever
//! works on them has finished what it had begun, so that nothing is done twice while nothing is broken.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgPool, Row};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::{Error, Result, crash_point};

/// How long a lease holds without renewal.
const HELD_FOR: Duration = Duration::from_secs(6);
/// How often leases are renewed and shared out.
const RENEWED_EVERY: Duration = Duration::from_secs(2);
/// How long whoever works on a slot that another process is to have may take to let go of it; looked at when leases are
/// shared out.
const LET_GO_WITHIN: Duration = Duration::from_secs(6);
/// How long a renewal may take: a session that hangs is given up while the leases still hold.
const RENEWED_WITHIN: Duration = Duration::from_secs(3);

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
    options: PgConnectOptions,
    owner: Uuid,
    groups: Mutex<HashMap<String, Group>>,
    /// Held while leases are shared out or given back: what is given back must not be renewed by a sharing out
    /// that had counted on it.
    sharing: tokio::sync::Mutex<()>,
    changed: Notify,
}

struct Group {
    slots: i16,
    held: watch::Sender<Slots>,
    /// What is worked on, which may be more than what is held.
    in_use: Arc<Mutex<Slots>>,
    /// Since when some are in use that another process is to have.
    letting_go: Option<Instant>,
}

impl Group {
    /// Divides slots that others are to have into those that may go and those that are still in use.
    fn let_go(&mut self, surplus: Slots) -> (Slots, Slots) {
        let in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, free): (Slots, Slots) = surplus.into_iter().partition(|slot| in_use.contains(slot));
        if kept.is_empty() {
            self.letting_go = None;
            return (free, kept);
        }
        if self.letting_go.get_or_insert_with(Instant::now).elapsed() < LET_GO_WITHIN {
            return (free, kept);
        }
        // It hangs: the checkpoints see to it that it does no harm.
        (free.union(&kept).copied().collect(), Slots::new())
    }
}

/// The session that renews the leases of a process, and the lock it holds for as long as it lives.
struct Session {
    connection: PgConnection,
    guard: i64,
}

impl Session {
    async fn open(options: &PgConnectOptions) -> Result<Self> {
        let mut connection = PgConnection::connect_with(options).await?;
        // A number of its own for each session: the one before may not have been noticed to be gone.
        let guard = rand::rng().random();
        sqlx::query("select pg_advisory_lock($1)").bind(guard).execute(&mut connection).await?;
        // Processes that did not leave are not heard of again: each has an owner of its own.
        sqlx::query(
            "delete from event_store.leases where expires_at < clock_timestamp() - interval '1 hour'",
        )
        .execute(&mut connection)
        .await?;
        Ok(Self { connection, guard })
    }
}

/// A lease that has not run out.
struct Lease {
    name: String,
    owner: Uuid,
    guard: i64,
    /// Whether the session it names is there.
    guarded: bool,
}

/// A place in a group; leaving it gives the slots back.
pub struct Membership {
    inner: Arc<Inner>,
    group: String,
    held: watch::Receiver<Slots>,
    in_use: Arc<Mutex<Slots>>,
}

/// Work on slots that no other process gets until it is dropped, unless that takes long.
pub struct InUse {
    inner: Arc<Inner>,
    held: watch::Receiver<Slots>,
    in_use: Arc<Mutex<Slots>>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        let used = std::mem::take(&mut *self.in_use.lock().unwrap_or_else(PoisonError::into_inner));
        if !used.is_subset(&self.held.borrow()) {
            self.inner.changed.notify_one();
        }
    }
}

/// Holds a name alone among all processes on a database, until it is dropped.
pub struct Alone {
    _connection: PgConnection,
}

/// Waits until nobody else holds `name`, for decisions that need a fact no single aggregate knows.
///
/// # Errors
/// When the database is unreachable.
pub async fn alone(log: &crate::Log, name: &str) -> Result<Alone> {
    // The lock lives on a connection of its own, so that it goes with whoever holds it, however that ends.
    let mut connection = PgConnection::connect_with(log.connect_options()).await?;
    sqlx::query("select pg_advisory_lock(hashtextextended('alone ' || $1, 0))")
        .bind(name)
        .execute(&mut connection)
        .await?;
    Ok(Alone { _connection: connection })
}

impl Leases {
    pub(crate) fn start(database: PgPool, options: PgConnectOptions) -> Self {
        let inner = Arc::new(Inner {
            database,
            options,
            owner: Uuid::now_v7(),
            groups: Mutex::default(),
            sharing: tokio::sync::Mutex::default(),
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
        let in_use = Arc::new(Mutex::new(Slots::new()));
        if let Ok(mut groups) = self.inner.groups.lock() {
            let in_use = Arc::clone(&in_use);
            groups.insert(group.to_owned(), Group { slots, held: sender, in_use, letting_go: None });
        }
        self.inner.changed.notify_one();
        Membership { inner: Arc::clone(&self.inner), group: group.to_owned(), held, in_use }
    }
}

impl Membership {
    /// The slots held now; changes wake the receiver.
    pub fn held(&mut self) -> &mut watch::Receiver<Slots> {
        &mut self.held
    }

    /// The slots held now, and what keeps others from getting them while they are worked on. To be dropped soon after
    /// some of them are not held any more.
    pub fn take_up(&mut self) -> (Slots, InUse) {
        // Nobody looks at what is in use between the two: it is looked at when what is held is told.
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = self.held.borrow_and_update().clone();
        in_use.clone_from(&slots);
        let (inner, held) = (Arc::clone(&self.inner), self.held.clone());
        (slots, InUse { inner, held, in_use: Arc::clone(&self.in_use) })
    }

    /// Leaves the group and gives its slots back at once.
    ///
    /// # Errors
    /// When the database is unreachable; then the leases run out by themselves.
    pub async fn leave(self) -> Result<()> {
        if !self.retire() {
            return Ok(());
        }
        let _sharing = self.inner.sharing.lock().await;
        if self.inner.is_member(&self.group) {
            // Somebody in this process has joined again: the slots are theirs.
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
        let mut session = None;
        loop {
            if self.has_groups() {
                let begun = Instant::now();
                let renewal = tokio::time::timeout(RENEWED_WITHIN, self.renew(session.take())).await;
                match renewal.unwrap_or(Err(Error::Unavailable(sqlx::Error::PoolTimedOut))) {
                    Ok(open) => {
                        renewed = begun;
                        session = Some(open);
                    }
                    // What is held is kept until it would have run out: one failed renewal is no reason to
                    // stop, and who takes the leases meanwhile is fenced by the checkpoints.
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

    fn is_member(&self, group: &str) -> bool {
        self.groups.lock().is_ok_and(|groups| groups.contains_key(group))
    }

    /// Shares the slots out over a session, a new one unless there is one; gives it back when it is good.
    async fn renew(&self, session: Option<Session>) -> Result<Session> {
        let mut session = match session {
            Some(session) => session,
            None => Session::open(&self.options).await?,
        };
        self.share_out(&mut session).await?;
        Ok(session)
    }

    async fn share_out(&self, session: &mut Session) -> Result<()> {
        let _sharing = self.sharing.lock().await;
        let leases = leases(&mut session.connection).await?;
        let (guarded, orphaned): (Vec<Lease>, Vec<Lease>) =
            leases.into_iter().partition(|lease| lease.guarded);
        let dead: Vec<i64> = orphaned.iter().map(|lease| lease.guard).collect();
        let living: HashMap<String, Uuid> =
            guarded.into_iter().map(|lease| (lease.name, lease.owner)).collect();

        let mut wanted = Vec::new();
        let mut released = Vec::new();
        let mut kept = HashSet::new();
        if let Ok(mut groups) = self.groups.lock() {
            for (name, group) in groups.iter_mut() {
                let member = format!("{name}/member/{}", self.owner);
                let others = format!("{name}/member/");
                let members =
                    1 + living.keys().filter(|key| key.starts_with(&others) && **key != member).count()
                        as i16;
                let share = (group.slots + members - 1) / members;
                let mine = |slot: &i16| living.get(&format!("{name}/{slot}")) == Some(&self.owner);
                let free = |slot: &i16| !living.contains_key(&format!("{name}/{slot}"));
                let lease = |slot: i16| format!("{name}/{slot}");
                let mut keep: Vec<i16> = (0..group.slots).filter(mine).collect();
                let surplus: Slots = keep.split_off(keep.len().min(share as usize)).into_iter().collect();
                group.held.send_if_modified(|held| {
                    let before = held.len();
                    held.retain(|slot| !surplus.contains(slot));
                    held.len() != before
                });
                let (free_to_go, in_use) = group.let_go(surplus);
                released.extend(free_to_go.into_iter().map(lease));
                kept.extend(in_use.into_iter().map(lease));
                let room = share as usize - keep.len();
                keep.extend((0..group.slots).filter(free).take(room));
                wanted.push(member);
                wanted.extend(keep.into_iter().map(lease));
            }
        }
        wanted.extend(kept.iter().cloned());
        if !released.is_empty() {
            sqlx::query("delete from event_store.leases where name = any($1) and owner = $2")
                .bind(&released)
                .bind(self.owner)
                .execute(&mut session.connection)
                .await?;
        }
        let options = self.database.connect_options();
        crash_point!("leases-before-renewal", options.get_database().unwrap_or_default());
        let held: Vec<String> = sqlx::query_scalar(
            "insert into event_store.leases as l (name, owner, expires_at, guard) \
             select name, $2, clock_timestamp() + make_interval(secs => $3), $4 \
             from unnest($1::text[]) as name order by name \
             on conflict (name) do update \
                 set owner = excluded.owner, expires_at = excluded.expires_at, guard = excluded.guard \
             where l.owner = excluded.owner or l.expires_at < clock_timestamp() or l.guard = any($5) \
             returning name",
        )
        .bind(&wanted)
        .bind(self.owner)
        .bind(HELD_FOR.as_secs_f64())
        .bind(session.guard)
        .bind(&dead)
        .fetch_all(&mut session.connection)
        .await?;
        self.publish(&held.into_iter().filter(|name| !kept.contains(name)).collect());
        Ok(())
    }

    /// Tells all groups which of their slots are held.
    fn publish(&self, names: &HashSet<String>) {
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

/// The leases that have not run out, and which of them have lost their owner all the same: the lock of its session
/// is free.
async fn leases(connection: &mut PgConnection) -> Result<Vec<Lease>> {
    // The locks are looked at once: meanwhile nobody on the whole server gets one.
    let rows = sqlx::query(
        "with locked as materialized ( \
             select classid::bigint << 32 | objid::bigint as guard from pg_locks \
             where locktype = 'advisory' and objsubid = 1 and granted \
               and database = (select oid from pg_database where datname = current_database()) \
         ) \
         select name, owner, guard, guard in (select guard from locked) as guarded \
         from event_store.leases where expires_at > clock_timestamp()",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Lease {
                name: row.try_get("name")?,
                owner: row.try_get("owner")?,
                guard: row.try_get("guard")?,
                guarded: row.try_get("guarded")?,
            })
        })
        .collect()
}
