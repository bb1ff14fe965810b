//! What a process remembers of its log, and how it notices that the log no longer holds it.
//!
//! Aggregates in memory are only as good as the log they were read from. When that is taken back to an earlier
//! state under a running process (a backup is restored), what was decided on such an aggregate would be appended
//! behind events that are gone. So each append names the furthest event that anything here rests on; a log that
//! does not hold this very event begins another life, in which nothing that was remembered counts.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, Utc};

/// An event by its place and the time of its commit: another event that gets the place has another time.
pub(crate) type Seen = (i64, DateTime<Utc>);

/// The furthest event of a log that this process has read or written.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    life: AtomicU64,
    furthest: Mutex<Option<Seen>>,
}

impl Memory {
    /// Which life of the log it is; what was read in another one does not count.
    pub(crate) fn life(&self) -> u64 {
        self.life.load(Ordering::Acquire)
    }

    /// The event that the log must hold.
    pub(crate) fn furthest(&self) -> Option<Seen> {
        self.furthest.lock().ok().and_then(|furthest| *furthest)
    }

    /// Remembers an event that was read or written in a life.
    pub(crate) fn saw(&self, life: u64, seen: Seen) {
        if let Ok(mut furthest) = self.furthest.lock()
            && self.life() == life
            && furthest.is_none_or(|(position, _)| position < seen.0)
        {
            *furthest = Some(seen);
        }
    }

    /// Ends a life, unless that has happened already.
    pub(crate) fn forget(&self, life: u64) {
        if let Ok(mut furthest) = self.furthest.lock()
            && self.life.compare_exchange(life, life + 1, Ordering::AcqRel, Ordering::Acquire).is_ok()
        {
            *furthest = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_in_a_life_that_is_over_does_not_count() {
        let (memory, now) = (Memory::default(), Utc::now());
        memory.saw(0, (7, now));
        memory.saw(0, (5, now));
        assert_eq!(memory.furthest(), Some((7, now)));
        memory.forget(0);
        assert_eq!((memory.life(), memory.furthest()), (1, None));
        memory.saw(0, (9, now));
        assert_eq!(memory.furthest(), None);
        memory.forget(0);
        assert_eq!(memory.life(), 1, "one life ends once");
        memory.saw(1, (3, now));
        assert_eq!(memory.furthest(), Some((3, now)));
    }
}
