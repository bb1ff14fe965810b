//! What a worker has of a piece of work: a row under lease, or none yet.
//!
//! Work that is due at once begins before anything of it is written. Most of it is done when the checkpoint behind
//! its event is stored, and never has a row; what is not done by then is written together with that checkpoint. So it
//! is never lost: as long as there is no row, the event comes again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

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

impl Hold {
    /// The hold on work that has a row.
    pub(super) fn leased(until: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new(Standing::Leased(until))))
    }

    fn unwritten() -> Self {
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

    /// Notes that a row of it says when it is to be done again, or that nobody here is to care.
    pub(super) fn is_over(&self) {
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

/// The work that a subscription gave to workers and that has no row yet.
#[derive(Debug, Default)]
pub(crate) struct InHand(Vec<(Arc<Timer>, Hold)>);

impl InHand {
    /// Takes note of a piece of work.
    pub(super) fn add(&mut self, timer: Arc<Timer>) -> Hold {
        let hold = Hold::unwritten();
        self.0.push((timer, hold.clone()));
        hold
    }

    /// Whether there is work that is to be written when the checkpoints are stored.
    pub(crate) fn needs_rows(&mut self) -> bool {
        self.0.retain(|(_, hold)| hold.needs_a_row());
        !self.0.is_empty()
    }

    /// Forgets work that is set anew or cleared: what was said of it last counts.
    pub(super) fn supersede(&mut self, changes: &TimerChanges) {
        self.0.retain(|(timer, hold)| {
            let is_superseded =
                changes.set.iter().any(|set| set.id == timer.id) || changes.clear.contains(&timer.id);
            if is_superseded {
                hold.is_over();
            }
            !is_superseded
        });
    }

    /// Takes out what is to be written.
    pub(super) fn begin_writing(&mut self) -> BeingWritten {
        let work = self.0.iter().filter_map(|(timer, hold)| {
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
    use uuid::Uuid;

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
        let hold = in_hand.add(Arc::new(timer(1)));
        (in_hand, hold)
    }

    fn lease() -> Lease {
        Lease { id: Uuid::from_u128(1), until: until() }
    }

    #[test]
    fn work_that_is_done_needs_no_row() {
        let (mut in_hand, hold) = in_hand();
        assert!(in_hand.needs_rows());
        assert_eq!(hold.done(), None);
        assert!(!in_hand.needs_rows());
        assert!(in_hand.begin_writing().0.is_empty());
    }

    #[test]
    fn work_that_goes_on_gets_a_row_that_is_deleted_when_it_is_done() {
        let (mut in_hand, hold) = in_hand();
        let writing = in_hand.begin_writing();
        assert!(writing.0[0].taken);
        assert!(in_hand.begin_writing().0.is_empty(), "it is written once");
        assert_eq!(writing.0[0].written(until()), Written::Kept);
        drop(writing);
        assert!(!in_hand.needs_rows());
        assert_eq!((hold.lease(), hold.done()), (Some(until()), Some(until())));
    }

    #[test]
    fn work_that_is_done_while_it_is_written_is_deleted() {
        let (mut in_hand, hold) = in_hand();
        let writing = in_hand.begin_writing();
        assert_eq!(hold.putting_off(), PuttingOff::Writing);
        assert_eq!(hold.done(), None);
        assert_eq!(writing.0[0].written(until()), Written::Delete(lease()));
    }

    #[test]
    fn work_that_nobody_begins_is_left_to_others_whenever_its_row_is_written() {
        let (mut before, hold) = in_hand();
        assert_eq!(hold.leave(), None);
        let writing = before.begin_writing();
        assert!(!writing.0[0].taken);
        assert_eq!(writing.0[0].written(until()), Written::Kept);

        let (mut during, hold) = in_hand();
        let writing = during.begin_writing();
        assert_eq!(hold.leave(), None);
        assert_eq!(writing.0[0].written(until()), Written::GiveBack(lease()));

        let (mut after, hold) = in_hand();
        let writing = after.begin_writing();
        assert_eq!(writing.0[0].written(until()), Written::Kept);
        assert_eq!(hold.leave(), Some(until()));
    }

    #[test]
    fn work_whose_row_could_not_be_written_still_needs_one() {
        let (mut in_hand, hold) = in_hand();
        drop(in_hand.begin_writing());
        assert!(in_hand.needs_rows());
        assert_eq!(hold.putting_off(), PuttingOff::Unwritten);
        let writing = in_hand.begin_writing();
        hold.done();
        drop(writing);
        assert!(!in_hand.needs_rows());
    }

    #[test]
    fn work_that_is_set_anew_or_cleared_is_not_written_as_it_was() {
        for changes in [
            TimerChanges { set: vec![timer(1)], clear: Vec::new() },
            TimerChanges { set: Vec::new(), clear: vec![timer(1).id] },
        ] {
            let (mut in_hand, hold) = in_hand();
            in_hand.supersede(&changes);
            assert!(!in_hand.needs_rows());
            assert_eq!((hold.done(), hold.putting_off()), (None, PuttingOff::Over));
        }
        let (mut in_hand, _) = in_hand();
        in_hand.supersede(&TimerChanges { set: vec![timer(2)], clear: vec![timer(3).id] });
        assert!(in_hand.needs_rows());
    }
}
