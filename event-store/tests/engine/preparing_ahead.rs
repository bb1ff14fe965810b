//! Batches that are prepared while those before them are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use event_store::event::partition_of;
use event_store::read_your_writes::{self, Place};
use event_store::subscription::{ApplyError, Delivered, Reacting, Reactor, Subscription};
use event_store::timers::TimerChanges;
use event_store::{Context, Error, Log, Target, parked};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::account::{AccountCommand, bus, log, new_id};
use crate::following::{PATIENCE, balances, caught_up, deposit, subscription, tables};

/// Longer than checkpoints stay unstored.
const A_WHILE: Duration = Duration::from_millis(400);

/// What comes of the reaction to events when their gates are opened.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// All are done.
    Done,
    /// One is refused.
    Refused(i64),
    /// One fails at the first time.
    FailedOnce(i64),
    /// One panics.
    Panics(i64),
}

struct Gated {
    begun: mpsc::UnboundedSender<i64>,
    opened: watch::Receiver<BTreeSet<i64>>,
    answer: Answer,
    has_failed: AtomicBool,
}

#[async_trait]
impl Reactor for Gated {
    async fn react(&self, batch: &[Delivered]) -> Result<TimerChanges, ApplyError> {
        for event in batch {
            self.begun.send(event.position).expect("somebody listens");
        }
        let mut opened = self.opened.clone();
        for event in batch {
            opened.wait_for(|opened| opened.contains(&event.position)).await.expect("it is opened");
            match self.answer {
                Answer::Refused(position) if position == event.position => {
                    return Err(ApplyError::Event("refused".to_owned()));
                }
                Answer::FailedOnce(position)
                    if position == event.position && !self.has_failed.swap(true, Ordering::Relaxed) =>
                {
                    return Err(Error::Busy.into());
                }
                Answer::Panics(position) => {
                    assert_ne!(position, event.position, "nobody knows what to do about this one");
                }
                Answer::Done | Answer::Refused(_) | Answer::FailedOnce(_) => {}
            }
        }
        Ok(TimerChanges::default())
    }

    fn queues_at_once(&self) -> bool {
        true
    }
}

/// A subscription whose reactions wait at their gates.
struct Reactions {
    log: Log,
    begun: mpsc::UnboundedReceiver<i64>,
    gates: watch::Sender<BTreeSet<i64>>,
    stop: CancellationToken,
    follower: JoinHandle<()>,
}

impl Reactions {
    fn start(log: &Log, answer: Answer) -> Self {
        let (tell, begun) = mpsc::unbounded_channel();
        let (gates, opened) = watch::channel(BTreeSet::new());
        let stop = CancellationToken::new();
        let subscriber =
            Arc::new(Reacting(Gated { begun: tell, opened, answer, has_failed: AtomicBool::new(false) }));
        let follower = tokio::spawn(Subscription { subscriber, ..subscription(log, None) }.run(stop.clone()));
        Self { log: log.clone(), begun, gates, stop, follower }
    }

    fn open(&self, positions: &[i64]) {
        self.gates.send_modify(|opened| opened.extend(positions));
    }

    /// Makes a deposit, and waits until the reaction to it has begun.
    async fn deposit(&mut self, account: &str) {
        let position = self.give(account).await;
        assert_eq!(self.next_begun().await, position);
    }

    /// Makes a deposit, and gives its position.
    async fn give(&self, account: &str) -> i64 {
        let (target, command) = (Target::Existing(account.to_owned()), AccountCommand::Deposit { amount: 2 });
        bus(&self.log).execute(target, command, Context::default()).await.expect("accepted").position
    }

    /// The events whose reactions have begun and were not asked for.
    fn begun_since(&mut self) -> Vec<i64> {
        std::iter::from_fn(|| self.begun.try_recv().ok()).collect()
    }

    async fn next_begun(&mut self) -> i64 {
        let begun = tokio::time::timeout(PATIENCE, self.begun.recv()).await;
        begun.expect("it begins although others are not done").expect("it is told")
    }

    async fn has_come_to(&self, account: &str, position: i64, limit: Duration) -> bool {
        let place =
            Place { source: self.log.source().to_owned(), partition: Some(partition_of(account)), position };
        read_your_writes::wait(&self.log, &["balances"], &place, None, limit).await.expect("answers")
    }

    /// The furthest checkpoint in the database.
    async fn stored(&self) -> i64 {
        sqlx::query_scalar("select coalesce(max(position), 0) from event_store.checkpoints")
            .fetch_one(self.log.database())
            .await
            .expect("read")
    }

    async fn end(self) {
        self.stop.cancel();
        self.follower.await.expect("the subscription ends");
    }
}

/// Something happens to what the subscription does not follow.
async fn happens(log: &Log, aggregate_id: &str, sequence: i64) {
    sqlx::query(
        "insert into event_store.events \
         select max(position) + 1, 'vault', $1, $2, 'VaultLocked', '1.0', '{}', '{}', event_store.partition_of($1), \
                clock_timestamp() \
         from event_store.events",
    )
    .bind(aggregate_id)
    .bind(sequence)
    .execute(log.database())
    .await
    .expect("inserted");
    log.signal().refresh().await.expect("told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_begins_before_the_one_ahead_is_done_and_ends_after_it() {
    let (_database, log) = log().await;
    let mut reactions = Reactions::start(&log, Answer::Done);
    let (first, second) = (new_id(), new_id());
    reactions.deposit(&first).await;
    reactions.deposit(&second).await;
    reactions.open(&[2]);
    assert!(!reactions.has_come_to(&second, 2, A_WHILE).await, "the first is not done");
    assert_eq!(reactions.stored().await, 0);
    reactions.open(&[1]);
    assert!(reactions.has_come_to(&first, 1, PATIENCE).await);
    assert!(reactions.has_come_to(&second, 2, PATIENCE).await);
    reactions.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_next_in_a_stream_waits_for_what_came_before() {
    let (_database, log) = log().await;
    let mut reactions = Reactions::start(&log, Answer::Done);
    let (account, other) = (new_id(), new_id());
    reactions.deposit(&account).await;
    reactions.give(&account).await;
    let begun = tokio::time::timeout(A_WHILE, reactions.begun.recv()).await;
    assert!(begun.is_err(), "the second of the stream has begun: {begun:?}");
    reactions.open(&[1]);
    assert_eq!(reactions.next_begun().await, 2);
    reactions.deposit(&other).await;
    reactions.open(&[2, 3]);
    assert!(reactions.has_come_to(&other, 3, PATIENCE).await);
    reactions.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_behind_one_that_cannot_be_applied_are_prepared_again_after_it() {
    let (_database, log) = log().await;
    let mut reactions = Reactions::start(&log, Answer::Refused(1));
    let (refused, other) = (new_id(), new_id());
    reactions.deposit(&refused).await;
    reactions.deposit(&other).await;
    reactions.give(&refused).await;
    reactions.open(&[1, 2, 3]);
    assert!(reactions.has_come_to(&other, 2, PATIENCE).await);
    assert!(reactions.has_come_to(&refused, 3, PATIENCE).await);
    let parked = parked::list(log.database(), Some("balances"), 10).await.expect("read");
    let positions: Vec<i64> = parked.iter().map(|parked| parked.position).collect();
    assert_eq!(positions, [1, 3], "what follows in a stream waits behind what was refused");
    let again = reactions.begun_since();
    assert_eq!(again.last(), Some(&2), "begun again behind all tries of the first: {again:?}");

    // What waits there keeps nobody else from beginning ahead.
    let (third, fourth) = (new_id(), new_id());
    reactions.deposit(&third).await;
    reactions.deposit(&fourth).await;
    reactions.open(&[4, 5]);
    assert!(reactions.has_come_to(&fourth, 5, PATIENCE).await);
    reactions.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_nobody_survives_is_parked_like_one_that_is_refused() {
    let (_database, log) = log().await;
    let mut reactions = Reactions::start(&log, Answer::Panics(1));
    let (fatal, other) = (new_id(), new_id());
    reactions.deposit(&fatal).await;
    reactions.deposit(&other).await;
    reactions.open(&[1, 2]);
    assert!(reactions.has_come_to(&fatal, 1, PATIENCE).await);
    assert!(reactions.has_come_to(&other, 2, PATIENCE).await);
    let parked = parked::list(log.database(), Some("balances"), 10).await.expect("read");
    let told: Vec<(i64, &str)> =
        parked.iter().map(|parked| (parked.position, parked.error.as_str())).collect();
    assert!(matches!(told[..], [(1, error)] if error.contains("nobody knows what to do")), "{told:?}");
    reactions.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_stored_behind_a_batch_whose_commands_failed() {
    let (_database, log) = log().await;
    let mut reactions = Reactions::start(&log, Answer::FailedOnce(2));
    let accounts = [new_id(), new_id(), new_id()];
    for account in &accounts {
        reactions.deposit(account).await;
    }
    reactions.open(&[2, 3]);
    assert!(!reactions.has_come_to(&accounts[2], 3, A_WHILE).await);
    reactions.open(&[1]);
    for (account, position) in accounts.iter().zip(1..) {
        assert!(reactions.has_come_to(account, position, PATIENCE).await);
    }
    let again = reactions.begun_since();
    assert!(again.contains(&2) && again.contains(&3), "both are done again: {again:?}");
    reactions.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_eight_batches_are_under_way() {
    let (_database, log) = log().await;
    let mut reactions = Reactions::start(&log, Answer::Done);
    for _ in 0..8 {
        reactions.deposit(&new_id()).await;
    }
    let waiting = new_id();
    let position = reactions.give(&waiting).await;
    let begun = tokio::time::timeout(A_WHILE, reactions.begun.recv()).await;
    assert!(begun.is_err(), "a ninth has begun: {begun:?}");
    reactions.open(&[1]);
    assert_eq!(reactions.next_begun().await, position);
    reactions.open(&[2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(reactions.has_come_to(&waiting, position, PATIENCE).await);
    reactions.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_for_a_moment_is_not_passed_by_what_comes_next_in_its_stream() {
    let (_database, log) = log().await;
    let mut reactions = Reactions::start(&log, Answer::FailedOnce(2));
    let (first, failing) = (new_id(), new_id());
    reactions.deposit(&first).await;
    reactions.deposit(&failing).await;
    reactions.open(&[2]);
    tokio::time::sleep(A_WHILE).await;
    reactions.give(&failing).await;
    let begun = tokio::time::timeout(A_WHILE, reactions.begun.recv()).await;
    assert!(begun.is_err(), "what comes after the failed one has begun: {begun:?}");
    reactions.open(&[1, 3]);
    assert!(reactions.has_come_to(&failing, 3, PATIENCE).await);
    let again: Vec<i64> = reactions.begun_since().into_iter().filter(|position| *position > 1).collect();
    assert_eq!(again, [2, 3]);
    reactions.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_not_wanted_pass_none_that_is_under_way() {
    let (_database, log) = log().await;
    let mut reactions = Reactions::start(&log, Answer::Done);
    let (account, unwanted) = (new_id(), new_id());
    reactions.deposit(&account).await;
    for sequence in 1..=20 {
        happens(&log, &unwanted, sequence).await;
    }
    assert!(!reactions.has_come_to(&unwanted, 21, A_WHILE).await, "they passed");
    assert_eq!(reactions.stored().await, 0);
    reactions.deposit(&new_id()).await;
    reactions.open(&[1, 22]);
    assert!(reactions.has_come_to(&unwanted, 21, PATIENCE).await);
    reactions.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_is_done_before_a_subscription_ends() {
    let (_database, log) = log().await;
    let mut reactions = Reactions::start(&log, Answer::Done);
    reactions.deposit(&new_id()).await;
    reactions.deposit(&new_id()).await;
    reactions.stop.cancel();
    let ended = tokio::time::timeout(A_WHILE, &mut reactions.follower).await;
    assert!(ended.is_err(), "commands that were given are waited for");
    reactions.open(&[1, 2]);
    (&mut reactions.follower).await.expect("the subscription ends");
    assert_eq!(reactions.stored().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_several_readings_is_applied_once_and_in_order() {
    let (_database, log) = log().await;
    tables(&log).await;
    let expected = deposit(&log, 300, 20).await;
    let stop = CancellationToken::new();
    let follower = tokio::spawn(subscription(&log, None).run(stop.clone()));
    caught_up(&log).await;
    assert_eq!(balances(&log).await, expected);
    stop.cancel();
    follower.await.expect("the subscription ends");
}
