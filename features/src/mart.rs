//! A running mart: `mart up`, or its roles in processes of their own, with databases and a data folder apart
//! from all others.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use embedded::EmbeddedBroker;
use embedded::testing::{self, TestBroker};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::client::Client;
use crate::databases::{Databases, SERVICES};
use crate::failpoints::{self, SOCKET_VARIABLE};
use crate::program::{Program, binary};
use crate::shop;
use crate::topics::PARTITIONS;

/// How many lines of the log are shown when a test fails.
const LOG_LINES_SHOWN: usize = 60;
/// The variable that survives: where the programs of PostgreSQL are.
const POSTGRES_VARIABLE: &str = "MART_POSTGRES_BIN";

/// What a mart is started with.
#[derive(Debug)]
pub struct Setup {
    variables: Vec<(String, String)>,
    databases: Option<Databases>,
    folder: TempDir,
    arguments: Vec<String>,
}

impl Setup {
    /// `mart up` on fresh databases of the server that all tests share, without limits on log-ins, with a
    /// gateway that approves all cards but those that are known to be declined. Its broker is in its process, or
    /// the real one that all tests share, with topics of its own.
    pub async fn new() -> Self {
        let databases = Databases::fresh().await;
        let mut setup = Self::embedded();
        setup.variables.extend(databases.variables());
        setup.databases = Some(databases);
        match testing::real_kafka() {
            Some(servers) => {
                setup.with("MART_KAFKA_BROKERS", &servers).with("MART_TOPIC_PREFIX", &testing::topic_prefix())
            }
            None => setup,
        }
    }

    /// The same on a broker of the test. What the embedded one cannot be asked for, its topics, are made here.
    pub async fn on(broker: &TestBroker) -> Self {
        Self::new().await.with_broker(broker).await
    }

    /// With a broker of the test.
    pub async fn with_broker(self, broker: &TestBroker) -> Self {
        let setup = self
            .with("MART_KAFKA_BROKERS", &broker.bootstrap_servers())
            .with("MART_TOPIC_PREFIX", broker.topic_prefix());
        if broker.is_embedded() {
            let topics = SERVICES.map(|service| setup.topic_of(service));
            broker.make_topics(&topics, PARTITIONS).await;
        }
        setup
    }

    /// `mart up` on nothing: it starts a database server of its own.
    ///
    /// # Panics
    /// When no folder can be made.
    pub fn embedded() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("mart-feature-")
            // A database server that root starts runs as somebody else, who has to pass through.
            .permissions(std::fs::Permissions::from_mode(0o711))
            .tempdir()
            .expect("a temporary folder can be made");
        let defaults = [
            ("MART_HTTP_ADDR", "127.0.0.1:0"),
            ("MART_RATE_LIMITS", "off"),
            ("MART_GATEWAY", "simulated:1"),
            ("NO_COLOR", "1"),
        ];
        let mut variables = defaults.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        variables.push(("MART_DATA_DIR".to_owned(), folder.path().display().to_string()));
        Self { variables, databases: None, folder, arguments: vec!["up".to_owned()] }
    }

    /// With a variable set otherwise.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(set, _)| set != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another command than `mart up`; it has to say an address, to be spoken to.
    #[must_use]
    pub fn command(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// The topic of a service.
    pub fn topic_of(&self, service: &str) -> String {
        let set = self.variables.iter().find(|(name, _)| name == "MART_TOPIC_PREFIX");
        let prefix = set.map_or("mart", |(_, prefix)| prefix);
        format!("{prefix}.{service}.events")
    }

    /// With a socket at which failpoints can be armed while it runs.
    #[must_use]
    pub fn with_failpoints(self) -> Self {
        let socket = self.socket().display().to_string();
        self.with(SOCKET_VARIABLE, &socket)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("failpoints.sock")
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(self) -> TestMart {
        let mut mart = TestMart { setup: self, program: None, base: String::new(), admin: OnceCell::new() };
        mart.start().await;
        mart
    }

    /// Runs it to its end, for a mart that is not expected to become ready.
    ///
    /// # Panics
    /// When it cannot be run.
    pub async fn run(&self) -> Output {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        run(self.prepared(&arguments)).await
    }

    fn prepared(&self, arguments: &[&str]) -> Command {
        EmbeddedBroker::keep_from_children();
        let mut command = Command::new(binary());
        for (name, _) in std::env::vars_os() {
            let ours =
                name.to_str().is_some_and(|name| name.starts_with("MART_") && name != POSTGRES_VARIABLE);
            if ours {
                command.env_remove(name);
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).args(arguments);
        command.current_dir(self.folder.path());
        command
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("test.log")
    }
}

/// A running mart. It ends with this value, and with the test, however that ends.
#[derive(Debug)]
pub struct TestMart {
    setup: Setup,
    program: Option<Program>,
    base: String,
    admin: OnceCell<String>,
}

impl TestMart {
    /// The mart that tests share which do not disturb each other.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<TestMart> = OnceCell::const_new();
        let start = || async {
            let mart = Setup::new().await.start().await;
            mart.show_log_on_panic();
            mart
        };
        SHARED.get_or_init(start).await
    }

    /// What it was started with.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Its databases.
    ///
    /// # Panics
    /// When it has a server of its own.
    pub fn databases(&self) -> &Databases {
        self.setup.databases.as_ref().expect("this mart has databases on the server of the tests")
    }

    /// Where it is, such as `http://127.0.0.1:40123`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Speaks to it as nobody.
    pub fn client(&self) -> Client {
        Client::new(&self.base)
    }

    /// Speaks to it as an admin.
    pub async fn admin(&self) -> Client {
        let client = self.client();
        let log_in = || async { shop::log_in(&client, shop::ADMIN_EMAIL, shop::PASSWORD).await };
        let token = self.admin.get_or_init(log_in).await;
        client.with_token(token)
    }

    /// All that it has said and logged since its first start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.setup.log()).unwrap_or_default()
    }

    /// The Kafka broker that it publishes to, as its ready line says.
    ///
    /// # Panics
    /// When it has not said one.
    pub fn kafka(&self) -> String {
        let log = self.log();
        let (_, rest) = log.rsplit_once("kafka ").expect("a ready mart says where its broker is");
        rest.split(')').next().unwrap_or_default().to_owned()
    }

    /// The topic of a service.
    pub fn topic_of(&self, service: &str) -> String {
        self.setup.topic_of(service)
    }

    /// The number of its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process_id(&self) -> u32 {
        self.program.as_ref().expect("it runs").process_id()
    }

    /// Starts it again after an end.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn start(&mut self) {
        assert!(self.program.is_none(), "it runs already");
        let arguments: Vec<&str> = self.setup.arguments.iter().map(String::as_str).collect();
        let program = self.spawn(&arguments);
        let ready = program.says("Online Mart").await;
        let Some(address) = ready.as_deref().and_then(address_in) else {
            panic!("the mart did not become ready:\n{}", self.tail())
        };
        self.base = format!("http://{address}");
        self.program = Some(program);
    }

    /// Starts a command of `mart` beside it and waits for nothing.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn begin(&self, arguments: &[&str]) -> Program {
        self.spawn(arguments)
    }

    /// Starts another role of the same mart and waits for its ready line.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn role(&self, arguments: &[&str]) -> Program {
        self.role_with(arguments, &[]).await
    }

    /// The same with further variables.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn role_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Program {
        let mut command = self.setup.prepared(arguments);
        command.envs(variables.iter().copied());
        let program = Program::start(command, &self.setup.log(), self.setup.data_dir());
        if program.says("Online Mart").await.is_none() {
            panic!("`mart {}` did not become ready:\n{}", arguments.join(" "), self.tail());
        }
        program
    }

    /// Starts another process that serves HTTP, and gives a client of it that is nobody.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn serve_beside(&self, arguments: &[&str]) -> (Program, Client) {
        let program = self.spawn(arguments);
        let ready = program.says("Online Mart").await;
        let Some(address) = ready.as_deref().and_then(address_in) else {
            panic!("`mart {}` did not become ready:\n{}", arguments.join(" "), self.tail());
        };
        (program, Client::new(&format!("http://{address}")))
    }

    /// Ends it as a power failure would.
    pub fn kill9(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.kill();
        }
    }

    /// Arms failpoints in it; see [`failpoints::arm`].
    ///
    /// # Panics
    /// When it was not set up for that, or does not understand them.
    pub async fn arm(&self, points: &str) {
        failpoints::arm(&self.setup.socket(), points).await;
    }

    /// Starts it again if it has ended by itself; says whether it had.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn revive(&mut self) -> bool {
        let ended = self.program.as_mut().is_none_or(Program::has_ended);
        if ended {
            self.program = None;
            self.start().await;
        }
        ended
    }

    /// Ends it as a power failure would, and starts it again.
    pub async fn restart(&mut self) {
        self.kill9();
        self.start().await;
    }

    /// Asks it to stop, which it has to do cleanly.
    ///
    /// # Panics
    /// When its exit code is not 0, or it takes too long.
    pub async fn stop(&mut self) {
        self.stop_by(Signal::SIGTERM).await;
    }

    /// Asks it to stop by a signal, which it has to do cleanly.
    ///
    /// # Panics
    /// When its exit code is not 0, or it takes too long.
    pub async fn stop_by(&mut self, signal: Signal) {
        let mut program = self.program.take().expect("it runs");
        program.signal(signal);
        let status = program.ended().await;
        assert!(status.success(), "the mart stopped with {status}:\n{}", self.tail());
    }

    /// A command of `mart` beside it, with the same databases and folder, to be started in another way.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.setup.prepared(arguments)
    }

    /// Asks the process that serves to do something, without waiting for it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, signal: Signal) {
        self.program.as_ref().expect("it runs").signal(signal);
    }

    /// Runs a command of `mart` beside it, with the same databases and folder, to its end.
    ///
    /// # Panics
    /// When it cannot be run.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, &[]).await
    }

    /// The same with further variables.
    ///
    /// # Panics
    /// When it cannot be run.
    pub async fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = self.setup.prepared(arguments);
        command.envs(variables.iter().copied());
        run(command).await
    }

    fn spawn(&self, arguments: &[&str]) -> Program {
        Program::start(self.setup.prepared(arguments), &self.setup.log(), self.setup.data_dir())
    }

    fn tail(&self) -> String {
        tail(&self.log())
    }

    /// A shared mart is never dropped, so that a failing test shows its log by a hook.
    fn show_log_on_panic(&self) {
        let log = self.setup.log();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            let lines = std::fs::read_to_string(&log).unwrap_or_default();
            let told = lines.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
            let told = tail(&told.collect::<Vec<_>>().join("\n"));
            eprintln!("warnings and errors of the shared mart:\n{told}");
        }));
    }
}

impl Drop for TestMart {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of the mart:\n{}", self.tail());
        }
        self.kill9();
        let server = std::fs::read_to_string(self.setup.data_dir().join("postgres/postmaster.pid"));
        let pid = server.ok().and_then(|text| text.lines().next()?.trim().parse().ok());
        if let Some(pid) = pid {
            // It may have ended in between.
            let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
        }
    }
}

async fn run(command: Command) -> Output {
    tokio::process::Command::from(command).kill_on_drop(true).output().await.expect("the program can be run")
}

/// The address in a ready line.
fn address_in(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("http://")?;
    rest.split([' ', ',', ';', '/']).next()
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}
