//! When visits begin: as soon as the one before has ended, or when they are due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::connection::{Connection, Server};
use crate::error::{LoadError, Result};
use crate::tally::{Ending, Tally, Visit};

/// When visits begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Each visitor begins anew as soon as it has its answer.
    Closed,
    /// So many visits a second are due, whatever became of those before.
    Open(f64),
}

/// How long a scenario is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long before anything is counted.
    pub warm_up: Duration,
    /// How long it is measured.
    pub measured: Duration,
}

/// Somebody who comes again and again.
pub(crate) trait Visitor: Send + 'static {
    /// Gets ready for the next visit; this is not measured.
    fn prepare(&mut self, connection: &mut Connection) -> impl Future<Output = Result<()>> + Send;

    /// Visits once.
    fn visit(&mut self, connection: &mut Connection) -> impl Future<Output = Result<Visit>> + Send;
}

/// When each visit is due.
#[derive(Debug)]
struct Schedule {
    pace: Pace,
    start: Instant,
    until: Instant,
    next: AtomicU64,
}

impl Schedule {
    /// The moment at which the next visit is due; `None` when that is after the end.
    fn next(&self) -> Option<Instant> {
        let due = match self.pace {
            Pace::Closed => Instant::now(),
            Pace::Open(per_second) => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                self.start + Duration::from_secs_f64(number as f64 / per_second)
            }
        };
        (due < self.until).then_some(due)
    }
}

/// Lets visitors, each on a connection of its own, come until the time is over; visits under way then are waited
/// for. Gives back the visitors, who may have more to tell.
///
/// # Errors
/// When no connection can be opened.
pub(crate) async fn play<V: Visitor>(
    server: &Server,
    visitors: Vec<V>,
    pace: Pace,
    timing: Timing,
) -> Result<(Tally, Vec<V>)> {
    let mut ready = Vec::with_capacity(visitors.len());
    for visitor in visitors {
        ready.push((visitor, Connection::open(server).await?));
    }
    let start = Instant::now();
    let from = start + timing.warm_up;
    let until = from + timing.measured;
    let schedule = Arc::new(Schedule { pace, start, until, next: AtomicU64::new(0) });
    let mut coming = JoinSet::new();
    for (visitor, connection) in ready {
        coming.spawn(come(visitor, connection, Arc::clone(&schedule), from));
    }
    let (mut tally, mut visitors) = (Tally::default(), Vec::new());
    while let Some(ended) = coming.join_next().await {
        let (own, visitor) = ended.map_err(|_| LoadError::Lost)??;
        tally.add(own);
        visitors.push(visitor);
    }
    Ok((tally, visitors))
}

async fn come<V: Visitor>(
    mut visitor: V,
    mut connection: Connection,
    schedule: Arc<Schedule>,
    from: Instant,
) -> Result<(Tally, V)> {
    let mut tally = Tally::default();
    loop {
        visitor.prepare(&mut connection).await?;
        let Some(due) = schedule.next() else { return Ok((tally, visitor)) };
        if due > Instant::now() {
            sleep_until(due).await;
        }
        let visit = match visitor.visit(&mut connection).await {
            Ok(visit) => visit,
            // A mart that is gone takes no more visits; one that broke off or was slow may take the next.
            Err(error @ LoadError::Unreachable { .. }) => return Err(error),
            Err(error) => Visit::ended(Ending::Failed(error.to_string())),
        };
        let ended = Instant::now();
        if due >= from {
            tally.record(visit, ended - due, ended <= schedule.until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visits_of_an_open_pace_are_due_at_their_rate_and_not_after_the_end() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let pace = Pace::Open(4.0);
        let schedule = Schedule { pace, start, until: start + second, next: AtomicU64::new(0) };
        let due: Vec<Duration> = std::iter::from_fn(|| schedule.next()).map(|due| due - start).collect();
        assert_eq!(due, [0, 250, 500, 750].map(Duration::from_millis));
    }
}
