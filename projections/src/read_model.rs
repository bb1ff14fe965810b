//! What a read model is, and how its rows are read and written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use event_store::connections::Connections;
use event_store::event::partition_of;
use event_store::subscription::{ApplyError, Pace, RowChanges};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{PgConnection, PgExecutor};
use tokio::task::{JoinError, JoinSet};
use uuid::Uuid;

use crate::event::Happened;
use crate::memory::{RowMemory, Written};

/// Which events of a service a read model wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feed {
    /// The service.
    pub service: &'static str,
    /// The types of its aggregates.
    pub aggregates: &'static [&'static str],
    /// What becomes of their personal data.
    pub personal: PersonalData,
}

/// In what form a read model gets personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PersonalData {
    /// Not at all, or sealed: whichever way the event came. For models that keep none.
    Withheld,
    /// As it is stored. Rows keep it sealed, and queries open it: it dies with the person's key although
    /// no event removes it from the rows. Only of the service's own events.
    Sealed,
    /// In the clear, for models that search it; an event must remove it. Only of the service's own events.
    Opened,
}

/// A read model: a table whose rows are folds of events.
///
/// A row is a struct whose fields are the columns of the table, by name. Each event concerns some rows, named
/// by their keys; each of these rows is folded with it. Rows that come out the same are not written.
pub trait ReadModel: Send + Sync + 'static {
    /// Its name: of the table, of the rebuild, of its metrics.
    const NAME: &'static str;
    /// Raised when the table or the fold changes: what stands under an older version is rebuilt.
    const VERSION: u32;
    /// What it reads.
    const FEEDS: &'static [Feed];
    /// The column of the primary key, of type `text` or `uuid`.
    const KEY: &'static str;
    /// The columns of the table, the primary key included.
    const COLUMNS: &'static str;
    /// Whether each row is made of the events of one aggregate, the one whose id is its key. Such rows are written
    /// without locks, and those written last need not be read.
    const OF_ONE_STREAM: bool = true;
    /// How soon after one batch of events the next is written.
    const PACE: Pace = Pace::ROWS;
    /// Secondary indexes: what follows `create index … on table`, such as `(user_id, created_at desc)`.
    const INDEXES: &'static [&'static str] = &[];

    /// A row.
    type Row: Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync;

    /// Whose key opens the sealed fields of a row; none when it has none.
    fn person(_row: &Self::Row) -> Option<Uuid> {
        None
    }

    /// The keys of the rows an event concerns: the row of its aggregate, unless rows are of several streams.
    fn keys(happened: &Happened) -> Vec<String> {
        vec![happened.aggregate_id.clone()]
    }

    /// The row after an event; none when it is gone, or there never was one.
    ///
    /// # Errors
    /// [`ApplyError::Event`] when the event makes no sense here.
    fn fold(row: Option<Self::Row>, key: &str, happened: &Happened) -> Result<Option<Self::Row>, ApplyError>;
}

/// Rows on their way through a fold, by key.
pub(crate) struct Rows<M: ReadModel> {
    rows: HashMap<String, Slot<M::Row>>,
}

struct Slot<R> {
    stored: Option<Arc<R>>,
    now: Option<R>,
}

impl<M: ReadModel> Default for Rows<M> {
    fn default() -> Self {
        Self { rows: HashMap::new() }
    }
}

impl<M: ReadModel> Rows<M> {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Keeps others from reading and writing the rows of `keys`, until the transaction ends.
    ///
    /// Events of several streams may concern one row, and processes share the partitions of a subscription:
    /// without this the later of two writers would undo what the earlier one wrote. Rows that do not exist yet
    /// cannot be locked; what is locked is the partition their key would have, which for a row of one stream
    /// is a partition nobody else writes.
    pub(crate) async fn reserve(
        &self,
        transaction: &mut PgConnection,
        schema: &str,
        keys: impl Iterator<Item = String>,
    ) -> Result<(), ApplyError> {
        let partitions: BTreeSet<i16> = keys.map(|key| partition_of(&key)).collect();
        // In order, so that no two wait for each other.
        let partitions: Vec<i16> = partitions.into_iter().collect();
        sqlx::query(
            "select pg_advisory_xact_lock(hashtextextended('rows ' || $1 || ' ' || partition, 0)) \
             from unnest($2::smallint[]) as partition",
        )
        .bind(schema)
        .bind(partitions)
        .execute(transaction)
        .await?;
        Ok(())
    }

    /// Takes the rows that events concern out of the memory, as far as they are there, and those that an aggregate
    /// begins with, which cannot be stored yet.
    ///
    /// # Errors
    /// [`ApplyError::Event`] when a row has another key than the aggregate of its events.
    pub(crate) fn recall(
        &mut self,
        memory: &mut RowMemory<M::Row>,
        happened: &[Arc<Happened>],
    ) -> Result<(), ApplyError> {
        for one in happened {
            for key in M::keys(one) {
                if key != one.aggregate_id {
                    let name = M::NAME;
                    return Err(ApplyError::Event(format!("row {key} of {name} is not of one stream")));
                }
                if self.rows.contains_key(&key) {
                    continue;
                }
                let remembered = memory.get(&key);
                if remembered.is_some() || one.sequence == 1 {
                    let now = remembered.as_deref().cloned();
                    self.rows.insert(key, Slot { stored: remembered, now });
                }
            }
        }
        Ok(())
    }

    /// Reads the rows of `keys` that are not here yet.
    pub(crate) async fn fetch(
        &mut self,
        executor: impl PgExecutor<'_>,
        schema: &str,
        keys: impl Iterator<Item = String>,
    ) -> Result<(), ApplyError> {
        let missing: Vec<String> = {
            let mut wanted: Vec<String> = keys.filter(|key| !self.rows.contains_key(key)).collect();
            wanted.sort_unstable();
            wanted.dedup();
            wanted
        };
        if missing.is_empty() {
            return Ok(());
        }
        let (key, name) = (M::KEY, M::NAME);
        let found: Vec<(String, String)> = sqlx::query_as(&format!(
            "select t.{key}::text, row_to_json(t)::text from {schema}.{name} t \
             where t.{key} = any($1::text[]::{}[])",
            key_type::<M>()
        ))
        .bind(&missing)
        .fetch_all(executor)
        .await?;
        for key in missing {
            self.rows.insert(key, Slot { stored: None, now: None });
        }
        for (key, json) in found {
            let row: M::Row = serde_json::from_str(&json)
                .map_err(|error| ApplyError::Event(format!("row {key} of {name}: {error}")))?;
            self.rows.insert(key, Slot { stored: Some(Arc::new(row.clone())), now: Some(row) });
        }
        Ok(())
    }

    /// Says that the keys not here yet have no stored row.
    pub(crate) fn assume_new(&mut self, keys: impl Iterator<Item = String>) {
        for key in keys {
            self.rows.entry(key).or_insert(Slot { stored: None, now: None });
        }
    }

    /// Folds an event into the rows it concerns.
    pub(crate) fn fold(&mut self, happened: &Happened) -> Result<(), ApplyError> {
        for key in M::keys(happened) {
            let slot = self
                .rows
                .get_mut(&key)
                .ok_or_else(|| ApplyError::Event(format!("row {key} of {} was not fetched", M::NAME)))?;
            let row = slot.now.take();
            slot.now = M::fold(row, &key, happened)?;
        }
        Ok(())
    }

    /// Writes the rows that changed, once each, in the order of their keys. What is here is used up by that.
    pub(crate) async fn store(self, connection: &mut PgConnection, schema: &str) -> Result<(), ApplyError> {
        let Changed { rows, removed } = self.changed();
        let name = M::NAME;
        if !removed.is_empty() {
            sqlx::query(&delete::<M>(schema, 1)).bind(&removed).execute(&mut *connection).await?;
        }
        let rows: Vec<M::Row> = rows.into_values().collect();
        for chunk in rows.chunks(STORED_ROWS) {
            let json = serde_json::to_string(chunk)
                .map_err(|error| ApplyError::Event(format!("a row of {name}: {error}")))?;
            sqlx::query(&upsert::<M>(schema)).bind(json).execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// As [`Rows::store`], for many rows that nobody reads or writes meanwhile: some chunks of them at a time.
    pub(crate) async fn store_many(self, connections: &Connections, schema: &str) -> Result<(), ApplyError> {
        let Changed { rows, removed } = self.changed();
        if !removed.is_empty() {
            sqlx::query(&delete::<M>(schema, 1)).bind(&removed).execute(connections).await?;
        }
        let upsert: Arc<str> = upsert::<M>(schema).into();
        let mut rows = rows.into_values();
        let mut writing: JoinSet<Result<(), ApplyError>> = JoinSet::new();
        loop {
            let chunk: Vec<M::Row> = rows.by_ref().take(STORED_ROWS).collect();
            if chunk.is_empty() || writing.len() >= STORED_AT_ONCE {
                match writing.join_next().await {
                    Some(written) => written.map_err(|error| ApplyError::Engine(ended(&error)))??,
                    None => return Ok(()),
                }
            }
            if chunk.is_empty() {
                continue;
            }
            let (connections, upsert) = (connections.clone(), Arc::clone(&upsert));
            writing.spawn(async move {
                let json = serde_json::to_string(&chunk)
                    .map_err(|error| ApplyError::Event(format!("a row of {}: {error}", M::NAME)))?;
                drop(chunk);
                sqlx::query(&upsert).bind(json).execute(&connections).await?;
                Ok(())
            });
        }
    }

    /// The rows that changed, as they are written by one statement and as they are to be remembered.
    pub(crate) fn changes(self, schema: &str) -> Result<(RowChanges, ToRemember<M::Row>), ApplyError> {
        let Changed { rows, removed } = self.changed();
        let mut to_remember: ToRemember<M::Row> = removed.iter().map(|key| (key.clone(), None)).collect();
        let mut json = Vec::with_capacity(rows.len() * 512);
        json.push(b'[');
        for (key, row) in rows {
            if json.len() > 1 {
                json.push(b',');
            }
            let before = json.len();
            serde_json::to_writer(&mut json, &row)
                .map_err(|error| ApplyError::Event(format!("a row of {}: {error}", M::NAME)))?;
            to_remember.push((key, Some((Arc::new(row), json.len() - before))));
        }
        json.push(b']');
        let rows = String::from_utf8(json).map_err(|error| ApplyError::Event(error.to_string()))?;
        let changes =
            RowChanges { upsert: upsert::<M>(schema), rows, delete: delete::<M>(schema, 2), removed };
        Ok((changes, to_remember))
    }

    fn changed(self) -> Changed<M::Row> {
        let mut changed = Changed { rows: BTreeMap::new(), removed: Vec::new() };
        for (key, Slot { stored, now }) in self.rows {
            match (stored, now) {
                (stored, Some(now)) if stored.as_deref() != Some(&now) => {
                    changed.rows.insert(key, now);
                }
                (Some(_), None) => changed.removed.push(key),
                (_, Some(_)) | (None, None) => {}
            }
        }
        changed.removed.sort_unstable();
        changed
    }
}

/// Rows that are not what is stored, by key, and the keys of rows that are no more.
struct Changed<R> {
    rows: BTreeMap<String, R>,
    removed: Vec<String>,
}

/// Rows on their way into a [`RowMemory`].
pub(crate) type ToRemember<R> = Vec<(String, Option<Written<R>>)>;

/// How many rows are written by one statement.
const STORED_ROWS: usize = 5_000;
/// How many such statements are under way at the same time, where nobody else needs the rows.
pub(crate) const STORED_AT_ONCE: usize = 2;

fn ended(error: &JoinError) -> event_store::Error {
    event_store::Error::Malformed(format!("the writing of rows ended: {error}"))
}

pub(crate) fn key_type<M: ReadModel>() -> &'static str {
    columns::<M>().find(|(name, _)| *name == M::KEY).map_or("text", |(_, kind)| kind)
}

/// The names and types of the columns.
pub(crate) fn columns<M: ReadModel>() -> impl Iterator<Item = (&'static str, &'static str)> {
    M::COLUMNS.split(",\n").filter_map(|column| {
        let mut words = column.split_whitespace();
        Some((words.next()?, words.next()?))
    })
}

/// A statement that deletes the rows whose keys are in the parameter with a number.
fn delete<M: ReadModel>(schema: &str, parameter: u8) -> String {
    let (key, name) = (M::KEY, M::NAME);
    format!("delete from {schema}.{name} where {key} = any(${parameter}::text[]::{}[])", key_type::<M>())
}

fn upsert<M: ReadModel>(schema: &str) -> String {
    let (key, name) = (M::KEY, M::NAME);
    let names: Vec<&str> = columns::<M>().map(|(name, _)| name).collect();
    let all = names.join(", ");
    let set: Vec<String> =
        names.iter().filter(|name| **name != key).map(|name| format!("{name} = excluded.{name}")).collect();
    format!(
        "insert into {schema}.{name} ({all}) \
         select {all} from json_populate_recordset(null::{schema}.{name}, $1::json) \
         on conflict ({key}) do update set {}",
        set.join(", ")
    )
}
