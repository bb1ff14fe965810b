//! Loads of aggregates, many in one query: from what is remembered or the newest snapshot, then the events after it.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use cqrs_es::Aggregate;
use cqrs_es::persist::SerializedEvent;
use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::Behaviour;
use crate::feed;
use crate::log::Log;
use crate::memory::Seen;
use crate::snapshots::{self, Snapshot};
use crate::{Error, Recorded, Result};

/// How many aggregates are loaded in one query at most.
const BATCH_AGGREGATES: usize = 512;
/// How many such queries run at the same time.
const CONCURRENT_QUERIES: usize = 2;
/// How many loads wait at most.
const QUEUED_LOADS: usize = 16_384;

/// An aggregate and its version.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded<A> {
    /// The state.
    pub aggregate: A,
    /// The version: the sequence of the last event, 0 when there is none.
    pub version: i64,
    /// That event; none when it is not known.
    pub(crate) last: Option<Seen>,
    /// When the first event was recorded; none when that is not known, as of a state that a snapshot was taken of.
    pub begun_at: Option<DateTime<Utc>>,
    /// The version of the newest snapshot.
    pub snapshot: i64,
    /// The life of the log in which it was read.
    pub(crate) life: u64,
    /// In which time of being alone this process brought the log to this version. What was only read may have been
    /// overtaken by an append that was on its way.
    pub(crate) left_in: Option<u64>,
}

impl<A> Loaded<A> {
    /// An aggregate as its log had it when it was at a version.
    pub fn at(aggregate: A, version: i64) -> Self {
        Self { aggregate, version, last: None, begun_at: None, snapshot: 0, life: 0, left_in: None }
    }

    /// The position of the last event, if it is known.
    pub fn position(&self) -> Option<i64> {
        self.last.map(|(position, _)| position)
    }
}

impl<A: Default> Loaded<A> {
    /// An aggregate to which nothing has happened, in a life of its log.
    pub(super) fn unborn(life: u64) -> Self {
        Self { life, ..Self::at(A::default(), 0) }
    }
}

struct Load<A> {
    id: String,
    /// What is remembered of it, perhaps of long ago.
    remembered: Option<Loaded<A>>,
    reply: oneshot::Sender<Result<Loaded<A>>>,
}

pub(super) struct Loader<A> {
    queue: mpsc::Sender<Load<A>>,
}

impl<A: Aggregate + Clone + 'static> Loader<A> {
    pub(super) fn start(log: Log, behaviour: Arc<Behaviour<A>>) -> Self {
        let (queue, mut loads) = mpsc::channel::<Load<A>>(QUEUED_LOADS);
        tokio::spawn(async move {
            let slots = Arc::new(Semaphore::new(CONCURRENT_QUERIES));
            while let Some(first) = loads.recv().await {
                tokio::task::yield_now().await;
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
                let mut batch = vec![first];
                while batch.len() < BATCH_AGGREGATES {
                    match loads.try_recv() {
                        Ok(load) => batch.push(load),
                        Err(_) => break,
                    }
                }
                let (log, behaviour) = (log.clone(), Arc::clone(&behaviour));
                tokio::spawn(async move {
                    answer(&log, &behaviour, batch).await;
                    drop(slot);
                });
            }
        });
        Self { queue }
    }

    /// The aggregate as it stands in the log; what is `remembered` of it need not be read again.
    pub(super) async fn load(&self, id: &str, remembered: Option<Loaded<A>>) -> Result<Loaded<A>> {
        let (reply, answer) = oneshot::channel();
        // From here on it counts as read.
        let remembered = remembered.map(|known| Loaded { left_in: None, ..known });
        let load = Load { id: id.to_owned(), remembered, reply };
        self.queue.send(load).await.map_err(|_| Error::ShuttingDown)?;
        answer.await.map_err(|_| Error::ShuttingDown)?
    }
}

async fn answer<A: Aggregate + Clone>(log: &Log, behaviour: &Behaviour<A>, mut batch: Vec<Load<A>>) {
    let life = log.memory().life();
    let mut remembered: HashMap<String, Loaded<A>> = HashMap::new();
    for load in &mut batch {
        let known = load.remembered.take().filter(|known| known.life == life);
        if let Some(known) = known
            && remembered.get(&load.id).is_none_or(|other| other.version < known.version)
        {
            remembered.insert(load.id.clone(), known);
        }
    }
    let mut ids: Vec<&str> = batch.iter().map(|load| load.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    match load_many(log, behaviour, &ids, remembered, life).await {
        Ok(mut loaded) => {
            for Load { id, reply, .. } in batch {
                // An aggregate that cannot be decoded fails alone.
                let result = match loaded.get_mut(&id) {
                    None => Ok(Loaded::unborn(life)),
                    Some(Ok(found)) => Ok(found.clone()),
                    Some(Err(error)) => Err(error.again()),
                };
                let _ = reply.send(result);
            }
        }
        Err(error) => {
            let count = batch.len();
            tracing::warn!(error = &error as &dyn std::error::Error, count, "aggregates could not be loaded");
            for Load { reply, .. } in batch {
                let _ = reply.send(Err(error.again()));
            }
        }
    }
}

/// The event that a state ends with is read too, so that what this process has seen of the log reaches as far as the
/// state does, and what it remembers proves to be there.
const EVENTS: &str = "select * from event_store.streams($1, $2, $3)";

async fn load_many<A: Aggregate>(
    log: &Log,
    behaviour: &Behaviour<A>,
    ids: &[&str],
    remembered: HashMap<String, Loaded<A>>,
    life: u64,
) -> Result<HashMap<String, Result<Loaded<A>>>> {
    let mut unproven: HashMap<String, Option<Seen>> =
        remembered.iter().map(|(id, known)| (id.clone(), known.last)).collect();
    let mut loaded: HashMap<String, Result<Loaded<A>>> =
        remembered.into_iter().map(|(id, known)| (id, Ok(known))).collect();
    let cold: Vec<&str> = ids.iter().copied().filter(|id| !loaded.contains_key(*id)).collect();
    if !cold.is_empty() {
        for (id, snapshot) in snapshots::load(log, A::TYPE, &cold, behaviour.snapshot_shape).await? {
            let Snapshot { state, sequence } = snapshot;
            // A snapshot of another shape is no loss: the events tell the same.
            if let Ok(aggregate) = serde_json::from_str(&state) {
                loaded.insert(id, Ok(Loaded { snapshot: sequence, life, ..Loaded::at(aggregate, sequence) }));
            }
        }
    }
    let after: Vec<i64> = ids
        .iter()
        .map(|id| loaded.get(*id).and_then(|found| found.as_ref().ok()).map_or(0, |found| found.version))
        .collect();
    let rows = sqlx::query(EVENTS).bind(A::TYPE).bind(ids).bind(after).fetch_all(log.connections()).await?;
    let mut furthest = None;
    for row in rows {
        let id: String = row.try_get("aggregate_id")?;
        let entry = loaded.entry(id).or_insert_with(|| Ok(Loaded::unborn(life)));
        let Ok(found) = entry else { continue };
        let recorded = match read(log, &row).await {
            Ok(recorded) => recorded,
            Err(error) if error.is_transient() => return Err(error),
            // A row that cannot be read is the trouble of its aggregate, and not of all that are loaded with it.
            Err(error) => {
                *entry = Err(error);
                continue;
            }
        };
        let seen = Some((recorded.position, recorded.recorded_at));
        furthest = furthest.max(seen);
        if recorded.sequence == found.version {
            if unproven.get(&recorded.aggregate_id) == Some(&seen) {
                unproven.remove(&recorded.aggregate_id);
            }
            found.last = seen;
            continue;
        }
        if recorded.sequence != found.version + 1 {
            *entry = Err(Error::Hole {
                source_name: format!("{} {}", recorded.aggregate_type, recorded.aggregate_id),
                expected: found.version + 1,
                found: recorded.sequence,
            });
            continue;
        }
        match decode::<A>(&recorded, behaviour) {
            Ok(event) => {
                found.aggregate.apply(event);
                found.version = recorded.sequence;
                found.last = seen;
                if recorded.sequence == 1 {
                    found.begun_at = Some(recorded.recorded_at);
                }
            }
            Err(error) => *entry = Err(error),
        }
    }
    if let Some(seen) = furthest {
        log.memory().saw(life, seen);
    }
    // The log was taken back behind what is remembered of these.
    let unproven: Vec<&str> = unproven.keys().map(String::as_str).collect();
    if !unproven.is_empty() {
        for id in &unproven {
            loaded.remove(*id);
        }
        loaded.extend(Box::pin(load_many(log, behaviour, &unproven, HashMap::new(), life)).await?);
    }
    Ok(loaded)
}

async fn read(log: &Log, row: &PgRow) -> Result<Recorded> {
    let mut recorded = feed::recorded(row)?;
    recorded.open(log.personal()).await?;
    Ok(recorded)
}

/// The event as the domain knows it today.
pub(crate) fn decode<A: Aggregate>(recorded: &Recorded, behaviour: &Behaviour<A>) -> Result<A::Event> {
    let wanted = behaviour
        .upcasters
        .iter()
        .any(|upcaster| upcaster.can_upcast(&recorded.event_type, &recorded.event_version));
    if !wanted {
        return recorded.decode();
    }
    let mut event = SerializedEvent::new(
        recorded.aggregate_id.clone(),
        recorded.sequence as usize,
        recorded.aggregate_type.clone(),
        recorded.event_type.clone(),
        recorded.event_version.clone(),
        recorded.decode()?,
        serde_json::Value::Null,
    );
    for upcaster in &behaviour.upcasters {
        if upcaster.can_upcast(&event.event_type, &event.event_version) {
            event = upcaster.upcast(event);
        }
    }
    serde_json::from_value(event.payload).map_err(|source| Error::Decode {
        what: format!("{} at position {}", recorded.event_type, recorded.position),
        source,
    })
}
