//! What a command does when another process keeps moving its aggregate on: it pauses and is decided anew.
//!
//! Who loses a race has to load before it can try again, and so tends to lose the next one as well: of two
//! processes at one hot aggregate, one may be ahead for many commits in a row. A few attempts are therefore too
//! few. What bounds them is the time that a caller waits. Pauses grow, so that many processes do not spend their
//! time on decisions in vain, and are random, so that nobody is always behind the same one.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

/// How long a command is decided anew before the caller is told that others keep changing the aggregate.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause after the first conflict; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
/// How often it doubles: to 64 ms.
const DOUBLINGS: u32 = 4;

/// The conflicts of one command.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Contention {
    conflicts: u32,
    since: Option<Instant>,
}

impl Contention {
    /// Notes a conflict. Says whether the command may be decided anew.
    pub(super) fn conflicts_at(&mut self, now: Instant) -> bool {
        self.conflicts = self.conflicts.saturating_add(1);
        now - *self.since.get_or_insert(now) < PATIENCE
    }

    /// How often it was in vain.
    pub(super) fn conflicts(self) -> u32 {
        self.conflicts
    }
}

/// How long to pause after so many conflicts.
pub(super) fn pause(conflicts: u32) -> Duration {
    let longest = FIRST_PAUSE * (1 << conflicts.saturating_sub(1).min(DOUBLINGS));
    longest.mul_f64(rand::rng().random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest() {
        for (conflicts, longest) in [(1, 4), (2, 8), (3, 16), (5, 64), (6, 64), (u32::MAX, 64)] {
            let pauses = (0..1_000).map(|_| pause(conflicts));
            let slowest = pauses.max().unwrap_or_default();
            let longest = Duration::from_millis(longest);
            assert!(slowest < longest && slowest > longest / 2, "{slowest:?} after {conflicts} conflicts");
        }
    }

    #[test]
    fn a_command_is_decided_anew_until_the_time_is_over_however_often() {
        let (mut contention, begun) = (Contention::default(), Instant::now());
        for _ in 0..1_000 {
            assert!(contention.conflicts_at(begun));
        }
        assert!(contention.conflicts_at(begun + PATIENCE / 2));
        assert!(!contention.conflicts_at(begun + PATIENCE));
        assert_eq!(contention.conflicts(), 1_002);
    }
}
