//! Passwords of people: what a new one must be, and hashing them, one at a time.
//!
//! Argon2id with the crate's defaults, which are OWASP's (19 MiB, 2 passes): slow and large on purpose. So
//! whoever may ask for a hash must not be able to ask for many at once. One is computed at a time, a few wait
//! for their turn, and the rest hear that the server is busy before anything else is looked at.

use std::sync::LazyLock;

use argon2::password_hash::PasswordHasher;
use argon2::{Argon2, PasswordHash, PasswordVerifier};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::{Fault, Refused};
use crate::domain::entropy::Entropy;
use crate::domain::secret::PlainSecret;

/// NIST SP 800-63B asks for at least 8 characters, and 15 where a password is the only factor.
const CHARS_MIN: usize = 12;

/// Longer ones cost hashing time and protect nothing more.
const BYTES_MAX: usize = 256;

/// Calls that hash or wait for their turn: half a second's worth.
const CALLS_MAX: usize = 16;

/// The one place where passwords are hashed.
pub struct Hashing {
    places: Semaphore,
    turn: Semaphore,
}

/// The turn of one caller. Dropped, it is the next one's.
pub(super) struct Turn<'a> {
    _place: SemaphorePermit<'a>,
    _turn: SemaphorePermit<'a>,
}

impl Hashing {
    pub const fn new() -> Self {
        Self { places: Semaphore::const_new(CALLS_MAX), turn: Semaphore::const_new(1) }
    }

    /// Waits for a turn; [`Fault::Busy`], which is answered with 503, where too many wait already.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, Fault> {
        let place = self.places.try_acquire().map_err(|_| Fault::Busy)?;
        let turn = self.turn.acquire().await.map_err(|_| Fault::Busy)?;
        Ok(Turn { _place: place, _turn: turn })
    }
}

impl Default for Hashing {
    fn default() -> Self {
        Self::new()
    }
}

impl Turn<'_> {
    /// Whether a password is the one that was hashed. Without a hash there is no user: then it takes as long,
    /// and is not.
    pub(super) async fn matches(&self, password: PlainSecret, hash: Option<String>) -> Result<bool, Fault> {
        let check = move || {
            let text = hash.as_ref().unwrap_or(&NOBODY);
            let matches = PasswordHash::new(text).is_ok_and(|hash| {
                Argon2::default().verify_password(password.expose().as_bytes(), &hash).is_ok()
            });
            matches && hash.is_some()
        };
        tokio::task::spawn_blocking(check).await.map_err(|_| Fault::Busy)
    }

    pub(super) async fn hash(&self, password: &PlainSecret, entropy: &Entropy) -> Result<String, Fault> {
        let text = PlainSecret::new(password.expose().to_owned());
        let salt: [u8; 16] = entropy.bytes();
        let hash = move || {
            let hashed = Argon2::default().hash_password_with_salt(text.expose().as_bytes(), &salt);
            hashed.map(|hash| hash.to_string())
        };
        let hashed = tokio::task::spawn_blocking(hash).await.map_err(|_| Fault::Busy)?;
        hashed.map_err(Fault::NotHashed)
    }
}

/// Whether a password may be set, before it costs anything.
pub(super) fn check(password: &PlainSecret) -> Result<(), Refused> {
    let text = password.expose();
    if text.chars().count() < CHARS_MIN {
        Err(Refused::invalid("password", format!("must have at least {CHARS_MIN} characters")))
    } else if text.len() > BYTES_MAX {
        Err(Refused::invalid("password", format!("must have at most {BYTES_MAX} bytes")))
    } else {
        Ok(())
    }
}

/// A hash that no password has, with the cost of a real one: what an unknown user is checked against.
static NOBODY: LazyLock<String> = LazyLock::new(|| {
    Argon2::default()
        .hash_password_with_salt(b"", b"no user has this")
        .expect("the default parameters and a salt of 16 bytes are valid")
        .to_string()
});
