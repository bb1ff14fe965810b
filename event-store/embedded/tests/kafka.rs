//! A real node of Apache Kafka can be killed, started again and frozen, and ends with its owner.

use std::time::Duration;

use embedded::testing::RealKafka;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

const TOPIC: &str = "mart.test.events";
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than an answer takes, shorter than clients wait for one.
const MOMENT: Duration = Duration::from_millis(500);

fn client(kafka: &RealKafka) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", kafka.bootstrap_servers()).set("reconnect.backoff.max.ms", "100");
    client
}

async fn send(producer: &FutureProducer, payload: &str) {
    let record = FutureRecord::to(TOPIC).key("key").payload(payload);
    producer.send(record, PATIENCE).await.expect("the record is taken");
}

async fn receive(consumer: &StreamConsumer) -> String {
    let received = async {
        loop {
            // A broker that is down is told as an error, and is there again afterwards.
            if let Ok(message) = consumer.recv().await {
                return String::from_utf8(message.payload().expect("a payload").to_vec()).expect("text");
            }
        }
    };
    tokio::time::timeout(PATIENCE, received).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_its_records_over_a_power_failure_a_stop_and_a_frost() {
    let mut kafka = RealKafka::start().await.expect("it starts");
    let servers = kafka.bootstrap_servers();
    let admin: AdminClient<DefaultClientContext> = client(&kafka).create().expect("an admin");
    let topic = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(1));
    let made = admin.create_topics([&topic], &AdminOptions::new()).await.expect("it answers");
    assert_eq!(made, [Ok(TOPIC.to_owned())]);

    let producer: FutureProducer = client(&kafka).set("acks", "all").create().expect("a producer");
    let consumer: StreamConsumer = client(&kafka)
        .set("group.id", "readers")
        .set("group.protocol", "consumer")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[TOPIC]).expect("the topic exists");
    send(&producer, "one").await;
    assert_eq!(receive(&consumer).await, "one");

    kafka.kill();
    assert_eq!(kafka.process_id(), None);
    kafka.restart().await.expect("it starts again");
    assert_eq!(kafka.bootstrap_servers(), servers);
    send(&producer, "two").await;
    assert_eq!(receive(&consumer).await, "two");

    kafka.stop().await;
    kafka.restart().await.expect("it starts again");
    send(&producer, "three").await;
    assert_eq!(receive(&consumer).await, "three");

    kafka.freeze();
    let look = producer.clone();
    let frozen = tokio::task::spawn_blocking(move || look.client().fetch_metadata(None, MOMENT));
    assert!(frozen.await.expect("it ends").is_err(), "a frozen node answered");
    kafka.thaw();
    send(&producer, "four").await;
    assert_eq!(receive(&consumer).await, "four");
}
