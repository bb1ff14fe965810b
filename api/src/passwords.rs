//! Password hashes: Argon2id with the parameters that OWASP's Password Storage Cheat Sheet names first for
//! 19 MiB, computed beside the threads that serve requests and never more at once than there are cores.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

/// Memory of one hash, in KiB.
const MEMORY_KIB: u32 = 19 * 1024;

/// Passes over the memory.
const PASSES: u32 = 2;

/// Lanes; more would only take the other cores.
const LANES: u32 = 1;

/// Memory of one hash in tests, in KiB: the least that the algorithm takes.
const MEMORY_KIB_FOR_TESTS: u32 = 8;

/// A hash could not be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// A stored hash is none.
    #[error("a stored password hash cannot be read")]
    Stored,
    /// The work was cut short, because the process ends.
    #[error("a password hash was not finished")]
    Interrupted,
}

/// Computes and compares password hashes.
#[derive(Debug, Clone)]
pub struct Passwords {
    argon2: Argon2<'static>,
    slots: Arc<Semaphore>,
    /// The hash of nobody's password, compared for unknown users so that they take as long as known ones.
    decoy: Arc<str>,
}

impl Passwords {
    /// With the parameters of production.
    pub fn new() -> Self {
        Self::with(Params::new(MEMORY_KIB, PASSES, LANES, None))
    }

    /// With the least work possible: for tests, which would otherwise only measure Argon2. Hashes say what
    /// parameters they have, so that both kinds can be compared by either.
    pub fn cheap_for_tests() -> Self {
        Self::with(Params::new(MEMORY_KIB_FOR_TESTS, 1, LANES, None))
    }

    fn with(params: argon2::Result<Params>) -> Self {
        let argon2 =
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params.expect("the parameters are constants"));
        let decoy: PasswordHash =
            argon2.hash_password(b"nobody's password").expect("the system has random numbers");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { argon2, slots: Arc::new(Semaphore::new(cores)), decoy: decoy.to_string().into() }
    }

    /// The hash of a password with a salt of its own, as a PHC string.
    ///
    /// # Errors
    /// [`PasswordError::Interrupted`] when the process ends meanwhile.
    pub async fn hash(&self, password: SecretString) -> Result<String, PasswordError> {
        let argon2 = self.argon2.clone();
        self.run(move || {
            let hash: PasswordHash = argon2
                .hash_password(password.expose_secret().as_bytes())
                .map_err(|_| PasswordError::Stored)?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether a password is the one whose hash is kept. With `None`, for a user that does not exist, it does
    /// the same work and says no.
    ///
    /// # Errors
    /// [`PasswordError`] when the hash is none or the process ends meanwhile.
    pub async fn verify(&self, password: SecretString, kept: Option<String>) -> Result<bool, PasswordError> {
        let (argon2, decoy) = (self.argon2.clone(), Arc::clone(&self.decoy));
        self.run(move || {
            let text = kept.as_deref().unwrap_or(&decoy);
            let hash = PasswordHash::new(text).map_err(|_| PasswordError::Stored)?;
            let same = argon2.verify_password(password.expose_secret().as_bytes(), &hash).is_ok();
            Ok(same && kept.is_some())
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| PasswordError::Interrupted)?;
        let working = tokio::task::spawn_blocking(move || {
            // Held by the work, not by the request: a client that goes away does not free a core.
            let _slot = slot;
            work()
        });
        working.await.map_err(|_| PasswordError::Interrupted)?
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_is_right() {
        let passwords = Passwords::cheap_for_tests();
        let hash = passwords.hash("testPass123".into()).await.expect("it is hashed");
        let verify = |password: &str, kept| passwords.verify(password.into(), kept);
        assert!(verify("testPass123", Some(hash.clone())).await.expect("the hash is right"));
        assert!(!verify("testPass124", Some(hash.clone())).await.expect("the hash is right"));
        assert!(!verify("nobody's password", None).await.expect("the decoy is right"));
        assert!(matches!(verify("x", Some("nonsense".to_owned())).await, Err(PasswordError::Stored)));
        assert_ne!(hash, passwords.hash("testPass123".into()).await.expect("it is hashed"));
    }

    #[tokio::test]
    async fn hashes_of_production_have_its_parameters() {
        let hash = Passwords::new().hash("testPass123".into()).await.expect("it is hashed");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let cheap = Passwords::cheap_for_tests();
        assert!(cheap.verify("testPass123".into(), Some(hash)).await.expect("the hash says how"));
    }
}
