//! Signing in to the console with a password, and a second factor if the user has one.
//!
//! An e-mail address may have a user at each of several merchants. Each user has its own password, second
//! factor and lock. An attempt with the address counts for all of its users. If the password fits several users,
//! the person chooses one of them ([`super::sign_in_choice`]).
//!
//! Every attempt is counted as failed before it is checked. The count is taken back if the password was right.
//! So parallel attempts get no extra guesses. All failures have the same text and take the same time: unknown
//! user, wrong password, locked or disabled account. [`super::refusals`] records them.

use serde_json::{Value, json};

use super::Core;
use super::error::Fault;
use super::manage_users::check_email;
use super::password::Hashing;
use super::principal::Origin;
use super::sign_in_choice::Choices;
use crate::domain::clock::Timestamp;
use crate::domain::console::{
    self, ABSOLUTE_TIMEOUT, ConsoleSession, FAILURES_MAX, LOCKED_FOR, SECOND_FACTOR_WITHIN, TotpSecret,
};
use crate::domain::event::{Actor, ActorKind, AuditEvent, EventType, Outcome};
use crate::domain::ids::{MerchantId, UserId};
use crate::domain::keyring::Purpose;
use crate::domain::secret::PlainSecret;
use crate::store::attempts::{self, Attempt, Claimant, Count};
use crate::store::{StoreError, Tx, audit, console as sessions, users};

/// The settings of the console, and what all sign-ins share.
pub struct Console {
    /// Whether a user needs a second factor to work with live keys.
    pub totp_required_for_live: bool,
    pub(super) hashing: Hashing,
}

impl Console {
    pub const fn new(totp_required_for_live: bool) -> Self {
        Self { totp_required_for_live, hashing: Hashing::new() }
    }
}

/// The result of a sign-in attempt. The secret is for the cookie.
#[derive(Debug)]
pub enum SignIn {
    Done(PlainSecret),
    /// The password was right. The session can only be used to send the second factor.
    NeedsSecondFactor(PlainSecret),
    /// The password fits several users of the address.
    Choose(Choices),
    Refused,
}

impl Core {
    pub async fn sign_in(
        &self,
        email: &str,
        password: PlainSecret,
        origin: &Origin,
    ) -> Result<SignIn, Fault> {
        let turn = self.console.hashing.turn().await?;
        let attempts = match check_email(email) {
            Ok(email) => self.claim_all(Claimant::Email(&email)).await?,
            Err(_) => Vec::new(),
        };
        let hashes = attempts.iter().map(|attempt| attempt.password_hash.clone()).collect();
        let matches = turn.matches(password, hashes).await?;
        drop(turn);
        if attempts.is_empty() {
            return Ok(self.refuse(None, "no such user, or it is locked or disabled", origin));
        }
        let (mut right, mut wrong) = (Vec::new(), Vec::new());
        for (attempt, is_right) in attempts.into_iter().zip(matches) {
            if is_right { right.push(attempt) } else { wrong.push(attempt) }
        }
        self.settle_attempts(&right, &wrong, origin).await?;
        match &right[..] {
            [] => Ok(SignIn::Refused),
            [one] => self.let_in(one.user, one.totp_secret.is_some(), origin).await,
            several => Ok(SignIn::Choose(self.choices(several).await?)),
        }
    }

    /// Takes back the attempts at users whose password was right. The others stay counted and are recorded.
    ///
    /// A person may have several users with one address and different passwords. Each sign-in as one of them is
    /// a failed attempt at the others, and would lock them in the end. So a password that is right for one user
    /// counts against the others only the first time that it is used. A new password counts again, so nobody
    /// gains guesses by setting the password of another user.
    async fn settle_attempts(
        &self,
        right: &[Attempt],
        wrong: &[Attempt],
        origin: &Origin,
    ) -> Result<(), StoreError> {
        let counted_before = right.iter().any(|attempt| attempt.password_was_right);
        if !right.is_empty() {
            // Use a statement for each user. Two transactions with the same users in a different order would
            // deadlock.
            let mut db = self.store.write().await?;
            for attempt in right {
                attempts::take_back(&mut db, attempt.user, Count::SignIns).await?;
                attempts::note_right_password(&mut db, attempt.user).await?;
            }
            for attempt in wrong.iter().filter(|_| counted_before) {
                attempts::take_back(&mut db, attempt.user, Count::SignIns).await?;
            }
        }
        for attempt in wrong.iter().filter(|_| !counted_before) {
            self.refuse(Some(attempt), "wrong password", origin);
        }
        Ok(())
    }

    /// Opens the session of a user whose password was right.
    pub(super) async fn let_in(
        &self,
        user: UserId,
        needs_second_factor: bool,
        origin: &Origin,
    ) -> Result<SignIn, Fault> {
        let now = self.now();
        let mut tx = self.store.begin().await?;
        let secret = self.open_session(&mut tx, user, needs_second_factor, false, origin, now).await?;
        if needs_second_factor {
            tx.commit().await?;
            return Ok(SignIn::NeedsSecondFactor(secret));
        }
        self.complete(tx, user, json!({ "by": "password" }), origin).await?;
        Ok(SignIn::Done(secret))
    }

    /// The second step: a code from the authenticator app, or a recovery code.
    pub async fn sign_in_second_factor(
        &self,
        pending: &PlainSecret,
        code: &str,
        origin: &Origin,
    ) -> Result<SignIn, Fault> {
        let now = self.now();
        let found = sessions::session(&mut self.store.read().await?, pending.hash()).await?;
        let Some((user, session)) = found.filter(|(_, one)| one.awaits_totp && one.is_live(now)) else {
            return Ok(SignIn::Refused);
        };
        let Some(attempt) = self.claim(user).await? else {
            return Ok(self.refuse(None, "locked or disabled", origin));
        };
        let mut tx = self.store.begin().await?;
        let Some(factor) = self.use_code(&mut tx, user, attempt.totp_secret.as_deref(), code).await? else {
            drop(tx);
            return Ok(self.refuse(Some(&attempt), "wrong second factor", origin));
        };
        // Make a new session, so that somebody who knew the session between the two steps cannot use it.
        sessions::end_session(&mut tx, session.hash).await?;
        let secret = self.open_session(&mut tx, user, false, session.by_link, origin, now).await?;
        let way_in = if session.by_link { "one-time link" } else { "password" };
        self.complete(tx, user, json!({ "by": way_in, "second_factor": factor }), origin).await?;
        Ok(SignIn::Done(secret))
    }

    /// Counts an attempt of a user who is already signed in, or whose password was right.
    pub(super) async fn claim(&self, user: UserId) -> Result<Option<Attempt>, StoreError> {
        Ok(self.claim_all(Claimant::User(user)).await?.pop())
    }

    async fn claim_all(&self, claimant: Claimant<'_>) -> Result<Vec<Attempt>, StoreError> {
        let now = self.now();
        let mut db = self.store.write().await?;
        let until = now.plus(LOCKED_FOR);
        let claimed = attempts::claim_attempts(&mut db, claimant, FAILURES_MAX, now, until).await?;
        if claimed.is_empty() {
            attempts::claim_nothing(&mut db).await?;
        }
        Ok(claimed)
    }

    /// Uses a code of the authenticator app or a recovery code, and returns which one it was.
    pub(super) async fn use_code(
        &self,
        tx: &mut Tx,
        user: UserId,
        sealed: Option<&[u8]>,
        code: &str,
    ) -> Result<Option<&'static str>, Fault> {
        let now = self.now();
        let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        if let Some(key) = sealed.and_then(|sealed| self.keyring.missing_for(sealed)) {
            return Err(self.key_missing(key));
        }
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

    /// Writes a new session.
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
            client_ip: origin.client_ip.to_string(),
        };
        sessions::insert_session(tx, user, &session).await?;
        Ok(secret)
    }

    /// Commits a sign-in with its audit event.
    pub(super) async fn complete(
        &self,
        mut tx: Tx,
        user: UserId,
        detail: Value,
        origin: &Origin,
    ) -> Result<(), StoreError> {
        users::note_sign_in(&mut tx, user, self.now()).await?;
        let user = users::by_id(&mut tx, user).await?;
        let merchant = user.as_ref().and_then(|user| user.merchant_id);
        let actor = user.map_or(Actor::of(ActorKind::Anonymous), |user| Actor::user(&user));
        audit::append(&mut tx, &self.sign_in_event(actor, merchant, detail, origin)).await?;
        tx.commit().await
    }

    /// Records a failed attempt. The typed text is not recorded, because it may be a password.
    pub(super) fn refuse(&self, attempt: Option<&Attempt>, why: &'static str, origin: &Origin) -> SignIn {
        match attempt {
            Some(attempt) => {
                let actor = Actor {
                    kind: ActorKind::User,
                    id: Some(attempt.user.to_string()),
                    name: Some(attempt.email.clone()),
                };
                let detail = match attempt.locked_until {
                    Some(until) => json!({ "why": why, "locked_until": until }),
                    None => json!({ "why": why }),
                };
                let event = self.sign_in_event(actor, attempt.merchant_id, detail, origin);
                self.refusals.note(AuditEvent { outcome: Outcome::Refused, ..event });
            }
            None => {
                let event = self.sign_in_event(Actor::of(ActorKind::Anonymous), None, json!({}), origin);
                let event = AuditEvent { outcome: Outcome::Refused, ..event };
                self.refusals.count(origin.client_ip, why, event);
            }
        }
        SignIn::Refused
    }

    fn sign_in_event(
        &self,
        actor: Actor,
        merchant: Option<MerchantId>,
        detail: Value,
        origin: &Origin,
    ) -> AuditEvent {
        let mut event = self.audit_event(EventType::UserSignedIn);
        event.object_id.clone_from(&actor.id);
        event.merchant_id = merchant;
        event.actor = actor;
        event.client_ip = Some(origin.client_ip.to_string());
        event.request_id = Some(origin.request_id.clone());
        event.detail = detail;
        event
    }
}
