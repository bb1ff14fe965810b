//! Waiting for an aggregate to change, by whatever process: an order for its stock, a payment for the gateway.
//!
//! One task per log follows its head while anybody waits and wakes those whose aggregate has a new event; so
//! a thousand waiters cost one look at the log, not a thousand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cqrs_es::Aggregate;
use event_store::execute::Loaded;
use event_store::{CommandBus, Log, Result, feed};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How many events are looked at in one go.
const CHUNK_EVENTS: i64 = 5_000;
/// How long a waiter trusts to be woken before it looks for itself.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How many wait for each aggregate, and what wakes them.
type Seats = Arc<Mutex<HashMap<String, (usize, Arc<Notify>)>>>;

/// Wakes those who wait for aggregates of one log.
#[derive(Clone)]
pub struct Arrivals {
    waiting: Seats,
    _guard: Arc<DropGuard>,
}

/// A place among those who wait for an aggregate.
struct Seat {
    arrivals: Arrivals,
    aggregate_id: String,
    woken: Arc<Notify>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Ok(mut waiting) = self.arrivals.waiting.lock()
            && let Some((seats, _)) = waiting.get_mut(&self.aggregate_id)
        {
            *seats -= 1;
            if *seats == 0 {
                waiting.remove(&self.aggregate_id);
            }
        }
    }
}

impl Arrivals {
    /// Follows a log.
    pub fn start(log: Log) -> Self {
        let stop = CancellationToken::new();
        let waiting = Seats::default();
        let (seats, token) = (Arc::clone(&waiting), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = follow(log, seats) => {}
            }
        });
        Self { waiting, _guard: Arc::new(stop.drop_guard()) }
    }

    /// Waits until an aggregate is as wanted; gives its state then, or as it is after `limit`.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn wait_for<A>(
        &self,
        bus: &CommandBus<A>,
        aggregate_id: &str,
        limit: Duration,
        wanted: impl Fn(&A) -> bool,
    ) -> Result<Loaded<A>>
    where
        A: Aggregate + Clone + 'static,
        A::Command: Clone + Send + Sync,
        A::Error: Send + Sync + 'static,
    {
        let deadline = Instant::now() + limit;
        let seat = self.take_seat(aggregate_id);
        let mut seen = None;
        loop {
            let woken = seat.woken.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            // What this process did itself since the last look it need not read.
            let remembered =
                bus.remembered(aggregate_id).filter(|state| seen.is_some_and(|seen| state.version > seen));
            if let Some(remembered) = remembered
                && wanted(&remembered.aggregate)
            {
                return Ok(remembered);
            }
            let loaded = bus.load(aggregate_id).await?;
            seen = Some(loaded.version);
            let left = deadline.saturating_duration_since(Instant::now());
            if wanted(&loaded.aggregate) || left.is_zero() {
                return Ok(loaded);
            }
            // Woken or not, the next round looks.
            let _ = tokio::time::timeout(left.min(LOOK_AGAIN), woken).await;
        }
    }

    fn take_seat(&self, aggregate_id: &str) -> Seat {
        let woken = match self.waiting.lock() {
            Ok(mut waiting) => {
                let (seats, woken) = waiting.entry(aggregate_id.to_owned()).or_default();
                *seats += 1;
                Arc::clone(woken)
            }
            Err(_) => Arc::default(),
        };
        Seat { arrivals: self.clone(), aggregate_id: aggregate_id.to_owned(), woken }
    }
}

async fn follow(log: Log, waiting: Seats) {
    let mut own = log.follow();
    let mut head = log.signal().head();
    let mut seen = *head.borrow_and_update();
    loop {
        tokio::select! {
            changed = head.changed() => if changed.is_err() { return },
            () = own.arrived() => {}
        }
        while let Some((batch, from)) = own.next(seen) {
            let events = &batch[from..];
            wake(&waiting, events.iter().map(|event| event.aggregate_id.as_str()));
            seen += events.len() as i64;
        }
        let upto = *head.borrow_and_update();
        let anybody = waiting.lock().is_ok_and(|waiting| !waiting.is_empty());
        // Whoever takes a seat looks for itself first, so nothing is missed by skipping.
        if !anybody {
            seen = upto.max(seen);
            continue;
        }
        while seen < upto {
            match feed::touched(log.connections(), seen, CHUNK_EVENTS).await {
                Ok(touched) => {
                    let Some((last, _)) = touched.last() else { break };
                    seen = *last;
                    wake(&waiting, touched.iter().map(|(_, id)| id.as_str()));
                }
                Err(error) => {
                    tracing::debug!(%error, "arrivals cannot be seen; waiters look for themselves");
                    break;
                }
            }
        }
    }
}

/// Wakes those who wait for any of these aggregates.
fn wake<'a>(waiting: &Seats, ids: impl Iterator<Item = &'a str>) {
    if let Ok(waiting) = waiting.lock() {
        for (_, woken) in ids.filter_map(|id| waiting.get(id)) {
            woken.notify_waiters();
        }
    }
}
