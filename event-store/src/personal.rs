//! Personal data in events is sealed with a key of its person, and dies with that key.
//!
//! The key (256 bits, random) is stored wrapped by the mart's master key. A sealed field reads
//! `{"sealed": "<base64url of nonce and XChaCha20-Poly1305 ciphertext>"}`; once the key is gone it reads
//! `null`. The ciphertext is bound to the person, so that it cannot be moved to another's events.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use lru::LruCache;
use rand::RngCore;
use serde_json::Value;
use sha2::Sha256;
use sqlx::Row;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::connections::Connections;
use crate::{Error, Result};

/// How many keys are held in memory.
const CACHED_KEYS: usize = 10_000;
/// How long a key is held in memory, and so how long an erased person's data may still be readable in a
/// process that has not heard of the erasure.
const CACHED_FOR: Duration = Duration::from_secs(30);
const NONCE_BYTES: usize = 24;

type Key = Zeroizing<[u8; 32]>;

#[derive(Clone)]
enum Known {
    Key(Key),
    Destroyed,
    Absent,
}

impl Known {
    fn usable(self) -> Option<Key> {
        match self {
            Self::Key(key) => Some(key),
            Self::Destroyed | Self::Absent => None,
        }
    }
}

/// The keys of one service's database.
#[derive(Clone)]
pub struct PersonalKeys {
    database: Connections,
    master: Arc<Key>,
    cache: Arc<Mutex<LruCache<Uuid, (Known, Instant)>>>,
}

impl PersonalKeys {
    pub(crate) fn new(database: Connections, master: [u8; 32]) -> Self {
        let capacity = NonZeroUsize::new(CACHED_KEYS).unwrap_or(NonZeroUsize::MIN);
        Self {
            database,
            master: Arc::new(Zeroizing::new(master)),
            cache: Arc::new(Mutex::new(LruCache::new(capacity))),
        }
    }

    /// Hashes a name for the claims table: the table must not tell e-mail addresses to whoever reads it.
    pub fn claim_key(&self, scope: &str, name: &str) -> Vec<u8> {
        self.keyed_hash(scope, name.as_bytes())
    }

    /// Hashes something that must not be found again by trying: HMAC-SHA-256 with the master key.
    pub fn keyed_hash(&self, scope: &str, content: &[u8]) -> Vec<u8> {
        let mut mac =
            <Hmac<Sha256> as Mac>::new_from_slice(self.master.as_slice()).expect("HMAC takes any key length");
        mac.update(scope.as_bytes());
        mac.update(&[0]);
        mac.update(content);
        mac.finalize().into_bytes().to_vec()
    }

    /// Seals the named fields of an event. `event` is `{"EventType": {…}}`, or the object itself.
    ///
    /// # Errors
    /// When the key cannot be had from the database.
    pub async fn seal(&self, person: Uuid, event: &mut Value, fields: &[&str]) -> Result<()> {
        let Some(object) = fields_of(event) else { return Ok(()) };
        let key = self.key_for_sealing(person).await?;
        for field in fields {
            if let Some(value) = object.get_mut(*field).filter(|value| !value.is_null() && !is_sealed(value))
            {
                *value = match &key {
                    Some(key) => serde_json::json!({ "sealed": seal(key, person, &value.to_string())? }),
                    None => Value::Null,
                };
            }
        }
        Ok(())
    }

    /// Opens the sealed fields of an event; they become `null` when the person's key has been destroyed.
    ///
    /// # Errors
    /// When the database is unreachable, or a ciphertext is not what was sealed.
    pub async fn open(&self, person: Uuid, event: &mut Value) -> Result<()> {
        let Some(object) = fields_of(event) else { return Ok(()) };
        let key = self.known_key(person).await?.usable();
        for value in object.values_mut() {
            let Some(sealed) = value.get("sealed").and_then(Value::as_str) else { continue };
            *value = match &key {
                None => Value::Null,
                Some(key) => {
                    let text = open(key, person, sealed)?;
                    serde_json::from_str(&text).map_err(|_| Error::Cipher("opened"))?
                }
            };
        }
        Ok(())
    }

    /// Seals a whole text, such as a snapshot; none when the person's key has been destroyed.
    ///
    /// # Errors
    /// As [`PersonalKeys::seal`].
    pub async fn seal_text(&self, person: Uuid, text: &str) -> Result<Option<String>> {
        match self.key_for_sealing(person).await? {
            Some(key) => Ok(Some(seal(&key, person, text)?)),
            None => Ok(None),
        }
    }

    /// Opens what [`PersonalKeys::seal_text`] sealed; none when the key has been destroyed.
    ///
    /// # Errors
    /// As [`PersonalKeys::open`].
    pub async fn open_text(&self, person: Uuid, sealed: &str) -> Result<Option<Zeroizing<String>>> {
        match self.known_key(person).await?.usable() {
            Some(key) => Ok(Some(open(&key, person, sealed)?)),
            None => Ok(None),
        }
    }

    /// Destroys a person's key: what was sealed with it is gone for good, in every copy of the log.
    ///
    /// # Errors
    /// When the database is unreachable.
    pub async fn forget(&self, person: Uuid) -> Result<()> {
        sqlx::query(
            "insert into event_store.personal_keys (person, wrapped_key) values ($1, null) \
             on conflict (person) do update set wrapped_key = null",
        )
        .bind(person)
        .execute(&self.database)
        .await?;
        self.remember(person, Known::Destroyed);
        Ok(())
    }

    /// Whether a person's key was destroyed.
    ///
    /// # Errors
    /// When the database is unreachable.
    pub async fn is_forgotten(&self, person: Uuid) -> Result<bool> {
        Ok(matches!(self.known_key(person).await?, Known::Destroyed))
    }

    async fn key_for_sealing(&self, person: Uuid) -> Result<Option<Key>> {
        match self.known_key(person).await? {
            Known::Key(key) => return Ok(Some(key)),
            Known::Destroyed => return Ok(None),
            Known::Absent => {}
        }
        let mut key = Zeroizing::new([0u8; 32]);
        rand::rng().fill_bytes(key.as_mut_slice());
        let wrapped = self.wrap(person, &key)?;
        let stored: Option<Vec<u8>> = sqlx::query_scalar(
            "insert into event_store.personal_keys (person, wrapped_key) values ($1, $2) \
             on conflict (person) do update set wrapped_key = personal_keys.wrapped_key returning wrapped_key",
        )
        .bind(person)
        .bind(wrapped)
        .fetch_one(&self.database)
        .await?;
        let known = self.known(person, stored)?;
        self.remember(person, known.clone());
        Ok(known.usable())
    }

    async fn known_key(&self, person: Uuid) -> Result<Known> {
        if let Ok(mut cache) = self.cache.lock()
            && let Some((known, since)) = cache.get(&person)
            && since.elapsed() < CACHED_FOR
        {
            return Ok(known.clone());
        }
        let row = sqlx::query("select wrapped_key from event_store.personal_keys where person = $1")
            .bind(person)
            .fetch_optional(&self.database)
            .await?;
        let Some(row) = row else { return Ok(Known::Absent) };
        let known = self.known(person, row.try_get(0)?)?;
        self.remember(person, known.clone());
        Ok(known)
    }

    fn known(&self, person: Uuid, stored: Option<Vec<u8>>) -> Result<Known> {
        match stored {
            None => Ok(Known::Destroyed),
            Some(wrapped) => Ok(Known::Key(self.unwrap(person, &wrapped)?)),
        }
    }

    fn remember(&self, person: Uuid, known: Known) {
        if let Ok(mut cache) = self.cache.lock() {
            cache.put(person, (known, Instant::now()));
        }
    }

    fn wrap(&self, person: Uuid, key: &Key) -> Result<Vec<u8>> {
        encrypt(&self.master, person, key.as_slice())
    }

    fn unwrap(&self, person: Uuid, wrapped: &[u8]) -> Result<Key> {
        let plain = Zeroizing::new(decrypt(&self.master, person, wrapped)?);
        let key: [u8; 32] = plain.as_slice().try_into().map_err(|_| Error::Cipher("unwrapped"))?;
        Ok(Zeroizing::new(key))
    }
}

/// The object whose fields an event's payload holds.
fn fields_of(event: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    event.as_object_mut()?.values_mut().next()?.as_object_mut()
}

fn is_sealed(value: &Value) -> bool {
    value.get("sealed").is_some_and(Value::is_string)
}

fn seal(key: &Key, person: Uuid, text: &str) -> Result<String> {
    Ok(BASE64.encode(encrypt(key, person, text.as_bytes())?))
}

fn open(key: &Key, person: Uuid, sealed: &str) -> Result<Zeroizing<String>> {
    let bytes = BASE64.decode(sealed).map_err(|_| Error::Cipher("opened"))?;
    let plain = decrypt(key, person, &bytes)?;
    Ok(Zeroizing::new(String::from_utf8(plain).map_err(|_| Error::Cipher("opened"))?))
}

fn encrypt(key: &Key, person: Uuid, plain: &[u8]) -> Result<Vec<u8>> {
    let mut nonce = [0u8; NONCE_BYTES];
    rand::rng().fill_bytes(&mut nonce);
    let cipher = XChaCha20Poly1305::new(key.as_slice().into());
    let sealed = cipher
        .encrypt(XNonce::from_slice(&nonce), Payload { msg: plain, aad: person.as_bytes() })
        .map_err(|_| Error::Cipher("sealed"))?;
    Ok([nonce.as_slice(), &sealed].concat())
}

fn decrypt(key: &Key, person: Uuid, sealed: &[u8]) -> Result<Vec<u8>> {
    if sealed.len() < NONCE_BYTES {
        return Err(Error::Cipher("opened"));
    }
    let (nonce, body) = sealed.split_at(NONCE_BYTES);
    XChaCha20Poly1305::new(key.as_slice().into())
        .decrypt(XNonce::from_slice(nonce), Payload { msg: body, aad: person.as_bytes() })
        .map_err(|_| Error::Cipher("opened"))
}
