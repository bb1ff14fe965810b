//! What fails for good costs no more than itself: not the records before it, the streams beside it, or the end of
//! the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use embedded::testing;
use event_store::relay;
use event_store::subscription::{
    ApplyError, Delivered, Effects, Source, Subscriber, Subscription, retry_parked,
};
use event_store::{Context, Error, Log, Target, parked};
use sqlx::PgConnection;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::account::{AccountCommand, apart, bus, log, new_id};
use crate::following::{
    Balances, PATIENCE, balances, caught_up, connect, encoder, make_topic, subscription, tables,
};

/// Many streams that fail together may take about as long as one, which is tried for 1.3 s; one after the other
/// these would take 20 s.
const TOGETHER: Duration = Duration::from_secs(10);
const UNLUCKY_STREAMS: usize = 16;

pub(crate) async fn deposit(log: &Log, id: &str, amount: i64) {
    bus(log)
        .execute(Target::Existing(id.to_owned()), AccountCommand::Deposit { amount }, Context::default())
        .await
        .expect("accepted");
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let mut looks = interval(Duration::from_millis(10));
    let waiting = async {
        while !holds().await {
            looks.tick().await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_a_message_is_tried_again_and_what_lies_before_it_is_not() {
    let (_database, log) = log().await;
    let id = new_id();
    for amount in 1..=6 {
        deposit(&log, &id, amount).await;
    }
    let tried: Arc<Mutex<HashMap<i64, usize>>> = Arc::default();
    let (counting, good) = (Arc::clone(&tried), encoder());
    let encode: relay::Encoder = Arc::new(move |event| {
        *counting.lock().expect("nobody panics").entry(event.position).or_default() += 1;
        if event.position == 6 { Err(Error::Malformed("no message".to_owned())) } else { good(event) }
    });
    let server = testing::broker();
    make_topic(&server).await;
    let stop = CancellationToken::new();
    let relay = tokio::spawn(relay::run(log.clone(), connect(&server), encode, stop.clone()));
    until("the event is tried four times", async || {
        tried.lock().expect("nobody panics").get(&6).is_some_and(|times| *times >= 4)
    })
    .await;
    stop.cancel();
    relay.await.expect("the relay ends");
    let tried = tried.lock().expect("nobody panics");
    let before: Vec<usize> = (1..=5).map(|position| tried[&position]).collect();
    assert_eq!(before, [1; 5], "each is sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_fail_together_wait_together() {
    let (_database, log) = log().await;
    tables(&log).await;
    for _ in 0..UNLUCKY_STREAMS {
        deposit(&log, &new_id(), 13).await;
    }
    let (begun, stop) = (Instant::now(), CancellationToken::new());
    let follower = tokio::spawn(subscription(&log, None).run(stop.clone()));
    caught_up(&log).await;
    let took = begun.elapsed();
    assert_eq!(parked::count(log.database(), "balances").await.expect("counted"), UNLUCKY_STREAMS as i64);
    assert!(took < TOGETHER, "it took {took:?}");
    stop.cancel();
    follower.await.expect("the subscription ends");
}

/// Refuses everything and counts.
struct Refusing(watch::Sender<usize>);

#[async_trait]
impl Subscriber for Refusing {
    async fn write(&self, _batch: &[Delivered], _transaction: &mut PgConnection) -> Result<(), ApplyError> {
        self.0.send_modify(|tries| *tries += 1);
        Err(ApplyError::Event("never".to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_to_stop_does_not_try_to_the_end() {
    let (_database, log) = log().await;
    deposit(&log, &new_id(), 1).await;
    let (tries, mut tried) = watch::channel(0);
    let stop = CancellationToken::new();
    let refusing = Subscription { subscriber: Arc::new(Refusing(tries)), ..subscription(&log, None) };
    let follower = tokio::spawn(refusing.run(stop.clone()));
    // Once in its batch, and once alone.
    timeout(PATIENCE, tried.wait_for(|tries| *tries >= 2)).await.expect("in time").expect("it runs");
    stop.cancel();
    timeout(PATIENCE, follower).await.expect("in time").expect("the subscription ends");
    assert_eq!(parked::count(log.database(), "balances").await.expect("counted"), 0);
}

/// Stops before the third event of a stream until it is let go on.
struct Hesitating {
    stopped: Notify,
    go_on: Notify,
}

#[async_trait]
impl Subscriber for Hesitating {
    async fn prepare(&self, batch: &[Delivered]) -> Result<Effects, ApplyError> {
        if batch.iter().any(|event| event.sequence == 3) {
            self.stopped.notify_one();
            self.go_on.notified().await;
        }
        Ok(Effects::Rows)
    }

    async fn write(&self, batch: &[Delivered], transaction: &mut PgConnection) -> Result<(), ApplyError> {
        Balances::default().write(batch, transaction).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_back_in_order_is_committed_event_by_event() {
    let (_database, log) = log().await;
    tables(&log).await;
    let id = new_id();
    for amount in [1, 13, 2] {
        deposit(&log, &id, amount).await;
    }
    let stop = CancellationToken::new();
    let follower = tokio::spawn(subscription(&log, None).run(stop.clone()));
    caught_up(&log).await;
    assert_eq!(parked::count(log.database(), "balances").await.expect("counted"), 2);
    sqlx::query("insert into cured values (now())").execute(log.database()).await.expect("cured");

    let hesitating = Arc::new(Hesitating { stopped: Notify::new(), go_on: Notify::new() });
    let retrying = tokio::spawn({
        let (log, hesitating) = (log.clone(), Arc::clone(&hesitating));
        async move {
            let sources = [Source { log: log.clone(), aggregates: vec![], personal: false }];
            retry_parked(&log, "balances", &sources, hesitating.as_ref()).await
        }
    });
    timeout(PATIENCE, hesitating.stopped.notified()).await.expect("it comes to the third event");
    assert_eq!(balances(&log).await, HashMap::from([(id.clone(), 14)]), "the second one is applied");
    // The waiting room is free meanwhile: another stream gets into it.
    deposit(&log, &new_id(), 5).await;
    caught_up(&log).await;
    hesitating.go_on.notify_one();
    let retried = retrying.await.expect("it ends").expect("it is tried");
    assert_eq!((retried.applied, retried.stuck.len()), (2, 0));
    stop.cancel();
    follower.await.expect("the subscription ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_of_the_server_undid_is_done_again_without_a_new_event() {
    let (_database, log) = log().await;
    tables(&log).await;
    let stop = CancellationToken::new();
    let follower = tokio::spawn(subscription(&log, None).run(stop.clone()));
    let id = new_id();
    deposit(&log, &id, 2).await;
    caught_up(&log).await;
    let expected = HashMap::from([(id, 2)]);
    assert_eq!(balances(&log).await, expected);

    // As after a crash: what was not flushed is gone, and so are all connections.
    sqlx::raw_sql(
        "update event_store.checkpoints set position = 0; delete from balances; \
         select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid()",
    )
    .execute(log.database())
    .await
    .expect("undone");
    let looking = apart(&log);
    until("its balance is there again", async || balances(&looking).await == expected).await;
    stop.cancel();
    follower.await.expect("the subscription ends");
}
