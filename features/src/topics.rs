//! A broker of the test, and looking into topics.

use std::collections::HashSet;
use std::time::Duration;

use embedded::EmbeddedBroker;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::databases::SERVICES;

/// How many partitions a topic of the mart has.
pub const PARTITIONS: i16 = 12;
/// How long a broker may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The topic of a service of the only mart on a broker.
pub fn topic_of(service: &str) -> String {
    format!("mart.{service}.events")
}

/// An embedded broker with the topics of one mart.
///
/// # Panics
/// When it cannot be started.
pub fn broker() -> EmbeddedBroker {
    let broker = EmbeddedBroker::start(None).expect("a broker can be started");
    for service in SERVICES {
        broker.create_topic(&topic_of(service), i32::from(PARTITIONS)).expect("the topic is new");
    }
    broker
}

/// A record as it is on a topic.
#[derive(Debug, Clone)]
pub struct Record {
    /// On which partition.
    pub partition: i32,
    /// The key.
    pub key: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
    /// The headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// All records of a topic.
///
/// # Panics
/// When the broker does not answer.
pub fn read(bootstrap_servers: &str, topic: &str) -> Vec<Record> {
    try_read(bootstrap_servers, topic).expect("the broker answers")
}

/// All records of a topic, of a broker that may be down. A topic ends where the broker says so, and not where it is
/// silent for a while: on a busy machine each partition takes its time.
///
/// # Errors
/// When it does not answer.
pub fn try_read(bootstrap_servers: &str, topic: &str) -> KafkaResult<Vec<Record>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("group.id", "acceptance")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(topic, i32::from(partition), Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    let mut records = Vec::new();
    let mut read = HashSet::new();
    while read.len() < usize::from(PARTITIONS.unsigned_abs()) {
        let silent = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
        let message = match consumer.poll(PATIENCE).ok_or(silent)? {
            Err(KafkaError::PartitionEOF(partition)) => {
                read.insert(partition);
                continue;
            }
            polled => polled?,
        };
        let headers = message
            .headers()
            .into_iter()
            .flat_map(Headers::iter)
            .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()));
        records.push(Record {
            partition: message.partition(),
            key: message.key().unwrap_or_default().to_vec(),
            payload: message.payload().unwrap_or_default().to_vec(),
            headers: headers.collect(),
        });
    }
    Ok(records)
}

/// Puts records on a topic, as anybody could who reaches the broker.
///
/// # Panics
/// When the broker does not take them.
pub fn write(bootstrap_servers: &str, topic: &str, records: &[Record]) {
    try_write(bootstrap_servers, topic, records).expect("the broker takes the records");
}

/// Puts records on a topic of a broker that may be down.
///
/// # Errors
/// When it does not take them.
pub fn try_write(bootstrap_servers: &str, topic: &str, records: &[Record]) -> KafkaResult<()> {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", bootstrap_servers).create()?;
    for record in records {
        let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(rdkafka::message::Header { key, value: Some(value) })
        });
        let sent = BaseRecord::to(topic)
            .partition(record.partition)
            .key(&record.key)
            .payload(&record.payload)
            .headers(headers);
        producer.send(sent).map_err(|(error, _)| error)?;
    }
    producer.flush(PATIENCE)
}
