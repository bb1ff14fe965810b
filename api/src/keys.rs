//! The keys of a mart. Each is a file: one that was given, or one in the data folder that is made at the first
//! start.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rand::RngCore;
use uuid::Uuid;
use zeroize::Zeroizing;

/// The length of the master key.
pub const MASTER_KEY_BYTES: usize = 32;

/// Where a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFile {
    /// A file that was named. It has to be there: of processes that each made a key for themselves none could
    /// read what another wrote.
    Given(PathBuf),
    /// A file in the data folder, made when there is none.
    Own(PathBuf),
}

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error("the key {path} cannot be used: check its owner and its folder")]
    File {
        /// The key file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file was named that is not there.
    #[error("there is no key {0}: put it there, or do not name it and have one made in the data folder")]
    Missing(String),
    /// The file of the master key holds something else.
    #[error("{0} is not a master key of {MASTER_KEY_BYTES} bytes: restore it from a copy")]
    NotAMasterKey(String),
    /// The file of the signing key holds something else.
    #[error("{0} holds no Ed25519 key in PKCS#8: remove it to have one made, which ends all sessions")]
    NotASigningKey(String),
}

impl KeyFile {
    /// What the file holds; `make` gives a new key when there is none and one may be made.
    ///
    /// # Errors
    /// [`KeyError::File`] and [`KeyError::Missing`].
    pub fn read(&self, make: impl FnOnce() -> Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let failed = |source| KeyError::File { path: self.name(), source };
        match fs::read(self.path()) {
            Ok(key) => Ok(Zeroizing::new(key)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            Err(_) => match self {
                Self::Given(_) => Err(KeyError::Missing(self.name())),
                Self::Own(path) => {
                    create_private(path, &make()).map_err(failed)?;
                    fs::read(path).map(Zeroizing::new).map_err(failed)
                }
            },
        }
    }

    /// The file's name, for messages.
    pub fn name(&self) -> String {
        self.path().display().to_string()
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(path) | Self::Own(path) => path,
        }
    }
}

/// The key that wraps the personal keys. Losing it loses all personal data.
///
/// # Errors
/// See [`KeyError`].
pub fn master_key(file: &KeyFile) -> Result<[u8; MASTER_KEY_BYTES], KeyError> {
    let key = file.read(|| {
        let mut key = Zeroizing::new(vec![0; MASTER_KEY_BYTES]);
        rand::rng().fill_bytes(&mut key);
        key
    })?;
    key.as_slice().try_into().map_err(|_| KeyError::NotAMasterKey(file.name()))
}

/// Writes a new key beside and links it to its name: of two processes that start together both use the same,
/// and none reads a half.
fn create_private(path: &Path, key: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let making = folder.join(format!(".key-{}", Uuid::new_v4()));
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&making)?;
    file.write_all(key)?;
    file.sync_all()?;
    let linked = fs::hard_link(&making, path);
    fs::remove_file(&making)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => fs::File::open(folder)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_of_the_data_folder_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys/master.key");
        let file = KeyFile::Own(path.clone());
        let first = master_key(&file).expect("a key is made");
        assert_eq!(master_key(&file).expect("the key is read"), first);
        assert_ne!(first, [0; MASTER_KEY_BYTES]);
        assert_eq!(path.metadata().expect("the file").permissions().mode() & 0o777, 0o600);
        let left = fs::read_dir(folder.path().join("keys")).expect("the folder").count();
        assert_eq!(left, 1, "the draft of the key is removed");
    }

    #[test]
    fn a_key_that_was_named_is_read_and_never_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("master.key");
        let file = KeyFile::Given(path.clone());
        assert!(matches!(master_key(&file), Err(KeyError::Missing(_))));
        assert!(!path.exists());
        fs::write(&path, [7; MASTER_KEY_BYTES]).expect("the folder is ours");
        assert_eq!(master_key(&file).expect("the key is read"), [7; MASTER_KEY_BYTES]);
        fs::write(&path, "half").expect("the file is ours");
        assert!(matches!(master_key(&file), Err(KeyError::NotAMasterKey(_))));
    }
}
