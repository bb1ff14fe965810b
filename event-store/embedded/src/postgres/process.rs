//! The server process: started by us or found running, watched, and stopped.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::account::Account;
use super::cluster::{Cluster, log_since};
use super::{PostgresError, folder_error};

/// How long a fast shutdown may take: it writes a checkpoint.
const FAST_STOP_WITHIN: Duration = Duration::from_secs(20);

/// How long an immediate shutdown may take.
const IMMEDIATE_STOP_WITHIN: Duration = Duration::from_secs(5);

/// How a server is stopped, first politely: each stage has its time.
const STOP_STAGES: [(Signal, Duration); 3] = [
    (Signal::SIGINT, FAST_STOP_WITHIN),
    (Signal::SIGQUIT, IMMEDIATE_STOP_WITHIN),
    (Signal::SIGKILL, IMMEDIATE_STOP_WITHIN),
];

/// The pause between two looks at a server that is stopping.
const STOP_POLL: Duration = Duration::from_millis(10);

/// Settings that differ from PostgreSQL's own: durable as promised, and enough for a shop that is busy.
const SETTINGS: [&str; 15] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_permissions=0700",
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    "max_connections=1000",
    // With PostgreSQL's 128 MB orders were slower when the database had grown: docs/performance.md.
    "shared_buffers=512MB",
    "jit=off",
    "max_parallel_workers_per_gather=0",
    "password_encryption=scram-sha-256",
    "timezone=UTC",
    "log_timezone=UTC",
    "lc_messages=C",
    "log_min_messages=warning",
    "logging_collector=off",
];

/// Where a server listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) socket_dir: PathBuf,
    pub(super) port: u16,
}

/// A running server process.
#[derive(Debug)]
pub(super) struct Server {
    pid: Pid,
    /// `None` for a server that an earlier mart started.
    child: Option<Child>,
    pid_file: PathBuf,
    address: Address,
    log_start: u64,
}

impl Server {
    /// Starts the server on `port`, or any free one.
    pub(super) fn spawn(
        cluster: &Cluster,
        account: &Account,
        port: Option<u16>,
    ) -> Result<Self, PostgresError> {
        let port = match port {
            Some(port) => port,
            None => free_port().map_err(folder_error(cluster.path()))?,
        };
        let log_path = cluster.log_path();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(log_path)
            .map_err(folder_error(log_path))?;
        let log_start = log.metadata().map_err(folder_error(log_path))?.len();
        let mut command = account.command(cluster.program());
        command.arg("-D").arg(cluster.path());
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command
            .arg("-c")
            .arg(format!("unix_socket_directories={}", cluster.socket_dir().display()))
            .args(["-c", &format!("port={port}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(folder_error(log_path))?)
            .stderr(log);
        let child = command.spawn().map_err(folder_error(cluster.program()))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids fit into pid_t"));
        Ok(Self {
            pid,
            child: Some(child),
            pid_file: pid_file(cluster),
            address: Address { socket_dir: cluster.socket_dir().to_owned(), port },
            log_start,
        })
    }

    /// The server that an earlier mart left running on the cluster. A pid file whose process is gone, or is
    /// another program by now, is removed: the data folder is locked, so nobody is just writing it.
    pub(super) fn running(cluster: &Cluster) -> Option<Self> {
        let pid_file = pid_file(cluster);
        let text = fs::read_to_string(&pid_file).ok()?;
        let (pid, address) = parse_pid_file(&text)?;
        if is_postgres(pid) {
            return Some(Self { pid, child: None, pid_file, address, log_start: 0 });
        }
        let _ = fs::remove_file(&pid_file);
        None
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn process_id(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// What the server said last, once it has ended.
    pub(super) fn ended(&mut self, cluster: &Cluster) -> Option<String> {
        if !self.is_over() {
            return None;
        }
        let log = log_since(cluster.log_path(), self.log_start);
        let error = log.lines().find(|line| line.contains("FATAL") || line.contains("PANIC"));
        Some(error.or_else(|| log.lines().last()).unwrap_or("it said nothing").trim().to_owned())
    }

    fn is_over(&mut self) -> bool {
        match &mut self.child {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            // The end of a process that is not our child cannot be awaited, and without somebody who awaits
            // it, it stays as a shell; the server removes its pid file last of all.
            None => !self.pid_file.exists() || !is_postgres(self.pid),
        }
    }

    /// Stops the server, first politely: each stage has its time.
    pub(super) fn stop(mut self) {
        self.end(&STOP_STAGES);
        // Made anew by the next start; in /tmp nothing is to be left behind.
        let _ = fs::remove_dir(&self.address.socket_dir);
    }

    /// Stops the server without ceremony, as a crash would: the next start replays its log.
    pub(super) fn crash(mut self) {
        self.end(&STOP_STAGES[1..]);
    }

    fn end(&mut self, stages: &[(Signal, Duration)]) {
        for (signal, within) in stages {
            if self.is_over() {
                return;
            }
            let _ = kill(self.pid, *signal);
            let deadline = Instant::now() + *within;
            while Instant::now() < deadline && !self.is_over() {
                std::thread::sleep(STOP_POLL);
            }
        }
    }
}

/// Whether a start that ended with `message` is worth another attempt: the remains of a killed server go away
/// by themselves, and a free port can be taken by somebody else before the server has it.
pub(super) fn passes_by_itself(message: &str, fixed_port: Option<u16>) -> bool {
    let remains = message.contains("is still in use") || message.contains("lock file");
    let port_taken = message.contains("could not create any TCP/IP sockets");
    remains || (port_taken && fixed_port.is_none())
}

fn pid_file(cluster: &Cluster) -> PathBuf {
    cluster.path().join("postmaster.pid")
}

/// Reads process id, port and socket folder: lines 1, 4 and 5.
fn parse_pid_file(text: &str) -> Option<(Pid, Address)> {
    let lines = text.lines().collect::<Vec<_>>();
    let pid = lines.first()?.trim().parse().ok()?;
    let port = lines.get(3)?.trim().parse().ok()?;
    let socket_dir = PathBuf::from(lines.get(4)?.trim());
    Some((Pid::from_raw(pid), Address { socket_dir, port }))
}

/// Whether the process lives and is a PostgreSQL server, not another program that got the same id.
fn is_postgres(pid: Pid) -> bool {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    if Path::new("/proc/self/stat").exists() {
        // The third field is the state; Z is a process that has ended and is not yet awaited.
        let stat = fs::read_to_string(folder.join("stat")).unwrap_or_default();
        return stat.contains("(postgres)") && !stat.contains(") Z ");
    }
    let output = Command::new("ps").args(["-p", &pid.to_string(), "-o", "comm="]).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("postgres"))
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_says_who_runs_and_where_it_listens() {
        let text = "4711\n/data\n1700000000\n5433\n/tmp/sockets\n127.0.0.1\n  123 4\nready   \n";
        let address = Address { socket_dir: PathBuf::from("/tmp/sockets"), port: 5433 };
        assert_eq!(parse_pid_file(text), Some((Pid::from_raw(4711), address)));
        assert_eq!(parse_pid_file("4711\n/data\n"), None);
    }

    #[test]
    fn only_what_passes_by_itself_is_tried_again() {
        assert!(passes_by_itself("FATAL:  pre-existing shared memory block is still in use", None));
        assert!(passes_by_itself("FATAL:  could not create any TCP/IP sockets", None));
        assert!(!passes_by_itself("FATAL:  could not create any TCP/IP sockets", Some(5432)));
        assert!(!passes_by_itself("FATAL:  invalid value for parameter", None));
    }
}
