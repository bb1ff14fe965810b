//! Batches that are prepared while those before them are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use event_store::event::partition_of;
use event_store::read_your_writes::{self, Place};
use event_store::subscription::{ApplyError, Delivered, Reacting, Reactor, Subscription};
use event_store::timers::TimerChanges;
use event_store::{Context, Log, Target, parked};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::account::{AccountCommand, bus, log, new_id};
use crate::following::{PATIENCE, balances, caught_up, deposit, subscription, tables};

/// Longer than checkpoints stay unstored.
const A_WHILE: Duration = Duration::from_millis(400);

/// Is done with an event when its gate is opened; refuses one then.
struct Gated {
    begun: mpsc::UnboundedSender<i64>,
    opened: watch::Receiver<BTreeSet<i64>>,
    refused: Option<i64>,
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
            if self.refused == Some(event.position) {
                return Err(ApplyError::Event("refused".to_owned()));
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
    fn start(log: &Log, refused: Option<i64>) -> Self {
        let (tell, begun) = mpsc::unbounded_channel();
        let (gates, opened) = watch::channel(BTreeSet::new());
        let stop = CancellationToken::new();
        let subscriber = Arc::new(Reacting(Gated { begun: tell, opened, refused }));
        let follower = tokio::spawn(Subscription { subscriber, ..subscription(log, None) }.run(stop.clone()));
        Self { log: log.clone(), begun, gates, stop, follower }
    }

    fn open(&self, positions: &[i64]) {
        self.gates.send_modify(|opened| opened.extend(positions));
    }

    /// Makes a deposit, and waits until the reaction to it has begun.
    async fn deposit(&mut self, account: &str) {
        let (target, command) = (Target::Existing(account.to_owned()), AccountCommand::Deposit { amount: 2 });
        let done = bus(&self.log).execute(target, command, Context::default()).await.expect("accepted");
        assert_eq!(self.next_begun().await, done.position);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_begins_before_the_one_ahead_is_done_and_ends_after_it() {
    let (_database, log) = log().await;
    let mut reactions = Reactions::start(&log, None);
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
async fn batches_behind_one_that_cannot_be_applied_are_prepared_again_after_it() {
    let (_database, log) = log().await;
    let mut reactions = Reactions::start(&log, Some(1));
    let (refused, other) = (new_id(), new_id());
    reactions.deposit(&refused).await;
    reactions.deposit(&other).await;
    reactions.deposit(&refused).await;
    reactions.open(&[1, 2, 3]);
    assert!(reactions.has_come_to(&other, 2, PATIENCE).await);
    assert!(reactions.has_come_to(&refused, 3, PATIENCE).await);
    let parked = parked::list(log.database(), Some("balances"), 10).await.expect("read");
    let positions: Vec<i64> = parked.iter().map(|parked| parked.position).collect();
    assert_eq!(positions, [1, 3], "what follows in a stream waits behind what was refused");
    let mut again = Vec::new();
    while let Ok(position) = reactions.begun.try_recv() {
        again.push(position);
    }
    assert_eq!(again.last(), Some(&2), "begun again behind all tries of the first: {again:?}");
    reactions.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_is_done_before_a_subscription_ends() {
    let (_database, log) = log().await;
    let mut reactions = Reactions::start(&log, None);
    let account = new_id();
    reactions.deposit(&account).await;
    reactions.deposit(&account).await;
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
