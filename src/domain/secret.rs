//! Secrets: the plain form, which is shown once and never kept, and the hash, which is kept.
//!
//! All are 32 random bytes, so SHA-256 at rest is enough: there is nothing to guess, and a slow
//! hash would buy only latency. People's passwords are another matter; they live in [`crate::flows`].

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::clock::Timestamp;
use super::entropy::Entropy;
use super::ids::SecretId;

/// How every admin token begins, for secret scanners to look for.
pub const ADMIN_TOKEN_PREFIX: &str = "tga_";

/// Length of every admin token in characters.
pub const ADMIN_TOKEN_CHARS: usize = 47;

/// Length of what the console's cookie or a one-time sign-in link holds.
pub const CONSOLE_SECRET_CHARS: usize = 43;

/// A secret in clear. No `Display`, `Clone` or `Serialize`: showing it takes [`PlainSecret::expose`].
pub struct PlainSecret(Zeroizing<String>);

impl PlainSecret {
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// An API key: 64 lower-case hex characters.
    pub fn api_key(entropy: &Entropy) -> Self {
        Self::new(hex::encode(entropy.bytes::<32>()))
    }

    /// A client secret: 43 characters of base64url.
    pub fn client_secret(entropy: &Entropy) -> Self {
        Self::new(URL_SAFE_NO_PAD.encode(entropy.bytes::<32>()))
    }

    /// An admin token: [`ADMIN_TOKEN_PREFIX`], then 43 characters of base64url.
    pub fn admin_token(entropy: &Entropy) -> Self {
        Self::new(format!("{ADMIN_TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(entropy.bytes::<32>())))
    }

    /// What the console's cookie or a one-time sign-in link holds: base64url.
    pub fn console(entropy: &Entropy) -> Self {
        Self::client_secret(entropy)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.0)
    }

    /// The last six characters, to tell one secret from another in a list.
    pub fn hint(&self) -> String {
        let start = self.0.len().saturating_sub(6);
        self.0[start..].to_owned()
    }
}

impl fmt::Debug for PlainSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainSecret(..)")
    }
}

/// Whether `text` has the shape of an API key. Junk is refused before the store is asked.
pub fn looks_like_api_key(text: &[u8]) -> bool {
    text.len() == 64 && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// SHA-256 of a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// A secret of an API key or of client credentials, as it is kept.
///
/// A rotation adds a second one. The first ends `overlap_secs` after the second is first used.
#[derive(Clone, Debug)]
pub struct StoredSecret {
    pub id: SecretId,
    /// 1, 2, 3 ... of one owner: which of two is newer.
    pub number: i64,
    pub hash: SecretHash,
    pub hint: String,
    /// How long the predecessor lives once this one is first used; `None` for a first secret.
    pub overlap_secs: Option<i64>,
    pub created_at: Timestamp,
    pub first_used_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    pub last_used_ip: Option<String>,
    pub ends_at: Option<Timestamp>,
}

impl StoredSecret {
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.ends_at.is_none_or(|end| now < end)
    }

    /// Whether the next use starts the end of a predecessor.
    pub fn starts_an_overlap(&self) -> bool {
        self.overlap_secs.is_some() && self.first_used_at.is_none()
    }
}
