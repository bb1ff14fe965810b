//! `mart up`: everything in one process, with a database and a broker of its own unless others are given.

use std::time::Duration;

use anyhow::Context;
use embedded::EmbeddedBroker;
use embedded::postgres::{EmbeddedPostgres, PostgresOptions};
use event_store::PARTITIONS;
use event_store::broker::{Broker, BrokerConfig};
use projections::projector::Sources;

use crate::cli::UpOptions;
use crate::config::{BrokerOptions, Service};
use crate::open::{self, Opening, Services};
use crate::process::{self, Process};
use crate::running::Running;
use crate::stop_signals::{NO_SIGNALS, StopSignals};
use crate::{demo, keys, server, telemetry};

/// How long the demo data may take to be found.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);

/// Runs the mart until it is asked to stop.
///
/// # Errors
/// In one sentence that says what to do.
pub async fn up(options: UpOptions) -> anyhow::Result<()> {
    // A taken port is told before anything else is started.
    let listener = server::listen(options.listen.http_addr()).await?;
    let address = process::address_of(&listener, options.listen.http_addr());
    telemetry::install_metrics();
    let folder = open::data_dir(&options.storage)?;
    let master_key = keys::master_key(&options.storage.master_key())?;

    let mut urls = options.storage.database_urls();
    let postgres = if urls.is_complete() {
        None
    } else {
        let postgres = EmbeddedPostgres::start(PostgresOptions::new(&folder)).await?;
        urls = urls.or_server(postgres.server_url());
        Some(postgres)
    };
    let logs = open::logs(&urls, &Service::ALL, &[], master_key).await?;
    open::migrate(&logs).await?;
    let (broker, embedded_broker) = broker(&options.broker).await?;
    let bootstrap = broker.config().bootstrap_servers.clone();
    if let (Some(server), Some(_)) = (urls.server(), &postgres) {
        use secrecy::ExposeSecret;
        Running {
            database_url: server.expose_secret().to_owned(),
            kafka_brokers: bootstrap.clone(),
            embedded_broker: embedded_broker.is_some(),
            topic_prefix: broker.config().topic_prefix.clone(),
        }
        .tell(&folder)?;
    }

    let sources = Sources { logs, broker: Some(broker) };
    let services = open::services(
        &Opening {
            sources: &sources,
            data_dir: &folder,
            token_key: options.storage.token_key(),
            listen: &options.listen,
            outward: &options.outward,
            users_grpc: None,
        },
        &Service::ALL,
    )?;
    let mut process = Process::default();
    process.project(&Service::ALL, &sources);
    process.work(&services, &Service::ALL, &sources);
    if demo::fill_empty(&services).await.context("the demo data cannot be stored")? {
        show(&services).await;
    }
    if let (Some(grpc), Some(users)) = (options.listen.grpc_addr, &services.users) {
        super::serve::grpc(&mut process, grpc, users, &options.listen).await?;
    }
    process.serve(listener, &services, &sources, &options.listen);

    let mut asked_to_stop = StopSignals::listen().context(NO_SIGNALS)?;
    println!(
        "Online Mart is ready on http://{address} (docs http://{address}/docs, kafka {bootstrap}); log in as \
         {} (admin) or {} (customer), password {}",
        demo::ADMIN_EMAIL,
        demo::CUSTOMER_EMAIL,
        demo::PASSWORD
    );
    asked_to_stop.received().await;
    tracing::info!("stopping");
    process.stop().await;
    Running::end(&folder);
    drop(services);
    drop(sources);
    drop(embedded_broker);
    if let Some(postgres) = postgres {
        postgres.stop().await;
    }
    Ok(())
}

/// Waits until the people and products that were just stored are found, because the mart says next how to log in.
async fn show(services: &Services) {
    let users = services.users.iter().map(|service| (&service.surroundings, Service::Users));
    let catalog = services.catalog.iter().map(|service| (&service.surroundings, Service::Catalog));
    for (surroundings, service) in users.chain(catalog) {
        let shown = surroundings.reads.hear(service.name(), SHOWN_WITHIN).await;
        if !matches!(shown, Ok(true)) {
            tracing::warn!(%service, "the demo data is not shown yet");
        }
    }
}

/// The broker that was given, or one in this process.
async fn broker(options: &BrokerOptions) -> anyhow::Result<(Broker, Option<EmbeddedBroker>)> {
    if let Some(broker) = open::external_broker(options).await? {
        return Ok((broker, None));
    }
    let embedded = EmbeddedBroker::start(options.broker_port)?;
    let config = BrokerConfig {
        topic_prefix: options.topic_prefix.clone(),
        embedded: true,
        own: true,
        ..BrokerConfig::new(embedded.bootstrap_servers())
    };
    for service in Service::ALL {
        embedded.create_topic(&config.topic_of(service.name()), i32::from(PARTITIONS))?;
    }
    Ok((Broker::new(config), Some(embedded)))
}
