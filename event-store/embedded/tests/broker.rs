//! The in-process broker speaks the protocol of Kafka as the engine uses it.

use std::time::{Duration, Instant};

use embedded::EmbeddedBroker;
use embedded::broker::{BrokerError, RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};

const PATIENCE: Duration = Duration::from_secs(20);

fn producer(broker: &EmbeddedBroker) -> FutureProducer {
    ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap_servers())
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", "0")
        .set("reconnect.backoff.max.ms", "100")
        .create()
        .expect("the settings are right")
}

fn consumer(broker: &EmbeddedBroker, group: &str) -> StreamConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap_servers())
        .set("group.id", group)
        .set("group.protocol", "consumer")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "5")
        .set("reconnect.backoff.max.ms", "100")
        .create()
        .expect("the settings are right")
}

async fn send(producer: &FutureProducer, topic: &str, payload: &str) {
    let record = FutureRecord::to(topic).key("key").payload(payload);
    producer.send(record, PATIENCE).await.expect("the record is taken");
}

async fn receive(consumer: &StreamConsumer) -> String {
    let message = tokio::time::timeout(PATIENCE, consumer.recv()).await.expect("in time").expect("a record");
    String::from_utf8(message.payload().expect("a payload").to_vec()).expect("text")
}

#[tokio::test]
async fn what_is_produced_is_consumed_in_order_by_the_new_group_protocol() {
    let broker = EmbeddedBroker::start(None).expect("the broker starts");
    broker.create_topic("mart.test.events", 1).expect("the topic is new");
    let producer = producer(&broker);
    send(&producer, "mart.test.events", "one").await;
    send(&producer, "mart.test.events", "two").await;

    let consumer = consumer(&broker, "readers");
    consumer.subscribe(&["mart.test.events"]).expect("the topic exists");
    assert_eq!(receive(&consumer).await, "one");
    assert_eq!(receive(&consumer).await, "two");

    let begun = Instant::now();
    send(&producer, "mart.test.events", "three").await;
    assert_eq!(receive(&consumer).await, "three");
    assert!(begun.elapsed() < Duration::from_secs(2), "a live record took {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_broker_that_was_down_delivers_when_it_is_up() {
    let broker = EmbeddedBroker::start(None).expect("the broker starts");
    broker.create_topic("mart.test.events", 1).expect("the topic is new");
    let producer = producer(&broker);
    send(&producer, "mart.test.events", "before").await;
    broker.down().expect("it goes down");
    let waiting = tokio::spawn({
        let producer = producer.clone();
        async move { send(&producer, "mart.test.events", "meanwhile").await }
    });
    broker.up().expect("it comes up");
    waiting.await.expect("it is delivered");

    let consumer = consumer(&broker, "readers");
    consumer.subscribe(&["mart.test.events"]).expect("the topic exists");
    assert_eq!(receive(&consumer).await, "before");
    assert_eq!(receive(&consumer).await, "meanwhile");
}

#[tokio::test]
async fn pushed_errors_are_retried_by_the_client() {
    let broker = EmbeddedBroker::start(None).expect("the broker starts");
    broker.create_topic("mart.test.events", 1).expect("the topic is new");
    broker.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION],
    );
    send(&producer(&broker), "mart.test.events", "once").await;

    let consumer = consumer(&broker, "readers");
    consumer.subscribe(&["mart.test.events"]).expect("the topic exists");
    assert_eq!(receive(&consumer).await, "once");
}

#[tokio::test]
async fn a_wanted_port_leads_to_the_broker_and_a_taken_one_is_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = free.local_addr().expect("it listens").port();
    let taken = EmbeddedBroker::start(Some(port)).expect_err("the port is taken");
    assert!(matches!(taken, BrokerError::PortTaken { port: refused, .. } if refused == port));
    drop(free);

    let broker = EmbeddedBroker::start(Some(port)).expect("the port is free again");
    assert_eq!(broker.bootstrap_servers(), format!("127.0.0.1:{port}"));
    broker.create_topic("mart.test.events", 1).expect("the topic is new");
    send(&producer(&broker), "mart.test.events", "through").await;
    let consumer = consumer(&broker, "readers");
    consumer.subscribe(&["mart.test.events"]).expect("the topic exists");
    assert_eq!(receive(&consumer).await, "through");
}
