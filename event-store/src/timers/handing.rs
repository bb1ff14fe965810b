//! Work that is due at once goes straight to the worker of the process that sets it: it is set as taken, and handed
//! over once that is committed. The database need not be asked for it, and is told only when it is done.
//!
//! A worker has places for a few times of what it does at the same time; what finds none is set to be taken by whoever
//! has time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use sqlx::Row;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::time::Instant;

use super::{Due, HELD_FOR, Lease, PUT, Queue, Timer, TimerChanges, is_to_be_told, put};
use crate::checkpoints::Moving;
use crate::connections::Connections;
use crate::signal::TIMER_CHANNEL;

/// How many rounds of what a worker does at the same time may be on their way to it.
const ROUNDS: usize = 8;

/// Work on its way to a worker, under lease already.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) lease: Lease,
    pub(super) due: Due,
    at: Instant,
}

impl Handed {
    /// Whether it lay so long that somebody else may take it up soon.
    pub(super) fn is_stale(&self) -> bool {
        self.at.elapsed() > HELD_FOR / 2
    }
}

/// The workers of this process that do the timed work of one log, by their queues.
#[derive(Debug, Clone, Default)]
pub(crate) struct Workers {
    queues: Arc<Mutex<HashMap<&'static str, mpsc::Sender<Handed>>>>,
}

/// What was set as taken, to be passed on once that is committed.
#[must_use = "what is not passed on waits until its lease runs out"]
pub(crate) struct Handover {
    places: Vec<(OwnedPermit<Handed>, Handed)>,
}

impl Handover {
    /// Gives the workers their work.
    pub(crate) fn pass_on(self) {
        for (place, handed) in self.places {
            drop(place.send(handed));
        }
    }
}

impl Workers {
    /// Makes places for a queue's worker, in the stead of any before it.
    pub(super) fn join(&self, queue: Queue) -> mpsc::Receiver<Handed> {
        let (sender, receiver) = mpsc::channel(queue.concurrency * ROUNDS);
        if let Ok(mut queues) = self.queues.lock() {
            queues.insert(queue.name, sender);
        }
        receiver
    }

    /// Sets and clears timers, together with the checkpoints; what the workers have places for is set as taken. Nothing
    /// when the checkpoints were not where they were left.
    ///
    /// # Errors
    /// When the database is unreachable.
    pub(crate) async fn change(
        &self,
        connections: &Connections,
        changes: &TimerChanges,
        moving: &Moving<'_>,
    ) -> sqlx::Result<Option<Handover>> {
        let places: Vec<Option<OwnedPermit<Handed>>> =
            changes.set.iter().map(|timer| self.place(timer)).collect();
        let taken: Vec<bool> = places.iter().map(Option::is_some).collect();
        let others =
            format!("put as ({PUT}), cleared as (delete from event_store.timers where id = any($7))");
        let columns = "(select pg_notify($9, '') where $8), put.id, put.due_at, clock_timestamp() as now";
        let statement = Moving::statement(9, &others, columns, "(values (0)) as one left join put on true");
        let changing = put(sqlx::query(&statement), &changes.set, &taken)
            .bind(&changes.clear)
            .bind(is_to_be_told(&changes.set, &taken))
            .bind(TIMER_CHANNEL);
        let Some(rows) = Moving::answer(moving.bind(changing).fetch_all(connections).await)? else {
            return Ok(None);
        };
        let mut leases = HashMap::with_capacity(rows.len());
        for row in rows {
            let (Some(id), Some(until)) = (row.try_get("id")?, row.try_get("due_at")?) else { continue };
            let lease = Lease { id, until };
            leases.insert(lease.id, (lease, row.try_get("now")?));
        }
        let at = Instant::now();
        let handed = changes.set.iter().zip(places).filter_map(|(timer, place)| {
            let (lease, now) = *leases.get(&timer.id)?;
            let due = Due { id: timer.id, command: timer.command.clone(), attempts: 1, now };
            Some((place?, Handed { lease, due, at }))
        });
        Ok(Some(Handover { places: handed.collect() }))
    }

    /// A place at the worker for work that is due at once; none when it has none, or is not of this process.
    fn place(&self, timer: &Timer) -> Option<OwnedPermit<Handed>> {
        if timer.due_at.is_some() {
            return None;
        }
        let worker = self.queues.lock().ok()?.get(timer.queue.as_str())?.clone();
        worker.try_reserve_owned().ok()
    }
}
