//! How soon one batch of events follows upon another.
//!
//! A single event is applied at once. Under load events come together, because a transaction for each would cost more
//! than the events themselves, and what is written for an aggregate is written once for all of its events that came
//! together.

use std::time::Duration;

use tokio::time::Instant;

use super::cursor::Cursor;
use crate::signal::Progress;

/// Whoever has worked rests half as long as that took, but no longer than this: the busier the machine, the more events
/// share a transaction.
const LONGEST_REST: Duration = Duration::from_millis(25);
/// How much longer events gather while nobody waits for them.
const UNASKED: u32 = 4;
/// How often whoever gathers looks whether it has too much.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How soon after the beginning of one batch the next may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// At the earliest.
    pub least: Duration,
    /// How much later for each event of the batch. Not where most events are waited for in this process.
    pub per_event: Duration,
    /// At the latest because of that.
    pub most: Duration,
    /// The same while nobody waits, in a process without others, whose waiting would not be seen.
    pub most_unasked: Duration,
}

impl Pace {
    /// For reactions: each is a step that others follow.
    pub const REACTIONS: Self = Self {
        least: Duration::from_millis(1),
        per_event: Duration::from_micros(250),
        most: Duration::from_millis(2),
        most_unasked: Duration::from_millis(2),
    };
    /// For rows, most of which change several times within some milliseconds.
    pub const ROWS: Self =
        Self { most: Duration::from_millis(8), most_unasked: Duration::from_millis(100), ..Self::REACTIONS };

    /// At regular times.
    pub const fn every(pause: Duration) -> Self {
        Self { least: pause, per_event: Duration::ZERO, most: pause, most_unasked: pause }
    }

    /// When the batch after one of so many events may begin, for which so many waited, and which began at a time and is
    /// done now.
    pub(super) fn pause(&self, events: usize, waiting: usize, is_alone: bool, begun: Instant) -> Pause {
        let took = begun.elapsed();
        let rested = took + (took / 2).min(LONGEST_REST);
        let gathering = self.per_event.saturating_mul(u32::try_from(events).unwrap_or(u32::MAX));
        let next = |gathering: Duration, most: Duration| {
            begun + (self.least + gathering).min(most.max(self.least)).max(rested)
        };
        let is_hurried = waiting * 2 >= events;
        let asked = next(if is_hurried { Duration::ZERO } else { gathering }, self.most);
        let unasked =
            if is_alone { next(gathering.saturating_mul(UNASKED), self.most_unasked) } else { asked };
        Pause { asked, unasked }
    }
}

/// When the next batch may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    /// While somebody waits for it.
    asked: Instant,
    /// While nobody does.
    unasked: Instant,
}

impl Pause {
    /// Lets events come together.
    pub(super) async fn pass(&self, progress: &Progress, cursors: &[Cursor]) {
        loop {
            let is_asked = progress.waiting() > 0 || cursors.iter().any(Cursor::is_filling);
            let until = if is_asked { self.asked } else { self.unasked };
            let now = Instant::now();
            if until <= now {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until.min(now + LOOK_AGAIN)) => {}
                () = progress.asked(), if !is_asked => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn after(pace: Pace, events: usize, waiting: usize, is_alone: bool) -> (Duration, Duration) {
        let begun = Instant::now();
        let Pause { asked, unasked } = pace.pause(events, waiting, is_alone, begun);
        (asked - begun, unasked - begun)
    }

    #[test]
    fn the_next_batch_is_the_later_the_more_events_came_and_the_fewer_wait() {
        let pace = Pace {
            least: Duration::from_secs(1),
            per_event: Duration::from_secs(1),
            most: Duration::from_secs(20),
            most_unasked: Duration::from_secs(100),
        };
        let seconds = |(asked, unasked): (Duration, Duration)| (asked.as_secs(), unasked.as_secs());
        assert_eq!(seconds(after(pace, 5, 0, false)), (6, 6));
        assert_eq!(seconds(after(pace, 5, 0, true)), (6, 21));
        assert_eq!(seconds(after(pace, 500, 0, true)), (20, 100));
        assert_eq!(seconds(after(pace, 5, 3, false)), (1, 1));
        assert_eq!(seconds(after(pace, 5, 3, true)), (1, 21));
        assert_eq!(seconds(after(Pace::every(LONG), 500, 0, true)), (3600, 3600));
    }

    #[tokio::test]
    async fn who_begins_to_wait_ends_the_gathering() {
        let progress = Arc::new(Progress::default());
        let pause = Pause { asked: Instant::now(), unasked: Instant::now() + LONG };
        let gathering = tokio::spawn({
            let progress = Arc::clone(&progress);
            async move { pause.pass(&progress, &[]).await }
        });
        tokio::task::yield_now().await;
        let changes = progress.changes();
        progress.ask();
        let ended = tokio::time::timeout(Duration::from_secs(20), gathering).await;
        ended.expect("it does not wait an hour").expect("it ends");
        drop(changes);
    }
}
