//! The command line of `mart`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use uuid::Uuid;

use crate::config::{
    BrokerOptions, ListenOptions, LogOptions, OutwardOptions, Selection, Service, StorageOptions,
};

/// An online mart: an event-sourced back end with everything in one program.
#[derive(Debug, Parser)]
#[command(name = "mart", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Start with `mart up`, then open http://127.0.0.1:8080/docs")]
pub struct Cli {
    /// What is logged.
    #[command(flatten)]
    pub logging: LogOptions,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `mart` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in this process: database, broker, all services and workers
    #[command(after_help = "Examples:\n  mart up\n  mart up --http-addr 0.0.0.0:80\n  \
        MART_DATABASE_URL=postgres://mart@db mart up    # your own PostgreSQL")]
    Up(Box<UpOptions>),

    /// Serve the HTTP and gRPC interface of some services
    #[command(
        after_help = "Examples:\n  mart serve all\n  mart serve orders payments --http-addr 127.0.0.1:8081"
    )]
    Serve(Box<RoleOptions>),

    /// Work in the background for some services: relay, process managers, timers, gateway and mail
    #[command(after_help = "Examples:\n  mart work all\n  mart work payments --gateway simulated:0.9")]
    Work(Box<RoleOptions>),

    /// Keep the read models of some services up to date
    #[command(after_help = "Examples:\n  mart project all\n  mart project catalog inventory")]
    Project(Box<RoleOptions>),

    /// Build read models anew from the events, beside the live ones, and replace those in one step
    #[command(after_help = "Examples:\n  mart replay order_details\n  mart replay --all --verify\n  \
        mart replay order_details --to 120000    # as of a position, to look at")]
    Replay(ReplayOptions),

    /// Make and upgrade the databases
    #[command(after_help = "Examples:\n  mart migrate\n  MART_DATABASE_URL=postgres://mart@db mart migrate")]
    Migrate(StorageOptions),

    /// Fill an empty mart with products, stock and people to try it with
    #[command(after_help = "Examples:\n  mart seed\n  MART_DATABASE_URL=postgres://mart@db mart seed")]
    Seed(StorageOptions),

    /// Care for the people who run the mart
    #[command(subcommand)]
    Admin(AdminCommand),

    /// Look at the events
    #[command(subcommand)]
    Events(EventsCommand),

    /// Look at events that could not be applied, and put them back
    #[command(subcommand)]
    Parked(ParkedCommand),

    /// Fold all events again and compare with the live read models
    #[command(after_help = "Examples:\n  mart verify\n  mart verify orders payments")]
    Verify(VerifyOptions),

    /// Print the OpenAPI document
    #[command(after_help = "Example:\n  mart openapi > openapi.json")]
    Openapi,

    /// Ask a running mart whether it is ready; exit code 0 means yes
    #[command(
        after_help = "Examples:\n  mart healthcheck\n  mart healthcheck --live --http-addr 127.0.0.1:8081"
    )]
    Healthcheck(HealthcheckOptions),
}

/// Options of `mart up`.
#[derive(Debug, Clone, Args)]
#[allow(missing_docs)]
pub struct UpOptions {
    #[command(flatten)]
    pub listen: ListenOptions,
    #[command(flatten)]
    pub storage: StorageOptions,
    #[command(flatten)]
    pub broker: BrokerOptions,
    #[command(flatten)]
    pub outward: OutwardOptions,
}

/// Options of a role that runs for some services.
#[derive(Debug, Clone, Args)]
#[allow(missing_docs)]
pub struct RoleOptions {
    /// Services, or all
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<Selection>,
    #[command(flatten)]
    pub listen: ListenOptions,
    #[command(flatten)]
    pub storage: StorageOptions,
    #[command(flatten)]
    pub broker: BrokerOptions,
    #[command(flatten)]
    pub outward: OutwardOptions,
}

/// Options of `mart replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayOptions {
    /// Read models to build anew
    #[arg(required_unless_present = "all", value_name = "READ MODEL")]
    pub read_models: Vec<String>,

    /// Build all of them
    #[arg(long, conflicts_with = "read_models")]
    pub all: bool,

    /// Only build and compare with the live ones; replace nothing
    #[arg(long)]
    pub verify: bool,

    /// Stop at this position, or at this time (RFC 3339), and replace nothing
    #[arg(long, value_name = "POSITION|TIME", conflicts_with = "verify")]
    pub to: Option<String>,

    /// Drop the tables that were replaced, now and before, instead of keeping them to go back to
    #[arg(long)]
    pub drop_old: bool,

    /// Where the databases are.
    #[command(flatten)]
    pub storage: StorageOptions,
}

/// What `mart admin` can do.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Register an administrator; the password is read from standard input
    #[command(after_help = "Example:\n  mart admin create --email ada@example.org < password.txt")]
    Create {
        /// E-mail address to log in with
        #[arg(long)]
        email: String,
        /// Name to log in with
        #[arg(long)]
        username: Option<String>,
        /// Where the databases are.
        #[command(flatten)]
        storage: StorageOptions,
    },

    /// Give a user a role
    #[command(after_help = "Example:\n  mart admin role ada@example.org staff")]
    Role {
        /// E-mail address, name or id of the user
        user: String,
        /// The role
        #[arg(value_enum)]
        role: RoleName,
        /// Where the databases are.
        #[command(flatten)]
        storage: StorageOptions,
    },
}

/// The roles of users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Buys.
    Customer,
    /// Cares for products, stock and orders.
    Staff,
    /// May do everything.
    Admin,
}

/// What `mart events` can do.
#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// Print events of the past
    #[command(after_help = "Examples:\n  mart events list orders --limit 20\n  \
        mart events list orders --stream 0194a3b2-7d11-7abc-8def-0123456789ab --json")]
    List {
        /// What to print.
        #[command(flatten)]
        filter: EventFilter,
        /// The most to print
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },

    /// Print events as they happen
    #[command(
        after_help = "Examples:\n  mart events follow all\n  mart events follow payments --from 1 --json"
    )]
    Follow {
        /// What to print.
        #[command(flatten)]
        filter: EventFilter,
    },
}

/// Which events.
#[derive(Debug, Clone, Args)]
pub struct EventFilter {
    /// Services, or all
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<Selection>,

    /// Only those of one aggregate
    #[arg(long, value_name = "ID")]
    pub stream: Option<Uuid>,

    /// Only those of one type, such as OrderPlaced
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,

    /// Begin at this position
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(1..))]
    pub from: Option<i64>,

    /// Print a JSON object a line
    #[arg(long)]
    pub json: bool,

    /// Where the databases are.
    #[command(flatten)]
    pub storage: StorageOptions,

    /// Where the topics are.
    #[command(flatten)]
    pub broker: BrokerOptions,
}

/// What `mart parked` can do.
#[derive(Debug, Subcommand)]
pub enum ParkedCommand {
    /// Print what is parked, and why
    List {
        /// Services, or all
        #[arg(default_value = "all", value_name = "SERVICE")]
        services: Vec<Selection>,
        /// Where the databases are.
        #[command(flatten)]
        storage: StorageOptions,
    },

    /// Apply the parked events of a service again, stream by stream and in order
    #[command(after_help = "Example:\n  mart parked retry orders")]
    Retry {
        /// The service
        #[arg(value_enum)]
        service: Service,
        /// Where the databases are.
        #[command(flatten)]
        storage: StorageOptions,
    },
}

/// Options of `mart verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyOptions {
    /// Services, or all
    #[arg(default_value = "all", value_name = "SERVICE")]
    pub services: Vec<Selection>,

    /// Write the differences into this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Where the databases are.
    #[command(flatten)]
    pub storage: StorageOptions,
}

/// Options of `mart healthcheck`.
#[derive(Debug, Clone, Args)]
pub struct HealthcheckOptions {
    /// Address of the running mart
    #[arg(long, env = "MART_HTTP_ADDR", default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    pub http_addr: SocketAddr,

    /// Ask only whether the process is alive
    #[arg(long)]
    pub live: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use secrecy::ExposeSecret;

    use super::*;
    use crate::keys::KeyFile;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_are_read() {
        let cli = Cli::try_parse_from([
            "mart",
            "serve",
            "orders",
            "all",
            "--pay-within",
            "90s",
            "--rate-limits",
            "off",
            "--log-format",
            "json",
        ])
        .expect("it is right");
        let Command::Serve(options) = cli.command else { panic!("another command was read") };
        assert_eq!(Selection::services(&options.services), Service::ALL);
        assert_eq!(options.outward.pay_within.as_secs(), 90);
        assert_eq!(options.listen.rate_limits, crate::limits::RateLimits::OFF);
    }

    #[test]
    fn keys_and_replication_are_as_given() {
        let read = |arguments: &[&str]| {
            let arguments = ["mart", "work", "all"].iter().chain(arguments);
            Cli::try_parse_from(arguments).map(|cli| match cli.command {
                Command::Work(options) => *options,
                other => panic!("another command was read: {other:?}"),
            })
        };
        let own = read(&["--data-dir", "/data"]).expect("it is right");
        assert_eq!(own.storage.master_key(), KeyFile::Own("/data/keys/master.key".into()));
        assert_eq!(own.storage.token_key(), KeyFile::Own("/data/keys/token.pem".into()));
        assert_eq!(own.broker.kafka_replication, 1);
        let given = ["--master-key-file", "/a", "--token-key-file", "/b", "--kafka-replication", "3"];
        let given = read(&given).expect("it is right");
        assert_eq!(given.storage.master_key(), KeyFile::Given("/a".into()));
        assert_eq!(given.storage.token_key(), KeyFile::Given("/b".into()));
        assert_eq!(given.broker.kafka_replication, 3);
        for wrong in ["0", "-1", "32768", "many"] {
            assert!(read(&["--kafka-replication", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_database_server_may_stand_in_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("url");
        std::fs::write(&file, "postgres://mart:secret@db/postgres\n").expect("the folder is ours");
        let file = file.display().to_string();
        let read = |arguments: &[&str]| {
            let arguments = ["mart", "migrate", "--database-url-file"].iter().chain(arguments);
            Cli::try_parse_from(arguments).map(|cli| match cli.command {
                Command::Migrate(storage) => storage.database_urls(),
                other => panic!("another command was read: {other:?}"),
            })
        };
        let urls = read(&[&file]).expect("it is right");
        let server = urls.server().expect("it is given");
        assert_eq!(server.expose_secret(), "postgres://mart:secret@db/postgres");
        assert!(read(&["/nonexistent"]).is_err());
        assert!(read(&[&file, "--database-url", "postgres://mart@db"]).is_err());
    }

    #[test]
    fn a_mistake_is_told_with_what_is_possible() {
        let error = Cli::try_parse_from(["mart", "serve", "order"]).expect_err("there is no such service");
        assert!(error.to_string().contains("name some of users, catalog"), "{error}");
        let error = Cli::try_parse_from(["mart", "up", "--pay-within", "soon"]).expect_err("it is no time");
        assert!(error.to_string().contains("90s or 15m"), "{error}");
    }
}
