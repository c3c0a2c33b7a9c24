//! Secrets: the plain text, which is shown once and never stored, and its hash, which is stored.
//!
//! Every secret is 32 random bytes, so nobody can guess it and a plain SHA-256 is enough: a slow hash would
//! only add latency. API keys and admin tokens that a cell makes also show the cell, see [`super::cell`]. Passwords of users are different, see [`crate::flows::password`].

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use subtle::ConstantTimeEq;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::cell::CELL_DIGITS;
use super::clock::Timestamp;
use super::entropy::Entropy;
use super::ids::SecretId;

/// Every admin token begins with this, so that secret scanners can find it.
pub const ADMIN_TOKEN_PREFIX: &str = "tga_";

/// Without the digits of a cell.
pub const ADMIN_TOKEN_CHARS: usize = 47;

/// Without the digits of a cell.
pub const API_KEY_CHARS: usize = 64;

/// The length of the secret in the console's cookie or in a one-time sign-in link.
pub const CONSOLE_SECRET_CHARS: usize = 43;

/// A secret in plain text. It can be read from a body, but it has no `Display`, `Clone` or `Serialize`, so that
/// only [`PlainSecret::expose`] can show it.
#[derive(Deserialize)]
#[serde(from = "String")]
pub struct PlainSecret(Zeroizing<String>);

impl From<String> for PlainSecret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl PlainSecret {
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// An API key: the digits of the cell, if there is one, then 64 lower-case hex characters.
    pub fn api_key(entropy: &Entropy) -> Self {
        Self::new(format!("{}{}", entropy.cell_digits(), *Zeroizing::new(hex::encode(entropy.bytes::<32>()))))
    }

    /// A client secret: 43 characters of base64url.
    pub fn client_secret(entropy: &Entropy) -> Self {
        Self::new(URL_SAFE_NO_PAD.encode(entropy.bytes::<32>()))
    }

    /// An admin token: [`ADMIN_TOKEN_PREFIX`], the digits of the cell, if there is one, then 43 characters of
    /// base64url.
    pub fn admin_token(entropy: &Entropy) -> Self {
        let (cell, random) = (entropy.cell_digits(), URL_SAFE_NO_PAD.encode(entropy.bytes::<32>()));
        Self::new(format!("{ADMIN_TOKEN_PREFIX}{cell}{random}"))
    }

    /// For the console's cookie or a one-time sign-in link: 43 characters of base64url.
    pub fn console(entropy: &Entropy) -> Self {
        Self::client_secret(entropy)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn hash(&self) -> SecretHash {
        SecretHash::of(&self.0)
    }

    /// The last six characters, to tell secrets apart in a list.
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

/// Whether `text` has the form of an API key. Anything else is refused without a query.
pub fn looks_like_api_key(text: &[u8]) -> bool {
    has_chars(text.len(), API_KEY_CHARS) && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `text` has the form of an admin token. Anything else is refused without a query.
pub fn looks_like_admin_token(text: &str) -> bool {
    text.starts_with(ADMIN_TOKEN_PREFIX) && has_chars(text.len(), ADMIN_TOKEN_CHARS)
}

/// Whether a secret is as long as its kind, with or without a cell.
const fn has_chars(length: usize, chars: usize) -> bool {
    length == chars || length == chars + CELL_DIGITS
}

/// SHA-256 of a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    pub fn of(secret: &str) -> Self {
        let hash = digest(&SHA256, secret.as_bytes());
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
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

/// A stored secret of an API key or of client credentials.
///
/// A rotation adds a second secret. The first one ends `overlap_secs` after the second is first used.
#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
pub struct StoredSecret {
    pub id: SecretId,
    /// Counts an owner's secrets from 1. The higher number is the newer secret.
    #[serde(skip)]
    pub number: i64,
    #[serde(skip)]
    pub hash: SecretHash,
    /// Its last characters.
    pub hint: String,
    /// How long the previous secret still works after the first use of this one. `None` for the first secret.
    #[serde(skip)]
    pub overlap_secs: Option<i64>,
    pub created_at: Timestamp,
    pub first_used_at: Option<Timestamp>,
    /// At most a minute before the latest use.
    pub last_used_at: Option<Timestamp>,
    pub last_used_ip: Option<String>,
    /// When it stops working; null while that is not known.
    pub ends_at: Option<Timestamp>,
}

impl StoredSecret {
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.ends_at.is_none_or(|end| now < end)
    }
}
