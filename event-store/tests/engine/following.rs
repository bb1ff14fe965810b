//! Relay and subscriptions: everything once in effect, whatever the broker does.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use embedded::testing::{self, TestBroker};
use event_store::broker::{Broker, BrokerConfig};
use event_store::read_your_writes::{self, Place};
use event_store::relay::{self, Encoder, Published};
use event_store::subscription::{
    ApplyError, Body, Delivered, Pace, Reader, Source, Subscriber, Subscription, retry_parked,
};
use event_store::{Context, Error, Log, Recorded, Target, feed, parked};
use futures::future::join_all;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use sqlx::{PgConnection, Row};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::account::{AccountCommand, AccountEvent, apart, bus, log, new_id, open};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Adds up deposits per account. An amount of 13 is poison until the table `cured` has a row.
#[derive(Default)]
pub(crate) struct Balances {
    /// How many events have come over the broker.
    pub(crate) published: Arc<AtomicUsize>,
}

#[async_trait]
impl Subscriber for Balances {
    async fn write(&self, batch: &[Delivered], transaction: &mut PgConnection) -> Result<(), ApplyError> {
        for event in batch {
            let json: Value = match event.body() {
                Body::Stored(json) => serde_json::from_str(json).expect("json"),
                Body::Published(bytes) => {
                    self.published.fetch_add(1, Ordering::Relaxed);
                    serde_json::from_slice(bytes).expect("json")
                }
            };
            let Ok(AccountEvent::MoneyDeposited { amount }) = serde_json::from_value(json) else { continue };
            let cured: i64 =
                sqlx::query_scalar("select count(*) from cured").fetch_one(&mut *transaction).await?;
            if amount == 13 && cured == 0 {
                return Err(ApplyError::Event("an unlucky amount".to_owned()));
            }
            sqlx::query(
                "insert into balances as b (account, amount, trail) values ($1, $2, array[$3::bigint]) \
                 on conflict (account) do update set amount = b.amount + excluded.amount, trail = b.trail || $3",
            )
            .bind(&event.aggregate_id)
            .bind(amount)
            .bind(event.sequence)
            .execute(&mut *transaction)
            .await?;
        }
        Ok(())
    }
}

pub(crate) async fn tables(log: &Log) {
    sqlx::raw_sql(
        "create table if not exists balances (account text primary key, amount bigint, trail bigint[]); \
         create table if not exists cured (at timestamptz)",
    )
    .execute(log.database())
    .await
    .expect("tables");
}

/// In these tests the message of an event is `{envelope, payload}` as JSON.
pub(crate) fn encoder() -> Encoder {
    Arc::new(|event| {
        let message = json!({
            "aggregate_type": event.aggregate_type, "aggregate_id": event.aggregate_id, "sequence": event.sequence,
            "event_type": event.event_type, "metadata": event.metadata, "recorded_at": event.recorded_at,
            "payload": event.payload,
        });
        Ok(Published { payload: Bytes::from(message.to_string()), message_type: event.event_type.clone() })
    })
}

pub(crate) fn reader() -> Reader {
    Arc::new(|source, partition, position, bytes| {
        let read = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let message: Value = serde_json::from_slice(&bytes)
            .map_err(|source| Error::Decode { what: "a record".to_owned(), source })?;
        let event = Recorded {
            position,
            partition,
            aggregate_type: read(&message, "aggregate_type"),
            aggregate_id: read(&message, "aggregate_id"),
            sequence: message["sequence"].as_i64().unwrap_or_default(),
            event_type: read(&message, "event_type"),
            event_version: "1.0".to_owned(),
            metadata: serde_json::from_value(message["metadata"].clone()).unwrap_or_default(),
            recorded_at: serde_json::from_value(message["recorded_at"].clone()).unwrap_or_default(),
            payload: String::new(),
        };
        Ok(Delivered::published(source, event, Bytes::from(read(&message, "payload"))))
    })
}

/// The connection of a process to a broker of the tests.
pub(crate) fn connect(server: &TestBroker) -> Broker {
    Broker::new(BrokerConfig {
        topic_prefix: server.topic_prefix().to_owned(),
        embedded: server.is_embedded(),
        ..BrokerConfig::new(server.bootstrap_servers())
    })
}

/// Makes the topic of the accounts.
pub(crate) async fn make_topic(server: &TestBroker) {
    server.make_topics(&[connect(server).config().topic_of("accounts")], event_store::PARTITIONS).await;
}

pub(crate) fn subscription(log: &Log, broker: Option<Broker>) -> Subscription {
    Subscription {
        name: "balances".to_owned(),
        home: log.clone(),
        sources: vec![Source { log: log.clone(), aggregates: vec!["account"], personal: false }],
        subscriber: Arc::new(Balances::default()),
        broker,
        reader: reader(),
        pace: Pace::REACTIONS,
    }
}

/// Deposits from another process: what the one of the readers writes comes to them without a broker.
pub(crate) async fn deposit(log: &Log, accounts: usize, each: usize) -> HashMap<String, i64> {
    deposit_here(&apart(log), accounts, each).await
}

async fn deposit_here(log: &Log, accounts: usize, each: usize) -> HashMap<String, i64> {
    let bus = bus(log);
    let ids: Vec<String> = (0..accounts).map(|_| new_id()).collect();
    for _ in 0..each {
        let deposits = ids.iter().map(|id| {
            bus.execute(
                Target::Existing(id.clone()),
                AccountCommand::Deposit { amount: 2 },
                Context::default(),
            )
        });
        for result in join_all(deposits).await {
            result.expect("accepted");
        }
    }
    ids.into_iter().map(|id| (id, 2 * each as i64)).collect()
}

pub(crate) async fn caught_up(log: &Log) {
    let head = feed::head(log.database()).await.expect("a head");
    let place = Place { source: log.source().to_owned(), partition: None, position: head };
    let reached = read_your_writes::wait(log, &["balances"], &place, Some(log.database()), PATIENCE).await;
    assert!(reached.expect("answers"), "the subscription did not catch up");
}

pub(crate) async fn balances(log: &Log) -> HashMap<String, i64> {
    let rows = sqlx::query("select account, amount, trail from balances")
        .fetch_all(log.database())
        .await
        .expect("rows");
    rows.iter()
        .map(|row| {
            let trail: Vec<i64> = row.get("trail");
            let ordered: Vec<i64> = (1..=trail.len() as i64).collect();
            assert_eq!(trail, ordered, "each event once and in order");
            (row.get("account"), row.get("amount"))
        })
        .collect()
}

/// A relay and a subscription, with a broker between them.
struct Following {
    relay: JoinHandle<()>,
    follower: JoinHandle<()>,
    stop: CancellationToken,
    _server: TestBroker,
}

impl Following {
    async fn start(log: &Log, subscriber: Balances) -> Self {
        Self::start_with(log, subscriber, false).await
    }

    /// With a broker that belongs to this process or not.
    async fn start_with(log: &Log, subscriber: Balances, own: bool) -> Self {
        let server = testing::broker();
        make_topic(&server).await;
        let broker = connect(&server);
        let broker = Broker::new(BrokerConfig { own, ..broker.config().clone() });
        let stop = CancellationToken::new();
        let relay = tokio::spawn(relay::run(log.clone(), broker.clone(), encoder(), stop.clone()));
        let subscription =
            Subscription { subscriber: Arc::new(subscriber), ..subscription(log, Some(broker)) };
        let follower = tokio::spawn(subscription.run(stop.clone()));
        Self { relay, follower, stop, _server: server }
    }

    async fn end(self) {
        self.stop.cancel();
        self.relay.await.expect("the relay ends");
        self.follower.await.expect("the subscription ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_reaches_the_topic_and_its_subscribers_once() {
    let (_database, log) = log().await;
    tables(&log).await;
    let following = Following::start(&log, Balances::default()).await;
    let expected = deposit(&log, 40, 5).await;
    caught_up(&log).await;
    assert_eq!(balances(&log).await, expected);
    relayed(&log, 200).await;
    following.end().await;
}

/// Waits until the relay has come to a position.
async fn relayed(log: &Log, upto: i64) {
    let relayed = async {
        loop {
            let position: i64 =
                sqlx::query_scalar("select coalesce(max(position), 0) from event_store.relay")
                    .fetch_one(log.database())
                    .await
                    .expect("readable");
            if position == upto {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, relayed).await.expect("the relay's progress reaches the head");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_its_own_is_published_to_and_not_listened_to() {
    let (_database, log) = log().await;
    tables(&log).await;
    let balances_here = Balances::default();
    let published = Arc::clone(&balances_here.published);
    let following = Following::start_with(&log, balances_here, true).await;
    let mut expected = HashMap::new();
    for _ in 0..5 {
        expected.extend(deposit(&log, 3, 1).await);
        expected.extend(deposit_here(&log, 3, 2).await);
    }
    expected.extend(deposit(&log, 5, 1).await);
    caught_up(&log).await;
    assert_eq!(balances(&log).await, expected);
    relayed(&log, 50).await;
    assert_eq!(published.load(Ordering::Relaxed), 0);
    following.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_writes_itself_it_reads_without_the_broker_and_once() {
    let (_database, log) = log().await;
    tables(&log).await;
    let balances_here = Balances::default();
    let published = Arc::clone(&balances_here.published);
    let following = Following::start(&log, balances_here).await;
    let mut expected = deposit_here(&log, 5, 1).await;
    caught_up(&log).await;
    let before = published.load(Ordering::Relaxed);
    for _ in 0..20 {
        expected.extend(deposit_here(&log, 5, 2).await);
        caught_up(&log).await;
    }
    assert_eq!(published.load(Ordering::Relaxed), before, "the broker was waited for");
    // What others write in between is missed by nobody.
    for _ in 0..5 {
        expected.extend(deposit(&log, 3, 1).await);
        expected.extend(deposit_here(&log, 3, 2).await);
    }
    caught_up(&log).await;
    assert_eq!(balances(&log).await, expected);
    following.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_the_log_itself_is_followed() {
    let (_database, log) = log().await;
    tables(&log).await;
    let stop = CancellationToken::new();
    let nowhere = Broker::new(BrokerConfig::new("127.0.0.1:1"));
    let follower = tokio::spawn(subscription(&log, Some(nowhere)).run(stop.clone()));
    let expected = deposit(&log, 10, 3).await;
    caught_up(&log).await;
    assert_eq!(balances(&log).await, expected);
    stop.cancel();
    follower.await.expect("the subscription ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicated_missing_poisoned_and_headless_records_do_no_harm() {
    let (_database, log) = log().await;
    tables(&log).await;
    let server = testing::broker();
    make_topic(&server).await;
    let broker = connect(&server);
    let topic = broker.config().topic_of("accounts");
    let stop = CancellationToken::new();
    let follower = tokio::spawn(subscription(&log, Some(broker)).run(stop.clone()));
    let expected = deposit(&log, 20, 4).await;
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", server.bootstrap_servers())
        .create()
        .expect("a producer");
    let mut previous: HashMap<i16, i64> = HashMap::new();
    for event in feed::read(log.database(), "accounts", 0, 1_000).await.expect("events") {
        let before = previous.insert(event.partition, event.position).unwrap_or_default();
        let good = (encoder())(&event).expect("encodes").payload;
        let payload = if event.position % 5 == 0 { Bytes::from_static(b"\xff poison") } else { good };
        let copies = [1, 0, 2][(event.position % 3) as usize];
        for copy in 0..copies {
            let position = event.position.to_string();
            let mut headers = OwnedHeaders::new();
            // One copy in seven comes without its headers.
            if (event.position + copy) % 7 != 0 {
                headers = headers
                    .insert(Header { key: "mart-position", value: Some(&position) })
                    .insert(Header { key: "mart-previous", value: Some(&before.to_string()) });
            }
            let record = FutureRecord::to(&topic)
                .partition(i32::from(event.partition))
                .key(&event.aggregate_id)
                .payload(payload.as_ref())
                .headers(headers);
            producer.send(record, PATIENCE).await.expect("delivered");
        }
    }
    caught_up(&log).await;
    assert_eq!(balances(&log).await, expected);
    stop.cancel();
    follower.await.expect("the subscription ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_a_subscription_and_each_event_is_applied_once() {
    let (database, log) = log().await;
    tables(&log).await;
    let other = open(&database).await;
    let stop_first = CancellationToken::new();
    let stop_second = CancellationToken::new();
    let first = tokio::spawn(subscription(&log, None).run(stop_first.clone()));
    let mut expected = deposit(&log, 20, 2).await;
    let second = tokio::spawn(subscription(&other, None).run(stop_second.clone()));
    expected.extend(deposit(&log, 20, 2).await);
    stop_first.cancel();
    first.await.expect("the first ends");
    expected.extend(deposit(&log, 20, 2).await);
    caught_up(&log).await;
    assert_eq!(balances(&log).await, expected);
    stop_second.cancel();
    second.await.expect("the second ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_applied_is_parked_with_its_stream_and_put_back_in_order() {
    let (_database, log) = log().await;
    tables(&log).await;
    let stop = CancellationToken::new();
    let follower = tokio::spawn(subscription(&log, None).run(stop.clone()));
    let bus = bus(&log);
    let (unlucky, lucky) = (new_id(), new_id());
    for amount in [1, 13, 2] {
        for id in [&unlucky, &lucky] {
            let amount = if *id == lucky { 5 } else { amount };
            bus.execute(Target::Existing(id.clone()), AccountCommand::Deposit { amount }, Context::default())
                .await
                .expect("accepted");
        }
    }
    caught_up(&log).await;
    assert_eq!(balances(&log).await, HashMap::from([(unlucky.clone(), 1), (lucky.clone(), 15)]));
    let waiting = parked::list(log.database(), Some("balances"), 10).await.expect("listed");
    let told: Vec<(i64, &str)> = waiting.iter().map(|event| (event.position, event.error.as_str())).collect();
    assert_eq!(told, [(3, "an unlucky amount"), (5, "")]);

    let sources = [Source { log: log.clone(), aggregates: vec![], personal: false }];
    let retried = retry_parked(&log, "balances", &sources, &Balances::default()).await.expect("tried");
    assert_eq!((retried.applied, retried.stuck.len()), (0, 1));

    sqlx::query("insert into cured values (now())").execute(log.database()).await.expect("cured");
    let retried = retry_parked(&log, "balances", &sources, &Balances::default()).await.expect("tried");
    assert_eq!((retried.applied, retried.stuck.len()), (2, 0));
    bus.execute(Target::Existing(unlucky.clone()), AccountCommand::Deposit { amount: 4 }, Context::default())
        .await
        .expect("accepted");
    caught_up(&log).await;
    assert_eq!(balances(&log).await, HashMap::from([(unlucky, 20), (lucky, 15)]));
    stop.cancel();
    follower.await.expect("the subscription ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_stops_although_no_broker_answers() {
    let (_database, log) = log().await;
    bus(&log)
        .execute(Target::New(new_id()), AccountCommand::Deposit { amount: 1 }, Context::default())
        .await
        .expect("accepted");
    let nobody = BrokerConfig { embedded: true, ..BrokerConfig::new("127.0.0.1:1") };
    let stop = CancellationToken::new();
    let mut relay = tokio::spawn(relay::run(log.clone(), Broker::new(nobody), encoder(), stop.clone()));
    let early = tokio::time::timeout(Duration::from_secs(2), &mut relay).await;
    assert!(early.is_err(), "it goes on trying");
    stop.cancel();
    tokio::time::timeout(PATIENCE, relay).await.expect("in time").expect("it ends");
}
