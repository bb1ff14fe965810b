//! One cell of the table: so many commands in flight for so long, each answered before its sender goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use event_store::{Log, Target};
use rand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::engine::{CACHED, Engine};
use crate::options::Options;

/// How long it may take to load the aggregates that a cell is to find in memory, and how many are loaded side by side.
const LOADED_WITHIN: Duration = Duration::from_secs(600);
const LOADED_AT_ONCE: usize = 1_024;

/// Where the commands of a cell go.
pub(crate) enum Workload {
    /// Each to an aggregate of its own that did not exist.
    New,
    /// Each to any of these.
    Any(Arc<[String]>),
    /// Each to the next of these, none twice: whoever has them not in memory must load them.
    Once(Arc<[String]>, AtomicUsize),
}

impl Workload {
    fn next(&self) -> Option<Target> {
        match self {
            Self::New => Some(Target::New(Uuid::now_v7().to_string())),
            Self::Any(ids) => {
                let index = rand::rng().random_range(0..ids.len());
                Some(Target::Existing(ids[index].clone()))
            }
            Self::Once(ids, next) => {
                ids.get(next.fetch_add(1, Ordering::Relaxed)).map(|id| Target::Existing(id.clone()))
            }
        }
    }

    pub(crate) fn once(ids: &Arc<[String]>) -> Self {
        Self::Once(Arc::clone(ids), AtomicUsize::new(0))
    }
}

/// What came out of a cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Measured {
    /// From how long each command took that was answered within a time.
    pub(crate) fn of(mut latencies_us: Vec<u32>, within: Duration) -> Self {
        latencies_us.sort_unstable();
        Self {
            per_second: latencies_us.len() as f64 / within.as_secs_f64(),
            p50_ms: percentile_ms(&latencies_us, 50),
            p99_ms: percentile_ms(&latencies_us, 99),
        }
    }
}

struct Share {
    latencies_us: Vec<u32>,
    last: Option<Instant>,
}

/// Runs a cell: `in_flight` senders until the time is over or the workload used up. What is under way then
/// is let go, uncounted.
pub(crate) async fn run(
    engine: &Engine,
    workload: Workload,
    in_flight: usize,
    options: &Options,
) -> Measured {
    // Aggregates that may be used but once must not be spent on warming up.
    let warm_up = match workload {
        Workload::Once(..) => Duration::ZERO,
        Workload::New | Workload::Any(_) => options.warm_up,
    };
    let workload = Arc::new(workload);
    let from = Instant::now() + warm_up;
    let until = from + options.measured;
    let mut senders = JoinSet::new();
    for sender in 0..in_flight {
        senders.spawn(send(engine.clone(), Arc::clone(&workload), sender as u32, from, until));
    }
    let shares = senders.join_all().await;
    let bounded = matches!(*workload, Workload::Once(..));
    let last = shares.iter().filter_map(|share| share.last).max().filter(|_| bounded).unwrap_or(until);
    Measured::of(shares.into_iter().flat_map(|share| share.latencies_us).collect(), last - from)
}

/// An engine that has all of these in memory.
pub(crate) async fn in_memory(log: &Log, ids: &Arc<[String]>, options: &Options) -> Engine {
    let engine = Engine::mart_with(log, CACHED.max(2 * ids.len()));
    // However slow the disk is: it ends when each was used once.
    let loading = Options { measured: LOADED_WITHIN, ..options.clone() };
    run(&engine, Workload::once(ids), LOADED_AT_ONCE, &loading).await;
    engine
}

async fn send(engine: Engine, workload: Arc<Workload>, sender: u32, from: Instant, until: Instant) -> Share {
    let mut share = Share { latencies_us: Vec::new(), last: None };
    let sending = async {
        while let Some(target) = workload.next() {
            let started = Instant::now();
            engine.scan(target, sender).await;
            let finished = Instant::now();
            if finished >= from {
                share.latencies_us.push(u32::try_from((finished - started).as_micros()).unwrap_or(u32::MAX));
                share.last = Some(finished);
            }
        }
    };
    // The end of the time is no error: it is how most cells end.
    let _ = timeout_at(until, sending).await;
    share
}

fn percentile_ms(sorted_us: &[u32], percent: usize) -> f64 {
    let index = (sorted_us.len() * percent / 100).min(sorted_us.len().saturating_sub(1));
    sorted_us.get(index).map_or(f64::NAN, |us| f64::from(*us) / 1_000.0)
}
