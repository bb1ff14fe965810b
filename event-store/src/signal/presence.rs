//! Whether other processes work on the same database.
//!
//! Each says so when it begins to listen, and from time to time; who hears somebody new says it too, at once and for a
//! moment. Who hears nobody else need not tell anybody what it writes, and keeps nobody waiting whom it does not know.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

/// How often a process says that it is there.
const SAID_EVERY: Duration = Duration::from_secs(20);
/// After how long a process that says nothing is taken for gone.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// How long a process listens before it believes that it is alone: whoever is there answers sooner.
const ALONE_AFTER: Duration = Duration::from_secs(3);
/// How long a process says again that it is there after it was joined. What it had begun to write before, and tells
/// nobody, is written by then.
const REPEATED_FOR: Duration = Duration::from_secs(5);
/// How soon a process hears itself: on a connection that is silently dead nobody is heard.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// Who else is there, as far as was heard.
#[derive(Debug)]
pub(super) struct Presence {
    /// The name of this process among those that listen.
    id: Uuid,
    /// How often it has begun to listen: part of what it says, as others answer at once only whom they do not know.
    begun: AtomicU64,
    alone: watch::Sender<bool>,
    /// How often it was found that others are or may be there.
    ended: AtomicU64,
}

/// What was heard over one connection.
#[derive(Debug)]
pub(super) struct Hearing {
    since: Instant,
    said_at: Option<Instant>,
    /// Since when it was said and this process has not heard it.
    unheard_since: Option<Instant>,
    /// When each of the others was last heard.
    heard_at: HashMap<String, Instant>,
    /// When somebody was first heard after a silence.
    joined_at: Instant,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            id: Uuid::new_v4(),
            begun: AtomicU64::default(),
            alone: watch::channel(false).0,
            ended: AtomicU64::default(),
        }
    }
}

impl Presence {
    /// What this process says.
    pub(super) fn payload(&self) -> String {
        format!("{} {}", self.id, self.begun.load(Ordering::Relaxed))
    }

    /// Whether no other is there, as it changes.
    pub(super) fn alone(&self) -> watch::Receiver<bool> {
        self.alone.subscribe()
    }

    /// Whether no other is there.
    pub(super) fn is_alone(&self) -> bool {
        *self.alone.borrow()
    }

    /// The number of the time for which this process is alone without an end.
    pub(super) fn period_alone(&self) -> Option<u64> {
        // In this order: should it end in between, the number is of a time that is over.
        let period = self.ended.load(Ordering::Acquire);
        self.is_alone().then_some(period)
    }

    /// Begins to listen.
    pub(super) fn begin(&self, now: Instant) -> Hearing {
        self.end();
        self.begun.fetch_add(1, Ordering::Relaxed);
        Hearing { since: now, said_at: None, unheard_since: None, heard_at: HashMap::new(), joined_at: now }
    }

    /// Listens no longer: nobody can be heard.
    pub(super) fn end(&self) {
        self.alone.send_if_modified(std::mem::take);
        self.ended.fetch_add(1, Ordering::Release);
    }

    /// Somebody says that he is there. Says whether he is another.
    pub(super) fn heard(&self, hearing: &mut Hearing, payload: &str, now: Instant) -> bool {
        if payload == self.payload() {
            hearing.unheard_since = None;
            return false;
        }
        if payload.starts_with(&self.id.to_string()) {
            // Said over a connection that is gone.
            return false;
        }
        hearing.forget_gone(now);
        if hearing.heard_at.insert(payload.to_owned(), now).is_none() {
            hearing.joined_at = now;
            hearing.said_at = None;
        }
        self.end();
        true
    }

    /// Looks whether others are still there.
    pub(super) fn look(&self, hearing: &mut Hearing, now: Instant) {
        hearing.forget_gone(now);
        if hearing.heard_at.is_empty() && now >= hearing.since + ALONE_AFTER {
            self.alone.send_if_modified(|known| !std::mem::replace(known, true));
        }
    }
}

impl Hearing {
    /// Whether it is time to say that one is there, each time it is looked.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let is_joined = now < self.joined_at + REPEATED_FOR;
        is_joined || self.said_at.is_none_or(|said| now >= said + SAID_EVERY)
    }

    /// It was said.
    pub(super) fn said(&mut self, now: Instant) {
        self.said_at = Some(now);
        self.unheard_since.get_or_insert(now);
    }

    /// Whether it was said and not heard for too long.
    pub(super) fn is_deaf(&self, now: Instant) -> bool {
        self.unheard_since.is_some_and(|since| now >= since + HEARD_WITHIN)
    }

    /// Whether this is to be said at once.
    pub(super) fn is_unsaid(&self) -> bool {
        self.said_at.is_none()
    }

    fn forget_gone(&mut self, now: Instant) {
        self.heard_at.retain(|_, heard| now < *heard + GONE_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_hears_nobody_for_a_moment_is_alone_until_somebody_is_heard() {
        let (presence, start) = (Presence::default(), Instant::now());
        let mut hearing = presence.begin(start);
        presence.look(&mut hearing, start + SECOND);
        assert!(!presence.is_alone(), "an answer may be on its way");
        presence.look(&mut hearing, start + 3 * SECOND);
        assert!(presence.is_alone());
        assert!(!presence.heard(&mut hearing, &presence.payload(), start + 4 * SECOND));
        assert!(presence.is_alone(), "it has heard itself");
        assert!(presence.heard(&mut hearing, "another", start + 5 * SECOND));
        assert!(!presence.is_alone());
        presence.look(&mut hearing, start + 64 * SECOND);
        assert!(!presence.is_alone(), "it may be slow");
        presence.look(&mut hearing, start + 65 * SECOND);
        assert!(presence.is_alone());
    }

    #[test]
    fn each_time_of_being_alone_is_another() {
        let (presence, start) = (Presence::default(), Instant::now());
        let mut hearing = presence.begin(start);
        assert_eq!(presence.period_alone(), None);
        presence.look(&mut hearing, start + 3 * SECOND);
        let first = presence.period_alone();
        assert!(first.is_some());
        presence.look(&mut hearing, start + 4 * SECOND);
        assert!(!presence.heard(&mut hearing, &presence.payload(), start + 4 * SECOND));
        assert_eq!(presence.period_alone(), first);
        presence.heard(&mut hearing, "another", start + 5 * SECOND);
        assert_eq!(presence.period_alone(), None);
        presence.look(&mut hearing, start + 65 * SECOND);
        let second = presence.period_alone();
        assert!(second.is_some() && second != first, "another was there in between");
        let mut hearing = presence.begin(start + 70 * SECOND);
        presence.look(&mut hearing, start + 73 * SECOND);
        assert!(presence.is_alone() && presence.period_alone() != second, "nobody was heard for a moment");
    }

    #[test]
    fn who_begins_to_listen_anew_is_new_to_others_and_knows_what_he_has_said_himself() {
        let (one, other, start) = (Presence::default(), Presence::default(), Instant::now());
        let (mut of_one, mut of_other) = (one.begin(start), other.begin(start));
        of_other.said(start);
        let said = one.payload();
        assert!(other.heard(&mut of_other, &said, start + SECOND) && of_other.is_unsaid());
        of_other.said(start + SECOND);
        of_one = {
            drop(of_one);
            one.begin(start + 2 * SECOND)
        };
        assert!(!one.heard(&mut of_one, &said, start + 2 * SECOND), "it was himself");
        assert!(other.heard(&mut of_other, &one.payload(), start + 2 * SECOND));
        assert!(of_other.is_unsaid(), "the other answers at once");
    }

    #[test]
    fn who_cannot_listen_is_not_alone() {
        let (presence, start) = (Presence::default(), Instant::now());
        let mut hearing = presence.begin(start);
        presence.look(&mut hearing, start + 3 * SECOND);
        let mut alone = presence.alone();
        assert!(*alone.borrow_and_update());
        presence.end();
        assert!(alone.has_changed().expect("it is there") && !presence.is_alone());
    }

    #[test]
    fn one_says_that_one_is_there_at_first_from_time_to_time_and_for_a_moment_to_whoever_comes() {
        let (presence, start) = (Presence::default(), Instant::now());
        let mut hearing = presence.begin(start);
        assert!(hearing.is_due(start) && hearing.is_unsaid());
        hearing.said(start + 4 * SECOND);
        assert!(!hearing.is_due(start + 5 * SECOND) && hearing.is_due(start + 24 * SECOND));
        hearing.said(start + 24 * SECOND);
        presence.heard(&mut hearing, "another", start + 30 * SECOND);
        assert!(hearing.is_unsaid(), "an answer is due at once");
        hearing.said(start + 30 * SECOND);
        assert!(hearing.is_due(start + 34 * SECOND) && !hearing.is_due(start + 35 * SECOND));
        presence.heard(&mut hearing, "another", start + 40 * SECOND);
        assert!(!hearing.is_unsaid() && !hearing.is_due(start + 41 * SECOND), "he is known");
        presence.heard(&mut hearing, "a third", start + 41 * SECOND);
        assert!(hearing.is_unsaid(), "he knows of nobody");
        hearing.said(start + 41 * SECOND);
        presence.heard(&mut hearing, "another", start + 101 * SECOND);
        assert!(hearing.is_unsaid(), "he was silent for so long that he may have been told nothing");
    }

    #[test]
    fn who_does_not_hear_himself_is_deaf() {
        let (presence, start) = (Presence::default(), Instant::now());
        let mut hearing = presence.begin(start);
        hearing.said(start);
        assert!(!hearing.is_deaf(start + 4 * SECOND) && hearing.is_deaf(start + 5 * SECOND));
        hearing.said(start + 5 * SECOND);
        assert!(hearing.is_deaf(start + 6 * SECOND));
        presence.heard(&mut hearing, &presence.payload(), start + 7 * SECOND);
        assert!(!hearing.is_deaf(start + 60 * SECOND));
    }
}
