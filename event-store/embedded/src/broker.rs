//! librdkafka's own broker, in this process: the real protocol on a local port, and no Kafka to install.
//!
//! It forgets everything with the process, and beyond 5 MiB or 100,000 messages a partition: it is transport
//! for one machine and for tests. Consumers should set `group.protocol=consumer` (joining takes 0.1 s, with the
//! classic protocol 3 s) and `fetch.wait.max.ms` of a few milliseconds (an empty fetch takes that long).

mod doorway;

use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};

use doorway::Doorway;

pub use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

/// All brokers of the cluster: there is one.
const EVERY_BROKER: i32 = -1;
/// The first descriptor after standard input, output and error.
const FIRST_DESCRIPTOR: i32 = 3;

/// Why the broker could not be started or told something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// Another program listens on the wanted port.
    #[error(
        "port {port} for the broker is taken: choose another with --broker-port, or stop what listens there"
    )]
    PortTaken {
        /// The wanted port.
        port: u16,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// librdkafka refused.
    #[error("the in-process broker could not do this")]
    Kafka(#[from] KafkaError),
}

/// A one-broker cluster in this process; it ends, and forgets, when it is dropped.
pub struct EmbeddedBroker {
    /// Owns the cluster: librdkafka makes it together with a client that is configured for it.
    owner: BaseProducer<Silent>,
    doorway: Option<Doorway>,
}

impl EmbeddedBroker {
    /// Starts a broker. librdkafka lets nobody choose its port; with `port` given, that port on 127.0.0.1 leads
    /// to it, so that other programs on the machine find it by a name they know.
    ///
    /// # Errors
    /// [`BrokerError::PortTaken`] when the wanted port is not free.
    pub fn start(port: Option<u16>) -> Result<Self, BrokerError> {
        let mut broker = Self { owner: owner()?, doorway: None };
        if let Some(port) = port {
            broker.open_doorway(port)?;
        }
        Ok(broker)
    }

    /// Ends and starts again with nothing, as when its disk is lost. Clients find it again by its wanted port; one
    /// that was started without is somewhere else afterwards.
    ///
    /// # Errors
    /// When librdkafka refuses, or the port was taken in between.
    pub fn restart_empty(&mut self) -> Result<(), BrokerError> {
        let port = self.doorway.take().map(|doorway| doorway.address().port());
        self.owner = owner()?;
        port.map_or(Ok(()), |port| self.open_doorway(port))
    }

    fn open_doorway(&mut self, port: u16) -> Result<(), BrokerError> {
        let target = self.cluster().bootstrap_servers();
        let doorway =
            Doorway::open(port, target).map_err(|source| BrokerError::PortTaken { port, source })?;
        self.doorway = Some(doorway);
        Ok(())
    }

    /// What clients are to be given as `bootstrap.servers`.
    pub fn bootstrap_servers(&self) -> String {
        match &self.doorway {
            Some(doorway) => doorway.address().to_string(),
            None => self.cluster().bootstrap_servers(),
        }
    }

    /// Makes a topic. Producing to an unknown topic makes it with 4 partitions.
    ///
    /// # Errors
    /// When the topic exists already.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), BrokerError> {
        Ok(self.cluster().create_topic(name, partitions, 1)?)
    }

    /// Cuts all connections and takes no new ones, until [`up`](Self::up).
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn down(&self) -> Result<(), BrokerError> {
        Ok(self.cluster().broker_down(EVERY_BROKER)?)
    }

    /// Takes connections again; nothing that was stored is lost.
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn up(&self) -> Result<(), BrokerError> {
        Ok(self.cluster().broker_up(EVERY_BROKER)?)
    }

    /// Delays every answer by `delay`.
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn slow_down(&self, delay: Duration) -> Result<(), BrokerError> {
        Ok(self.cluster().broker_round_trip_time(EVERY_BROKER, delay)?)
    }

    /// Answers the next requests of a kind with these errors, in this order; `RD_KAFKA_RESP_ERR__TRANSPORT`
    /// cuts the connection.
    pub fn request_errors(&self, request: RDKafkaApiKey, errors: &[RDKafkaRespErr]) {
        self.cluster().request_errors(request, errors);
    }

    /// Forgets the errors that were not yet given.
    pub fn clear_request_errors(&self, request: RDKafkaApiKey) {
        self.cluster().clear_request_errors(request);
    }

    /// Keeps connections that brokers of this process have taken from programs that it starts next. librdkafka lets
    /// them be inherited, and one that a child holds is not closed when the broker closes it: its client waits on.
    pub fn keep_from_children() {
        close_fds::set_fds_cloexec(FIRST_DESCRIPTOR, &[]);
    }

    fn cluster(&self) -> MockCluster<'_, Silent> {
        // It has something to say only after it was told something.
        self.owner.poll(Duration::ZERO);
        self.owner.client().mock_cluster().expect("the client was configured to have a cluster")
    }
}

fn owner() -> Result<BaseProducer<Silent>, KafkaError> {
    ClientConfig::new()
        .set("test.mock.num.brokers", "1")
        .set_log_level(RDKafkaLogLevel::Emerg)
        .create_with_context(Silent)
}

impl std::fmt::Debug for EmbeddedBroker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EmbeddedBroker")
            .field("bootstrap_servers", &self.bootstrap_servers())
            .finish()
    }
}

/// The client that owns the cluster is used for nothing else: what it has to say while the broker is taken
/// down on purpose would only be noise.
struct Silent;

impl ClientContext for Silent {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}

    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ProducerContext for Silent {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {}
}
