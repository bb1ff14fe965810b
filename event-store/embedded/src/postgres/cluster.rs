//! The cluster on disk: the lock of the data folder, where the cluster lies, and how it is made in one step.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use rand::Rng;
use sha2::{Digest, Sha256};

use super::account::Account;
use super::binaries::Binaries;
use super::{PostgresError, USER, folder_error};

/// Written into a cluster when it is complete, before it gets its name.
const MARKER: &str = "mart-initialised";

/// Names the cluster's folder when it cannot lie in the data folder.
const POINTER: &str = "postgres.location";

/// A Unix socket's path may have 107 bytes; the server adds its name, `/.s.PGSQL.65535`.
const SOCKET_DIR_MAX_BYTES: usize = 107 - 16;

/// A log longer than this is put aside when the server starts.
const LOG_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Settings of character types to try in turn: names differ between systems, and `C` knows only ASCII.
/// The order of texts is always that of their bytes, which no update of the system can change.
const CHARACTER_TYPES: [&str; 4] = ["C.UTF-8", "UTF-8", "en_US.UTF-8", "C"];

/// The data folder, locked for this process.
#[derive(Debug)]
pub(super) struct Workspace {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Workspace {
    /// Makes the folder where it is missing and locks it.
    pub(super) fn open(data_dir: &Path) -> Result<Self, PostgresError> {
        // As root the server's user must be able to pass through; what is secret in it has mode 0600.
        let mode = if nix::unistd::geteuid().is_root() { 0o711 } else { 0o700 };
        fs::DirBuilder::new().recursive(true).mode(mode).create(data_dir).map_err(folder_error(data_dir))?;
        let path = data_dir.canonicalize().map_err(folder_error(data_dir))?;
        let lock_path = path.join("mart.lock");
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(folder_error(&lock_path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path, _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(PostgresError::InUse(path)),
            Err((_, errno)) => Err(folder_error(&lock_path)(errno.into())),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Where a cluster lies or will lie.
#[derive(Debug)]
pub(super) struct Location {
    path: PathBuf,
    /// Its major version, when it exists and is complete.
    version: Option<u32>,
}

/// A complete cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    path: PathBuf,
    socket_dir: PathBuf,
    log_path: PathBuf,
    password: String,
    program: PathBuf,
}

impl Cluster {
    /// Finds the cluster of a data folder, or the place for it.
    pub(super) fn locate(workspace: &Workspace, account: &Account) -> Result<Location, PostgresError> {
        let pointer = workspace.path.join(POINTER);
        let path = match fs::read_to_string(&pointer) {
            Ok(text) => PathBuf::from(text.trim()),
            Err(_) if workspace.path.join("postgres").join(MARKER).exists() => {
                workspace.path.join("postgres")
            }
            Err(_) if account.can_reach(&workspace.path) => workspace.path.join("postgres"),
            Err(_) => {
                let elsewhere = PathBuf::from(format!("/var/tmp/mart-{}", digest(&workspace.path)));
                private_folder(&elsewhere, account)?;
                let path = elsewhere.join("postgres");
                fs::write(&pointer, format!("{}\n", path.display())).map_err(folder_error(&pointer))?;
                tracing::warn!(
                    cluster = %path.display(),
                    "the database lies outside the data folder: PostgreSQL does not run as root and its user cannot reach it"
                );
                path
            }
        };
        let version = path
            .join(MARKER)
            .exists()
            .then(|| fs::read_to_string(path.join("PG_VERSION")).ok()?.trim().parse().ok())
            .flatten();
        Ok(Location { path, version })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    pub(super) fn log_path(&self) -> &Path {
        &self.log_path
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// The server program that fits the cluster.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }
}

impl Location {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn version(&self) -> Option<u32> {
        self.version
    }

    /// Makes the cluster where there is none, and everything around it that the server needs.
    pub(super) fn open(
        self,
        binaries: &Binaries,
        account: &Account,
        workspace: &Path,
    ) -> Result<Cluster, PostgresError> {
        let password = password(workspace, self.version.is_some())?;
        if self.version.is_none() {
            self.put_remains_aside()?;
            self.initialise(binaries, account, &password)?;
        }
        let log_path = workspace.join("postgres.log");
        if log_path.metadata().is_ok_and(|metadata| metadata.len() > LOG_MAX_BYTES) {
            fs::rename(&log_path, workspace.join("postgres.log.1")).map_err(folder_error(&log_path))?;
        }
        let socket_dir = self.socket_dir(account)?;
        Ok(Cluster { path: self.path, socket_dir, log_path, password, program: binaries.program("postgres") })
    }

    fn parent(&self) -> &Path {
        self.path.parent().expect("the cluster is a folder in a folder")
    }

    /// Removes what an interrupted `initdb` left, and moves away a folder that is no complete cluster: it may
    /// hold somebody's data, so it is not deleted.
    fn put_remains_aside(&self) -> Result<(), PostgresError> {
        let entries = fs::read_dir(self.parent()).map_err(folder_error(self.parent()))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with("postgres.making") {
                fs::remove_dir_all(entry.path()).map_err(folder_error(&entry.path()))?;
            }
        }
        if !self.path.exists() || fs::remove_dir(&self.path).is_ok() {
            return Ok(());
        }
        let mut number = 1;
        let mut aside = self.path.with_file_name("postgres.incomplete");
        while aside.exists() {
            number += 1;
            aside = self.path.with_file_name(format!("postgres.incomplete.{number}"));
        }
        tracing::warn!(folder = %aside.display(), "an incomplete database was put aside, a new one is made");
        fs::rename(&self.path, &aside).map_err(folder_error(&aside))
    }

    /// Runs `initdb` in a folder beside and gives it the cluster's name when all of it is on disk, so that a
    /// cluster is either complete or absent.
    fn initialise(
        &self,
        binaries: &Binaries,
        account: &Account,
        password: &str,
    ) -> Result<(), PostgresError> {
        let password_file = self.parent().join("postgres.making-password");
        let _ = fs::remove_file(&password_file);
        write_secret(&password_file, password)?;
        account.hand_over(&password_file)?;
        let made = self.run_initdb(binaries, account, &password_file);
        fs::remove_file(&password_file).map_err(folder_error(&password_file))?;
        let making = made?;

        let marker = making.join(MARKER);
        File::create(&marker).and_then(|file| file.sync_all()).map_err(folder_error(&marker))?;
        account.hand_over(&marker)?;
        sync_folder(&making)?;
        fs::rename(&making, &self.path).map_err(folder_error(&self.path))?;
        sync_folder(self.parent())
    }

    /// Makes a cluster under a passing name, with the first character type that this system has.
    fn run_initdb(
        &self,
        binaries: &Binaries,
        account: &Account,
        password_file: &Path,
    ) -> Result<PathBuf, PostgresError> {
        let mut message = String::new();
        for (number, character_type) in CHARACTER_TYPES.iter().enumerate() {
            let making = self.path.with_file_name(format!("postgres.making-{number}"));
            fs::DirBuilder::new().mode(0o700).create(&making).map_err(folder_error(&making))?;
            account.hand_over(&making)?;
            let output = account
                .command(&binaries.program("initdb"))
                .arg("--pgdata")
                .arg(&making)
                .arg(format!("--pwfile={}", password_file.display()))
                .arg(format!("--lc-ctype={character_type}"))
                .args(["--username", USER, "--encoding=UTF8", "--locale=C", "--data-checksums"])
                .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
                .stdin(Stdio::null())
                .output()
                .map_err(folder_error(&self.path))?;
            if output.status.success() {
                return Ok(making);
            }
            message = last_words(&output);
            fs::remove_dir_all(&making).map_err(folder_error(&making))?;
        }
        Err(PostgresError::Initialise { path: self.path.clone(), message })
    }

    /// A folder that only the server's user may enter, with a path short enough for a socket.
    fn socket_dir(&self, account: &Account) -> Result<PathBuf, PostgresError> {
        let beside = self.path.with_file_name("socket");
        let folder = if beside.as_os_str().len() <= SOCKET_DIR_MAX_BYTES {
            beside
        } else {
            PathBuf::from(format!("/tmp/mart-{}", digest(&self.path)))
        };
        private_folder(&folder, account)?;
        Ok(folder)
    }
}

/// The first digits of the SHA-256 of a path: a short name that is always the same.
fn digest(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    Sha256::digest(path.as_os_str().as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Makes a folder for the server's user alone, or checks that it is one: in /tmp anybody could have made it.
fn private_folder(path: &Path, account: &Account) -> Result<(), PostgresError> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => account.hand_over(path),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let metadata = fs::symlink_metadata(path).map_err(folder_error(path))?;
            let private = metadata.is_dir() && metadata.permissions().mode() & 0o077 == 0;
            if private && metadata.uid() == account.uid() {
                return Ok(());
            }
            // Made by an earlier mart that ran as root and chose another user then.
            if private && account.is_other() && metadata.uid() == 0 {
                return account.hand_over(path);
            }
            Err(PostgresError::ForeignFolder(path.to_owned()))
        }
        Err(error) => Err(folder_error(path)(error)),
    }
}

/// The password of the TCP port: read, or made together with the cluster.
fn password(workspace: &Path, cluster_exists: bool) -> Result<String, PostgresError> {
    let path = workspace.join("postgres.password");
    if cluster_exists {
        let text = fs::read_to_string(&path).map_err(folder_error(&path))?;
        return Ok(text.trim().to_owned());
    }
    let bytes: [u8; 24] = rand::rng().random();
    let password = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let _ = fs::remove_file(&path);
    write_secret(&path, &password)?;
    Ok(password)
}

fn write_secret(path: &Path, secret: &str) -> Result<(), PostgresError> {
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.set_permissions(Permissions::from_mode(0o600))?;
            writeln!(file, "{secret}")?;
            file.sync_all()
        })
        .map_err(folder_error(path))
}

fn sync_folder(path: &Path) -> Result<(), PostgresError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(folder_error(path))
}

/// The last line that a program wrote, errors first.
fn last_words(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let error = text.lines().rev().find(|line| line.contains("error:") || line.contains("FATAL"));
    error.or_else(|| text.lines().last()).unwrap_or("initdb said nothing").trim().to_owned()
}

/// The part of a log that was written after `start`, in bytes.
pub(super) fn log_since(path: &Path, start: u64) -> String {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(start))?;
        file.read_to_end(&mut text)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => String::new(),
    }
}
