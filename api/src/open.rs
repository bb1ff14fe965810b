//! Opening what a process works with: keys, databases, logs, the broker, and the services on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use event_store::Log;
use event_store::broker::{Broker, BrokerConfig};
use projections::orders::price_list::Prices;
use projections::projector::Sources;
use projections::{Live, Remembered, registry};
use secrecy::{ExposeSecret, SecretString};

use aggregates::orders::checkout::Checkout;
use aggregates::payments::settlement::Settlement;
use aggregates::process::ProcessManager;

use crate::arrivals::Arrivals;
use crate::auth::local::LocalAuthenticator;
use crate::auth::{Authenticator, Believing};
use crate::config::{
    self, BrokerOptions, DatabaseUrls, Gateway as GatewayChoice, ListenOptions, OutwardOptions, Service,
    StorageOptions,
};
use crate::contacts::{Contacts, LocalContacts};
use crate::gateway::{Gateway, HttpGateway, SimulatedGateway};
use crate::grpc::{RemoteAuthenticator, RemoteContacts};
use crate::hearing::Hearing;
use crate::keys::{KeyFile, MASTER_KEY_BYTES};
use crate::limits::Limits;
use crate::mail::{self, Messenger};
use crate::passwords::Passwords;
use crate::reads::ServiceReads;
use crate::running::Running;
use crate::service::{Reads, Surroundings};
use crate::services::{
    CatalogService, InventoryService, NotificationsService, OrdersNearby, OrdersService, PaymentsService,
    UsersService, bus,
};
use crate::tokens::Tokens;

/// How many answered lists of products are remembered, of 64 KiB at most.
const REMEMBERED_PAGES: usize = 256;
/// How long a database may take to answer when a process starts.
const DATABASE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a broker may take to answer when a process starts.
const BROKER_PATIENCE: Duration = Duration::from_secs(10);

/// Creates the folder for whatever the mart keeps in files.
///
/// # Errors
/// In one sentence, when it cannot be.
pub fn data_dir(storage: &StorageOptions) -> anyhow::Result<PathBuf> {
    let folder = &storage.data_dir;
    std::fs::create_dir_all(folder).with_context(|| {
        format!("the data folder {} cannot be made: choose another with --data-dir", folder.display())
    })?;
    Ok(folder.clone())
}

/// The logs of services, their `own` and those they `read`, on the databases that were given. Databases on a shared server are made when they
/// are not there.
///
/// # Errors
/// In one sentence, when a URL is missing or wrong, or the server does not answer.
pub async fn logs(
    urls: &DatabaseUrls,
    own: &[Service],
    read: &[Service],
    master_key: [u8; MASTER_KEY_BYTES],
) -> anyhow::Result<BTreeMap<&'static str, Log>> {
    let mut logs = BTreeMap::new();
    for service in own.iter().chain(read) {
        if logs.contains_key(service.name()) {
            continue;
        }
        let url = urls.url(*service).with_context(|| {
            format!(
                "no database for {service}: set MART_DATABASE_URL (a server for all services) or \
                 MART_DATABASE_URL_{}",
                service.name().to_uppercase()
            )
        })?;
        if let Some(server) = urls.server().filter(|_| !urls.has_own(*service)) {
            create_database(server, &service.database()).await?;
        }
        let open = if own.contains(service) { Log::open } else { Log::open_for_reading };
        let log = open(service.name(), url.expose_secret(), master_key)
            .with_context(|| format!("the database URL of {service} cannot be read"))?;
        logs.insert(service.name(), log);
    }
    Ok(logs)
}

async fn create_database(server: &SecretString, name: &str) -> anyhow::Result<()> {
    let made = event_store::log::create_database(server.expose_secret(), name);
    match tokio::time::timeout(DATABASE_PATIENCE, made).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error).context("the database server cannot be used: check MART_DATABASE_URL"),
        Err(_) => bail!("the database server does not answer: check MART_DATABASE_URL, and whether it runs"),
    }
}

/// Brings the tables of all logs up to date and makes sure that their read models exist.
///
/// # Errors
/// When a database does not answer or a migration fails.
pub async fn migrate(logs: &BTreeMap<&'static str, Log>) -> anyhow::Result<()> {
    for (service, log) in logs {
        log.migrate().await.with_context(|| format!("the database of {service} cannot be migrated"))?;
        registry::ensure_all(service, log)
            .await
            .with_context(|| format!("the read models of {service} cannot be made"))?;
    }
    Ok(())
}

/// The broker on the network, when one was given. It must answer when a process starts; later the mart goes on
/// without it.
///
/// # Errors
/// In one sentence, when it does not answer.
pub async fn external_broker(options: &BrokerOptions) -> anyhow::Result<Option<Broker>> {
    let Some(servers) = &options.kafka_brokers else { return Ok(None) };
    let config = BrokerConfig {
        topic_prefix: options.topic_prefix.clone(),
        replication: options.kafka_replication,
        ..BrokerConfig::new(servers)
    };
    answering_broker(config).await.map(Some)
}

/// The broker that was given, or the one inside a mart that runs in the data folder.
///
/// # Errors
/// As [`external_broker`].
pub async fn broker_beside(options: &BrokerOptions, folder: &Path) -> anyhow::Result<Option<Broker>> {
    if let Some(broker) = external_broker(options).await? {
        return Ok(Some(broker));
    }
    let Some(running) = Running::read(folder) else { return Ok(None) };
    let config = BrokerConfig {
        topic_prefix: running.topic_prefix,
        embedded: running.embedded_broker,
        replication: options.kafka_replication,
        ..BrokerConfig::new(running.kafka_brokers)
    };
    answering_broker(config).await.map(Some)
}

async fn answering_broker(config: BrokerConfig) -> anyhow::Result<Broker> {
    let broker = Broker::new(config);
    let deadline = tokio::time::Instant::now() + BROKER_PATIENCE;
    while !broker.is_up().await {
        if tokio::time::Instant::now() >= deadline {
            bail!(
                "no kafka broker answers on {}: start it, or check MART_KAFKA_BROKERS",
                broker.config().bootstrap_servers
            );
        }
    }
    Ok(broker)
}

/// The services of a process, those that were asked for.
pub struct Services {
    /// Users.
    pub users: Option<UsersService>,
    /// The catalogue.
    pub catalog: Option<CatalogService>,
    /// The stock.
    pub inventory: Option<InventoryService>,
    /// Carts and orders.
    pub orders: Option<OrdersService>,
    /// Payments.
    pub payments: Option<PaymentsService>,
    /// Messages.
    pub notifications: Option<NotificationsService>,
    /// Where users are asked for their address.
    pub contacts: Arc<dyn Contacts>,
    /// The payment gateway.
    pub gateway: Arc<dyn Gateway>,
    /// The way messages go.
    pub messenger: Arc<dyn Messenger>,
}

/// What services are opened with.
pub struct Opening<'a> {
    /// The logs, those of the services asked for and those they read.
    pub sources: &'a Sources,
    /// Where the keys and mails are.
    pub data_dir: &'a Path,
    /// The signing key of tokens.
    pub token_key: KeyFile,
    /// How requests come in.
    pub listen: &'a ListenOptions,
    /// The world outside.
    pub outward: &'a OutwardOptions,
    /// Where the users service is, when it is not in this process.
    pub users_grpc: Option<crate::grpc::ClientOptions>,
}

/// All services with the defaults of the world outside, for commands that end: seeding, putting streams back.
///
/// # Errors
/// As [`services`].
pub fn for_maintenance(sources: &Sources, storage: &StorageOptions) -> anyhow::Result<Services> {
    let (listen, outward): (ListenOptions, OutwardOptions) = (config::defaults()?, config::defaults()?);
    let opening = Opening {
        sources,
        data_dir: &storage.data_dir,
        token_key: storage.token_key(),
        listen: &listen,
        outward: &outward,
        users_grpc: None,
    };
    services(&opening, &Service::ALL)
}

/// Opens services.
///
/// # Errors
/// When a key cannot be read, or who checks sessions is not known.
pub fn services(opening: &Opening<'_>, wanted: &[Service]) -> anyhow::Result<Services> {
    let logs = &opening.sources.logs;
    let log = |service: Service| -> anyhow::Result<Log> {
        logs.get(service.name()).cloned().with_context(|| format!("the log of {service} is not open"))
    };
    let wants = |service: Service| wanted.contains(&service);
    let gateway = gateway(opening.outward)?;
    let messenger = mail::messenger(opening.outward, opening.data_dir)?;

    let (users, auth, contacts): (Option<UsersService>, Arc<dyn Authenticator>, Arc<dyn Contacts>) = if wants(
        Service::Users,
    ) {
        let log = log(Service::Users)?;
        let tokens = Arc::new(Tokens::load(&opening.token_key)?);
        let users = bus(&log);
        let strict: Arc<dyn Authenticator> =
            Arc::new(LocalAuthenticator::new(Arc::clone(&tokens), users.clone()));
        let service = UsersService {
            surroundings: surroundings(&log, Arc::clone(&strict), opening.sources),
            users: users.clone(),
            directory: Live::new(log),
            tokens,
            passwords: Passwords::new(),
            limits: Arc::new(Limits::new(opening.listen.rate_limits)),
            access_token_ttl: opening.listen.access_token_ttl,
        };
        (Some(service), Arc::new(Believing::new(strict)), Arc::new(LocalContacts::new(users)))
    } else {
        let options = opening.users_grpc.clone().context(
                "who asks is checked by the users service: name it with --users-grpc, or serve users in this process",
            )?;
        let remote = RemoteAuthenticator::new(&options)?;
        (None, Arc::new(Believing::new(Arc::new(remote))), Arc::new(RemoteContacts::new(&options)?))
    };

    let around = |log: &Log| surroundings(log, Arc::clone(&auth), opening.sources);
    let mut services = Services {
        users,
        catalog: None,
        inventory: None,
        orders: None,
        payments: None,
        notifications: None,
        contacts,
        gateway: Arc::clone(&gateway),
        messenger,
    };
    if wants(Service::Catalog) {
        let log = log(Service::Catalog)?;
        services.catalog = Some(CatalogService {
            surroundings: around(&log),
            products: bus(&log),
            listing: Live::new(log),
            pages: Remembered::new(REMEMBERED_PAGES),
        });
    }
    if wants(Service::Inventory) {
        let log = log(Service::Inventory)?;
        services.inventory =
            Some(InventoryService { surroundings: around(&log), stock: bus(&log), levels: Live::new(log) });
    }
    if wants(Service::Orders) {
        let log = log(Service::Orders)?;
        services.orders = Some(OrdersService {
            surroundings: around(&log),
            orders: bus(&log),
            carts: bus(&log),
            details: Live::new(log.clone()),
            contents: Live::new(log.clone()),
            prices: Prices::new(Live::new(log.clone())),
            customers: Live::new(log.clone()),
            arrivals: Arrivals::start(log),
            pay_within: opening.outward.pay_within,
        });
    }
    if wants(Service::Payments) {
        let log = log(Service::Payments)?;
        let orders_log =
            logs.get(Service::Orders.name()).cloned().context("payments need the log of orders")?;
        let orders = services.orders.as_ref().map(|orders| OrdersNearby {
            checkout: Hearing::new(orders_log.clone(), Checkout::NAME, log.clone()),
            orders: orders.orders.clone(),
            reads: Arc::clone(&orders.surroundings.reads),
        });
        services.payments = Some(PaymentsService {
            surroundings: around(&log),
            payments: bus(&log),
            listing: Live::new(log.clone()),
            arrivals: Arrivals::start(log.clone()),
            gateway,
            settlement: Hearing::new(log, Settlement::NAME, orders_log),
            orders,
        });
    }
    if wants(Service::Notifications) {
        let log = log(Service::Notifications)?;
        services.notifications = Some(NotificationsService {
            surroundings: around(&log),
            notifications: bus(&log),
            messages: Live::new(log),
        });
    }
    Ok(services)
}

fn surroundings(log: &Log, auth: Arc<dyn Authenticator>, sources: &Sources) -> Surroundings {
    let reads: Arc<dyn Reads> = Arc::new(ServiceReads::new(log, sources.clone()));
    Surroundings { log: log.clone(), auth, reads }
}

fn gateway(options: &OutwardOptions) -> anyhow::Result<Arc<dyn Gateway>> {
    Ok(match &options.gateway {
        GatewayChoice::Simulated { approved_per_mille } => {
            Arc::new(SimulatedGateway::new(u32::from(*approved_per_mille)))
        }
        GatewayChoice::Http(address) => Arc::new(HttpGateway::new(address, options.gateway_key.clone())?),
    })
}

/// The services whose logs a service reads, itself included.
pub fn with_sources(wanted: &[Service]) -> Vec<Service> {
    let mut needed: Vec<Service> = wanted.to_vec();
    for service in wanted {
        let reads: &[Service] = match service {
            Service::Users => &[],
            Service::Catalog => &[Service::Inventory, Service::Users],
            Service::Inventory => &[Service::Catalog, Service::Orders, Service::Users],
            Service::Orders => &[Service::Catalog, Service::Inventory, Service::Payments, Service::Users],
            Service::Payments => &[Service::Orders, Service::Users],
            Service::Notifications => &[Service::Users, Service::Orders, Service::Payments],
        };
        needed.extend(reads);
    }
    needed.sort_unstable();
    needed.dedup();
    needed
}
