//! What is broken when, and what went wrong that must not: the one excuses an answer, the other fails the run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::Fault;

/// How long after a fault its consequences may still show: leases of processes that died run for 6 s, connections
/// and consumers come back within seconds, and a busy machine is slow.
const AFTERMATH: Duration = Duration::from_secs(9);

/// The record of a run's troubles. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Troubles {
    started: Instant,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    spans: Vec<Span>,
    complaints: Vec<String>,
}

#[derive(Debug)]
struct Span {
    fault: Fault,
    since: Duration,
    until: Option<Duration>,
}

/// A fault under way; it is over when this is dropped.
#[derive(Debug)]
pub struct Broken {
    troubles: Troubles,
    index: usize,
}

impl Default for Troubles {
    fn default() -> Self {
        Self { started: Instant::now(), inner: Arc::default() }
    }
}

impl Troubles {
    /// The time since the start of the run.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Something is broken from now on.
    pub fn begin(&self, fault: Fault) -> Broken {
        let since = self.now();
        let index = self.with(|inner| {
            inner.spans.push(Span { fault, since, until: None });
            inner.spans.len() - 1
        });
        Broken { troubles: self.clone(), index }
    }

    /// Something that must not happen did.
    pub fn complain(&self, what: impl Into<String>) {
        let (now, what) = (self.now(), what.into());
        eprintln!("{:>6.1}s  VIOLATION  {what}", now.as_secs_f64());
        self.with(|inner| inner.complaints.push(what));
    }

    /// What must not happen and did.
    pub fn complaints(&self) -> Vec<String> {
        self.with(|inner| inner.complaints.clone())
    }

    /// Whether something was broken, or had been a moment before, between two times of the run.
    pub fn excuse(&self, from: Duration, to: Duration) -> bool {
        self.with(|inner| {
            inner
                .spans
                .iter()
                .any(|span| span.since <= to && span.until.is_none_or(|until| until + AFTERMATH >= from))
        })
    }

    /// What is broken now.
    pub fn broken(&self) -> Vec<Fault> {
        self.with(|inner| {
            inner.spans.iter().filter(|span| span.until.is_none()).map(|span| span.fault).collect()
        })
    }

    /// How often what broke.
    pub fn counts(&self) -> BTreeMap<Fault, usize> {
        self.with(|inner| {
            inner.spans.iter().fold(BTreeMap::new(), |mut counts, span| {
                *counts.entry(span.fault).or_default() += 1;
                counts
            })
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        let now = self.troubles.now();
        self.troubles.with(|inner| {
            if let Some(span) = inner.spans.get_mut(self.index) {
                span.until = Some(now);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_excuses_what_happens_while_it_lasts_and_shortly_after() {
        let troubles = Troubles::default();
        let now = troubles.now();
        assert!(!troubles.excuse(now, now));
        let broken = troubles.begin(Fault::Kill);
        let later = now + 10 * AFTERMATH;
        assert!(troubles.excuse(later, later), "it lasts");
        assert_eq!(troubles.broken(), [Fault::Kill]);
        drop(broken);
        assert!(troubles.excuse(now, later));
        assert!(!troubles.excuse(later, later));
        assert_eq!(troubles.counts(), BTreeMap::from([(Fault::Kill, 1)]));
    }
}
