//! Sessions and the rotation rule.
//!
//! A session has a generation: 1, 2, 3 and so on. A refresh token names its session and its generation.
//!
//! - A token of the current generation moves the session to the next one.
//! - A token of the generation before, within the retry window, gets the same pair as that rotation gave.
//!   So a client that lost the response is not locked out, and parallel refreshes get the same answer.
//! - Any other old token is a replay: somebody else may have it, so the session ends (RFC 9700 4.14.2).
//!
//! A replay is recognised no matter how old the token is. The seal proves that we issued it, so no history
//! has to be kept.

use chrono::TimeDelta;
use sqlx::FromRow;
use zeroize::Zeroizing;

use super::clock::Timestamp;
use super::ids::{CredentialId, MerchantId, SessionId};
use super::keyring::{Signer, SignerId};
use super::reason::Reason;
use super::scope::Scopes;
use super::secret::PlainSecret;
use super::token::{Claims, TokenKind};

/// Lifetimes from the `[tokens]` settings.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    pub access_ttl: TimeDelta,
    /// Idle time: counted from the last rotation.
    pub refresh_ttl: TimeDelta,
    /// Total time: counted from the start of the session.
    pub session_ttl: TimeDelta,
    pub retry_window: TimeDelta,
}

/// How long we keep a session's row after its end, at least. This allows for clocks that differ. It also
/// lets us tell a merchant why a token was refused: without the row, the token is simply unknown.
pub const KEPT_AFTER_END: TimeDelta = TimeDelta::days(1);

/// Which sessions can be removed, because none of their tokens can be used. [`crate::jobs::sweep`] explains
/// why.
#[derive(Clone, Copy, Debug)]
pub struct DeadBefore {
    /// Sessions that were revoked or expired by this time.
    pub ended: Timestamp,
    /// Sessions whose last refresh was by this time: they have been idle too long. A session that started
    /// later cannot be one of them.
    pub rotated: Timestamp,
}

/// The earliest value of each column among some rows. `None` if no row has a value.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct Earliest {
    pub expires_at: Option<Timestamp>,
    pub rotated_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

impl Lifetimes {
    pub fn dead_before(self, now: Timestamp) -> DeadBefore {
        // As long as an access token of a revoked session can be presented, we can still say why it is
        // refused.
        let ended = now.minus(KEPT_AFTER_END.max(self.access_ttl));
        DeadBefore { ended, rotated: ended.minus(self.refresh_ttl) }
    }
}

impl DeadBefore {
    /// How long ago the first of these rows should have been removed. Zero if none is due.
    pub fn lag(self, earliest: Earliest) -> TimeDelta {
        [
            earliest.expires_at.map(|at| self.ended.since(at)),
            earliest.revoked_at.map(|at| self.ended.since(at)),
            earliest.rotated_at.map(|at| self.rotated.since(at)),
        ]
        .into_iter()
        .flatten()
        .fold(TimeDelta::zero(), TimeDelta::max)
    }
}

/// A session. One row holds it for its whole life.
#[derive(Clone, FromRow)]
pub struct Session {
    pub id: SessionId,
    pub merchant_id: MerchantId,
    pub credential_id: CredentialId,
    /// The epoch of the credentials when the session started, see [`super::credential::Credential::epoch`].
    pub epoch: i64,
    pub token_key_id: SignerId,
    #[sqlx(try_from = "Vec<u8>")]
    pub secret: Zeroizing<Vec<u8>>,
    /// Granted at the start and never changed. `None` means every scope.
    pub scopes: Option<Scopes>,
    #[sqlx(try_from = "i64")]
    pub generation: u32,
    pub started_at: Timestamp,
    pub rotated_at: Timestamp,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// What to do with a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Move the session to the next generation.
    Rotate,
    /// Answer with the pair of the current generation again.
    Repeat,
    /// Revoke the session. This is committed although the answer is an error.
    Replay,
    Refuse(Reason),
}

/// The rotation rule. The caller must have checked that `claims` are genuine and from a refresh token.
pub fn judge_refresh(session: &Session, claims: Claims, lifetimes: Lifetimes, now: Timestamp) -> Verdict {
    if session.revoked_at.is_some() {
        return Verdict::Refuse(Reason::SessionRevoked);
    }
    if session.expires_at <= now {
        return Verdict::Refuse(Reason::SessionExpired);
    }
    // The token is newer than the row. This happens after a backup was restored, for example. It is not a
    // replay, so the session stays.
    let Some(age) = session.generation.checked_sub(claims.generation) else {
        return Verdict::Refuse(Reason::TokenUnknown);
    };
    match age {
        0 if claims.expires_at <= now => Verdict::Refuse(Reason::TokenExpired),
        0 => Verdict::Rotate,
        1 if now < session.rotated_at.plus(lifetimes.retry_window) => Verdict::Repeat,
        _ => Verdict::Replay,
    }
}

/// Whether an access token or refresh token is active (RFC 7662 2.2). The error says why it is not.
///
/// An access token stays active until it expires, also after a rotation. A refresh token is active only
/// while its generation is the current one.
pub fn judge_active(session: &Session, claims: Claims, now: Timestamp) -> Result<(), Reason> {
    if session.revoked_at.is_some() {
        return Err(Reason::SessionRevoked);
    }
    if session.expires_at <= now {
        return Err(Reason::SessionExpired);
    }
    if claims.expires_at <= now {
        return Err(Reason::TokenExpired);
    }
    let is_known = match claims.kind {
        TokenKind::Access => claims.generation <= session.generation,
        TokenKind::Refresh => claims.generation == session.generation,
    };
    if is_known { Ok(()) } else { Err(Reason::TokenUnknown) }
}

/// The tokens of a session's current generation.
pub struct Pair {
    pub access: PlainSecret,
    pub refresh: PlainSecret,
    pub access_expires_at: Timestamp,
    /// How many seconds are left for the access token. Only whole seconds since the rotation are subtracted,
    /// so that all answers within the first second are equal.
    pub expires_in_secs: i64,
}

impl Session {
    /// Its size in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.secret.len() + self.scopes.as_ref().map_or(0, |scopes| scopes.as_str().len())
    }

    /// Whether a refresh may ask for these scopes: none, or exactly the granted set (RFC 6749 6).
    pub fn has_scopes(&self, asked: Option<&Scopes>) -> bool {
        match (asked, &self.scopes) {
            (None, _) => true,
            (Some(asked), Some(granted)) => asked.is_same_set(granted),
            (Some(_), None) => false,
        }
    }

    /// Derives the pair of the current generation. It depends only on the row, so it is always the same.
    pub fn pair(&self, signer: &Signer, lifetimes: Lifetimes, now: Timestamp) -> Pair {
        let expiry = |ttl| self.rotated_at.plus(ttl).min(self.expires_at);
        let claims =
            |kind, expires_at| Claims { kind, session: self.id, generation: self.generation, expires_at };
        let access_expires_at = expiry(lifetimes.access_ttl);
        let lifetime_secs = access_expires_at.unix_secs() - self.rotated_at.unix_secs();
        let elapsed_secs = now.since(self.rotated_at).num_seconds().max(0);
        Pair {
            access: claims(TokenKind::Access, access_expires_at).seal(signer, &self.secret),
            refresh: claims(TokenKind::Refresh, expiry(lifetimes.refresh_ttl)).seal(signer, &self.secret),
            access_expires_at,
            expires_in_secs: (lifetime_secs - elapsed_secs).max(0),
        }
    }
}
