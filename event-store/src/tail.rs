//! What this process has just committed to a log, for the readers in the same process: the broker and the database
//! need not be asked for it.
//!
//! It is a short cut and no promise. Who misses something here, because another process wrote it or because it came
//! too fast, finds it where everybody does; position decides what is new, not transport.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::read_once::ReadOnce;

/// How many batches wait for the slowest reader, which may rest for a fifth of a second while hundreds are committed in
/// each. One that is further behind reads the log, which is faster then.
const KEPT_BATCHES: usize = 128;

/// Events whose positions follow one another.
type Events = Arc<[Arc<ReadOnce>]>;

/// The end of a log, as this process writes it.
#[derive(Debug, Clone)]
pub(crate) struct Tail {
    batches: broadcast::Sender<Events>,
    /// The last position that this process wrote and told its readers of.
    upto: Arc<AtomicI64>,
}

impl Default for Tail {
    fn default() -> Self {
        Self { batches: broadcast::channel(KEPT_BATCHES).0, upto: Arc::default() }
    }
}

impl Tail {
    /// Whether anybody reads here.
    pub(crate) fn is_read(&self) -> bool {
        self.batches.receiver_count() > 0
    }

    /// Hands out a batch that was committed: events whose positions follow one another.
    pub(crate) fn committed(&self, batch: Vec<Arc<ReadOnce>>) {
        if let Some(last) = batch.last() {
            self.upto.fetch_max(last.position, Ordering::Relaxed);
            // The last reader may just have gone.
            let _ = self.batches.send(batch.into());
        }
    }

    /// Up to where the readers of this process have been told, as it moves; what other processes wrote in between
    /// is not told apart.
    pub(crate) fn upto(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.upto)
    }

    pub(crate) fn follow(&self) -> Follower {
        Follower { arriving: self.batches.subscribe(), batches: BTreeMap::new(), upto: self.upto() }
    }
}

/// A reader of what this process commits.
#[derive(Debug)]
pub struct Follower {
    arriving: broadcast::Receiver<Events>,
    /// What has arrived, by the first position: two commits may be told of in the wrong order.
    batches: BTreeMap<i64, Events>,
    /// Up to where was told.
    upto: Arc<AtomicI64>,
}

impl Follower {
    /// Waits until something is committed. Nothing is lost when the wait is given up.
    pub async fn arrived(&mut self) {
        match self.arriving.recv().await {
            Ok(batch) => self.keep(batch),
            Err(RecvError::Lagged(_)) => self.batches.clear(),
            // Nobody writes any more.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }

    /// The batch that has the event right behind a position, and where in it that event is; none when it is not
    /// here.
    pub fn next(&mut self, position: i64) -> Option<(Arc<[Arc<ReadOnce>]>, usize)> {
        loop {
            match self.arriving.try_recv() {
                Ok(batch) => self.keep(batch),
                Err(TryRecvError::Lagged(_)) => self.batches.clear(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        loop {
            let earliest = self.batches.first_entry()?;
            let (first, length) = (*earliest.key(), earliest.get().len());
            if first > position + 1 {
                return None;
            }
            let batch = earliest.remove();
            let from = usize::try_from(position + 1 - first).unwrap_or_default();
            if from < length {
                return Some((batch, from));
            }
        }
    }

    /// Whether anything was ever told here.
    pub fn has_told(&self) -> bool {
        self.upto.load(Ordering::Relaxed) > 0
    }

    /// Whether so much has arrived that some of it is lost soon, if it is not taken.
    pub fn is_filling(&self) -> bool {
        self.arriving.len() >= KEPT_BATCHES / 2
    }

    fn keep(&mut self, batch: Events) {
        if self.batches.len() >= KEPT_BATCHES {
            // They lie behind something that somebody else wrote, and the log has them all by now.
            self.batches.clear();
        }
        if let Some(first) = batch.first() {
            self.batches.insert(first.position, batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;
    use crate::{Metadata, Recorded};

    fn batch(positions: std::ops::RangeInclusive<i64>) -> Vec<Arc<ReadOnce>> {
        let event = |position| Recorded {
            position,
            partition: 0,
            aggregate_type: "account".to_owned(),
            aggregate_id: "a".to_owned(),
            sequence: position,
            event_type: "Deposited".to_owned(),
            event_version: "1.0".to_owned(),
            payload: "{}".to_owned(),
            metadata: Metadata::default(),
            recorded_at: Utc::now(),
        };
        positions.map(|position| event(position).into()).collect()
    }

    /// The positions of all that can be had behind a position.
    fn rest(follower: &mut Follower, mut position: i64) -> Vec<i64> {
        let mut found = Vec::new();
        while let Some((batch, from)) = follower.next(position) {
            found.extend(batch[from..].iter().map(|event| event.position));
            position = *found.last().expect("a batch has an event behind the position");
        }
        found
    }

    #[test]
    fn what_is_behind_a_position_comes_in_order_and_once() {
        let tail = Tail::default();
        assert!(!tail.is_read());
        let mut follower = tail.follow();
        assert!(tail.is_read());
        tail.committed(batch(1..=3));
        tail.committed(batch(6..=7));
        tail.committed(batch(4..=5));
        assert_eq!(rest(&mut follower, 2), [3, 4, 5, 6, 7]);
        assert!(rest(&mut follower, 7).is_empty());
    }

    #[test]
    fn nothing_is_given_behind_a_hole_until_it_is_passed() {
        let tail = Tail::default();
        let mut follower = tail.follow();
        tail.committed(batch(5..=6));
        assert!(rest(&mut follower, 2).is_empty());
        assert_eq!(rest(&mut follower, 4), [5, 6]);
    }

    #[test]
    fn who_takes_nothing_for_long_is_told_before_anything_is_lost() {
        let tail = Tail::default();
        let mut follower = tail.follow();
        let half = KEPT_BATCHES as i64 / 2;
        for position in 1..half {
            tail.committed(batch(position..=position));
        }
        assert!(!follower.is_filling());
        tail.committed(batch(half..=half));
        assert!(follower.is_filling());
        assert_eq!(rest(&mut follower, 0).len(), KEPT_BATCHES / 2);
        assert!(!follower.is_filling());
    }

    #[test]
    fn who_is_too_slow_gets_only_what_is_there_without_a_hole() {
        let tail = Tail::default();
        let mut follower = tail.follow();
        let last = KEPT_BATCHES as i64 * 3;
        for position in 1..=last {
            tail.committed(batch(position..=position));
        }
        assert!(rest(&mut follower, 0).is_empty());
        assert_eq!(rest(&mut follower, last - 2), [last - 1, last]);
    }
}
