//! Where a subscription stands in one source, and what of it comes next.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use super::{BATCH_EVENTS, Body, Delivered, ROWS_PAGE_EVENTS, SILENCE, Source, Subscription};
use crate::broker::Incoming;
use crate::checkpoints::{self, Positions, Step};
use crate::lease::Slots;
use crate::log::Log;
use crate::signal::Mover;
use crate::tail::Follower;
use crate::{Error, Recorded, Result, feed, planted};

/// How long a log may be ahead although the broker delivers: one partition of it may be stuck.
const LONGEST_DOUBT: Duration = Duration::from_secs(1);
/// How long the log may be ahead of what this process wrote itself before it is read, where there is no broker: what it
/// commits at the same time may be told in the wrong order.
const TOLD_WITHIN: Duration = Duration::from_millis(5);
/// From how many positions on a gap is left to the ordinary reading of the log.
const WIDE_GAP: i64 = 5_000;

/// How long checkpoints may stay unstored that moved past what needed nothing written. Other processes are told of
/// them that much later, or by as much as the subscription paces itself.
const UNSTORED: Duration = Duration::from_millis(50);
/// The same while there is no other process: they are needed only should this one end.
const UNSTORED_ALONE: Duration = Duration::from_millis(250);

pub(super) struct Cursor {
    pub(super) source: Arc<str>,
    log: Log,
    aggregates: Vec<&'static str>,
    personal: bool,
    /// The checkpoints of the partitions held.
    positions: Positions,
    /// Up to here nothing of a partition is unseen, whether or not its checkpoint was moved so far.
    scanned: BTreeMap<i16, i64>,
    head: watch::Receiver<i64>,
    /// What this process writes there itself.
    tail: Follower,
    /// The head up to which everything is known to be applied.
    verified: i64,
    /// Since when the log is ahead of that.
    ahead_since: Option<Instant>,
    last_arrival: Instant,
    /// The checkpoints as the database has them. They stay behind `positions` for a moment when
    /// nothing was to be written.
    stored: Positions,
    /// Since when they stay behind.
    unstored_since: Option<Instant>,
    /// Whether there is a broker that may bring what is new.
    has_broker: bool,
    /// Whether the log is followed, because the broker is silent or there is none.
    following: bool,
    /// While the log is followed: a position that was seen there, and when. A broker that brings it soon after is
    /// there again; one that brings what is long past has yet to catch up.
    expected: Option<(i64, Instant)>,
    /// What comes next in the log, where more was there than one reading takes.
    ahead: Option<Page>,
    /// How many events are read at once.
    page_events: usize,
}

/// A part of the log that is read while the one before it is applied.
struct Page {
    after: i64,
    upto: i64,
    rows: JoinHandle<Result<Vec<Recorded>>>,
}

/// The next events of a source and the checkpoints they lead to.
pub(super) struct Batch {
    pub(super) events: Vec<Delivered>,
    /// How far it leads in the partitions of which there is something new, wanted or not.
    pub(super) reached: BTreeMap<i16, i64>,
    scanned: Option<i64>,
    verified: Option<i64>,
}

impl Cursor {
    pub(super) async fn load(subscription: &Subscription, source: &Source, slots: &Slots) -> Result<Self> {
        let name = source.log.source().to_owned();
        let life = subscription.home.signal().life();
        let mut positions =
            checkpoints::load(subscription.home.database(), &subscription.name, &name, 0).await?;
        let reached: Vec<(i16, i64)> =
            positions.iter().map(|(partition, position)| (*partition, *position)).collect();
        // Nobody remembers a row by now: one that is found in memory from here on was written by this process.
        subscription.home.signal().progressed(life, &subscription.name, &name, &reached, Mover::Own);
        let tail = source.log.follow();
        let head = source.log.signal().refresh().await?;
        if let Some(position) = positions.values().copied().max().filter(|position| *position > head) {
            return Err(Error::TakenBack { source_name: name, head, position });
        }
        positions.retain(|partition, _| slots.contains(partition));
        Ok(Self {
            source: name.into(),
            log: source.log.clone(),
            aggregates: source.aggregates.clone(),
            personal: source.personal,
            scanned: positions.clone(),
            stored: positions.clone(),
            unstored_since: None,
            positions,
            head: source.log.signal().head(),
            tail,
            verified: -1,
            ahead_since: None,
            last_arrival: Instant::now(),
            has_broker: subscription.heard().is_some(),
            // What was missed while nobody listened is in the log.
            following: true,
            expected: None,
            ahead: None,
            page_events: if subscription.subscriber.prepares_ahead() {
                BATCH_EVENTS
            } else {
                ROWS_PAGE_EVENTS
            },
        })
    }

    /// Waits until the log has grown.
    pub(super) async fn grown(&mut self) {
        tokio::select! {
            changed = self.head.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            () = self.tail.arrived() => {}
        }
    }

    /// When the log is to be looked into if nobody brings what is new.
    pub(super) fn look_at(&self) -> Option<Instant> {
        let since = self.ahead_since?;
        if self.following {
            let is_told = !self.has_broker && self.verified >= 0 && self.tail.has_told();
            return Some(if is_told { since + TOLD_WITHIN } else { since });
        }
        Some((since + SILENCE).max(self.last_arrival + SILENCE).min(since + LONGEST_DOUBT))
    }

    /// When checkpoints that moved past what needed nothing written are to be stored, in a process that is alone or
    /// not.
    pub(super) fn store_at(&self, is_alone: bool) -> Option<Instant> {
        Some(self.unstored_since? + if is_alone { UNSTORED_ALONE } else { UNSTORED })
    }

    /// Whether so much was written by this process that it must be taken now.
    pub(super) fn is_filling(&self) -> bool {
        self.tail.is_filling()
    }

    /// The steps to the checkpoints that are not stored yet.
    pub(super) fn unstored(&self) -> Vec<Step> {
        self.steps(&BTreeMap::new())
    }

    /// When something is to be done without an arrival.
    pub(super) fn wake_at(&self, is_alone: bool) -> Option<Instant> {
        self.look_at().into_iter().chain(self.store_at(is_alone)).min()
    }

    pub(super) fn should_look(&mut self) -> bool {
        let head = *self.head.borrow_and_update();
        if head <= self.verified {
            self.ahead_since = None;
            return false;
        }
        let now = Instant::now();
        self.ahead_since.get_or_insert(now);
        self.look_at().is_some_and(|at| at <= now)
    }

    fn floor(&self, partition: i16) -> Option<i64> {
        let position = self.positions.get(&partition)?;
        Some((*position).max(self.scanned.get(&partition).copied().unwrap_or_default()))
    }

    /// Takes what this process wrote itself, as far as it follows right upon what is known.
    pub(super) async fn take(&mut self) -> Result<Option<Batch>> {
        if self.verified < 0 {
            return Ok(None);
        }
        let mut upto = self.verified;
        let mut reached: BTreeMap<i16, i64> = BTreeMap::new();
        let mut events = Vec::new();
        while events.len() < BATCH_EVENTS
            && let Some((batch, from)) = self.tail.next(upto)
        {
            for event in &batch[from..] {
                upto = event.position;
                if self.floor(event.partition).is_none_or(|floor| event.position <= floor) {
                    continue;
                }
                reached.insert(event.partition, event.position);
                if self.wants(&event.aggregate_type) {
                    events.push(Delivered::stored(Arc::clone(&self.source), Arc::clone(event)));
                }
            }
        }
        if upto == self.verified {
            return Ok(None);
        }
        self.is_brought();
        Ok(Some(self.batch(events, reached, Some(upto), Some(upto)).await?))
    }

    /// Sorts the records of the broker: duplicates are skipped, gaps are filled from the log.
    pub(super) async fn accept(
        &mut self,
        subscription: &Subscription,
        records: impl Iterator<Item = Incoming>,
    ) -> Result<Batch> {
        let mut reached: BTreeMap<i16, i64> = BTreeMap::new();
        let mut events: Vec<Delivered> = Vec::new();
        for record in records {
            let Some(floor) = self.floor(record.partition) else { continue };
            let floor = reached.get(&record.partition).copied().unwrap_or(floor);
            if record.position <= floor && !planted!("defect-projector-skips-dedup") {
                self.heard(subscription, record.position);
                metrics::counter!("mart_duplicates_skipped_total", "subscription" => subscription.name.clone())
                    .increment(1);
                continue;
            }
            if record.previous > floor {
                if record.position - floor > WIDE_GAP {
                    self.following = true;
                    self.verified = -1;
                    continue;
                }
                metrics::counter!("mart_gaps_filled_total", "subscription" => subscription.name.clone())
                    .increment(1);
                let missing = feed::read_partitions(
                    self.log.connections(),
                    &[record.partition],
                    floor,
                    record.position - 1,
                    WIDE_GAP,
                )
                .await?;
                for recorded in missing {
                    events.push(self.delivered(recorded));
                }
            }
            reached.insert(record.partition, record.position.max(floor));
            match (subscription.reader)(&self.source, record.partition, record.position, record.payload) {
                Ok(event) => events.push(event),
                Err(_) if planted!("defect-poison-swallowed") => {}
                Err(error) => {
                    tracing::warn!(%error, source = &*self.source, position = record.position, "an unreadable record; the log has the event");
                    metrics::counter!("mart_records_unreadable_total").increment(1);
                    let recorded = feed::read_positions(self.log.connections(), &[record.position]).await?;
                    events.extend(recorded.into_iter().map(|recorded| self.delivered(recorded)));
                }
            }
        }
        if !reached.is_empty() {
            self.is_brought();
        }
        self.batch(events, reached, None, None).await
    }

    /// What is new was brought: the log need not be followed.
    fn is_brought(&mut self) {
        self.last_arrival = Instant::now();
        self.following = !self.has_broker;
        self.expected = None;
        self.ahead = None;
    }

    /// An event that was read from the log.
    fn delivered(&self, recorded: Recorded) -> Delivered {
        Delivered::stored(Arc::clone(&self.source), recorded)
    }

    fn wants(&self, aggregate_type: &str) -> bool {
        self.aggregates.is_empty() || self.aggregates.contains(&aggregate_type)
    }

    /// Up to where a record of the broker tells nothing new. While the log is followed each is of interest: it shows
    /// that the broker is there again.
    pub(super) fn known(&self) -> i64 {
        if self.following { -1 } else { self.verified }
    }

    /// The broker brought what the log has given already. The log tells of itself at once, so that whoever follows
    /// it is always ahead of the broker: only by this is it seen that the broker can be relied on again.
    fn heard(&mut self, subscription: &Subscription, position: i64) {
        let Some((expected, seen_at)) = self.expected else { return };
        if position < expected {
            return;
        }
        self.expected = None;
        if seen_at.elapsed() < SILENCE {
            self.last_arrival = Instant::now();
            self.following = false;
            tracing::debug!(
                subscription = subscription.name,
                source = &*self.source,
                "the broker delivers again"
            );
        }
    }

    /// Reads on in the log.
    pub(super) async fn look(&mut self, subscription: &Subscription) -> Result<Batch> {
        let head = *self.head.borrow();
        let after =
            self.positions.keys().filter_map(|partition| self.floor(*partition)).min().unwrap_or(head);
        let page = match self.ahead.take().filter(|page| page.after == after) {
            Some(page) => page,
            None => self.read(after, head),
        };
        let head = page.upto;
        let rows = page.rows.await.map_err(|_| Error::ShuttingDown)??;
        let complete = rows.len() < self.page_events;
        let upto = if complete { head } else { rows.last().map_or(head, |last| last.position) };
        if !complete {
            self.ahead = Some(self.read(upto, *self.head.borrow()));
        }
        let new: Vec<Recorded> = rows
            .into_iter()
            .filter(|row| self.floor(row.partition).is_some_and(|floor| row.position > floor))
            .collect();
        if !new.is_empty() && self.has_broker && self.verified >= 0 && !self.following {
            tracing::info!(
                subscription = subscription.name,
                source = &*self.source,
                "the broker is silent; following the log"
            );
            metrics::counter!("mart_log_followed_total", "subscription" => subscription.name.clone())
                .increment(1);
        }
        self.following = !self.has_broker || !new.is_empty();
        if let Some(last) = new.last().filter(|_| self.following && self.expected.is_none()) {
            self.expected = Some((last.position, Instant::now()));
        }
        let mut reached: BTreeMap<i16, i64> = BTreeMap::new();
        for event in &new {
            reached.insert(event.partition, event.position);
        }
        let events = new.into_iter().map(|recorded| self.delivered(recorded)).collect();
        self.batch(events, reached, Some(upto), complete.then_some(head)).await
    }

    /// Begins to read what this subscription has to know of the log.
    fn read(&self, after: i64, upto: i64) -> Page {
        let (log, limit) = (self.log.clone(), self.page_events as i64);
        let partitions: Vec<i16> = self.positions.keys().copied().collect();
        let reading =
            async move { feed::read_partitions(log.connections(), &partitions, after, upto, limit).await };
        Page { after, upto, rows: tokio::spawn(reading) }
    }

    /// The steps from what is stored to what is reached, now or before.
    pub(super) fn steps(&self, reached: &BTreeMap<i16, i64>) -> Vec<Step> {
        self.stored
            .iter()
            .filter_map(|(partition, from)| {
                let to = *reached.get(partition).or_else(|| self.positions.get(partition))?;
                (to != *from).then_some(Step { partition: *partition, from: *from, to })
            })
            .collect()
    }

    /// Keeps the events that are wanted, with their personal fields where those are asked for.
    async fn batch(
        &self,
        mut events: Vec<Delivered>,
        reached: BTreeMap<i16, i64>,
        scanned: Option<i64>,
        verified: Option<i64>,
    ) -> Result<Batch> {
        events.retain(|event| self.wants(&event.aggregate_type));
        if self.personal && !events.is_empty() {
            let published: Vec<i64> = events
                .iter()
                .filter(|event| matches!(event.body(), Body::Published(_)))
                .map(|event| event.position)
                .collect();
            let mut stored: BTreeMap<i64, Recorded> = BTreeMap::new();
            if !published.is_empty() {
                for recorded in feed::read_positions(self.log.connections(), &published).await? {
                    stored.insert(recorded.position, recorded);
                }
            }
            for event in &mut events {
                if let Some(recorded) = stored.remove(&event.position) {
                    *event = self.delivered(recorded);
                }
                event.open(&self.log).await?;
            }
        }
        Ok(Batch { events, reached, scanned, verified })
    }

    /// Where the database has a partition's checkpoint.
    pub(super) fn stored(&self, partition: i16) -> i64 {
        self.stored.get(&partition).copied().unwrap_or_default()
    }

    /// Notes a checkpoint that was moved ahead of its batch.
    pub(super) fn moved(&mut self, step: Step) {
        self.positions.insert(step.partition, step.to);
        self.stored.insert(step.partition, step.to);
    }

    /// Notes that checkpoints were moved to all that is reached.
    pub(super) fn is_stored(&mut self, steps: &[Step]) {
        for step in steps {
            self.moved(*step);
        }
        self.unstored_since = None;
    }

    /// Notes that a batch needed nothing written: its checkpoints are stored with the next one, or soon. Until then its
    /// events come again after a crash, and with them what is still in hand because of them.
    pub(super) fn pass(&mut self, steps: &[Step]) {
        for step in steps {
            self.positions.insert(step.partition, step.to);
        }
        self.unstored_since.get_or_insert_with(Instant::now);
    }

    /// Notes how far the log was looked into for a batch: what comes next lies behind it. Its checkpoints move when it is
    /// applied.
    pub(super) fn begin(&mut self, batch: &Batch) {
        for (partition, position) in &batch.reached {
            self.scanned.insert(*partition, *position);
        }
        if let Some(upto) = batch.scanned {
            for scanned in self.scanned.values_mut() {
                *scanned = upto.max(*scanned);
            }
        }
        if let Some(head) = batch.verified {
            if head > self.verified || *self.head.borrow() <= head {
                self.ahead_since = None;
            }
            self.verified = head;
        }
    }
}
