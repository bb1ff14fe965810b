//! The program `mart` as a process: built once, watched, and never left behind.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

/// Names a built `mart`; without it the tests build theirs.
pub const BINARY_VARIABLE: &str = "MART_BIN";
/// How long a mart may take from its start until it says that it is ready, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// How long it may take to stop.
const STOPPED_WITHIN: Duration = Duration::from_secs(40);

/// What a guard does: wait until the pipe from its owner is closed, by whatever end, then end the program and
/// the database server that it may have started, and remove its folder.
const GUARD_SCRIPT: &str = r#"
read _
kill -KILL "$1" 2>/dev/null
test -s "$2/postgres/postmaster.pid" && kill -INT "$(head -n 1 "$2/postgres/postmaster.pid")"
rm -rf "$2"
"#;

/// The program. It is built beside this test, in the same profile, unless `MART_BIN` names one.
///
/// # Panics
/// When it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os(BINARY_VARIABLE).filter(|path| !path.is_empty()) {
            return PathBuf::from(path);
        }
        // The test is in <target>/<profile>/deps.
        let test = std::env::current_exe().expect("a running program has a path");
        let profile = test.parent().and_then(Path::parent).expect("cargo puts tests two folders deep");
        let target = profile.parent().expect("cargo puts profiles into a folder");
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "-p", "api", "--bin", "mart", "--target-dir"]).arg(target);
        if profile.file_name() == Some(OsStr::new("release")) {
            build.arg("--release");
        } else {
            // One debug program for all tests: failpoints do nothing in it until a test arms one, and a second
            // program beside it would cost minutes to build. What is released has none.
            build.args(["--features", "failpoints"]);
        }
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo is there");
        assert!(built.success(), "the program could not be built");
        profile.join("mart")
    })
}

/// A running program. It ends with this value, and with the test, however that ends.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// Closing it wakes the guard; the system does so when the test ends.
    guard_pipe: Option<ChildStdin>,
    guard: Child,
    said: watch::Receiver<Said>,
}

/// What a program has said on its standard output.
#[derive(Debug, Clone, Default)]
struct Said {
    lines: Vec<String>,
    ended: bool,
}

impl Program {
    /// Starts it; what it says and logs goes into a file too. Should the test be killed, `folder` is removed.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut command: Command, log: &Path, folder: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(log).expect("the log can be written");
        let errors = file.try_clone().expect("a file can be shared");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .process_group(0)
            .spawn()
            .expect("the program can be run");
        let mut guard = Command::new("sh")
            .args(["-c", GUARD_SCRIPT, "guard", &child.id().to_string()])
            .arg(folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell is there");
        let (saying, said) = watch::channel(Said::default());
        if let Some(output) = child.stdout.take() {
            let file = Arc::new(Mutex::new(file));
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if let Ok(mut file) = file.lock() {
                        // A log that is full keeps nobody from going on.
                        let _ = writeln!(file, "{line}");
                    }
                    saying.send_modify(|said| said.lines.push(line));
                }
                saying.send_modify(|said| said.ended = true);
            });
        }
        Self { child, guard_pipe: guard.stdin.take(), guard, said }
    }

    /// Waits for a line that begins so; `None` when the program ends without saying it.
    ///
    /// # Panics
    /// When it takes too long.
    pub async fn says(&self, beginning: &str) -> Option<String> {
        let mut said = self.said.clone();
        let line = |said: &Said| said.lines.iter().find(|line| line.starts_with(beginning)).cloned();
        let waited =
            tokio::time::timeout(READY_WITHIN, said.wait_for(|said| said.ended || line(said).is_some()));
        match waited.await {
            Ok(Ok(said)) => line(&said),
            Ok(Err(_)) => None,
            Err(_) => panic!("the program does not say `{beginning}` within {READY_WITHIN:?}"),
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // A process that has ended takes no signals, and none is needed.
        let _ = kill(self.pid(), signal);
    }

    /// Ends it as a power failure would, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The most memory it has had at once until now, in bytes; `None` where the system does not tell, and once
    /// it has ended.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1_024)
    }

    /// Whether it has ended, and how.
    ///
    /// # Panics
    /// When the system does not say.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Asks it to stop and waits.
    ///
    /// # Panics
    /// When it takes too long.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended().await
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it takes too long.
    pub async fn ended(&mut self) -> ExitStatus {
        crate::eventually(STOPPED_WITHIN, async || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("the program runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    /// The number of its process.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process_id().cast_signed())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Without this wait the guard could end another process that got the number of this one.
        self.kill();
        let _ = self.guard.kill();
        drop(self.guard_pipe.take());
        let _ = self.guard.wait();
    }
}
