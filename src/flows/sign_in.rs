//! Signing in to the console: password, then the second factor where the user has one.
//!
//! Every attempt is counted as failed before it is checked, and the count is taken back when it was
//! right. So attempts in parallel get no more tries than one after another, and the answer to all that
//! fail is the same, in words and in time: unknown user, wrong password, locked or disabled account.

use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::Core;
use super::manage_users::password_matches;
use super::record::audit_event;
use crate::domain::clock::Timestamp;
use crate::domain::console::{
    self, ABSOLUTE_TIMEOUT, ConsoleSession, FAILURES_MAX, LOCKED_FOR, SECOND_FACTOR_WITHIN, TotpSecret,
};
use crate::domain::event::{Actor, ActorKind, AuditEvent, Outcome};
use crate::domain::ids::UserId;
use crate::domain::keyring::Purpose;
use crate::domain::secret::PlainSecret;
use crate::store::users::{Attempt, Claimant};
use crate::store::{StoreError, Tx, audit, console as sessions, users};

/// Passwords hashed at a time: each takes 19 MiB and a processor for tens of milliseconds.
const HASHING_MAX: usize = 4;

/// What the console is told by the settings, and what its sign-ins share.
pub struct Console {
    /// Whether a user needs a second factor to handle live keys.
    pub totp_required_for_live: bool,
    hashing: Semaphore,
}

impl Console {
    #[must_use]
    pub const fn new(totp_required_for_live: bool) -> Self {
        Self { totp_required_for_live, hashing: Semaphore::const_new(HASHING_MAX) }
    }
}

/// Where an attempt comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    pub client_ip: String,
    pub request_id: String,
}

/// What an attempt to sign in came to. The secret is for the cookie.
#[derive(Debug)]
pub enum SignIn {
    Done(PlainSecret),
    /// The password was right; the session is good for sending the second factor, and no more.
    NeedsSecondFactor(PlainSecret),
    Refused,
}

impl Core {
    /// # Errors
    /// A fault of the store, as for all below.
    pub async fn sign_in(
        &self,
        email: &str,
        password: PlainSecret,
        origin: &Origin,
    ) -> Result<SignIn, StoreError> {
        let email = email.trim().to_lowercase();
        let attempt = self.claim(Claimant::Email(&email)).await?;
        let hash = attempt.as_ref().map_or_else(|| NOBODY.clone(), |attempt| attempt.password_hash.clone());
        let matches = self.check_password(password, hash).await?;
        let Some(attempt) = attempt else {
            return self.refuse(None, "no such user, or it is locked or disabled", origin).await;
        };
        if !matches {
            return self.refuse(Some(&attempt), "wrong password", origin).await;
        }
        let now = self.now();
        let needs_second_factor = attempt.totp_secret.is_some();
        let mut tx = self.store.begin().await?;
        let secret =
            self.open_session(&mut tx, attempt.user, needs_second_factor, false, origin, now).await?;
        if needs_second_factor {
            users::take_attempt_back(&mut tx, attempt.user).await?;
            tx.commit().await?;
            return Ok(SignIn::NeedsSecondFactor(secret));
        }
        self.complete(tx, attempt.user, json!({ "by": "password" }), origin).await?;
        Ok(SignIn::Done(secret))
    }

    /// The second step: a code of the authenticator app, or a recovery code.
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn sign_in_second_factor(
        &self,
        pending: &PlainSecret,
        code: &str,
        origin: &Origin,
    ) -> Result<SignIn, StoreError> {
        let now = self.now();
        let found = sessions::session(&mut self.store.read().await?, pending.hash()).await?;
        let Some((user, session)) = found.filter(|(_, one)| one.awaits_totp && one.is_live(now)) else {
            return Ok(SignIn::Refused);
        };
        let Some(attempt) = self.claim(Claimant::User(user)).await? else {
            return self.refuse(None, "locked or disabled", origin).await;
        };
        let mut tx = self.store.begin().await?;
        let Some(factor) = self.use_code(&mut tx, user, attempt.totp_secret.as_deref(), code).await? else {
            drop(tx);
            return self.refuse(Some(&attempt), "wrong second factor", origin).await;
        };
        // Whoever knew the session between the two steps must not know this one.
        sessions::end_session(&mut tx, session.hash).await?;
        let secret = self.open_session(&mut tx, user, false, session.by_link, origin, now).await?;
        let by = if session.by_link { "one-time link" } else { "password" };
        self.complete(tx, user, json!({ "by": by, "second_factor": factor }), origin).await?;
        Ok(SignIn::Done(secret))
    }

    /// Whether a password is the one that was hashed, without holding up other requests.
    pub(super) async fn check_password(
        &self,
        password: PlainSecret,
        hash: String,
    ) -> Result<bool, StoreError> {
        let _permit = self.console.hashing.acquire().await.map_err(|_| StoreError::Busy)?;
        let checked = tokio::task::spawn_blocking(move || password_matches(&password, &hash)).await;
        checked.map_err(|_| StoreError::Busy)
    }

    pub(super) async fn claim(&self, claimant: Claimant<'_>) -> Result<Option<Attempt>, StoreError> {
        let now = self.now();
        let mut db = self.store.write().await?;
        users::claim_attempt(&mut db, claimant, FAILURES_MAX, now, now.plus(LOCKED_FOR)).await
    }

    /// Uses up a code of the authenticator app or a recovery code, and names which it was.
    pub(super) async fn use_code(
        &self,
        tx: &mut Tx,
        user: UserId,
        sealed: Option<&[u8]>,
        code: &str,
    ) -> Result<Option<&'static str>, StoreError> {
        let now = self.now();
        let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        let opened = sealed.and_then(|sealed| self.open_totp(user, sealed));
        if let Some(step) = opened.and_then(|secret| secret.step_of(&digits, now)) {
            let is_first = users::use_totp_step(tx, user, step).await?;
            return Ok(is_first.then_some("authenticator app"));
        }
        let hash = console::recovery_code_hash(code);
        let is_good = sessions::use_recovery_code(tx, user, hash, now).await?;
        Ok(is_good.then_some("recovery code"))
    }

    pub(super) fn open_totp(&self, user: UserId, sealed: &[u8]) -> Option<TotpSecret> {
        let opened = self.keyring.open(Purpose::TotpSecret, user.uuid().as_bytes(), sealed);
        opened.map(TotpSecret::from_bytes)
    }

    /// Writes a new session, and clears away those that are over.
    pub(super) async fn open_session(
        &self,
        tx: &mut Tx,
        user: UserId,
        awaits_totp: bool,
        by_link: bool,
        origin: &Origin,
        now: Timestamp,
    ) -> Result<PlainSecret, StoreError> {
        let secret = PlainSecret::console(&self.entropy);
        let lifetime = if awaits_totp { SECOND_FACTOR_WITHIN } else { ABSOLUTE_TIMEOUT };
        let session = ConsoleSession {
            hash: secret.hash(),
            awaits_totp,
            by_link,
            created_at: now,
            last_seen_at: now,
            expires_at: now.plus(lifetime),
            client_ip: origin.client_ip.clone(),
        };
        sessions::insert_session(tx, user, &session).await?;
        Ok(secret)
    }

    /// Commits a sign-in with its place in the audit trail.
    pub(super) async fn complete(
        &self,
        mut tx: Tx,
        user: UserId,
        detail: Value,
        origin: &Origin,
    ) -> Result<(), StoreError> {
        users::note_sign_in(&mut tx, user, self.now()).await?;
        let event = self.sign_in_event(&mut tx, Some(user), detail, origin).await?;
        audit::append(&mut tx, &event).await?;
        tx.commit().await
    }

    /// Records an attempt that failed. What was typed is not recorded: it may be a password.
    pub(super) async fn refuse(
        &self,
        attempt: Option<&Attempt>,
        why: &str,
        origin: &Origin,
    ) -> Result<SignIn, StoreError> {
        let mut tx = self.store.begin().await?;
        let detail = match attempt.and_then(|attempt| attempt.locked_until) {
            Some(until) => json!({ "why": why, "locked_until": until }),
            None => json!({ "why": why }),
        };
        let user = attempt.map(|attempt| attempt.user);
        let event = self.sign_in_event(&mut tx, user, detail, origin).await?;
        audit::append(&mut tx, &AuditEvent { outcome: Outcome::Refused, ..event }).await?;
        tx.commit().await?;
        Ok(SignIn::Refused)
    }

    async fn sign_in_event(
        &self,
        tx: &mut Tx,
        user: Option<UserId>,
        detail: Value,
        origin: &Origin,
    ) -> Result<AuditEvent, StoreError> {
        let user = match user {
            Some(id) => users::by_id(tx, id).await?,
            None => None,
        };
        let mut event = audit_event(self, "user.signed_in", "user", String::new());
        event.object_id = user.as_ref().map(|user| user.id.to_string());
        event.merchant_id = user.as_ref().and_then(|user| user.merchant_id);
        event.actor = user.map_or(Actor::of(ActorKind::Anonymous), |user| Actor::user(&user));
        event.client_ip = Some(origin.client_ip.clone());
        event.request_id = Some(origin.request_id.clone());
        event.detail = detail;
        Ok(event)
    }
}

/// A hash that no password has, with the cost of a real one: what an unknown user is checked against.
static NOBODY: LazyLock<String> = LazyLock::new(|| {
    Argon2::default()
        .hash_password_with_salt(b"", b"no user has this")
        .expect("the default parameters and a salt of 16 bytes are valid")
        .to_string()
});
