//! Who runs the server: the user of this process, or, because PostgreSQL refuses root, another one.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Uid, User, geteuid};

use super::{PostgresError, folder_error};

/// The user that the server runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    uid: u32,
    /// Set when this process is root: files are handed over and commands are run as this user.
    drop_to: Option<(u32, u32)>,
}

impl Account {
    /// This process's user; as root the owner of `data_dir`, or `nobody` when that is root too.
    pub(super) fn for_server(data_dir: &Path) -> Result<Self, PostgresError> {
        if !geteuid().is_root() {
            return Ok(Self { uid: geteuid().as_raw(), drop_to: None });
        }
        let owner = data_dir.metadata().map_err(folder_error(data_dir))?;
        if owner.uid() != 0 {
            return Ok(Self { uid: owner.uid(), drop_to: Some((owner.uid(), owner.gid())) });
        }
        let nobody = User::from_name("nobody").ok().flatten().ok_or(PostgresError::NoAccount)?;
        Ok(Self { uid: nobody.uid.as_raw(), drop_to: Some((nobody.uid.as_raw(), nobody.gid.as_raw())) })
    }

    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// Whether commands run as another user than this process.
    pub(super) fn is_other(&self) -> bool {
        self.drop_to.is_some()
    }

    /// A command that runs as this user, in a process group of its own: Ctrl-C in a terminal reaches mart,
    /// and mart stops the server when it no longer needs it.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").process_group(0).env_remove("PGDATA").env("LC_ALL", "C");
        if let Some((uid, gid)) = self.drop_to {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Makes this user the owner of `path`.
    pub(super) fn hand_over(&self, path: &Path) -> Result<(), PostgresError> {
        match self.drop_to {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)).map_err(folder_error(path)),
            None => Ok(()),
        }
    }

    /// Whether this user can pass through every folder down to `path` and `path` itself.
    pub(super) fn can_reach(&self, path: &Path) -> bool {
        path.ancestors().all(|folder| folder.metadata().is_ok_and(|metadata| self.can_enter(&metadata)))
    }

    fn can_enter(&self, metadata: &Metadata) -> bool {
        let mode = metadata.permissions().mode();
        let owner = Uid::from_raw(metadata.uid()).as_raw() == self.uid;
        if owner { mode & 0o100 != 0 } else { mode & 0o001 != 0 || self.drop_to.is_none() }
    }
}
