//! A real Apache Kafka for tests: one node that is broker and controller, in a temporary folder.
//!
//! ```no_run
//! # async fn example() -> Result<(), embedded::testing::RealKafkaError> {
//! let mut kafka = embedded::testing::RealKafka::start().await?;
//! let connect_to = kafka.bootstrap_servers();
//! # let _ = connect_to;
//! kafka.kill();
//! kafka.restart().await?;
//! kafka.freeze();
//! kafka.thaw();
//! # Ok(())
//! # }
//! ```
//!
//! It needs Java 17 or newer; Maven fetches Kafka once. The node ends with this process, however that ends.

mod jars;

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use rand::distr::Alphanumeric;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::producer::{BaseProducer, Producer};
use tempfile::TempDir;
use tokio::time::Instant;

use super::guard::Guard;

/// The version that is fetched.
const VERSION: &str = "4.1.1";
/// How long a node may take until it answers, on a busy machine.
const UP_WITHIN: Duration = Duration::from_secs(90);
/// How long it may take to stop when it is asked to.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);
/// How long one look at a node may take.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// The pause between two looks at a node that comes or goes.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often other ports are tried when somebody takes the chosen ones first.
const STARTS: usize = 3;
/// Ports from here on are given to whoever connects to somebody: while the node is down, one of its own clients
/// could be given its port, and speak to itself.
const FIRST_EPHEMERAL_PORT: u16 = 32_768;
/// Ports below are for the programs of the machine.
const FIRST_PORT: u16 = 20_000;
/// How many ports are tried.
const PORTS_TRIED: usize = 50;
/// Its settings, in its folder.
const SETTINGS_FILE: &str = "server.properties";
/// Its records, in its folder.
const DATA_FOLDER: &str = "data";
/// What it says, in its folder.
const LOG_FILE: &str = "kafka.log";
/// How long the identity of a cluster is.
const CLUSTER_ID_CHARACTERS: usize = 22;
/// How many lines of its log are told when it does not start.
const LINES_TOLD: usize = 8;

/// Small, soon up, and content with what two processors leave it.
const JAVA_OPTIONS: [&str; 5] = [
    "-Xms64m",
    "-Xmx320m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
];

/// One node is the whole cluster, so that nothing can be replicated. Topics are made by whoever wants them, as
/// the mart has to where it is not let off.
const SETTINGS: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=2
background.threads=2
";

/// What the guard does: the last process named on its pipe is ended with the pipe.
const GUARD_SCRIPT: &str = r#"
node=
while read -r named; do node=$named; done
test -n "$node" && kill -KILL "$node" 2>/dev/null
rm -rf "$1"
"#;

/// A node of Apache Kafka. Its port, its folder and so its topics stay the same over [`stop`](Self::stop),
/// [`kill`](Self::kill) and [`restart`](Self::restart); it ends with this value.
#[derive(Debug)]
pub struct RealKafka {
    jars: PathBuf,
    port: u16,
    child: Option<Child>,
    folder: TempDir,
    // Dropped last, when there is nothing left to guard.
    guard: Guard,
}

/// Why there is no Kafka.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RealKafkaError {
    /// A program that it needs is not on this machine.
    #[error("there is no `{0}` on this machine, which Apache Kafka needs")]
    Missing(&'static str),
    /// Maven could not fetch it.
    #[error("Maven could not fetch Apache Kafka {VERSION}: {0}")]
    Fetch(String),
    /// It did not become ready.
    #[error("Apache Kafka did not start: {0}")]
    Start(String),
    /// A folder, a file or a process could not be made.
    #[error("Apache Kafka could not be run")]
    System(#[from] io::Error),
}

impl RealKafka {
    /// Starts a node and waits until it answers. The first start on a machine fetches it.
    ///
    /// # Errors
    /// When something it needs is missing, or it does not become ready.
    pub async fn start() -> Result<Self, RealKafkaError> {
        let jars = jars::folder()?;
        let mut attempt = 1;
        loop {
            match Self::on_some_port(&jars).await {
                Err(RealKafkaError::Start(said)) if attempt < STARTS && said.contains("Address already") => {
                    attempt += 1;
                }
                started => return started,
            }
        }
    }

    async fn on_some_port(jars: &Path) -> Result<Self, RealKafkaError> {
        let folder = tempfile::Builder::new().prefix("mart-kafka-").tempdir()?;
        let (port, controller_port) = (free_port()?, free_port()?);
        std::fs::write(
            folder.path().join(SETTINGS_FILE),
            format!(
                "{SETTINGS}log.dirs={}\n\
                 controller.quorum.voters=1@127.0.0.1:{controller_port}\n\
                 listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n",
                folder.path().join(DATA_FOLDER).display()
            ),
        )?;
        let guard = Guard::start(GUARD_SCRIPT, folder.path())?;
        let mut kafka = Self { jars: jars.to_owned(), port, child: None, folder, guard };
        kafka.format()?;
        kafka.restart().await?;
        Ok(kafka)
    }

    /// Where its clients find it.
    pub fn bootstrap_servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), with what it had, and waits until it
    /// answers. One that runs goes on.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn restart(&mut self) -> Result<(), RealKafkaError> {
        if self.child.is_none() {
            let log = self.log()?;
            let child = self
                .java("kafka.Kafka")
                .arg(SETTINGS_FILE)
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()?;
            let process_id = child.id();
            self.child = Some(child);
            self.guard.watch(Some(process_id))?;
        }
        let deadline = Instant::now() + UP_WITHIN;
        loop {
            let servers = self.bootstrap_servers();
            let answers = tokio::task::spawn_blocking(move || answers(&servers));
            if answers.await.unwrap_or(false) {
                return Ok(());
            }
            let ended = self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || Instant::now() >= deadline {
                self.kill();
                return Err(RealKafkaError::Start(self.said()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Starts it again with nothing of what it had, after [`stop`](Self::stop) or [`kill`](Self::kill): as when its
    /// disk is lost.
    ///
    /// # Errors
    /// When its data cannot be removed, or it does not become ready.
    pub async fn restart_empty(&mut self) -> Result<(), RealKafkaError> {
        self.kill();
        std::fs::remove_dir_all(self.folder.path().join(DATA_FOLDER))?;
        self.format()?;
        self.restart().await
    }

    /// Asks it to stop, and waits until it has; one that does not is killed.
    pub async fn stop(&mut self) {
        self.thaw();
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + STOPPED_WITHIN;
        while let Some(child) = &mut self.child
            && matches!(child.try_wait(), Ok(None))
            && Instant::now() < deadline
        {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.kill();
    }

    /// Ends it as a power failure would, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            // The system may give its number to another process, which the guard is to spare.
            let _ = self.guard.watch(None);
        }
    }

    /// Holds it still: its connections stay open and nothing is answered, as by a machine that hangs.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on after [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Its process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // A process that has ended takes no signals, and none is needed.
            let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
        }
    }

    fn format(&self) -> Result<(), RealKafkaError> {
        // The characters of an identity of 128 bits; the last stands for two of them only.
        let mut cluster_id: String =
            rand::rng().sample_iter(Alphanumeric).map(char::from).take(CLUSTER_ID_CHARACTERS - 1).collect();
        cluster_id.push('A');
        let log = self.log()?;
        let formatted = self
            .java("kafka.tools.StorageTool")
            .args(["format", "--cluster-id", &cluster_id, "--config", SETTINGS_FILE])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .status()?;
        if formatted.success() { Ok(()) } else { Err(RealKafkaError::Start(self.said())) }
    }

    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command.args(JAVA_OPTIONS).arg("-cp").arg(self.jars.join("*")).arg(class);
        command.current_dir(self.folder.path());
        command
    }

    fn log(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.folder.path().join(LOG_FILE))
    }

    /// What it said last.
    fn said(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join(LOG_FILE)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with("\tat ")).collect();
        lines[lines.len().saturating_sub(LINES_TOLD)..].join("\n")
    }
}

impl Drop for RealKafka {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that is free now, also while nobody holds it.
pub(super) fn free_port() -> io::Result<u16> {
    let mut error = None;
    for _attempt in 0..PORTS_TRIED {
        let port = rand::rng().random_range(FIRST_PORT..FIRST_EPHEMERAL_PORT);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_free) => return Ok(port),
            Err(taken) => error = Some(taken),
        }
    }
    Err(error.unwrap_or_else(|| io::Error::from(io::ErrorKind::AddrInUse)))
}

/// Whether a node is there and would take records.
fn answers(bootstrap_servers: &str) -> bool {
    let client: Result<BaseProducer, _> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers)
        .set("reconnect.backoff.max.ms", "100")
        .set_log_level(RDKafkaLogLevel::Emerg)
        .create();
    let metadata = client.and_then(|client| client.client().fetch_metadata(None, LOOK_WITHIN));
    metadata.is_ok_and(|metadata| !metadata.brokers().is_empty())
}
