//! The batches that have left and are not answered: how many there may be, and how large they are.
//!
//! Two batches share the work, as one can be inserted while the other is flushed. But each is flushed on its own, one
//! after the other: where that takes longer than to insert a batch, fewer and larger ones are faster.

use sqlx::PgConnection;
use tokio::task::JoinSet;

use crate::append::Pace;

/// How many batches may be under way.
const BATCHES: usize = 2;
/// A batch of fewer commands is not worth a round trip of its own while another one is under way, as a round trip takes
/// the server as long as a dozen commands; no matter how slow the disk is, it need not have more than so many.
const LEAST_COMMANDS: usize = 24;
const ENOUGH_COMMANDS: usize = 128;
/// A batch that waited for so many times as long as it was inserted was too small.
const TOO_LONG: i32 = 2;
/// The part of its own size by which such a batch makes others larger, and the part of the least size that each other
/// one takes away: so one slow flush changes little, and a disk that is slow for a while is not thought to be so for
/// ever.
const LEARNING: usize = 4;
const FORGETTING: usize = 200;
/// What the least size is counted in: this part of a command.
const FINENESS: usize = 16;

/// What a batch leaves behind.
pub(super) struct Done {
    /// Its connection, if it is still good.
    pub(super) connection: Option<PgConnection>,
    pub(super) pace: Option<Pace>,
}

#[derive(Default)]
pub(super) struct UnderWay {
    batches: JoinSet<(usize, Done)>,
    commands: usize,
    sizes: Sizes,
}

impl UnderWay {
    /// Whether another batch may leave, when so many commands wait.
    pub(super) fn has_room_for(&self, waiting: usize) -> bool {
        self.batches.is_empty() || (self.batches.len() < self.parts(waiting) && waiting >= self.sizes.least())
    }

    /// How many of the commands that wait one batch takes.
    pub(super) fn share_of(&self, waiting: usize) -> usize {
        (self.commands + waiting).div_ceil(self.parts(waiting))
    }

    /// Whether a batch of what waits need not wait for more.
    pub(super) fn is_enough(&self, waiting: usize) -> bool {
        waiting >= ENOUGH_COMMANDS || (!self.batches.is_empty() && waiting >= self.share_of(waiting))
    }

    /// Whether no other batch is to be under way with one of what waits.
    pub(super) fn is_alone(&self, waiting: usize) -> bool {
        self.parts(waiting) == 1
    }

    /// How many batches share the work.
    fn parts(&self, waiting: usize) -> usize {
        ((self.commands + waiting) / self.sizes.least()).clamp(1, BATCHES)
    }

    pub(super) fn begin(&mut self, commands: usize, commit: impl Future<Output = Done> + Send + 'static) {
        self.commands += commands;
        self.batches.spawn(async move { (commands, commit.await) });
    }

    /// The connection of a batch that has ended by now, if there is one.
    pub(super) fn ended(&mut self) -> Option<Option<PgConnection>> {
        let done = self.batches.try_join_next()?;
        Some(self.learn(done.ok()))
    }

    /// Waits until a batch has ended; gives its connection.
    pub(super) async fn next_ended(&mut self) -> Option<PgConnection> {
        let done = self.batches.join_next().await?;
        self.learn(done.ok())
    }

    fn learn(&mut self, done: Option<(usize, Done)>) -> Option<PgConnection> {
        let connection = done.and_then(|(commands, done)| {
            self.commands -= commands;
            if let Some(pace) = done.pace {
                self.sizes.learn(commands, pace);
            }
            done.connection
        });
        if self.batches.is_empty() {
            // One that panicked did not say how many it had.
            self.commands = 0;
        }
        connection
    }
}

/// How many commands a batch has at least, if others are under way.
struct Sizes {
    fine: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { fine: LEAST_COMMANDS * FINENESS }
    }
}

impl Sizes {
    fn least(&self) -> usize {
        self.fine / FINENESS
    }

    fn learn(&mut self, commands: usize, pace: Pace) {
        let changed = if pace.waiting > pace.inserting * TOO_LONG {
            self.fine + commands * FINENESS / LEARNING
        } else {
            self.fine - self.fine.div_ceil(FORGETTING)
        };
        self.fine = changed.clamp(LEAST_COMMANDS * FINENESS, ENOUGH_COMMANDS * FINENESS);
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn pace(inserting: i64, waiting: i64) -> Pace {
        Pace { inserting: TimeDelta::microseconds(inserting), waiting: TimeDelta::microseconds(waiting) }
    }

    /// A hundred batches of so many writers, a server that inserts a command in 10 µs, and a disk that flushes in so
    /// many: how many batches had all of them.
    fn whole_batches(writers: usize, flushing: i64) -> usize {
        let mut under_way = UnderWay::default();
        let sizes = (0..100).map(|_| {
            let commands = under_way.share_of(writers);
            let inserting = 10 * commands as i64;
            let waiting = if commands < writers { (flushing - inserting).max(0) } else { 0 };
            under_way.sizes.learn(commands, pace(inserting, waiting));
            commands
        });
        sizes.filter(|size| *size == writers).count()
    }

    #[test]
    fn few_writers_stay_together() {
        assert_eq!(whole_batches(47, 100), 100);
    }

    #[test]
    fn writers_are_parted_where_flushing_takes_about_as_long_as_inserting() {
        assert_eq!(whole_batches(64, 100), 0);
        assert_eq!(whole_batches(64, 500), 0);
    }

    #[test]
    fn writers_stay_together_where_flushing_takes_longer_and_try_now_and_then() {
        let whole = whole_batches(64, 2_000);
        assert!((85..100).contains(&whole), "{whole} batches had all");
    }

    #[test]
    fn many_writers_are_parted_on_any_disk() {
        assert_eq!(whole_batches(1_024, 100_000), 0);
    }

    #[tokio::test]
    async fn few_that_come_while_many_are_under_way_wait_for_more() {
        let mut under_way = UnderWay::default();
        assert!(under_way.has_room_for(1));
        assert!(!under_way.is_enough(1), "others may come");
        under_way.begin(47, std::future::pending());
        assert!(!under_way.has_room_for(1));
        assert!(under_way.has_room_for(24));
    }

    #[test]
    fn one_slow_flush_changes_nothing() {
        let mut under_way = UnderWay::default();
        under_way.sizes.learn(32, pace(320, 50_000));
        assert_eq!(under_way.share_of(64), 32);
    }
}
