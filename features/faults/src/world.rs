//! Everything a run consists of: the database server, the broker, the world outside, and the processes of the
//! mart, each behind its own links.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use features::databases::SERVICES;
use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::broker::Broker;
use crate::gateway::Gateway;
use crate::guard::Guard;
use crate::link::{Condition, Link, Protocol};
use crate::mail::Mail;
use crate::mart::{FAILPOINTS, Launch, Mart};
use crate::postgres::Postgres;
use crate::troubles::Troubles;

/// The processes of the mart, by their names and commands: two of each role.
const PROCESSES: [(&str, &[&str]); 6] = [
    ("serve-1", &["serve", "all"]),
    ("serve-2", &["serve", "all"]),
    ("work-1", &["work", "all"]),
    ("work-2", &["work", "all"]),
    ("project-1", &["project", "all"]),
    ("project-2", &["project", "all"]),
];
/// Or one that does everything.
const ALONE: (&str, &[&str]) = ("up", &["up"]);
/// How long stock is kept for an order that is not paid: short, so that orders expire within a run.
const PAY_WITHIN: &str = "12s";
/// How long a server that is down may keep a question waiting.
const DATABASE_WITHIN: Duration = Duration::from_secs(60);
/// The pause between two tries to ask it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a command of `mart` may take.
const COMMAND_WITHIN: Duration = Duration::from_secs(240);

/// Who takes part in a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cast {
    /// Whether one process does everything, and not two of each role.
    pub alone: bool,
    /// Whether the broker is a real Apache Kafka.
    pub real_kafka: bool,
}

/// The world of a run.
#[derive(Debug)]
pub struct World {
    /// Where logs, history and data are.
    pub folder: PathBuf,
    /// The database server.
    pub postgres: Arc<Postgres>,
    /// The broker.
    pub broker: Arc<Broker>,
    /// The payment gateway.
    pub gateway: Gateway,
    /// The mail server.
    pub mail: Mail,
    /// The processes.
    pub marts: Vec<Arc<Mart>>,
    /// Up to which position records of each service may be gone with a broker that lost everything.
    lost: Mutex<HashMap<&'static str, i64>>,
    launch: Launch,
    _guard: Guard,
}

impl World {
    /// Starts all of it in a folder.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(
        folder: &Path,
        binary: &Path,
        failpoints: Option<&str>,
        cast: Cast,
        troubles: &Troubles,
    ) -> Result<Self> {
        let data = folder.join("data");
        let guard = Guard::start(&data)?;
        let postgres = Postgres::start(&data).await?;
        let broker = Broker::start(cast.real_kafka).await?;
        let (gateway, mail) = (Gateway::start().await?, Mail::start(troubles).await?);
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let launch = Launch {
            binary: binary.to_owned(),
            variables: vec![
                own("MART_DATA_DIR", &folder.join("mart").display().to_string()),
                own("MART_HTTP_ADDR", "127.0.0.1:0"),
                own("MART_RATE_LIMITS", "off"),
                own("MART_PAY_WITHIN", PAY_WITHIN),
                own("MART_GATEWAY", &gateway.url()),
                own("MART_SMTP_URL", &mail.url()),
                own("NO_COLOR", "1"),
            ],
            failpoints: failpoints.map(str::to_owned),
            group: guard.group(),
            folder: folder.to_owned(),
        };
        let mut world = Self {
            folder: folder.to_owned(),
            postgres: Arc::new(postgres),
            broker: Arc::new(broker),
            gateway,
            mail,
            marts: Vec::new(),
            lost: Mutex::default(),
            launch,
            _guard: guard,
        };
        for command in ["migrate", "seed"] {
            world.succeed(&[command]).await?;
        }
        for (name, command) in if cast.alone { &[ALONE][..] } else { &PROCESSES } {
            world.add(name, command).await?;
        }
        for mart in &world.marts {
            tokio::spawn(Arc::clone(mart).run(troubles.clone()));
        }
        for mart in &world.marts {
            mart.is_ready().await?;
        }
        Ok(world)
    }

    async fn add(&mut self, name: &str, command: &'static [&'static str]) -> Result<()> {
        let to_postgres = Link::open(Protocol::Postgres, self.postgres.address()).await?;
        let to_broker = Link::open(Protocol::Kafka, self.broker.address().await?).await?;
        let variables = vec![
            ("MART_DATABASE_URL".to_owned(), self.postgres.url_by(to_postgres.address())),
            ("MART_KAFKA_BROKERS".to_owned(), to_broker.address().to_string()),
        ];
        let mart = Mart::new(name, command, &self.launch, to_postgres, to_broker, variables);
        self.marts.push(Arc::new(mart));
        Ok(())
    }

    /// The processes that have a role.
    pub fn role(&self, role: &str) -> Vec<Arc<Mart>> {
        let has_it = |mart: &&Arc<Mart>| mart.name == ALONE.0 || mart.name.starts_with(role);
        self.marts.iter().filter(has_it).cloned().collect()
    }

    /// Lifts everything that can be lifted from outside.
    ///
    /// # Errors
    /// When the broker does not obey, or a process does not come back.
    pub async fn heal(&self) -> Result<()> {
        self.gateway.set_silent(false);
        self.mail.set_failing(false);
        self.broker.accept().await;
        self.broker.bring_up().await?;
        for mart in &self.marts {
            for link in [&mart.to_postgres, &mart.to_broker] {
                link.arm(false);
                link.set(Condition::Open);
            }
            mart.signal(Signal::SIGCONT);
        }
        for mart in &self.marts {
            mart.is_ready().await?;
        }
        Ok(())
    }

    /// Lets the broker lose everything: it ends, and a fresh one comes.
    ///
    /// # Errors
    /// When the databases do not tell how far the logs are.
    pub async fn empty_broker(&self, lasting: Duration) -> Result<()> {
        self.broker.take_down().await?;
        tokio::time::sleep(lasting).await;
        self.broker.bring_up_empty().await?;
        for mart in &self.marts {
            mart.to_broker.lead_to(self.broker.address().await?);
        }
        // What is committed from here on was certainly not stored by the old one.
        for service in SERVICES {
            let head = self.head(service).await?;
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert(service, head);
        }
        Ok(())
    }

    /// Up to which position records of each service may be gone with a broker that lost everything.
    pub fn lost_records(&self) -> HashMap<&'static str, i64> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The end of a log, as soon as the server tells it.
    ///
    /// # Errors
    /// When it does not for long.
    pub async fn head(&self, service: &str) -> Result<i64> {
        let deadline = Instant::now() + DATABASE_WITHIN;
        loop {
            let asked = async {
                let mut connection = self.postgres.connect(service).await?;
                let head = "select coalesce(max(position), 0) from event_store.events";
                anyhow::Ok(sqlx::query_scalar(head).fetch_one(&mut connection).await?)
            };
            match asked.await {
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
                Ok(head) => return Ok(head),
            }
        }
    }

    /// Runs a command of `mart` past all links.
    ///
    /// # Errors
    /// When it cannot be run or takes too long.
    pub async fn command(&self, arguments: &[&str]) -> Result<Output> {
        let mut command: Command = self.launch.command(arguments);
        command.env("MART_DATABASE_URL", self.postgres.url_by(self.postgres.address()));
        // What looks whether all is well has no defects of its own.
        command.env_remove(FAILPOINTS);
        let output = tokio::time::timeout(COMMAND_WITHIN, command.output());
        output
            .await
            .with_context(|| format!("`mart {}` takes too long", arguments.join(" ")))?
            .map_err(Into::into)
    }

    async fn succeed(&self, arguments: &[&str]) -> Result<()> {
        let output = self.command(arguments).await?;
        if !output.status.success() {
            bail!("`mart {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Ends all of it.
    pub async fn stop(&self) {
        for mart in &self.marts {
            mart.end();
        }
        self.postgres.stop().await;
    }
}
