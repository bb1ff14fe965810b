//! Access tokens (JWT, Ed25519) and refresh tokens (random). Neither is ever logged.
//!
//! An access token says who and which session until it expires; whether the session was ended meanwhile is
//! asked elsewhere every time. A refresh token is no JWT, so that one cannot be taken for the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use moka::Expiry;
use moka::sync::Cache;
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::clock;
use crate::keys::{KeyError, KeyFile};

/// Who issues the tokens.
pub const ISSUER: &str = "online-mart";

/// For whom they are; a token for something else is refused.
pub const AUDIENCE: &str = "online-mart-api";

/// The kind of token, so that no other kind is taken for an access token.
const ACCESS_TYPE: &str = "access";

/// Verified tokens that are remembered; 200 bytes each.
const CACHE_MAX_ENTRIES: u64 = 20_000;

/// Longer texts are no tokens of ours and are not even hashed.
const TOKEN_MAX_BYTES: usize = 2048;

/// The random part of a refresh token.
const REFRESH_SECRET_BYTES: usize = 32;

/// What stands before the 32 bytes of an Ed25519 key in PKCS#8 (RFC 8410, section 7).
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// What an access token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// The issuer.
    pub iss: String,
    /// The audience.
    pub aud: String,
    /// The user.
    pub sub: Uuid,
    /// The session.
    pub sid: Uuid,
    /// The user's role when the token was issued.
    pub role: String,
    /// The kind of token.
    pub typ: String,
    /// When it was issued, in seconds since 1970.
    pub iat: u64,
    /// When it expires, in seconds since 1970.
    pub exp: u64,
    /// Its own id.
    pub jti: Uuid,
}

/// A token is not valid: bad, expired, for somebody else, of another kind. Clients are not told which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is not valid")]
pub struct InvalidToken;

/// Issues and verifies access tokens.
pub struct Tokens {
    header: Header,
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
    public: Jwk,
    verified: Cache<[u8; 32], Arc<AccessClaims>>,
}

impl Tokens {
    /// Reads the key, in PEM.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn load(file: &KeyFile) -> Result<Self, KeyError> {
        let pem = file.read(new_key_pem)?;
        let text = std::str::from_utf8(&pem).ok();
        text.and_then(Self::from_pem).ok_or_else(|| KeyError::NotASigningKey(file.name()))
    }

    /// Takes a key in PEM.
    fn from_pem(pem: &str) -> Option<Self> {
        let signing = EncodingKey::from_ed_pem(pem.as_bytes()).ok()?;
        let mut public = Jwk::from_encoding_key(&signing, Algorithm::EdDSA).ok()?;
        let key_id = public.thumbprint(ThumbprintHash::SHA256).ok()?;
        public.common.key_id = Some(key_id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        public.common.key_operations = Some(vec![KeyOperations::Verify]);
        let verifying = DecodingKey::from_jwk(&public).ok()?;

        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(key_id);
        let verified = Cache::builder().max_capacity(CACHE_MAX_ENTRIES).expire_after(UntilExpiry).build();
        Some(Self { header, signing, verifying, validation, public, verified })
    }

    /// A token for a session, valid for `lifetime` from now.
    pub fn issue(&self, user: Uuid, session: Uuid, role: &str, lifetime: Duration) -> SecretString {
        let issued_at = now_seconds();
        let claims = AccessClaims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user,
            sid: session,
            role: role.to_owned(),
            typ: ACCESS_TYPE.to_owned(),
            iat: issued_at,
            exp: issued_at.saturating_add(lifetime.as_secs()),
            jti: Uuid::now_v7(),
        };
        let token = jsonwebtoken::encode(&self.header, &claims, &self.signing);
        token.expect("the key was tried when it was read, and the claims are plain").into()
    }

    /// Who a token speaks for. A signature that was right stays right: tokens are remembered by their hash until
    /// they expire.
    ///
    /// # Errors
    /// [`InvalidToken`], the same for every reason.
    pub fn verify(&self, token: &str) -> Result<Arc<AccessClaims>, InvalidToken> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(InvalidToken);
        }
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.verified.get(&hash) {
            return if claims.exp > now_seconds() { Ok(claims) } else { Err(InvalidToken) };
        }
        let data = jsonwebtoken::decode::<AccessClaims>(token, &self.verifying, &self.validation)
            .map_err(|_| InvalidToken)?;
        if data.claims.typ != ACCESS_TYPE || data.claims.exp <= now_seconds() {
            return Err(InvalidToken);
        }
        let claims = Arc::new(data.claims);
        self.verified.insert(hash, Arc::clone(&claims));
        Ok(claims)
    }

    /// The public key, for everybody who verifies tokens themselves.
    pub fn jwks(&self) -> JwkSet {
        JwkSet { keys: vec![self.public.clone()] }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tokens").field("key_id", &self.header.kid).finish_non_exhaustive()
    }
}

/// Forgets a token when it expires.
struct UntilExpiry;

impl Expiry<[u8; 32], Arc<AccessClaims>> for UntilExpiry {
    fn expire_after_create(
        &self,
        _hash: &[u8; 32],
        claims: &Arc<AccessClaims>,
        _created_at: Instant,
    ) -> Option<Duration> {
        Some(Duration::from_secs(claims.exp.saturating_sub(now_seconds())))
    }
}

fn now_seconds() -> u64 {
    u64::try_from(clock::now().timestamp()).unwrap_or(0)
}

fn new_key_pem() -> Zeroizing<Vec<u8>> {
    let mut der = Zeroizing::new(PKCS8_ED25519.to_vec());
    let seed = Zeroizing::new(rand::rng().random::<[u8; 32]>());
    der.extend_from_slice(seed.as_slice());
    let encoded = Zeroizing::new(STANDARD.encode(der.as_slice()));
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", encoded.as_str());
    Zeroizing::new(pem.into_bytes())
}

/// What a client shows to get a new access token: `<user>.<session>.<secret>`. Only its hash is kept.
#[derive(Debug, Clone)]
pub struct RefreshToken {
    /// The user it belongs to.
    pub user: Uuid,
    /// The session it continues.
    pub session: Uuid,
    text: SecretString,
}

impl RefreshToken {
    /// A new one, with 256 random bits.
    pub fn generate(user: Uuid, session: Uuid) -> Self {
        let secret = Zeroizing::new(rand::rng().random::<[u8; REFRESH_SECRET_BYTES]>());
        let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_slice()));
        let text = format!("{}.{}.{}", user.simple(), session.simple(), encoded.as_str());
        Self { user, session, text: text.into() }
    }

    /// Reads what a client shows.
    ///
    /// # Errors
    /// [`InvalidToken`] for everything that we cannot have issued, also an access token.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let mut parts = text.split('.');
        let (Some(user), Some(session), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidToken);
        };
        let id = |part: &str| Uuid::try_parse(part).ok().filter(|id| id.simple().to_string() == part);
        let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(secret).map_err(|_| InvalidToken)?);
        let (Some(user), Some(session), REFRESH_SECRET_BYTES) = (id(user), id(session), decoded.len()) else {
            return Err(InvalidToken);
        };
        Ok(Self { user, session, text: text.to_owned().into() })
    }

    /// What the client is given.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// What is kept: SHA-256. The secret is random, so that no slow hash is needed.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.expose()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn tokens() -> Tokens {
        let pem = String::from_utf8(new_key_pem().to_vec()).expect("a PEM is text");
        Tokens::from_pem(&pem).expect("the key is right")
    }

    #[test]
    fn a_token_says_who_and_which_session() {
        let tokens = tokens();
        let (user, session) = (Uuid::now_v7(), Uuid::now_v7());
        let token = tokens.issue(user, session, "customer", MINUTE);
        for _first_checked_then_remembered in 0..2 {
            let claims = tokens.verify(token.expose_secret()).expect("it is ours");
            assert_eq!((claims.sub, claims.sid, claims.role.as_str()), (user, session, "customer"));
            assert_eq!(claims.exp - claims.iat, 60);
        }
    }

    #[test]
    fn tokens_that_are_not_ours_are_refused() {
        let tokens = tokens();
        let foreign = self::tokens().issue(Uuid::now_v7(), Uuid::now_v7(), "admin", MINUTE);
        let expired = tokens.issue(Uuid::now_v7(), Uuid::now_v7(), "admin", Duration::ZERO);
        let refresh = RefreshToken::generate(Uuid::now_v7(), Uuid::now_v7());
        for text in [
            foreign.expose_secret(),
            expired.expose_secret(),
            refresh.expose(),
            "",
            "a.b.c",
            &"x".repeat(5000),
        ] {
            assert_eq!(tokens.verify(text).expect_err("it is not valid"), InvalidToken);
        }
    }

    #[test]
    fn other_kinds_audiences_and_algorithms_are_refused() {
        let tokens = tokens();
        let right = tokens.issue(Uuid::now_v7(), Uuid::now_v7(), "admin", MINUTE);
        let right = AccessClaims::clone(&tokens.verify(right.expose_secret()).expect("it is ours"));
        let sign = |header: &Header, claims: &AccessClaims, key: &EncodingKey| {
            jsonwebtoken::encode(header, claims, key).expect("the claims are plain")
        };
        let wrong = [
            AccessClaims { typ: "refresh".to_owned(), ..right.clone() },
            AccessClaims { aud: "other".to_owned(), ..right.clone() },
            AccessClaims { iss: "other".to_owned(), ..right.clone() },
        ];
        for claims in wrong {
            let token = sign(&tokens.header, &claims, &tokens.signing);
            assert_eq!(tokens.verify(&token).expect_err("it is not valid"), InvalidToken, "{claims:?}");
        }
        let public = serde_json::to_vec(&tokens.public).expect("it is JSON");
        let confused = sign(&Header::new(Algorithm::HS256), &right, &EncodingKey::from_secret(&public));
        assert_eq!(tokens.verify(&confused).expect_err("it is not valid"), InvalidToken);
        let unsigned = format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#),
            URL_SAFE_NO_PAD.encode(serde_json::to_vec(&right).expect("it is JSON"))
        );
        assert_eq!(tokens.verify(&unsigned).expect_err("it is not valid"), InvalidToken);
    }

    #[test]
    fn processes_with_the_same_key_take_each_others_tokens() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys/token.pem");
        let first = Tokens::load(&KeyFile::Own(path.clone())).expect("a key is made");
        let second = Tokens::load(&KeyFile::Given(path.clone())).expect("the key is read");
        let token = first.issue(Uuid::now_v7(), Uuid::now_v7(), "staff", MINUTE);
        second.verify(token.expose_secret()).expect("it is the same key");
        std::fs::write(&path, "nonsense").expect("the file is ours");
        assert!(matches!(Tokens::load(&KeyFile::Own(path)), Err(KeyError::NotASigningKey(_))));
    }

    #[test]
    fn the_published_key_is_the_public_one() {
        let published = serde_json::to_value(tokens().jwks()).expect("it is JSON");
        let key = &published["keys"][0];
        assert_eq!((key["kty"].as_str(), key["crv"].as_str()), (Some("OKP"), Some("Ed25519")));
        assert!(key["kid"].is_string() && key["d"].is_null());
    }

    #[test]
    fn refresh_tokens_carry_their_session_and_hide_their_secret() {
        let token = RefreshToken::generate(Uuid::now_v7(), Uuid::now_v7());
        let read = RefreshToken::parse(token.expose()).expect("it is ours");
        assert_eq!((read.user, read.session, read.hash()), (token.user, token.session, token.hash()));
        assert!(!format!("{token:?}").contains(token.expose()));
        for wrong in ["", "a.b.c", &format!("{}x", token.expose()), &token.expose().to_uppercase()] {
            assert!(RefreshToken::parse(wrong).is_err(), "{wrong}");
        }
    }
}
