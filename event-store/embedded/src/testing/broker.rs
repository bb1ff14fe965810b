//! A broker for a test: the embedded one, or a real Apache Kafka where `MART_TEST_KAFKA_BROKERS` names one.
//!
//! What holds on one holds on the other, so that tests do not ask which they have. `with-kafka <command>` starts a
//! node and sets the variable; tests share it, each with a prefix for its topics.

use std::time::Duration;

use rand::Rng;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaErrorCode;
use tokio::time::Instant;

use super::kafka::{RealKafka, free_port};
use crate::EmbeddedBroker;

/// Names a running Apache Kafka on which tests may make topics.
pub const KAFKA_VARIABLE: &str = "MART_TEST_KAFKA_BROKERS";

/// How long a broker may take over something that is asked of it.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the broker in this process delays its answers while it is frozen.
const FROST: Duration = Duration::from_secs(5);
/// The pause between two looks at something that is asked of it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A broker of one test, or the real one that it shares with others under topics of its own.
#[derive(Debug)]
pub struct TestBroker {
    kind: Kind,
    topic_prefix: String,
}

#[derive(Debug)]
enum Kind {
    Embedded(EmbeddedBroker),
    Shared(String),
    Apart(Box<RealKafka>),
}

/// The real Apache Kafka that the tests are to use, if any.
pub fn real_kafka() -> Option<String> {
    std::env::var(KAFKA_VARIABLE).ok().filter(|servers| !servers.is_empty())
}

/// A broker for a test that only speaks to it.
///
/// # Panics
/// When it cannot be started: no test can go on then.
pub fn broker() -> TestBroker {
    let kind = match real_kafka() {
        Some(servers) => Kind::Shared(servers),
        None => Kind::Embedded(EmbeddedBroker::start(None).expect("a broker can be started")),
    };
    TestBroker { kind, topic_prefix: topic_prefix() }
}

/// A broker for a test that takes it down, freezes it or lets it forget: nobody else is on it.
///
/// # Panics
/// When it cannot be started: no test can go on then.
pub async fn broker_apart() -> TestBroker {
    let kind = if real_kafka().is_some() {
        let kafka = RealKafka::start().await;
        Kind::Apart(Box::new(kafka.unwrap_or_else(|error| panic!("no Apache Kafka for the test: {error}"))))
    } else {
        // Only behind a port that stays can it be found again after it has lost everything.
        let port = free_port().expect("a port is free");
        Kind::Embedded(EmbeddedBroker::start(Some(port)).expect("a broker can be started"))
    };
    TestBroker { kind, topic_prefix: topic_prefix() }
}

/// What the names of topics begin with that nobody else uses.
pub fn topic_prefix() -> String {
    format!("test-{:016x}", rand::rng().random::<u64>())
}

impl TestBroker {
    /// Where its clients find it.
    pub fn bootstrap_servers(&self) -> String {
        match &self.kind {
            Kind::Embedded(embedded) => embedded.bootstrap_servers(),
            Kind::Shared(servers) => servers.clone(),
            Kind::Apart(kafka) => kafka.bootstrap_servers(),
        }
    }

    /// What the names of this test's topics begin with.
    pub fn topic_prefix(&self) -> &str {
        &self.topic_prefix
    }

    /// The broker in this process, for a test that needs what only that can do. On a real one it is left out
    /// with `what` on the output.
    pub fn embedded(&self, what: &str) -> Option<&EmbeddedBroker> {
        match &self.kind {
            Kind::Embedded(embedded) => Some(embedded),
            Kind::Shared(_) | Kind::Apart(_) => {
                eprintln!("left out on a real Kafka: {what}");
                None
            }
        }
    }

    /// Whether it is the broker in this process.
    pub fn is_embedded(&self) -> bool {
        matches!(self.kind, Kind::Embedded(_))
    }

    /// Makes topics.
    ///
    /// # Panics
    /// When one is there already.
    pub async fn make_topics(&self, names: &[String], partitions: i16) {
        if let Kind::Embedded(embedded) = &self.kind {
            for name in names {
                embedded.create_topic(name, i32::from(partitions)).expect("the topic is new");
            }
            return;
        }
        let topics: Vec<NewTopic<'_>> = names
            .iter()
            .map(|name| NewTopic::new(name, i32::from(partitions), TopicReplication::Fixed(1)))
            .collect();
        let made = self.admin().create_topics(&topics, &AdminOptions::new()).await.expect("it answers");
        for result in made {
            result.expect("the topic is new");
        }
    }

    /// Deletes topics and waits until they are gone. Only a real broker can; on another nothing is done and
    /// `false` is the answer.
    ///
    /// # Panics
    /// When they are not there, or do not go.
    pub async fn delete_topics(&self, names: &[String]) -> bool {
        if self.is_embedded() {
            eprintln!("left out on the embedded broker: deleting topics");
            return false;
        }
        let doomed: Vec<&str> = names.iter().map(String::as_str).collect();
        let deleted = self.admin().delete_topics(&doomed, &AdminOptions::new()).await.expect("it answers");
        for result in deleted {
            assert!(matches!(result, Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition))));
        }
        let deadline = Instant::now() + PATIENCE;
        while self.topics().await.iter().any(|topic| names.contains(topic)) {
            assert!(Instant::now() < deadline, "the topics are not deleted");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }

    /// The topics that are there.
    async fn topics(&self) -> Vec<String> {
        let client = self.client();
        let looking = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = client.create().expect("the settings are right");
            let metadata = consumer.fetch_metadata(None, PATIENCE).expect("it answers");
            metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
        });
        looking.await.expect("it ends")
    }

    /// Takes it down: connections are cut, and no new ones taken. What it has stays.
    ///
    /// # Panics
    /// When it is shared with other tests.
    pub fn down(&mut self) {
        match &mut self.kind {
            Kind::Embedded(embedded) => embedded.down().expect("it goes down"),
            Kind::Apart(kafka) => kafka.kill(),
            Kind::Shared(_) => panic!("a test that takes a broker down asks for one apart"),
        }
    }

    /// Brings it up again.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn up(&mut self) {
        match &mut self.kind {
            Kind::Embedded(embedded) => embedded.up().expect("it comes up"),
            Kind::Apart(kafka) => kafka.restart().await.expect("it comes up"),
            Kind::Shared(_) => panic!("a test that takes a broker down asks for one apart"),
        }
    }

    /// Lets it lose all that it has, topics too, while it is down, and brings it up again.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn lose_everything(&mut self) {
        match &mut self.kind {
            Kind::Embedded(embedded) => embedded.restart_empty().expect("it comes up"),
            Kind::Apart(kafka) => kafka.restart_empty().await.expect("it comes up"),
            Kind::Shared(_) => panic!("a test that lets a broker forget asks for one apart"),
        }
    }

    /// Lets it answer nobody, although it takes what it is sent.
    ///
    /// # Panics
    /// When it is shared with other tests.
    pub fn freeze(&self) {
        match &self.kind {
            Kind::Embedded(embedded) => embedded.slow_down(FROST).expect("it is slow"),
            Kind::Apart(kafka) => kafka.freeze(),
            Kind::Shared(_) => panic!("a test that freezes a broker asks for one apart"),
        }
    }

    /// Lets it go on after [`freeze`](Self::freeze).
    ///
    /// # Panics
    /// When it is shared with other tests.
    pub fn thaw(&self) {
        match &self.kind {
            Kind::Embedded(embedded) => embedded.slow_down(Duration::ZERO).expect("it is quick"),
            Kind::Apart(kafka) => kafka.thaw(),
            Kind::Shared(_) => panic!("a test that freezes a broker asks for one apart"),
        }
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.bootstrap_servers()).set_log_level(RDKafkaLogLevel::Emerg);
        client
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("the settings are right")
    }
}
