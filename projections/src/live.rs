//! The query side of a read model: its live generation, and waiting for it to show a write.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use event_store::connections::Connections;
use event_store::event::partition_of;
use event_store::read_your_writes::{self, Place};
use event_store::{Error, Log, Result};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tokio::sync::watch;
use uuid::Uuid;

use crate::generations::{self, Generation};
use crate::projector::memory_of;
use crate::read_model::{ReadModel, key_type};
use crate::remembered::Seen;

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<R, K> {
    /// The rows.
    pub rows: Vec<R>,
    /// The key of the last row, when there are more behind it.
    pub next: Option<K>,
}

/// The place of a row in a list by time, for lists whose ids are not in the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeCursor {
    /// When it came into being.
    pub created_at: DateTime<Utc>,
    /// Which one, of those of the same moment.
    pub id: Uuid,
}

impl<R, K> Page<R, K> {
    /// Makes a page of `limit` rows out of one more than that.
    pub fn cut(mut rows: Vec<R>, limit: usize, key: impl Fn(&R) -> K) -> Self {
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = if more { rows.last().map(key) } else { None };
        Self { rows, next }
    }
}

/// A read model as queries see it. Cheap to clone.
pub struct Live<M> {
    log: Log,
    current: Arc<Mutex<Current>>,
    model: PhantomData<fn() -> M>,
}

struct Current {
    /// The generation, and whether its table has what this version of the code reads.
    generation: Option<(Generation, bool)>,
    changes: watch::Receiver<u64>,
}

impl<M> Clone for Live<M> {
    fn clone(&self) -> Self {
        Self { log: self.log.clone(), current: Arc::clone(&self.current), model: PhantomData }
    }
}

impl<M: ReadModel> Live<M> {
    /// The read model in the database of `log`.
    pub fn new(log: Log) -> Self {
        let changes = log.signal().read_models();
        Self { log, current: Arc::new(Mutex::new(Current { generation: None, changes })), model: PhantomData }
    }

    /// The log whose database it stands in.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The database it stands in.
    pub fn database(&self) -> &PgPool {
        self.log.database()
    }

    /// Connections to that database for queries.
    pub fn connections(&self) -> &Connections {
        self.log.connections()
    }

    /// The generation queries read now: see [`generations::own`].
    ///
    /// # Errors
    /// When the database is unreachable.
    pub async fn generation(&self) -> Result<Generation> {
        Ok(self.look_up().await?.0)
    }

    async fn look_up(&self) -> Result<(Generation, bool)> {
        let mut seen = None;
        if let Ok(mut current) = self.current.lock() {
            if current.changes.has_changed().unwrap_or(true) {
                current.changes.mark_unchanged();
                current.generation = None;
            }
            if let Some(found) = &current.generation {
                return Ok(found.clone());
            }
            seen = Some(*current.changes.borrow());
        }
        let generation = match generations::own::<M>(self.log.database()).await? {
            Some(generation) => generation,
            None => generations::ensure::<M>(&self.log).await?,
        };
        let fits = generation.code_version() == M::VERSION
            || generations::fits::<M>(self.log.database(), &generation).await?;
        let found = (generation, fits);
        // What was looked up before a switch must not be remembered after it: nothing would correct it.
        if let Ok(mut current) = self.current.lock()
            && seen == Some(*current.changes.borrow())
        {
            current.generation = Some(found.clone());
        }
        Ok(found)
    }

    /// What the read model shows now, to compare with what it shows later; none while it is not heard what other
    /// processes write.
    ///
    /// # Errors
    /// When the database is unreachable.
    pub async fn seen(&self) -> Result<Option<Seen>> {
        let subscription = self.generation().await?.subscription();
        let version = self.log.signal().version_of(&subscription);
        Ok(version.map(|version| Seen { subscription, version }))
    }

    /// The table queries read now, with its schema. While a new version of the code builds its rows, those of
    /// the version before are shown, if they have all that is read of them.
    ///
    /// # Errors
    /// When the database is unreachable, or only rows stand there that this version cannot read.
    pub async fn table(&self) -> Result<String> {
        let (generation, fits) = self.look_up().await?;
        if !fits {
            return Err(Error::Rebuilding(M::NAME.to_owned()));
        }
        Ok(format!("{}.{}", generation.schema(), M::NAME))
    }

    /// `select <the row> from <table> t <tail>`, for [`Live::rows`] and the like.
    ///
    /// # Errors
    /// When the database is unreachable.
    pub async fn select(&self, tail: &str) -> Result<String> {
        Ok(format!("select row_to_json(t)::text as row from {} t {tail}", self.table().await?))
    }

    /// Reads the rows of a statement made by [`Live::select`], and opens what they keep sealed.
    ///
    /// # Errors
    /// When a row is not what the code of this version wrote, or a person's key cannot be read.
    pub async fn rows(&self, found: &[PgRow]) -> Result<Vec<M::Row>> {
        let mut rows = Vec::with_capacity(found.len());
        for row in found {
            let json: &str = row.try_get("row")?;
            let row: M::Row = serde_json::from_str(json).map_err(unreadable::<M>)?;
            rows.push(match M::person(&row) {
                Some(person) => self.opened(person, &row).await?,
                None => row,
            });
        }
        Ok(rows)
    }

    /// The row with a key, if a projector of this process wrote it last, as far as is known.
    async fn remembered(&self, key: &str) -> Result<Option<Arc<M::Row>>> {
        let [feed] = M::FEEDS else { return Ok(None) };
        let generation = self.generation().await?;
        let Some(memory) = memory_of::<M>(&self.log, &generation) else { return Ok(None) };
        // Asked before the row is taken: what this process has written by then is in the memory, or was forgotten.
        if !self.log.signal().is_own(&generation.subscription(), feed.service, partition_of(key)) {
            return Ok(None);
        }
        Ok(memory.lock().ok().and_then(|memory| memory.peek(key)))
    }

    async fn opened(&self, person: Uuid, row: &M::Row) -> Result<M::Row> {
        let mut value = serde_json::json!({ "row": row });
        self.log.personal().open(person, &mut value).await?;
        serde_json::from_value(value["row"].take()).map_err(unreadable::<M>)
    }

    /// The row with a key.
    ///
    /// # Errors
    /// When the database is unreachable.
    pub async fn find(&self, key: &str) -> Result<Option<M::Row>> {
        if let Some(row) = self.remembered(key).await? {
            return match M::person(&row) {
                Some(person) => self.opened(person, &row).await.map(Some),
                None => Ok(Some(M::Row::clone(&row))),
            };
        }
        let statement = self.select(&format!("where t.{} = $1::{} limit 1", M::KEY, key_type::<M>())).await?;
        let found = sqlx::query(&statement).bind(key).fetch_all(self.connections()).await?;
        Ok(self.rows(&found).await?.pop())
    }

    /// Waits until the read model shows everything up to `place`; says whether it does within `limit`.
    /// `source` is the database of the place's log, for a place whose partition is not known.
    ///
    /// # Errors
    /// When the database is unreachable.
    pub async fn wait(&self, place: &Place, source: Option<&PgPool>, limit: Duration) -> Result<bool> {
        if !M::FEEDS.iter().any(|feed| feed.service == place.source) {
            return Ok(true);
        }
        let subscription = self.generation().await?.subscription();
        read_your_writes::wait(&self.log, &[&subscription], place, source, limit).await
    }
}

fn unreadable<M: ReadModel>(source: serde_json::Error) -> Error {
    Error::Decode { what: format!("a row of {}", M::NAME), source }
}

#[cfg(test)]
mod tests {
    use embedded::testing;

    use super::*;
    use crate::orders::Customers;

    #[tokio::test]
    async fn a_look_that_began_before_a_switch_is_not_remembered_after_it() {
        let database = testing::database("live").await;
        let log = Log::open("orders", &database.url, [7; 32]).expect("the URL is good");
        log.migrate().await.expect("the migrations apply");
        // Any change after this one is the switch.
        let mut changes = log.signal().read_models();
        generations::ensure::<Customers>(&log).await.expect("made");
        let mut transaction = log.database().begin().await.expect("begins");
        let built = generations::create::<Customers>(&mut transaction, "building").await.expect("made");
        transaction.commit().await.expect("commits");
        while tokio::time::timeout(Duration::from_millis(500), changes.changed()).await.is_ok() {}
        Live::<Customers>::new(log.clone()).generation().await.expect("prepares the statement");

        let (live, early) = loop {
            let live = Live::<Customers>::new(log.clone());
            let looking = live.clone();
            let mut early = Box::pin(async move { looking.generation().await });
            // On a busy machine the answer may be there at once, and the look over before the switch.
            if futures::poll!(&mut early).is_pending() {
                break (live, early);
            }
        };
        generations::switch(&log, &built).await.expect("switches");
        changes.changed().await.expect("notified");
        live.generation().await.expect("answers");
        early.await.expect("answers");
        assert_eq!(live.generation().await.expect("answers").version, built.version);
    }
}
