//! A small mart: the logs of some services, their projectors, and a way to say what happened.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aggregates::records::Recorded;
use cqrs_es::{Aggregate, EventStore};
use embedded::testing::{self, TestDatabase};
use event_store::broker::Broker;
use event_store::read_your_writes::Place;
use event_store::{Behaviour, CommandBus, Log, feed};
use projections::projector::Sources;
use projections::rebuild::{Options, Outcome, Silent};
use projections::registry::{self, Readers};
use projections::{Live, ReadModel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Some services, each with a database of its own.
pub(crate) struct Mart {
    pub(crate) sources: Sources,
    stop: CancellationToken,
    running: Vec<JoinHandle<()>>,
    // Dropped last: the logs above still hold connections.
    _databases: Vec<TestDatabase>,
}

impl Mart {
    /// The logs of these services; nothing runs yet.
    pub(crate) async fn of(services: &[&'static str]) -> Self {
        Self::with_broker(services, None).await
    }

    /// The same, with Kafka.
    pub(crate) async fn with_broker(services: &[&'static str], broker: Option<Broker>) -> Self {
        let mut logs = BTreeMap::new();
        let mut databases = Vec::new();
        for service in services {
            let database = testing::database(service).await;
            let log = Log::open(service, &database.url, [7; 32]).expect("the URL is good");
            log.migrate().await.expect("the migrations apply");
            logs.insert(*service, log);
            databases.push(database);
        }
        Self {
            sources: Sources { logs, broker },
            stop: CancellationToken::new(),
            running: Vec::new(),
            _databases: databases,
        }
    }

    /// Runs the projectors of a service.
    pub(crate) async fn project(&mut self, service: &str) {
        registry::ensure_all(service, self.log(service)).await.expect("the tables are made");
        self.running.extend(registry::run_projectors(service, self.log(service), &self.sources, &self.stop));
    }

    pub(crate) fn log(&self, service: &str) -> &Log {
        &self.sources.logs[service]
    }

    pub(crate) fn live<M: ReadModel>(&self, service: &str) -> Live<M> {
        Live::new(self.log(service).clone())
    }

    pub(crate) fn bus<A>(&self, service: &str) -> CommandBus<A>
    where
        A: Aggregate<Services = ()> + Recorded + Clone + 'static,
        A::Command: Clone + Send + Sync,
        A::Error: Send + Sync + 'static,
    {
        let behaviour = Behaviour {
            personal_fields: A::personal_fields,
            person_of: A::person_of,
            person_of_state: |_, _| None,
            ..Behaviour::default()
        };
        CommandBus::new(self.log(service).clone(), (), behaviour, 1_000)
    }

    /// Appends events to an aggregate as they are given.
    pub(crate) async fn given<A>(&self, service: &str, id: &str, events: Vec<A::Event>)
    where
        A: Aggregate<Services = ()> + Recorded + Clone + 'static,
        A::Command: Clone + Send + Sync,
        A::Error: Send + Sync + 'static,
    {
        let bus = self.bus::<A>(service);
        let context = bus.load_aggregate(id).await.expect("loads");
        bus.commit(events, context, HashMap::new()).await.expect("appends");
    }

    /// Waits until the read models of a service show everything that happened.
    pub(crate) async fn settle(&self, service: &str) {
        let readers = Readers::new(service, self.log(service));
        for source in registry::services_needed(service) {
            let database = self.log(source).database();
            let position = feed::head(database).await.expect("a head");
            let place = Place { source: source.to_owned(), partition: None, position };
            let reached = readers.wait_all(&place, Some(database), PATIENCE).await.expect("answers");
            assert!(reached, "the read models of {service} do not show all of {source}");
        }
    }

    /// Compares a read model with one rebuilt from scratch.
    pub(crate) async fn verify(&self, name: &str) -> Outcome {
        self.rebuild(name, &Options { verify: true, ..Options::default() }).await
    }

    pub(crate) async fn rebuild(&self, name: &str, options: &Options) -> Outcome {
        let home = self.log(registry::home_of(name).expect("known"));
        registry::rebuild(name, home, &self.sources, options, &Silent, &self.stop).await.expect("rebuilds")
    }

    /// Stops what runs.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        for task in self.running {
            task.await.expect("ends");
        }
    }
}
