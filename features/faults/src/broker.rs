//! The broker of a run: librdkafka's, in this process, or a real Apache Kafka. It can be down, refuse, or lose
//! everything it had.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use embedded::EmbeddedBroker;
use embedded::broker::{RDKafkaApiKey, RDKafkaRespErr};
use embedded::testing::RealKafka;
use features::topics;
use tokio::sync::Mutex;

/// How many requests of a kind are refused: more than come until it is lifted.
const REFUSED_REQUESTS: usize = 20_000;
/// What a broker answers when it refuses: it is not the leader, it has too few copies, it was too slow, and it
/// closes the connection.
const REFUSALS: [RDKafkaRespErr; 4] = [
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
];

/// The broker.
#[derive(Debug)]
pub struct Broker(Mutex<Kind>);

#[derive(Debug)]
enum Kind {
    Embedded(Box<EmbeddedBroker>),
    Real(Box<RealKafka>),
}

impl Broker {
    /// Starts it: a real one, or one in this process.
    ///
    /// # Errors
    /// When the real one does not start.
    pub async fn start(real: bool) -> Result<Self> {
        let kind = if real {
            Kind::Real(Box::new(RealKafka::start().await?))
        } else {
            Kind::Embedded(Box::new(topics::broker()))
        };
        Ok(Self(Mutex::new(kind)))
    }

    /// Where links lead.
    ///
    /// # Errors
    /// When the broker names no address.
    pub async fn address(&self) -> Result<SocketAddr> {
        self.bootstrap_servers().await.parse().context("the broker has an address")
    }

    /// Where it is, past all links.
    pub async fn bootstrap_servers(&self) -> String {
        match &*self.0.lock().await {
            Kind::Embedded(broker) => broker.bootstrap_servers(),
            Kind::Real(kafka) => kafka.bootstrap_servers(),
        }
    }

    /// Takes no connections any more: the real one is killed.
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub async fn take_down(&self) -> Result<()> {
        match &mut *self.0.lock().await {
            Kind::Embedded(broker) => broker.down()?,
            Kind::Real(kafka) => kafka.kill(),
        }
        Ok(())
    }

    /// Takes connections again, with all that it had.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn bring_up(&self) -> Result<()> {
        match &mut *self.0.lock().await {
            Kind::Embedded(broker) => broker.up()?,
            Kind::Real(kafka) => kafka.restart().await?,
        }
        Ok(())
    }

    /// Takes connections again, with nothing of what it had. It may be elsewhere then.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn bring_up_empty(&self) -> Result<()> {
        match &mut *self.0.lock().await {
            Kind::Embedded(broker) => **broker = topics::broker(),
            Kind::Real(kafka) => kafka.restart_empty().await?,
        }
        Ok(())
    }

    /// Refuses all requests that store or fetch records, if it can be told to.
    ///
    /// It must be all of them, and connections must be cut before this is lifted. librdkafka's broker does not look
    /// at the sequence numbers of an idempotent producer: of two requests under way it would store the second though
    /// it had refused the first, which Kafka never does, and from which the producer concludes that the first is
    /// stored as well.
    pub async fn refuse(&self) {
        let errors: Vec<RDKafkaRespErr> = REFUSALS.into_iter().cycle().take(REFUSED_REQUESTS).collect();
        if let Kind::Embedded(broker) = &*self.0.lock().await {
            broker.request_errors(RDKafkaApiKey::Produce, &errors);
            broker.request_errors(RDKafkaApiKey::Fetch, &errors);
        }
    }

    /// Refuses nothing any more.
    pub async fn accept(&self) {
        if let Kind::Embedded(broker) = &*self.0.lock().await {
            broker.clear_request_errors(RDKafkaApiKey::Produce);
            broker.clear_request_errors(RDKafkaApiKey::Fetch);
        }
    }
}
