//! The connection to Kafka: one producer and one consumer per process, shared by all that publish and
//! listen, so that an idle mart costs next to nothing.
//!
//! The consumer is assigned its partitions by hand, at their end: Kafka carries what is new, the log has
//! what is old, and who owns which partition is settled by leases in PostgreSQL (docs/adr). Records go to
//! bounded inboxes; one that finds its inbox full is dropped, and the reader, seeing the gap, fetches it
//! from the log.

mod consumer;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::log::Log;
use crate::{Error, PARTITIONS, Result, planted};

/// How many records wait for a subscription at most.
const INBOX_RECORDS: usize = 20_000;
/// How long a request may be without an answer until its connection is given up and another one made. A broker whose
/// machine is gone, or a network that drops packets, closes nothing.
const ANSWERED_WITHIN_MS: &str = "6000";
/// How long a record waits for others of its partition.
const LINGER_MS: &str = "1";
/// How long the thread that hands out reports keeps a producer that nobody else has any more. A report is handed out at
/// once.
const REPORTED_WITHIN: Duration = Duration::from_secs(1);
/// How long the creation of a topic may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The position of an event in its log.
pub const HEADER_POSITION: &str = "mart-position";
/// The position of the event before it in the same partition.
pub const HEADER_PREVIOUS: &str = "mart-previous";

/// What the names of topics begin with, unless something else is wanted.
pub const TOPIC_PREFIX: &str = "mart";

/// How to reach Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerConfig {
    /// `host:port,…`
    pub bootstrap_servers: String,
    /// What the names of this mart's topics begin with. Marts that share a cluster have one each.
    pub topic_prefix: String,
    /// Whether it is librdkafka's in-process broker, where an empty fetch waits out its whole time.
    pub embedded: bool,
    /// Whether it belongs to this process, and has what this process has read in the logs before: it is published to,
    /// and not listened to.
    pub own: bool,
    /// Over how many brokers a topic is replicated when it is made here.
    pub replication: i32,
}

impl BrokerConfig {
    /// A broker on the network, with the topics of the only mart there.
    pub fn new(bootstrap_servers: impl Into<String>) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            topic_prefix: TOPIC_PREFIX.to_owned(),
            embedded: false,
            own: false,
            replication: 1,
        }
    }

    /// The topic of a log's events.
    pub fn topic_of(&self, source: &str) -> String {
        format!("{}.{source}.events", self.topic_prefix)
    }
}

/// A record of a topic, as far as the engine reads it.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The partition it came on.
    pub partition: i16,
    /// The position of its event.
    pub position: i64,
    /// The position of the event before it in the partition.
    pub previous: i64,
    /// The message.
    pub payload: Bytes,
}

/// What a delivery report is about.
pub(crate) struct Delivery {
    pub(crate) position: i64,
    pub(crate) report: mpsc::UnboundedSender<Report>,
}

/// What became of a record.
pub(crate) struct Report {
    pub(crate) position: i64,
    pub(crate) error: Option<KafkaError>,
}

pub(crate) struct Reports;

impl ClientContext for Reports {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "kafka producer");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        let error = result.as_ref().err().map(|(error, _)| error.clone());
        let report = Report { position: delivery.position, error };
        // A relay that has ended needs no report.
        let _ = delivery.report.send(report);
    }
}

/// The process's connection to Kafka. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inbox {
    topic: String,
    index: usize,
    sender: mpsc::Sender<(usize, Incoming)>,
    known: Arc<[AtomicI64]>,
    /// Up to where this process tells its readers itself.
    told: Arc<AtomicI64>,
}

impl Inbox {
    /// Whether the event at a position is no news here.
    fn knows(&self, position: i64) -> bool {
        let known = self.known.get(self.index).map_or(-1, |known| known.load(Ordering::Relaxed));
        position <= known && !planted!("defect-projector-skips-dedup")
    }

    /// Whether its reader hears of the event at a position without the broker.
    fn hears(&self, position: i64) -> bool {
        position <= self.told.load(Ordering::Relaxed)
    }
}

/// Where the records of some logs arrive.
#[derive(Debug)]
pub struct Listener {
    /// The records, each with the place of its log among those that were asked for.
    pub records: mpsc::Receiver<(usize, Incoming)>,
    known: Arc<[AtomicI64]>,
}

impl Listener {
    /// Tells up to which position nothing of a log is news to this listener: it need not be woken for that.
    pub fn knows(&self, index: usize, position: i64) {
        if let Some(known) = self.known.get(index) {
            known.store(position, Ordering::Relaxed);
        }
    }
}

struct Inner {
    config: BrokerConfig,
    producer: RwLock<Option<Arc<BaseProducer<Reports>>>>,
    inboxes: Mutex<Vec<Inbox>>,
    consuming: AtomicBool,
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Broker").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl Broker {
    /// A connection that is made when it is first used; a broker that is down is no error.
    pub fn new(config: BrokerConfig) -> Self {
        Self {
            inner: Arc::new(Inner {
                config,
                producer: RwLock::new(None),
                inboxes: Mutex::default(),
                consuming: AtomicBool::new(false),
                stop: CancellationToken::new(),
            }),
        }
    }

    /// How it reaches Kafka.
    pub fn config(&self) -> &BrokerConfig {
        &self.inner.config
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.inner.config.bootstrap_servers)
            .set("client.id", "mart")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.nagle.disable", "true")
            .set("socket.timeout.ms", ANSWERED_WITHIN_MS)
            .set("log_level", "3");
        client
    }

    /// Makes the topic of a log unless it is there. The embedded broker knows no such request: whoever starts
    /// it makes its topics.
    ///
    /// # Errors
    /// When the broker does not answer or refuses.
    pub async fn ensure_topic(&self, source: &str) -> Result<()> {
        if self.inner.config.embedded {
            return Ok(());
        }
        let topic = self.inner.config.topic_of(source);
        let admin: Admin = self.client().create()?;
        // Where clients may not make topics somebody else has made them.
        let (admin, found) = look_for(admin, topic.clone()).await?;
        match found {
            Some(partitions) if partitions == PARTITIONS as usize => return Ok(()),
            Some(partitions) => {
                return Err(Error::Malformed(format!(
                    "the topic {topic} has {partitions} partitions and not {PARTITIONS}: make it anew"
                )));
            }
            None => {}
        }
        let wanted = NewTopic::new(
            &topic,
            i32::from(PARTITIONS),
            TopicReplication::Fixed(self.inner.config.replication),
        );
        let options =
            AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT)).request_timeout(Some(ADMIN_TIMEOUT));
        for result in admin.create_topics([&wanted], &options).await? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(KafkaError::AdminOp(code).into()),
            }
        }
        Ok(())
    }

    /// The process's idempotent producer.
    pub(crate) fn producer(&self) -> Result<Arc<BaseProducer<Reports>>> {
        if let Ok(producer) = self.inner.producer.read()
            && let Some(producer) = producer.as_ref()
            // One that failed for good refuses everything, whether or not anybody was left to give it up.
            && producer.client().fatal_error().is_none()
        {
            return Ok(Arc::clone(producer));
        }
        let made: BaseProducer<Reports> = self
            .client()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // The default drops a message after 300 s and lets later ones pass it.
            .set("message.timeout.ms", "0")
            // A record that fails for good takes those behind it with it, instead of being passed by them.
            .set("enable.gapless.guarantee", "true")
            // Nothing that goes to the embedded broker leaves the machine.
            .set("compression.type", if self.inner.config.embedded { "none" } else { "lz4" })
            // What a relay sends together leaves together. Whoever does not wait for the broker may as well collect.
            .set("linger.ms", if planted!("defect-relay-marks-before-ack") { "500" } else { LINGER_MS })
            .set("queue.buffering.max.messages", "100000")
            // How long a topic may be unknown before its messages are reported as failed.
            .set("topic.metadata.propagation.max.ms", "2000")
            .create_with_context(Reports)?;
        let made = Arc::new(made);
        hand_out_reports(&made)?;
        if let Ok(mut producer) = self.inner.producer.write() {
            *producer = Some(Arc::clone(&made));
        }
        Ok(made)
    }

    /// Gives up a producer after a delivery error, with all that it has queued; the next call makes another.
    /// One that has taken its place by now is left alone: others already publish through it.
    pub(crate) fn give_up(&self, failed: &Arc<BaseProducer<Reports>>) {
        if let Ok(mut producer) = self.inner.producer.write()
            && producer.as_ref().is_some_and(|current| Arc::ptr_eq(current, failed))
        {
            *producer = None;
        }
        failed.purge(PurgeConfig::default().queue().inflight());
    }

    /// Sends a record; its fate is reported to `delivery`. Gives the record back when the queue is full.
    pub(crate) fn send(
        producer: &BaseProducer<Reports>,
        topic: &str,
        partition: i16,
        key: &str,
        payload: &[u8],
        headers: OwnedHeaders,
        delivery: Box<Delivery>,
    ) -> std::result::Result<(), KafkaError> {
        let record = BaseRecord::with_opaque_to(topic, delivery)
            .partition(i32::from(partition))
            .key(key)
            .payload(payload)
            .headers(headers);
        producer.send(record).map_err(|(error, _)| error)
    }

    /// Whether the broker answers within a second.
    pub async fn is_up(&self) -> bool {
        let Ok(producer) = self.producer() else { return false };
        let look = move || producer.client().fetch_metadata(None, Duration::from_secs(1)).is_ok();
        tokio::task::spawn_blocking(look).await.unwrap_or(false)
    }

    /// Listens to the new records of the topics of logs; each comes with the place of its log in `logs`.
    pub fn listen(&self, logs: &[&Log]) -> Listener {
        let (sender, records) = mpsc::channel(INBOX_RECORDS);
        let known: Arc<[AtomicI64]> = logs.iter().map(|_| AtomicI64::new(-1)).collect();
        if let Ok(mut inboxes) = self.inner.inboxes.lock() {
            if !self.inner.consuming.swap(true, Ordering::Relaxed) {
                consumer::start(self);
            }
            for (index, log) in logs.iter().enumerate() {
                inboxes.push(Inbox {
                    topic: self.inner.config.topic_of(log.source()),
                    index,
                    sender: sender.clone(),
                    known: Arc::clone(&known),
                    told: log.told(),
                });
            }
        }
        Listener { records, known }
    }
}

/// Has a thread hand out what a producer reports, until nobody else has the producer. rdkafka's `ThreadedProducer` waits for
/// 100 ms at a time, and spends the last one of them asking again and again.
fn hand_out_reports(producer: &Arc<BaseProducer<Reports>>) -> Result<()> {
    let producer = Arc::downgrade(producer);
    let hand_out = move || {
        while let Some(producer) = producer.upgrade() {
            producer.poll(REPORTED_WITHIN);
        }
    };
    let spawned = std::thread::Builder::new().name("mart-reports".to_owned()).spawn(hand_out);
    spawned.map(|_| ()).map_err(|error| Error::Malformed(format!("no thread for the producer: {error}")))
}

type Admin = AdminClient<DefaultClientContext>;

/// How many partitions a topic has; none when it is not there. All topics are asked for, because asking for
/// one by name may make it.
async fn look_for(admin: Admin, topic: String) -> Result<(Admin, Option<usize>)> {
    let looking = tokio::task::spawn_blocking(move || {
        let found = admin.inner().fetch_metadata(None, ADMIN_TIMEOUT).map(|metadata| {
            let topics = metadata.topics().iter();
            topics.filter(|known| known.name() == topic).map(|known| known.partitions().len()).next()
        });
        (admin, found)
    });
    let (admin, found) = looking.await.map_err(|_| Error::ShuttingDown)?;
    Ok((admin, found?))
}

#[cfg(test)]
mod tests {
    use embedded::EmbeddedBroker;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    fn broker(bootstrap_servers: String) -> Broker {
        Broker::new(BrokerConfig { embedded: true, ..BrokerConfig::new(bootstrap_servers) })
    }

    #[test]
    fn giving_up_a_producer_spares_the_one_that_took_its_place() {
        let broker = broker("127.0.0.1:1".to_owned());
        let failed = broker.producer().expect("made");
        broker.give_up(&failed);
        let next = broker.producer().expect("made");
        broker.give_up(&failed);
        assert!(Arc::ptr_eq(&next, &broker.producer().expect("kept")));
    }

    #[tokio::test]
    async fn a_producer_that_failed_for_good_is_replaced_although_nobody_gave_it_up() {
        let kafka = EmbeddedBroker::start(None).expect("starts");
        let broker = broker(kafka.bootstrap_servers());
        let topic = broker.config().topic_of("accounts");
        kafka.create_topic(&topic, i32::from(PARTITIONS)).expect("made");
        let failed = broker.producer().expect("made");
        let (report, mut reports) = mpsc::unbounded_channel();
        let send = |position| {
            let delivery = Box::new(Delivery { position, report: report.clone() });
            Broker::send(&failed, &topic, 0, "key", b"payload", OwnedHeaders::new(), delivery)
                .expect("queued");
        };
        send(1);
        assert!(reports.recv().await.expect("reported").error.is_none());
        kafka.request_errors(
            RDKafkaApiKey::Produce,
            &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER],
        );
        send(2);
        assert!(reports.recv().await.expect("reported").error.is_some());
        assert!(failed.client().fatal_error().is_some(), "it has failed for good");
        assert!(!Arc::ptr_eq(&failed, &broker.producer().expect("made")));
    }
}
