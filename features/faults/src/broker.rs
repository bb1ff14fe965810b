//! The broker of a run: librdkafka's, in this process. It can be down, refuse, or lose everything it had.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use embedded::EmbeddedBroker;
use embedded::broker::{RDKafkaApiKey, RDKafkaRespErr};
use features::topics;

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
pub struct Broker {
    running: Mutex<EmbeddedBroker>,
}

impl Broker {
    /// Starts it, with the topics of the mart.
    pub fn start() -> Self {
        Self { running: Mutex::new(topics::broker()) }
    }

    /// Where links lead.
    ///
    /// # Errors
    /// When the broker names no address.
    pub fn address(&self) -> Result<SocketAddr> {
        self.bootstrap_servers().parse().context("the broker has an address")
    }

    /// Where it is, past all links.
    pub fn bootstrap_servers(&self) -> String {
        self.with(EmbeddedBroker::bootstrap_servers)
    }

    /// Takes no connections, or takes them again.
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn set_down(&self, down: bool) -> Result<()> {
        self.with(|broker| if down { broker.down() } else { broker.up() }).context("the broker does not obey")
    }

    /// Loses all it had; it is elsewhere then.
    pub fn empty(&self) {
        let fresh = topics::broker();
        let old = std::mem::replace(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner), fresh);
        drop(old);
    }

    /// Refuses the next requests that store records or ask for the broker's topics.
    pub fn refuse(&self, times: usize) {
        let errors: Vec<RDKafkaRespErr> = REFUSALS.into_iter().cycle().take(times).collect();
        self.with(|broker| {
            broker.request_errors(RDKafkaApiKey::Produce, &errors);
            broker.request_errors(RDKafkaApiKey::Fetch, &errors);
        });
    }

    /// Refuses nothing any more.
    pub fn accept(&self) {
        self.with(|broker| {
            broker.clear_request_errors(RDKafkaApiKey::Produce);
            broker.clear_request_errors(RDKafkaApiKey::Fetch);
        });
    }

    fn with<T>(&self, ask: impl FnOnce(&EmbeddedBroker) -> T) -> T {
        ask(&self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
