//! What can be set, as flags and as environment variables of the same names, with defaults that need neither.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use event_store::broker::TOPIC_PREFIX;
use secrecy::{ExposeSecret, SecretString};

use crate::decimal::Decimal;
use crate::grpc::{ClientOptions, TlsFiles};
use crate::keys::KeyFile;
use crate::limits::RateLimits;
use crate::server::ServerOptions;
use crate::telemetry::LogFormat;

/// The length of a topic's prefix. Kafka takes 249 characters for the whole name.
const LONGEST_TOPIC_PREFIX: usize = 200;

/// A part of the mart with a database, a log and a topic of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Service {
    /// Users and sessions.
    Users,
    /// Products.
    Catalog,
    /// Stock.
    Inventory,
    /// Carts, orders and checkout.
    Orders,
    /// Payments.
    Payments,
    /// Mail and text messages.
    Notifications,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Users, Self::Catalog, Self::Inventory, Self::Orders, Self::Payments, Self::Notifications];

    /// Its name in URLs, topics, databases and variables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Catalog => "catalog",
            Self::Inventory => "inventory",
            Self::Orders => "orders",
            Self::Payments => "payments",
            Self::Notifications => "notifications",
        }
    }

    /// Its database on a server that all services share.
    pub fn database(self) -> String {
        format!("mart_{}", self.name())
    }
}

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One service or `all`, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Every service.
    All,
    /// This one.
    One(Service),
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let named = Service::ALL.into_iter().find(|service| service.name() == text);
        named.map(Self::One).ok_or_else(|| {
            let names = Service::ALL.map(Service::name).join(", ");
            format!("there is no service `{text}`: name some of {names}, or all")
        })
    }
}

impl Selection {
    /// The services that a list of selections means, each once, in the order of [`Service::ALL`].
    pub fn services(selections: &[Self]) -> Vec<Service> {
        let selected = |service: &Service| {
            selections.iter().any(|selection| match selection {
                Self::All => true,
                Self::One(one) => one == service,
            })
        };
        Service::ALL.into_iter().filter(selected).collect()
    }
}

/// Where the logs and read models are.
#[derive(Debug, Clone, Args)]
pub struct StorageOptions {
    /// Folder for the keys and the database, when no others are given, and for mail
    #[arg(long, env = "MART_DATA_DIR", default_value = ".mart", value_name = "FOLDER")]
    pub data_dir: PathBuf,

    /// PostgreSQL server for all services, each in a database mart_<service>; MART_DATABASE_URL_<SERVICE> gives
    /// one service a database elsewhere [default: a private server in the data folder]
    #[arg(long, env = "MART_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<SecretString>,

    /// File with that URL, which holds a password and so is better in no variable
    #[arg(long, env = "MART_DATABASE_URL_FILE", value_name = "FILE", value_parser = secret_in,
        conflicts_with = "database_url")]
    pub database_url_file: Option<SecretString>,

    /// File with the master key, 32 bytes, the same for all processes [default: one made in the data folder]
    #[arg(long, env = "MART_MASTER_KEY_FILE", value_name = "FILE")]
    pub master_key_file: Option<PathBuf>,

    /// File with the Ed25519 key that signs access tokens (PEM, PKCS#8), the same for all processes of the users
    /// service [default: one made in the data folder]
    #[arg(long, env = "MART_TOKEN_KEY_FILE", value_name = "FILE")]
    pub token_key_file: Option<PathBuf>,
}

/// The databases of the services, as far as they were given.
#[derive(Debug, Clone, Default)]
pub struct DatabaseUrls {
    server: Option<SecretString>,
    services: BTreeMap<Service, SecretString>,
}

impl DatabaseUrls {
    /// With a server for the services that have no URL of their own.
    pub fn new(server: Option<SecretString>, services: BTreeMap<Service, SecretString>) -> Self {
        Self { server, services }
    }

    /// The same, with a server for those services that none was given for.
    #[must_use]
    pub fn or_server(self, server_url: String) -> Self {
        Self { server: self.server.or_else(|| Some(server_url.into())), ..self }
    }

    /// The database of a service; `None` when no server was given for it.
    pub fn url(&self, service: Service) -> Option<SecretString> {
        let own = self.services.get(&service).cloned();
        own.or_else(|| {
            let server = self.server.as_ref()?.expose_secret();
            Some(embedded::postgres::database_url(server, &service.database()).into())
        })
    }

    /// The server on which the databases of services may have to be made.
    pub fn server(&self) -> Option<&SecretString> {
        self.server.as_ref()
    }

    /// Whether nothing was given at all.
    pub fn is_empty(&self) -> bool {
        self.server.is_none() && self.services.is_empty()
    }

    /// Whether every service has its database.
    pub fn is_complete(&self) -> bool {
        self.server.is_some() || Service::ALL.iter().all(|service| self.services.contains_key(service))
    }

    /// Whether a service has a URL of its own: its database is then not ours to make.
    pub fn has_own(&self, service: Service) -> bool {
        self.services.contains_key(&service)
    }
}

impl StorageOptions {
    /// The databases that were given, by the flag and the variables.
    pub fn database_urls(&self) -> DatabaseUrls {
        let own = |service: Service| {
            let variable = format!("MART_DATABASE_URL_{}", service.name().to_uppercase());
            let url = std::env::var(variable).ok().filter(|url| !url.is_empty())?;
            Some((service, SecretString::from(url)))
        };
        let server = self.database_url.clone().or_else(|| self.database_url_file.clone());
        DatabaseUrls::new(server, Service::ALL.into_iter().filter_map(own).collect())
    }

    /// The key that wraps the keys of personal data.
    pub fn master_key(&self) -> KeyFile {
        self.key(self.master_key_file.as_ref(), "keys/master.key")
    }

    /// The key that signs access tokens.
    pub fn token_key(&self) -> KeyFile {
        self.key(self.token_key_file.as_ref(), "keys/token.pem")
    }

    fn key(&self, given: Option<&PathBuf>, own: &str) -> KeyFile {
        given.map_or_else(|| KeyFile::Own(self.data_dir.join(own)), |path| KeyFile::Given(path.clone()))
    }
}

/// Kafka counts the replicas of a topic in 16 bits.
const MAX_REPLICATION: i64 = i16::MAX as i64;

/// Where the events go.
#[derive(Debug, Clone, Args)]
pub struct BrokerOptions {
    /// Kafka brokers, separated by commas [default: a broker in this process]
    #[arg(long, env = "MART_KAFKA_BROKERS", value_name = "HOST:PORT,…")]
    pub kafka_brokers: Option<String>,

    /// Port on 127.0.0.1 that leads to the broker in this process [default: any free one]
    #[arg(long, env = "MART_BROKER_PORT", value_name = "PORT")]
    pub broker_port: Option<u16>,

    /// Over how many brokers a topic is replicated that is made here; not for the broker in this process
    #[arg(long, env = "MART_KAFKA_REPLICATION", default_value = "1", value_name = "BROKERS",
        value_parser = clap::value_parser!(i32).range(1..=MAX_REPLICATION))]
    pub kafka_replication: i32,

    /// What the names of topics begin with: marts that share a Kafka have one each
    #[arg(
        long,
        env = "MART_TOPIC_PREFIX",
        default_value = TOPIC_PREFIX,
        value_parser = topic_prefix,
        value_name = "PREFIX"
    )]
    pub topic_prefix: String,
}

/// Where HTTP is served unless an address is given: to this machine alone.
const HTTP_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Where requests come in, and what they may do.
#[derive(Debug, Clone, Args)]
pub struct ListenOptions {
    /// Address for HTTP [default: 127.0.0.1:8080]; `mart work` and `mart project` tell there how they are
    /// (/livez, /readyz, /metrics) when one is given
    #[arg(long, env = "MART_HTTP_ADDR", value_name = "ADDRESS:PORT")]
    pub http_addr: Option<SocketAddr>,

    /// Address for gRPC [default: none is served]
    #[arg(long, env = "MART_GRPC_ADDR", value_name = "ADDRESS:PORT")]
    pub grpc_addr: Option<SocketAddr>,

    /// How long an access token is valid
    #[arg(long, env = "MART_ACCESS_TOKEN_TTL", default_value = "15m", value_parser = duration, value_name = "TIME")]
    pub access_token_ttl: Duration,

    /// Limits on log-ins and registrations: off, or such as login=10/m,register_address=20/h
    #[arg(
        long,
        env = "MART_RATE_LIMITS",
        default_value = "",
        hide_default_value = true,
        value_name = "LIMITS"
    )]
    pub rate_limits: RateLimits,

    /// The gRPC address of the users service, where it runs elsewhere, such as http://users:9090
    #[arg(long, env = "MART_USERS_GRPC", value_name = "URL")]
    pub users_grpc: Option<String>,

    /// Certificate of this service for gRPC between services; with it every peer must show one
    #[arg(long, env = "MART_GRPC_CERTIFICATE", value_name = "FILE", requires_all = ["grpc_key", "grpc_authority"])]
    pub grpc_certificate: Option<PathBuf>,

    /// Key of that certificate
    #[arg(long, env = "MART_GRPC_KEY", value_name = "FILE", requires = "grpc_certificate")]
    pub grpc_key: Option<PathBuf>,

    /// Certificate of the authority that signs those of all services
    #[arg(long, env = "MART_GRPC_AUTHORITY", value_name = "FILE", requires = "grpc_certificate")]
    pub grpc_authority: Option<PathBuf>,

    /// A gateway stands before: it ends TLS, and its X-Forwarded-For names the client
    #[arg(long, env = "MART_BEHIND_GATEWAY", value_parser = clap::builder::FalseyValueParser::new())]
    pub behind_gateway: bool,
}

impl ListenOptions {
    /// Where the routes of services are served.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr.unwrap_or(HTTP_ADDR)
    }

    /// The limits of the HTTP server.
    pub fn server(&self) -> ServerOptions {
        ServerOptions { behind_gateway: self.behind_gateway, ..ServerOptions::default() }
    }

    /// The certificates of gRPC between services, when there are any.
    pub fn grpc_tls(&self) -> Option<TlsFiles> {
        let certificate = self.grpc_certificate.clone()?;
        Some(TlsFiles { certificate, key: self.grpc_key.clone()?, authority: self.grpc_authority.clone()? })
    }

    /// How to reach the users service, where it runs elsewhere.
    pub fn users_client(&self) -> Option<ClientOptions> {
        let url = self.users_grpc.clone()?;
        Some(ClientOptions { url, tls: self.grpc_tls() })
    }
}

/// The calls to the world outside.
#[derive(Debug, Clone, Args)]
pub struct OutwardOptions {
    /// How long stock is kept for an order that is not paid
    #[arg(long, env = "MART_PAY_WITHIN", default_value = "15m", value_parser = duration, value_name = "TIME")]
    pub pay_within: Duration,

    /// Who takes payments: simulated, with a rate of approval such as simulated:0.9, or the address of a gateway
    /// such as https://pay.example.org
    #[arg(long, env = "MART_GATEWAY", default_value = "simulated", value_name = "GATEWAY")]
    pub gateway: Gateway,

    /// Key that the payment gateway knows this mart by
    #[arg(long, env = "MART_GATEWAY_KEY", value_name = "KEY", hide_env_values = true)]
    pub gateway_key: Option<SecretString>,

    /// Server for mail, such as smtps://user:password@mail.example.org [default: into mailboxes in the data folder]
    #[arg(long, env = "MART_SMTP_URL", value_name = "URL", hide_env_values = true)]
    pub smtp_url: Option<SecretString>,

    /// Sender of mail
    #[arg(
        long,
        env = "MART_MAIL_FROM",
        default_value = "Online Mart <mart@localhost>",
        value_name = "ADDRESS"
    )]
    pub mail_from: String,
}

/// Who takes payments.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gateway {
    /// Nobody: payments are approved at this rate, in thousandths.
    Simulated {
        /// Out of a thousand cards that are not test cards; 900 unless given.
        approved_per_mille: u16,
    },
    /// A gateway behind HTTP, at this address.
    Http(String),
}

impl FromStr for Gateway {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "there is no gateway `{text}`: write simulated, simulated:0.9 for a rate of approval, or the \
                 address of one, such as https://pay.example.org"
            )
        };
        if text.starts_with("https://") || text.starts_with("http://") {
            return Ok(Self::Http(text.to_owned()));
        }
        let (name, rate) = text.split_once(':').unwrap_or((text, "0.9"));
        if name != "simulated" {
            return Err(bad());
        }
        let per_mille = Decimal::from(rate.to_owned()).minor(3).map_err(|_| bad())?;
        let approved_per_mille =
            u16::try_from(per_mille).ok().filter(|rate| *rate <= 1000).ok_or_else(bad)?;
        Ok(Self::Simulated { approved_per_mille })
    }
}

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
pub struct LogOptions {
    /// What to log, such as info,api=debug
    #[arg(long, env = "MART_LOG", global = true, value_name = "FILTER")]
    pub log: Option<String>,

    /// How to log
    #[arg(long, env = "MART_LOG_FORMAT", global = true, value_enum, default_value = "compact")]
    pub log_format: LogFormat,
}

/// What the flags and variables of `T` say when none is given on the command line.
pub fn defaults<T: Args>() -> Result<T, clap::Error> {
    T::from_arg_matches(&T::augment_args(clap::Command::new("mart")).try_get_matches_from(["mart"])?)
}

/// Checks what Kafka takes in the name of a topic, which the service and a word are added to.
fn topic_prefix(text: &str) -> Result<String, String> {
    let taken = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    if text.is_empty() || text.len() > LONGEST_TOPIC_PREFIX || !text.chars().all(taken) {
        return Err(format!(
            "write at most {LONGEST_TOPIC_PREFIX} letters, digits, dots, hyphens and underscores"
        ));
    }
    Ok(text.to_owned())
}

/// Reads what a file holds, without the line break that editors put at its end.
fn secret_in(file: &str) -> Result<SecretString, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    Ok(text.trim_end().to_owned().into())
}

/// Reads `15m`, `90s` or `1h 30m`.
fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}: write a time such as 90s or 15m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_selected_by_name_or_all_at_once() {
        let selections = ["orders", "payments", "orders"].map(|name| name.parse().expect("it is a service"));
        assert_eq!(Selection::services(&selections), [Service::Orders, Service::Payments]);
        assert_eq!(Selection::services(&[Selection::All]), Service::ALL);
        assert!("order".parse::<Selection>().is_err());
    }

    #[test]
    fn a_service_has_its_own_database_or_one_on_the_shared_server() {
        let own =
            BTreeMap::from([(Service::Users, SecretString::from("postgres://other/people".to_owned()))]);
        let urls = DatabaseUrls::new(Some("postgres://u@h/postgres?host=/x".to_owned().into()), own);
        let url = |service| urls.url(service).map(|url| url.expose_secret().to_owned());
        assert_eq!(url(Service::Users).as_deref(), Some("postgres://other/people"));
        assert_eq!(url(Service::Orders).as_deref(), Some("postgres://u@h/mart_orders?host=/x"));
        assert!(DatabaseUrls::default().url(Service::Orders).is_none());
        assert!(!format!("{urls:?}").contains("people"));
    }

    #[test]
    fn a_topic_begins_with_what_kafka_takes() {
        for good in ["mart", "mart.test-1", "a_b"] {
            assert_eq!(topic_prefix(good).as_deref(), Ok(good));
        }
        for wrong in ["", "a b", "märt", "a/b", &"x".repeat(201)] {
            assert!(topic_prefix(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn gateways_have_rates_of_approval_or_an_address() {
        assert_eq!("simulated".parse(), Ok(Gateway::Simulated { approved_per_mille: 900 }));
        assert_eq!("simulated:1".parse(), Ok(Gateway::Simulated { approved_per_mille: 1000 }));
        assert_eq!("simulated:0.95".parse(), Ok(Gateway::Simulated { approved_per_mille: 950 }));
        let address = "https://pay.example.org";
        assert_eq!(address.parse(), Ok(Gateway::Http(address.to_owned())));
        for wrong in ["", "simulated:1.1", "simulated:-0.1", "simulated:x", "other"] {
            assert!(wrong.parse::<Gateway>().is_err(), "{wrong}");
        }
    }
}
