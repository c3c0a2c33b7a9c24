//! Sessions and the rotation rule.
//!
//! A session has a generation, 1, 2, 3 ... A refresh token names its session and its generation. The
//! token of the current generation moves the session on. The one just before it, within the retry
//! window, gets the very pair that the rotation gave, so that a lost response locks nobody out and
//! parallel refreshes agree. Any earlier one is a replay: somebody holds a token they should not, and
//! the session ends (RFC 9700 4.14.2). This is recognised for ever, because the seal proves that we
//! issued the token, and no history has to be kept.

use chrono::TimeDelta;
use zeroize::Zeroizing;

use super::clock::Timestamp;
use super::ids::{CredentialId, MerchantId, SessionId};
use super::keyring::{ServerKey, ServerKeyId};
use super::reason::Reason;
use super::scope::Scopes;
use super::secret::PlainSecret;
use super::token::{Claims, TokenKind};

/// How long things last; from the `[tokens]` settings.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    pub access_ttl: TimeDelta,
    /// Idle: counted from the last rotation.
    pub refresh_ttl: TimeDelta,
    /// Absolute: counted from the session's start.
    pub session_ttl: TimeDelta,
    pub retry_window: TimeDelta,
}

/// How long the row of a session stays after its end at least, for clocks that differ and for a merchant
/// who asks why a token was refused: without the row nobody can tell that it was ever one.
pub const KEPT_AFTER_END: TimeDelta = TimeDelta::days(1);

/// Which rows no token can be used with any more: see [`crate::jobs::sweep`] for the reasoning.
#[derive(Clone, Copy, Debug)]
pub struct DeadBefore {
    /// Those that were revoked, or reached their absolute end, by then.
    pub ended: Timestamp,
    /// Those that were refreshed last by then: they have been idle for too long. None that started later
    /// can have been.
    pub rotated: Timestamp,
}

/// The earliest of each time in some rows; `None` where no row has one.
#[derive(Clone, Copy, Debug)]
pub struct Earliest {
    pub expires_at: Option<Timestamp>,
    pub rotated_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

impl Lifetimes {
    pub fn dead_before(self, now: Timestamp) -> DeadBefore {
        // An access token of a session that was revoked is told apart for as long as it can be presented.
        let ended = now.minus(KEPT_AFTER_END.max(self.access_ttl));
        DeadBefore { ended, rotated: ended.minus(self.refresh_ttl) }
    }
}

impl DeadBefore {
    /// How long the first of some rows has been due to go; zero if none is.
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

/// One row, for the whole life of a session.
#[derive(Clone)]
pub struct Session {
    pub id: SessionId,
    pub merchant_id: MerchantId,
    pub credential_id: CredentialId,
    /// The credentials' epoch at the start; see [`super::credential::Credential::epoch`].
    pub epoch: i64,
    pub token_key_id: ServerKeyId,
    pub secret: Zeroizing<Vec<u8>>,
    /// What was granted at the start, for good; `None` is everything.
    pub scopes: Option<Scopes>,
    pub generation: u32,
    pub started_at: Timestamp,
    pub rotated_at: Timestamp,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// What a refresh token earns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The session moves to the next generation.
    Rotate,
    /// The pair of the current generation, once more.
    Repeat,
    /// The session is revoked, and that is committed although the answer is an error.
    Replay,
    Refuse(Reason),
}

/// The rotation rule. `claims` must have been found genuine and to be of a refresh token.
pub fn judge_refresh(session: &Session, claims: Claims, lifetimes: Lifetimes, now: Timestamp) -> Verdict {
    if session.revoked_at.is_some() {
        return Verdict::Refuse(Reason::SessionRevoked);
    }
    if session.expires_at <= now {
        return Verdict::Refuse(Reason::SessionExpired);
    }
    // A generation that the row has not reached was issued and then lost, by a restored backup say.
    // Nobody replayed anything, so the session is left alone.
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

/// Whether an access token or refresh token is active (RFC 7662 2.2). Access tokens of earlier
/// generations live out their hour; a refresh token counts while it is the current one.
///
/// # Errors
/// The [`Reason`] why it is not.
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
    /// Seconds the access token still has. Whole seconds since the rotation are taken off, so that
    /// all answers given within its first second say the same.
    pub expires_in_secs: i64,
}

impl Session {
    /// Whether a refresh may ask for this: nothing, or the very set that was granted (RFC 6749 6).
    pub fn has_scopes(&self, asked: Option<&Scopes>) -> bool {
        match (asked, &self.scopes) {
            (None, _) => true,
            (Some(asked), Some(granted)) => asked.is_same_set(granted),
            (Some(_), None) => false,
        }
    }

    /// Derives the pair of the current generation: from the row alone, so always the same.
    pub fn pair(&self, key: &ServerKey, lifetimes: Lifetimes, now: Timestamp) -> Pair {
        let expiry = |ttl| self.rotated_at.plus(ttl).min(self.expires_at);
        let claims =
            |kind, expires_at| Claims { kind, session: self.id, generation: self.generation, expires_at };
        let access_expires_at = expiry(lifetimes.access_ttl);
        let lifetime_secs = access_expires_at.unix_secs() - self.rotated_at.unix_secs();
        let elapsed_secs = now.since(self.rotated_at).num_seconds().max(0);
        Pair {
            access: claims(TokenKind::Access, access_expires_at).seal(key, &self.secret),
            refresh: claims(TokenKind::Refresh, expiry(lifetimes.refresh_ttl)).seal(key, &self.secret),
            access_expires_at,
            expires_in_secs: (lifetime_secs - elapsed_secs).max(0),
        }
    }
}
