//! Work that is due at once goes straight to the worker of the process that sets it, before anything of it is written;
//! see `holding.rs` for what is written of it, and when. The database need not be asked for it.
//!
//! A worker has places for a few times of what it does at the same time; what finds none is set to be taken by whoever
//! has time. What is asked for once more while it is under way, since its event came again, is not begun anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use sqlx::Row;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::time::Instant;
use uuid::Uuid;

use super::holding::{Hold, InHand, Trace, Written};
use super::rows::{PUT, delete, give_back, is_to_be_told, put};
use super::{HELD_FOR, Queue, Timer, TimerChanges};
use crate::checkpoints::Moving;
use crate::connections::Connections;
use crate::signal::TIMER_CHANNEL;

/// How many rounds of what a worker does at the same time may be on their way to it.
const ROUNDS: usize = 8;
/// From how many traces of work on those that are lost are forgotten.
const SWEPT_FROM: usize = 1_024;

/// Work on its way to a worker.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) timer: Arc<Timer>,
    pub(super) hold: Hold,
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
    /// What was handed to them, by its id.
    traces: Arc<Mutex<HashMap<Uuid, Trace>>>,
}

/// How a piece of work gets to a worker.
enum Way {
    /// There is a place for it.
    Place(OwnedPermit<Handed>),
    /// It is there.
    UnderWay(Hold),
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

    /// Gives the timed work of events of a log to the workers, if all of it that is due at once finds places; other
    /// changes are put aside. Says whether it did. Nothing of it has a row then; whoever stores the
    /// checkpoints behind those events must [`change`](Workers::change) what is still in hand in the same statement.
    pub(crate) fn hand(&self, source: &str, changes: &TimerChanges, in_hand: &mut InHand) -> bool {
        let (later, at_once): (Vec<Timer>, Vec<Timer>) =
            changes.set.iter().cloned().partition(|timer| timer.due_at.is_some());
        if in_hand.has_any_of(changes) || at_once.iter().any(|timer| in_hand.is_aside(source, timer.id)) {
            return false;
        }
        let way = |timer| match self.under_way(timer) {
            Some(hold) => Some(Way::UnderWay(hold)),
            None => self.place(timer).map(Way::Place),
        };
        let ways: Option<Vec<Way>> = at_once.iter().map(way).collect();
        let Some(ways) = ways else { return false };
        in_hand.put_aside(source, &TimerChanges { set: later, clear: changes.clear.clone() });
        for (timer, way) in at_once.into_iter().zip(ways) {
            let timer = Arc::new(timer);
            match way {
                Way::UnderWay(hold) => in_hand.add(source, timer, hold),
                Way::Place(place) => {
                    let hold = Hold::unwritten();
                    in_hand.add(source, Arc::clone(&timer), hold.clone());
                    self.send(place, timer, hold);
                }
            }
        }
        true
    }

    /// The hold on work that a worker of this process has, or is about to get.
    fn under_way(&self, timer: &Timer) -> Option<Hold> {
        self.traces.lock().ok()?.get(&timer.id)?.hold(timer)
    }

    fn send(&self, place: OwnedPermit<Handed>, timer: Arc<Timer>, hold: Hold) {
        if let Ok(mut traces) = self.traces.lock() {
            if traces.len() >= SWEPT_FROM && traces.len() == traces.capacity() {
                traces.retain(|_, trace| !trace.is_lost());
            }
            traces.insert(timer.id, Trace::of(&timer, &hold));
        }
        drop(place.send(Handed { timer, hold, at: Instant::now() }));
    }

    /// Sets and clears timers together with the checkpoints of a log, and writes what is still in hand because of its
    /// events; what the workers have places for is set as taken, and handed over. Says whether the checkpoints were
    /// where they were left; if not, nothing is written.
    ///
    /// # Errors
    /// When the database is unreachable.
    pub(crate) async fn change(
        &self,
        connections: &Connections,
        changes: &TimerChanges,
        in_hand: &mut InHand,
        moving: &Moving<'_>,
    ) -> sqlx::Result<bool> {
        let mut changes = in_hand.with_aside(moving.source, changes);
        // What is under way is not handed over again. What was set anew is other work.
        changes.set.retain(|timer| {
            let under_way = if in_hand.has(timer.id) { None } else { self.under_way(timer) };
            under_way.map(|hold| in_hand.add(moving.source, Arc::new(timer.clone()), hold)).is_none()
        });
        let changes = &changes;
        let writing = in_hand.begin_writing(moving.source, changes);
        let places: Vec<Option<OwnedPermit<Handed>>> =
            changes.set.iter().map(|timer| self.place(timer)).collect();
        let new = changes.set.iter().zip(&places).map(|(timer, place)| (timer, place.is_some()));
        let unfinished = writing.0.iter().map(|writing| (&*writing.timer, writing.taken));
        let (set, taken): (Vec<&Timer>, Vec<bool>) = new.chain(unfinished).unzip();
        let others =
            format!("put as ({PUT}), cleared as (delete from event_store.timers where id = any($7))");
        let columns = "(select pg_notify($9, '') where $8), put.id, put.due_at";
        let statement = Moving::statement(9, &others, columns, "(values (0)) as one left join put on true");
        let changing = put(sqlx::query(&statement), &set, &taken)
            .bind(&changes.clear)
            .bind(is_to_be_told(&set, &taken))
            .bind(TIMER_CHANNEL);
        let Some(rows) = Moving::answer(moving.bind(changing).fetch_all(connections).await)? else {
            return Ok(false);
        };
        let mut leases: HashMap<Uuid, DateTime<Utc>> = HashMap::with_capacity(rows.len());
        for row in rows {
            let (Some(id), Some(until)) = (row.try_get("id")?, row.try_get("due_at")?) else { continue };
            leases.insert(id, until);
        }
        for (timer, place) in changes.set.iter().zip(places) {
            if let (Some(place), Some(until)) = (place, leases.get(&timer.id)) {
                self.send(place, Arc::new(timer.clone()), Hold::leased(*until));
            }
        }
        let (mut done, mut left) = (Vec::new(), Vec::new());
        for writing in &writing.0 {
            match leases.get(&writing.timer.id).map(|until| writing.written(*until)) {
                Some(Written::Delete(lease)) => done.push(lease),
                Some(Written::GiveBack(lease)) => left.push(lease),
                Some(Written::Kept) | None => {}
            }
        }
        drop(writing);
        in_hand.supersede(moving.source, changes);
        in_hand.settle();
        delete(connections, &mut done).await;
        give_back(connections, &left).await;
        Ok(true)
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
