//! Rotating the secrets of API keys and client credentials. It works the same for both.
//!
//! Keys and credentials keep their id, settings and sessions. Only the secret changes, and both secrets work
//! until the overlap ends.

use chrono::TimeDelta;

use super::Core;
use super::admission::Caller;
use super::authorize::PresentedClient;
use super::error::{Managed, Refused};
use super::manage::Change;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{MerchantId, SecretId};
use crate::domain::record::SecretRecord;
use crate::domain::secret::{PlainSecret, SecretHash, StoredSecret};
use crate::store::secrets::{self, Owner};

/// The longest overlap: 30 days.
pub const OVERLAP_SECS_MAX: i64 = 30 * 24 * 3600;

/// The most live secrets of one owner.
const LIVE_MAX: usize = 5;

/// The first secret of a key or of credentials.
pub(super) fn first_secret(core: &Core, plain: &PlainSecret, now: Timestamp) -> StoredSecret {
    StoredSecret {
        id: SecretId::generate(now, &core.entropy),
        number: 1,
        hash: plain.hash(),
        hint: plain.hint(),
        overlap_secs: None,
        created_at: now,
        first_used_at: None,
        last_used_at: None,
        last_used_ip: None,
        ends_at: None,
    }
}

pub(super) fn check_overlap(overlap_secs: i64) -> Result<(), Refused> {
    if (0..=OVERLAP_SECS_MAX).contains(&overlap_secs) {
        Ok(())
    } else {
        Err(Refused::invalid("overlap_secs", format!("must be 0 to {OVERLAP_SECS_MAX}")))
    }
}

/// Adds a secret to its owner. The others keep working until `overlap_secs` after its first use.
pub(super) async fn add_secret(
    change: &mut Change<'_>,
    merchant: MerchantId,
    owner: Owner,
    secrets: &mut Vec<StoredSecret>,
    plain: &PlainSecret,
    overlap_secs: i64,
) -> Managed<()> {
    check_overlap(overlap_secs)?;
    let now = change.event.at;
    if secrets.iter().filter(|secret| secret.is_live(now)).count() >= LIVE_MAX {
        return Err(
            Refused::Conflict(format!("{LIVE_MAX} secrets are live; end an earlier one first")).into()
        );
    }
    let number = secrets.first().map_or(1, |newest| newest.number + 1);
    let first = first_secret(change.core, plain, now);
    let added = StoredSecret { number, overlap_secs: Some(overlap_secs), ..first };
    secrets::insert(&mut change.tx, merchant, owner, &added).await?;
    secrets::forget_ended(&mut change.tx, owner, number, now).await?;
    secrets.insert(0, added);
    Ok(())
}

/// Ends an older secret now. The newest one cannot be ended, because there must always be one.
pub(super) async fn end_secret(
    change: &mut Change<'_>,
    owner: Owner,
    secrets: &mut [StoredSecret],
    id: SecretId,
) -> Managed<()> {
    let now = change.event.at;
    if secrets.first().is_some_and(|newest| newest.id == id) {
        return Err(Refused::Conflict("the newest secret cannot be ended; rotate first".to_owned()).into());
    }
    let ended = secrets.iter_mut().find(|secret| secret.id == id).ok_or(Refused::NotFound)?;
    if secrets::end(&mut change.tx, owner, id, now).await? {
        ended.ends_at = Some(now);
    }
    change.event.detail = serde_json::json!({ "secret_id": id });
    Ok(())
}

/// How long before the end of a key or secret its answers announce it. This is also the longest overlap.
const ENDING: TimeDelta = TimeDelta::days(30);

/// When the key or secret that a caller used ends (RFC 8594).
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub at: Timestamp,
    /// When the newer secret that replaces this one was first used (RFC 9745). `None` if it ends for another reason.
    pub replaced_at: Option<Timestamp>,
}

impl Ending {
    /// The earlier of the two.
    pub fn first(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        [a, b].into_iter().flatten().min_by_key(|ending| ending.at)
    }

    fn of_secret(secrets: &[SecretRecord], hash: &SecretHash) -> Option<Self> {
        let place = secrets.iter().position(|secret| secret.hash.matches(hash))?;
        let (newer, own) = (&secrets[..place], secrets[place]);
        let replaced_at = newer.iter().filter_map(|secret| secret.first_used_at).min();
        own.ends_at.map(|at| Self { at, replaced_at })
    }

    fn soon(self, now: Timestamp) -> Option<Self> {
        (self.at <= now.plus(ENDING)).then_some(self)
    }
}

impl Caller {
    /// When the key or the secret that this call used ends, if that is soon.
    pub fn ending(&self, now: Timestamp) -> Option<Ending> {
        let key = self.key()?;
        let expiry = key.expires_at.map(|at| Ending { at, replaced_at: None });
        Ending::first(expiry, Ending::of_secret(&key.secrets, &self.hash))?.soon(now)
    }

    /// The same for a client secret.
    pub fn client_ending(&self, presented: &PresentedClient, now: Timestamp) -> Option<Ending> {
        let credential = self.record.credential_by_client_id(&presented.client_id)?;
        Ending::of_secret(&credential.secrets, &presented.hash)?.soon(now)
    }
}

/// Whether this secret can end without breaking anything: a newer one is in use, and this one has not been
/// used since.
pub fn is_safe_to_revoke(secrets: &[StoredSecret], secret: &StoredSecret) -> bool {
    let newer_since = secrets
        .iter()
        .filter(|other| other.number > secret.number)
        .filter_map(|other| other.first_used_at)
        .min();
    newer_since.is_some_and(|since| secret.last_used_at.is_none_or(|used| used < since))
}
