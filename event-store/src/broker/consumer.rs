//! The one consumer of a process, in a thread of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Broker, HEADER_POSITION, HEADER_PREVIOUS, Incoming, Inner};
use crate::PARTITIONS;

/// How long the thread waits for a record before it looks whether it is to stop or to assign.
const POLL: Duration = Duration::from_millis(100);
/// How often it looks for topics that are not there yet.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long one look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// How long an empty fetch waits at the broker. Apache Kafka answers as soon as there is a record, whatever this is; an
/// embedded broker lets it wait all that time. So it is well below the time after which a broker counts as silent.
const FETCH_WAIT_MS: &str = "100";

/// How long the thread leaves the broker alone when it brought no news, because this process has written all of it
/// itself, or something behind it: what another process writes is heard that much later at most.
const REST: Duration = Duration::from_millis(40);
/// How long a partition is not fetched while records wait to be looked at.
const BACKOFF_MS: &str = "5";

/// Whether Kafka answers shows in readiness and in who follows the logs; librdkafka's own complaints are for
/// those who look for them.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "kafka consumer");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka consumer");
    }
}

impl ConsumerContext for Quiet {}

/// Starts the thread. It ends with the last [`Broker`] of this connection.
pub(super) fn start(broker: &Broker) {
    let mut client = broker.client();
    client
        .set("group.id", format!("mart-{}", Uuid::now_v7()))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A broker that lost its data starts over: what it has then is new to it, not to us.
        .set("auto.offset.reset", "earliest")
        .set("fetch.error.backoff.ms", "50")
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", FETCH_WAIT_MS)
        // While the thread rests nothing is fetched: a request costs the broker more than what it brings.
        .set("queued.min.messages", "1")
        .set("fetch.queue.backoff.ms", BACKOFF_MS)
        .set("topic.metadata.refresh.interval.ms", "5000")
        .set("allow.auto.create.topics", "false");
    let inner = Arc::downgrade(&broker.inner);
    let stop = broker.inner.stop.clone();
    let spawned = std::thread::Builder::new().name("mart-kafka".to_owned()).spawn(move || {
        let consumer: BaseConsumer<Quiet> = match client.create_with_context(Quiet) {
            Ok(consumer) => consumer,
            Err(error) => {
                tracing::error!(%error, "the kafka consumer could not be made; read models follow the logs");
                return;
            }
        };
        let mut assignment = Assignment::default();
        while !stop.is_cancelled() {
            let Some(inner) = inner.upgrade() else { return };
            assignment.extend(&inner, &consumer);
            if let Some(Ok(message)) = consumer.poll(POLL) {
                let mut is_news = inner.deliver(&message);
                while let Some(Ok(message)) = consumer.poll(Duration::ZERO) {
                    is_news |= inner.deliver(&message);
                }
                if !is_news {
                    std::thread::sleep(REST);
                }
            }
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "the kafka consumer's thread could not be started; read models follow the logs");
    }
}

/// The topics whose partitions are assigned.
#[derive(Default)]
struct Assignment {
    topics: HashSet<String>,
    looked_at: Option<Instant>,
}

impl Assignment {
    /// Assigns the partitions of topics that have been asked for since, once they are there: librdkafka would look
    /// for a topic that is made a moment later only with its next refresh, seconds on.
    fn extend(&mut self, inner: &Inner, consumer: &BaseConsumer<Quiet>) {
        let missing = self.missing(inner);
        if missing.is_empty() || self.looked_at.is_some_and(|looked_at| looked_at.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked_at = Some(Instant::now());
        let mut partitions = TopicPartitionList::new();
        let mut found = Vec::new();
        for topic in missing {
            // One that does not answer is not asked for the others.
            let Ok(metadata) = consumer.fetch_metadata(Some(&topic), LOOK_WITHIN) else { break };
            if !metadata.topics().iter().any(|known| known.name() == topic && known.error().is_none()) {
                continue;
            }
            for partition in 0..PARTITIONS {
                let added = partitions.add_partition_offset(&topic, i32::from(partition), Offset::End);
                if let Err(error) = added {
                    tracing::warn!(%error, topic, "a partition could not be assigned");
                }
            }
            found.push(topic);
        }
        if found.is_empty() {
            return;
        }
        match consumer.incremental_assign(&partitions) {
            Ok(()) => self.topics.extend(found),
            Err(error) => tracing::warn!(%error, "partitions could not be assigned"),
        }
    }

    fn missing(&self, inner: &Inner) -> HashSet<String> {
        let Ok(inboxes) = inner.inboxes.lock() else { return HashSet::new() };
        let wanted = inboxes.iter().filter(|inbox| !inbox.sender.is_closed());
        wanted.map(|inbox| &inbox.topic).filter(|topic| !self.topics.contains(*topic)).cloned().collect()
    }
}

impl Inner {
    /// Gives a record to those who do not know it yet; says whether any of them will not hear of it otherwise.
    fn deliver(&self, message: &BorrowedMessage<'_>) -> bool {
        let Some(incoming) = incoming(message) else {
            // Without a position nothing can be said of it; if it stands for an event, the log has it.
            tracing::warn!(
                topic = message.topic(),
                offset = message.offset(),
                "a record without its headers"
            );
            metrics::counter!("mart_records_unreadable_total").increment(1);
            return false;
        };
        let Ok(mut inboxes) = self.inboxes.lock() else { return false };
        let topic = message.topic();
        let mut is_news = false;
        inboxes.retain(|inbox| {
            if inbox.topic != topic || inbox.knows(incoming.position) {
                return true;
            }
            is_news |= !inbox.hears(incoming.position);
            let sent = inbox.sender.try_send((inbox.index, incoming.clone()));
            !matches!(sent, Err(mpsc::error::TrySendError::Closed(_)))
        });
        is_news
    }
}

fn incoming(message: &BorrowedMessage<'_>) -> Option<Incoming> {
    let headers = message.headers()?;
    let number = |name: &str| -> Option<i64> {
        let value = headers.iter().find(|header| header.key == name)?.value?;
        std::str::from_utf8(value).ok()?.parse().ok()
    };
    Some(Incoming {
        partition: i16::try_from(message.partition()).ok()?,
        position: number(HEADER_POSITION)?,
        previous: number(HEADER_PREVIOUS)?,
        payload: Bytes::copy_from_slice(message.payload()?),
    })
}
