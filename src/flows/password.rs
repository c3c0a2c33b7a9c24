//! Passwords of users: the rules for a new one, setting one's own, and hashing.
//!
//! We use Argon2id with the crate's defaults, which are OWASP's (19 MiB, 2 passes). It is slow and needs much
//! memory on purpose, so a caller must not be able to cause many hashes at once. One hash is computed at a
//! time, and a few callers wait. Further callers get 503 before anything else is checked.

use std::sync::LazyLock;

use argon2::password_hash::PasswordHasher;
use argon2::{Argon2, PasswordHash, PasswordVerifier};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::Core;
use super::console_session::SignedIn;
use super::error::{Fault, Managed, Refused};
use super::manage::Change;
use super::principal::Principal;
use crate::domain::entropy::Entropy;
use crate::domain::event::EventType;
use crate::domain::ids::UserId;
use crate::domain::secret::PlainSecret;
use crate::store::attempts::{self, Claimant, Count};
use crate::store::{console, users};

/// NIST SP 800-63B asks for at least 8 characters, and 15 where a password is the only factor.
const CHARS_MIN: usize = 12;

/// Longer passwords take more time to hash and give no more protection.
const BYTES_MAX: usize = 256;

/// The most calls that hash or wait. They take about half a second together.
const CALLS_MAX: usize = 16;

/// Limits how many passwords are hashed at a time.
pub struct Hashing {
    places: Semaphore,
    turn: Semaphore,
}

/// A caller's turn. Dropping it lets the next caller continue.
pub(super) struct Turn<'a> {
    _place: SemaphorePermit<'a>,
    _turn: SemaphorePermit<'a>,
}

impl Hashing {
    pub const fn new() -> Self {
        Self { places: Semaphore::const_new(CALLS_MAX), turn: Semaphore::const_new(1) }
    }

    /// Waits for a turn. [`Fault::Busy`], which is answered with 503, if too many callers already wait.
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
    /// Whether a password matches a hash. Without a hash (no such user) it takes the same time and returns
    /// `false`.
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

impl Core {
    /// Sets the user's own password. This needs the current password, unless the session began with a
    /// one-time link. Wrong attempts count like failed sign-ins. The user's other sessions end.
    pub async fn set_own_password(
        &self,
        principal: &Principal,
        who: &SignedIn,
        current: PlainSecret,
        new: PlainSecret,
    ) -> Managed<()> {
        let event = self.event_by(principal, EventType::UserPasswordSet).about(who.user.id);
        let hash = self.on_record(&event, async {
            check(&new)?;
            let turn = self.console.hashing.turn().await?;
            let is_proven = who.session.by_link || self.knows_password(&turn, who.user.id, current).await?;
            if !is_proven {
                return Err(Refused::Conflict("the current password is wrong".to_owned()).into());
            }
            Ok(turn.hash(&new, &self.entropy).await?)
        });
        let hash = hash.await?;
        self.change(principal, EventType::UserPasswordSet, async |change| set_own(change, who, &hash).await)
            .await
    }

    /// Checks the user's password. A wrong one counts as a failed attempt.
    pub(super) async fn knows_password(
        &self,
        turn: &Turn<'_>,
        user: UserId,
        password: PlainSecret,
    ) -> Result<bool, Fault> {
        match self.claim(Claimant::User(user)).await? {
            Some(attempt) => turn.matches(password, Some(attempt.password_hash)).await,
            None => Ok(false),
        }
    }
}

async fn set_own(change: &mut Change<'_>, who: &SignedIn, hash: &str) -> Managed<()> {
    change.concerns(who.user.merchant_id, who.user.id);
    if !who.session.by_link {
        attempts::take_back(&mut change.tx, who.user.id, Count::Proofs).await?;
    }
    let mut user = users::by_id(&mut change.tx, who.user.id).await?.ok_or(Refused::NotFound)?;
    user.updated_at = change.event.at;
    users::update(&mut change.tx, &user, Some(hash)).await?;
    console::forget_link(&mut change.tx, who.session.hash).await?;
    console::end_sessions_of(&mut change.tx, user.id, Some(who.session.hash)).await?;
    Ok(())
}

/// Checks the rules for a new password, before it is hashed.
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

/// A hash that no password matches, with the cost of a real one. Unknown users are checked against it.
static NOBODY: LazyLock<String> = LazyLock::new(|| {
    Argon2::default()
        .hash_password_with_salt(b"", b"no user has this")
        .expect("the default parameters and a salt of 16 bytes are valid")
        .to_string()
});
