//! Brokers that are down, forget, or answer nobody: nothing is lost meanwhile, and afterwards they bring the events
//! again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use embedded::testing::{self, TestBroker, TestDatabase};
use event_store::Log;
use event_store::relay;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::account::log;
use crate::following::{
    Balances, PATIENCE, balances, caught_up, connect, deposit, encoder, make_topic, subscription, tables,
};

/// How slow the broker in this process is.
const SLOWNESS: Duration = Duration::from_millis(20);

/// A log that is relayed to a broker and followed over it.
struct Followed {
    _database: TestDatabase,
    log: Log,
    server: TestBroker,
    published: Arc<AtomicUsize>,
    expected: HashMap<String, i64>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Followed {
    async fn start() -> Self {
        let (database, log) = log().await;
        tables(&log).await;
        let server = testing::broker_apart().await;
        make_topic(&server).await;
        if let Some(embedded) = server.embedded("being slow, which it is by itself") {
            // What the log tells is always ahead of a broker, if only it is on the network.
            embedded.slow_down(SLOWNESS).expect("it is slow");
        }
        let (relaying, listening) = (connect(&server), connect(&server));
        let balances = Balances::default();
        let published = Arc::clone(&balances.published);
        let mut subscription = subscription(&log, Some(listening));
        subscription.subscriber = Arc::new(balances);
        let stop = CancellationToken::new();
        let tasks = vec![
            tokio::spawn(relay::run(log.clone(), relaying, encoder(), stop.clone())),
            tokio::spawn(subscription.run(stop.clone())),
        ];
        let mut followed =
            Self { _database: database, log, server, published, expected: HashMap::new(), stop, tasks };
        followed.comes_over_the_broker().await;
        followed
    }

    /// Deposits, and waits until it is seen.
    async fn goes_on(&mut self) {
        self.expected.extend(deposit(&self.log, 10, 2).await);
        caught_up(&self.log).await;
    }

    /// Waits until what is deposited comes over the broker and not from the log.
    async fn comes_over_the_broker(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let before = self.published.load(Ordering::Relaxed);
        while self.published.load(Ordering::Relaxed) == before {
            assert!(Instant::now() < deadline, "the broker brings nothing");
            self.goes_on().await;
        }
    }

    async fn end(self) {
        assert_eq!(balances(&self.log).await, self.expected);
        self.stop.cancel();
        for task in self.tasks {
            task.await.expect("it ends");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_down_and_up_loses_nothing() {
    let mut followed = Followed::start().await;
    followed.server.down();
    followed.goes_on().await;
    followed.server.up().await;
    followed.comes_over_the_broker().await;
    followed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_empty_loses_nothing() {
    let mut followed = Followed::start().await;
    followed.server.down();
    followed.goes_on().await;
    followed.server.lose_everything().await;
    if followed.server.is_embedded() {
        make_topic(&followed.server).await;
    }
    followed.comes_over_the_broker().await;
    followed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_answers_nobody_holds_nobody_up() {
    let mut followed = Followed::start().await;
    followed.server.freeze();
    followed.goes_on().await;
    followed.server.thaw();
    followed.comes_over_the_broker().await;
    followed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_is_made_again_and_loses_nothing() {
    let mut followed = Followed::start().await;
    let topic = connect(&followed.server).config().topic_of("accounts");
    followed.server.delete_topics(&[topic]).await;
    followed.goes_on().await;
    followed.comes_over_the_broker().await;
    followed.end().await;
}
