//! What a worker has of a piece of work: a row under lease, or none yet.
//!
//! Work that is due at once begins before anything of it is written. Most of it is done when the checkpoint behind
//! its event is stored, and never has a row; what is not done by then is written together with that checkpoint. So it
//! is never lost: as long as there is no row, the event comes again. Work that is due later waits for that checkpoint
//! too, and what is cleared before has no row either.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Lease, Timer, TimerChanges};

/// A worker's hold on a piece of work, shared with the subscription that may have to write it.
#[derive(Debug, Clone)]
pub(super) struct Hold(Arc<Mutex<Standing>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has no row.
    Unwritten,
    /// It has no row, and nobody begins it: it is to be written as due.
    Left,
    /// A row of it is on its way to the database.
    Writing(Meanwhile),
    /// It has a row, under lease until then.
    Leased(DateTime<Utc>),
    /// It is done, or no longer this worker's.
    Over,
}

/// What became of a piece of work while it was being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Held,
    Left,
    Done,
}

/// What is to be done about a row that was just written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// Nothing: somebody sees to it.
    Kept,
    /// The work is done meanwhile.
    Delete(Lease),
    /// It was left to others meanwhile.
    GiveBack(Lease),
}

/// How a piece of work is put off that is to be done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PuttingOff {
    /// Its row is changed, which has this lease.
    Leased(DateTime<Utc>),
    /// It gets a row.
    Unwritten,
    /// It is being written: ask again.
    Writing,
    /// It is none of this worker's business any more.
    Over,
}

/// What is left of a piece of work for whoever is asked for it again: nothing once nobody holds it.
#[derive(Debug)]
pub(super) struct Trace {
    timer: Weak<Timer>,
    standing: Weak<Mutex<Standing>>,
}

impl Trace {
    pub(super) fn of(timer: &Arc<Timer>, hold: &Hold) -> Self {
        Self { timer: Arc::downgrade(timer), standing: Arc::downgrade(&hold.0) }
    }

    /// The hold on this very work, unless it is over.
    pub(super) fn hold(&self, timer: &Timer) -> Option<Hold> {
        self.timer.upgrade().filter(|known| **known == *timer)?;
        let hold = Hold(self.standing.upgrade()?);
        let mut standing = hold.standing();
        match *standing {
            Standing::Over | Standing::Writing(Meanwhile::Done) => return None,
            // Its event comes again, so the commit with its row was undone: the server was lost before it was flushed.
            Standing::Leased(_) => *standing = Standing::Unwritten,
            Standing::Unwritten | Standing::Left | Standing::Writing(_) => {}
        }
        drop(standing);
        Some(hold)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.standing.strong_count() == 0
    }
}

impl Hold {
    /// The hold on work that has a row.
    pub(super) fn leased(until: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new(Standing::Leased(until))))
    }

    /// The hold on work that has none yet.
    pub(super) fn unwritten() -> Self {
        Self(Arc::new(Mutex::new(Standing::Unwritten)))
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when it is under lease, where it has a row.
    pub(super) fn lease(&self) -> Option<DateTime<Utc>> {
        match *self.standing() {
            Standing::Leased(until) => Some(until),
            _ => None,
        }
    }

    /// Notes that a lease was renewed.
    pub(super) fn renewed(&self, until: DateTime<Utc>) {
        let mut standing = self.standing();
        if let Standing::Leased(_) = *standing {
            *standing = Standing::Leased(until);
        }
    }

    /// Notes that the work is done; gives the lease of the row to delete.
    pub(super) fn done(&self) -> Option<DateTime<Utc>> {
        let mut standing = self.standing();
        let (next, lease) = match *standing {
            Standing::Leased(until) => (Standing::Over, Some(until)),
            Standing::Writing(_) => (Standing::Writing(Meanwhile::Done), None),
            Standing::Unwritten | Standing::Left | Standing::Over => (Standing::Over, None),
        };
        *standing = next;
        lease
    }

    /// Leaves to others what was not begun; gives the lease of the row to give back.
    pub(super) fn leave(&self) -> Option<DateTime<Utc>> {
        let mut standing = self.standing();
        let (next, lease) = match *standing {
            Standing::Leased(until) => (Standing::Over, Some(until)),
            Standing::Writing(_) => (Standing::Writing(Meanwhile::Left), None),
            Standing::Unwritten | Standing::Left => (Standing::Left, None),
            Standing::Over => (Standing::Over, None),
        };
        *standing = next;
        lease
    }

    /// How to put it off.
    pub(super) fn putting_off(&self) -> PuttingOff {
        match *self.standing() {
            Standing::Leased(until) => PuttingOff::Leased(until),
            Standing::Unwritten | Standing::Left => PuttingOff::Unwritten,
            Standing::Writing(_) => PuttingOff::Writing,
            Standing::Over => PuttingOff::Over,
        }
    }

    /// Notes that a row was made that says when it is to be done again. Says whether that is how it stands: the row
    /// may be on its way from elsewhere as well.
    pub(super) fn is_put_off(&self) -> bool {
        let mut standing = self.standing();
        match *standing {
            Standing::Unwritten | Standing::Left | Standing::Over => {
                *standing = Standing::Over;
                true
            }
            Standing::Writing(_) | Standing::Leased(_) => false,
        }
    }

    /// Notes that it is no longer this worker's.
    fn is_over(&self) {
        *self.standing() = Standing::Over;
    }

    /// Whether a row is to be written now, and whether as taken.
    fn begin_writing(&self) -> Option<bool> {
        let mut standing = self.standing();
        let (meanwhile, taken) = match *standing {
            Standing::Unwritten => (Meanwhile::Held, true),
            Standing::Left => (Meanwhile::Left, false),
            Standing::Writing(_) | Standing::Leased(_) | Standing::Over => return None,
        };
        *standing = Standing::Writing(meanwhile);
        Some(taken)
    }

    /// Notes that the row was not written, as far as is known.
    fn not_written(&self) {
        let mut standing = self.standing();
        if let Standing::Writing(meanwhile) = *standing {
            *standing = match meanwhile {
                Meanwhile::Held => Standing::Unwritten,
                Meanwhile::Left => Standing::Left,
                Meanwhile::Done => Standing::Over,
            };
        }
    }

    /// Notes that the row was written, with this lease where it was `taken`.
    fn written(&self, lease: Lease, taken: bool) -> Written {
        let mut standing = self.standing();
        let Standing::Writing(meanwhile) = *standing else { return Written::Kept };
        let (next, written) = match meanwhile {
            Meanwhile::Held if taken => (Standing::Leased(lease.until), Written::Kept),
            Meanwhile::Left if taken => (Standing::Over, Written::GiveBack(lease)),
            Meanwhile::Held | Meanwhile::Left => (Standing::Over, Written::Kept),
            Meanwhile::Done => (Standing::Over, Written::Delete(lease)),
        };
        *standing = next;
        written
    }

    fn needs_a_row(&self) -> bool {
        matches!(*self.standing(), Standing::Unwritten | Standing::Left)
    }
}

/// The work of a subscription that has no row yet.
#[derive(Debug, Default)]
pub(crate) struct InHand {
    /// What was given to workers.
    pieces: Vec<Piece>,
    /// What is due later, and what is to be cleared, by the log whose events say so.
    aside: BTreeMap<String, TimerChanges>,
}

#[derive(Debug)]
struct Piece {
    /// The log its event is from.
    source: String,
    timer: Arc<Timer>,
    hold: Hold,
}

impl Piece {
    fn is_in(&self, changes: &TimerChanges) -> bool {
        changes.concern(self.timer.id)
    }
}

impl InHand {
    /// Takes note of a piece of work that an event of a log asked for.
    pub(super) fn add(&mut self, source: &str, timer: Arc<Timer>, hold: Hold) {
        self.pieces.push(Piece { source: source.to_owned(), timer, hold });
    }

    /// Takes note of changes that events of a log ask for, none of which is due at once.
    pub(super) fn put_aside(&mut self, source: &str, changes: &TimerChanges) {
        if !changes.is_empty() {
            self.aside.entry(source.to_owned()).or_default().extend(changes);
        }
    }

    /// Whether changes of a timer were put aside because of a log.
    pub(super) fn is_aside(&self, source: &str, id: Uuid) -> bool {
        self.aside.get(source).is_some_and(|changes| changes.concern(id))
    }

    /// Changes together with those put aside because of the same log; they are the later ones.
    pub(super) fn with_aside(&self, source: &str, changes: &TimerChanges) -> TimerChanges {
        let mut all = self.aside.get(source).cloned().unwrap_or_default();
        all.extend(changes);
        all
    }

    /// Whether there is work that is to be written when the checkpoints of a log are stored.
    pub(crate) fn needs_rows(&mut self, source: &str) -> bool {
        self.settle();
        self.pieces.iter().any(|piece| piece.source == source)
            || self.aside.get(source).is_some_and(|aside| !aside.is_empty())
    }

    /// Whether work with this id is here already.
    pub(super) fn has(&self, id: Uuid) -> bool {
        self.pieces.iter().any(|piece| piece.timer.id == id)
    }

    /// Whether some of this work is here already, under the same id.
    pub(super) fn has_any_of(&self, changes: &TimerChanges) -> bool {
        self.pieces.iter().any(|piece| piece.is_in(changes))
    }

    /// Forgets what has a row, or needs none.
    pub(super) fn settle(&mut self) {
        self.pieces.retain(|piece| piece.hold.needs_a_row());
    }

    /// Forgets what was put aside because of a log, which is written, and work that was set anew or cleared: what was
    /// said of it last counts.
    pub(super) fn supersede(&mut self, source: &str, changes: &TimerChanges) {
        self.aside.remove(source);
        self.pieces.retain(|piece| {
            let is_superseded = piece.is_in(changes);
            if is_superseded {
                piece.hold.is_over();
            }
            !is_superseded
        });
    }

    /// What is to be written together with the checkpoints of a log, unless it is about to be set anew or cleared.
    pub(super) fn begin_writing(&self, source: &str, changes: &TimerChanges) -> BeingWritten {
        let pieces = self.pieces.iter().filter(|piece| piece.source == source && !piece.is_in(changes));
        let work = pieces.filter_map(|Piece { timer, hold, .. }| {
            let taken = hold.begin_writing()?;
            Some(Writing { timer: Arc::clone(timer), hold: hold.clone(), taken })
        });
        BeingWritten(work.collect())
    }
}

/// A piece of work whose row is on its way to the database.
pub(super) struct Writing {
    pub(super) timer: Arc<Timer>,
    pub(super) taken: bool,
    hold: Hold,
}

impl Writing {
    /// Notes that its row was written.
    pub(super) fn written(&self, until: DateTime<Utc>) -> Written {
        self.hold.written(Lease { id: self.timer.id, until }, self.taken)
    }
}

/// Rows on their way to the database. What is not said to be written when this is dropped is not.
pub(super) struct BeingWritten(pub(super) Vec<Writing>);

impl Drop for BeingWritten {
    fn drop(&mut self) {
        for writing in &self.0 {
            writing.hold.not_written();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(number: u128) -> Timer {
        Timer {
            id: Uuid::from_u128(number),
            queue: "chores".to_owned(),
            due_at: None,
            command: serde_json::Value::Null,
        }
    }

    fn until() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    fn in_hand() -> (InHand, Hold) {
        let mut in_hand = InHand::default();
        let hold = Hold::unwritten();
        in_hand.add("accounts", Arc::new(timer(1)), hold.clone());
        (in_hand, hold)
    }

    fn writing(in_hand: &InHand) -> BeingWritten {
        in_hand.begin_writing("accounts", &TimerChanges::default())
    }

    fn lease() -> Lease {
        Lease { id: Uuid::from_u128(1), until: until() }
    }

    #[test]
    fn work_that_is_done_needs_no_row() {
        let (mut in_hand, hold) = in_hand();
        assert!(in_hand.needs_rows("accounts"));
        assert_eq!(hold.done(), None);
        assert!(writing(&in_hand).0.is_empty());
        assert!(!in_hand.needs_rows("accounts"));
    }

    #[test]
    fn work_that_goes_on_gets_a_row_that_is_deleted_when_it_is_done() {
        let (mut in_hand, hold) = in_hand();
        let first = writing(&in_hand);
        assert!(first.0[0].taken);
        assert!(writing(&in_hand).0.is_empty(), "it is written once");
        assert_eq!(first.0[0].written(until()), Written::Kept);
        drop(first);
        assert!(!in_hand.needs_rows("accounts"));
        assert_eq!((hold.lease(), hold.done()), (Some(until()), Some(until())));
    }

    #[test]
    fn work_is_written_with_the_checkpoints_of_its_own_log() {
        let (mut in_hand, _) = in_hand();
        assert!(!in_hand.needs_rows("others"));
        assert!(in_hand.begin_writing("others", &TimerChanges::default()).0.is_empty());
        assert!(in_hand.needs_rows("accounts"));
    }

    #[test]
    fn work_that_is_done_while_it_is_written_is_deleted() {
        let (in_hand, hold) = in_hand();
        let writing = writing(&in_hand);
        assert_eq!(hold.putting_off(), PuttingOff::Writing);
        assert_eq!(hold.done(), None);
        assert_eq!(writing.0[0].written(until()), Written::Delete(lease()));
    }

    #[test]
    fn work_that_is_written_while_it_is_put_off_is_put_off_by_its_row() {
        let (in_hand, hold) = in_hand();
        assert_eq!(hold.putting_off(), PuttingOff::Unwritten);
        let writing = writing(&in_hand);
        assert!(!hold.is_put_off());
        assert_eq!(writing.0[0].written(until()), Written::Kept);
        assert_eq!(hold.putting_off(), PuttingOff::Leased(until()));

        let (mut in_hand, hold) = super::tests::in_hand();
        assert!(hold.is_put_off());
        assert!(!in_hand.needs_rows("accounts"));
    }

    #[test]
    fn work_that_nobody_begins_is_left_to_others_whenever_its_row_is_written() {
        let (before, hold) = in_hand();
        assert_eq!(hold.leave(), None);
        let written = writing(&before);
        assert!(!written.0[0].taken);
        assert_eq!(written.0[0].written(until()), Written::Kept);

        let (during, hold) = in_hand();
        let written = writing(&during);
        assert_eq!(hold.leave(), None);
        assert_eq!(written.0[0].written(until()), Written::GiveBack(lease()));

        let (after, hold) = in_hand();
        assert_eq!(writing(&after).0[0].written(until()), Written::Kept);
        assert_eq!(hold.leave(), Some(until()));
    }

    #[test]
    fn work_whose_row_could_not_be_written_still_needs_one() {
        let (mut in_hand, hold) = in_hand();
        drop(writing(&in_hand));
        assert!(in_hand.needs_rows("accounts"));
        assert_eq!(hold.putting_off(), PuttingOff::Unwritten);
        let again = writing(&in_hand);
        hold.done();
        drop(again);
        assert!(!in_hand.needs_rows("accounts"));
    }

    #[test]
    fn work_that_is_set_anew_or_cleared_is_not_written_as_it_was() {
        for changes in [
            TimerChanges { set: vec![timer(1)], clear: Vec::new() },
            TimerChanges { set: Vec::new(), clear: vec![timer(1).id] },
        ] {
            let (mut in_hand, hold) = in_hand();
            assert!(in_hand.has_any_of(&changes));
            assert!(in_hand.begin_writing("accounts", &changes).0.is_empty());
            assert!(in_hand.needs_rows("accounts"), "until the change is committed");
            in_hand.supersede("accounts", &changes);
            assert!(!in_hand.needs_rows("accounts"));
            assert_eq!((hold.done(), hold.putting_off()), (None, PuttingOff::Over));
        }
        let (mut in_hand, _) = in_hand();
        let others = TimerChanges { set: vec![timer(2)], clear: vec![timer(3).id] };
        assert!(!in_hand.has_any_of(&others));
        in_hand.supersede("accounts", &others);
        assert!(in_hand.needs_rows("accounts"));
    }

    fn changes(set: &[u128], clear: &[u128]) -> TimerChanges {
        TimerChanges {
            set: set.iter().map(|number| timer(*number)).collect(),
            clear: clear.iter().map(|number| Uuid::from_u128(*number)).collect(),
        }
    }

    #[test]
    fn what_is_put_aside_is_written_once_as_it_was_said_last() {
        let mut in_hand = InHand::default();
        in_hand.put_aside("accounts", &changes(&[1, 2, 3], &[]));
        in_hand.put_aside("accounts", &changes(&[2], &[3, 4]));
        assert!(in_hand.needs_rows("accounts") && in_hand.is_aside("accounts", timer(4).id));
        let all = in_hand.with_aside("accounts", &changes(&[4], &[2]));
        assert_eq!(all, changes(&[1, 4], &[3, 2]));
        assert!(in_hand.needs_rows("accounts"), "until it is committed");
        in_hand.supersede("accounts", &all);
        assert!(!in_hand.needs_rows("accounts"));
    }

    #[test]
    fn what_is_put_aside_because_of_one_log_is_written_with_the_checkpoints_of_that_one() {
        let mut in_hand = InHand::default();
        in_hand.put_aside("accounts", &changes(&[1], &[]));
        assert!(!in_hand.needs_rows("others") && !in_hand.is_aside("others", timer(1).id));
        assert!(in_hand.with_aside("others", &TimerChanges::default()).is_empty());
        in_hand.supersede("others", &TimerChanges::default());
        assert!(in_hand.needs_rows("accounts"));
    }
}
