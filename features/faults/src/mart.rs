//! A process of the mart behind its own links: started, watched, and started again whenever it ends.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use embedded::EmbeddedBroker;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::link::Link;
use crate::troubles::Troubles;

/// How long a process may take to be ready: long, as others may break and be started on a slow machine meanwhile.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// The pause before a process that ended is started again, as whoever runs it would.
const PAUSE: Duration = Duration::from_millis(500);
/// How every process begins its ready line.
const READY: &str = "Online Mart";
/// Arms the failpoints of a mart that has them.
pub(crate) const FAILPOINTS: &str = "FAILPOINTS";
/// The variables of the mart that come in from outside.
const PASSED_ON: [&str; 1] = ["MART_POSTGRES_BIN"];

/// How the processes of a run are started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program `mart`.
    pub binary: PathBuf,
    /// The variables that all have.
    pub variables: Vec<(String, String)>,
    /// Which of their failpoints are armed.
    pub failpoints: Option<String>,
    /// The process group they join.
    pub group: i32,
    /// Where they are started, and their logs are.
    pub folder: PathBuf,
}

impl Launch {
    /// A command of `mart`, with the variables of this run and no others of the mart.
    pub fn command(&self, arguments: &[&str]) -> Command {
        EmbeddedBroker::keep_from_children();
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("MART_") && !PASSED_ON.contains(&name)) {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .envs(self.failpoints.iter().map(|armed| (FAILPOINTS, armed)))
            .current_dir(&self.folder)
            .process_group(self.group)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

/// A process of the mart.
#[derive(Debug)]
pub struct Mart {
    /// Its name in logs, such as `serve-1`.
    pub name: String,
    /// The way to PostgreSQL.
    pub to_postgres: Link,
    /// The way to the broker.
    pub to_broker: Link,
    arguments: Vec<&'static str>,
    launch: Launch,
    variables: Mutex<Vec<(String, String)>>,
    wanted: watch::Sender<bool>,
    /// Whether its end is our doing.
    killed: AtomicBool,
    /// Where it serves, or an empty text for one that serves nothing; `None` until it is ready.
    ready: watch::Sender<Option<String>>,
    pid: Mutex<Option<Pid>>,
}

impl Mart {
    /// Prepares a process; [`run`](Self::run) starts it.
    pub fn new(
        name: &str,
        arguments: &[&'static str],
        launch: &Launch,
        to_postgres: Link,
        to_broker: Link,
        variables: Vec<(String, String)>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            to_postgres,
            to_broker,
            arguments: arguments.to_vec(),
            launch: launch.clone(),
            variables: Mutex::new(variables),
            wanted: watch::Sender::new(true),
            killed: AtomicBool::new(false),
            ready: watch::Sender::new(None),
            pid: Mutex::new(None),
        }
    }

    /// Keeps it running. An end that nobody caused is a complaint, unless something is broken while it starts.
    pub async fn run(self: Arc<Self>, troubles: Troubles) {
        let mut wanted = self.wanted.subscribe();
        while wanted.wait_for(|wanted| *wanted).await.is_ok() {
            let begun = troubles.now();
            let ended = self.live().await;
            let was_ready = self.ready.send_replace(None).is_some();
            if !self.killed.swap(false, Ordering::SeqCst) {
                let excused = !was_ready && troubles.excuse(begun, troubles.now());
                match ended {
                    Ok(_) if excused => {}
                    Ok(status) => troubles.complain(format!("{} ended by itself: {status}", self.name)),
                    Err(error) => troubles.complain(format!("{} cannot be started: {error:#}", self.name)),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One life of the process, from its start to its end.
    async fn live(&self) -> Result<std::process::ExitStatus> {
        let log = self.launch.folder.join(format!("{}.log", self.name));
        let log = OpenOptions::new().create(true).append(true).open(log).context("no log can be written")?;
        let mut command = self.launch.command(&self.arguments);
        command.envs(self.variables.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().context("it cannot be spawned")?;
        self.set_pid(&child);
        // Whoever wanted it to end while it was being started found nothing to kill.
        if !*self.wanted.borrow() {
            self.signal(Signal::SIGKILL);
        }
        if let Some(output) = child.stdout.take() {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if line.starts_with(READY) {
                    let base = line.split_once("http://").and_then(|(_, behind)| {
                        behind.split_whitespace().next().map(|address| format!("http://{address}"))
                    });
                    self.ready.send_replace(Some(base.unwrap_or_default()));
                }
            }
        }
        let status = child.wait().await;
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner) = None;
        status.context("its end cannot be awaited")
    }

    /// Where it serves; `None` while it does not.
    pub fn base(&self) -> Option<String> {
        self.ready.borrow().clone()
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn is_ready(&self) -> Result<()> {
        let mut ready = self.ready.subscribe();
        let waited = tokio::time::timeout(READY_WITHIN, ready.wait_for(Option::is_some)).await;
        if !matches!(waited, Ok(Ok(_))) {
            bail!("{} is not ready within {READY_WITHIN:?}", self.name);
        }
        Ok(())
    }

    /// Kills it, and lets it be started again after a time. Says when it is ready again.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn kill(&self, lasting: Duration) -> Result<()> {
        self.end();
        tokio::time::sleep(lasting).await;
        self.wanted.send_replace(true);
        self.is_ready().await
    }

    /// Kills it for good.
    pub fn end(&self) {
        self.wanted.send_replace(false);
        self.killed.store(true, Ordering::SeqCst);
        self.ready.send_replace(None);
        self.signal(Signal::SIGKILL);
    }

    /// Sends it a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = *self.pid.lock().unwrap_or_else(PoisonError::into_inner) {
            // It may be ending by itself just now.
            let _ = kill(pid, signal);
        }
    }

    /// Sets a variable for its next lives, or removes it.
    pub fn set(&self, name: &str, value: Option<String>) {
        let mut variables = self.variables.lock().unwrap_or_else(PoisonError::into_inner);
        variables.retain(|(set, _)| set != name);
        variables.extend(value.map(|value| (name.to_owned(), value)));
    }

    fn set_pid(&self, child: &Child) {
        let pid = child.id().map(|id| Pid::from_raw(id.cast_signed()));
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner) = pid;
    }
}
