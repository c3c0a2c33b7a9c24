//! Secrets of API keys and client credentials: the first, the next, and the end of an earlier one.
//!
//! The same for both kinds. Keys and credentials keep their id, settings and sessions; only the secret
//! changes hands, and both work until the overlap is over.

use super::Core;
use super::manage::{Change, Refused, Stop};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{MerchantId, SecretId};
use crate::domain::secret::{PlainSecret, StoredSecret};
use crate::store::secrets::{self, Owner};

/// The longest overlap: 30 days.
pub const OVERLAP_SECS_MAX: i64 = 30 * 24 * 3600;

/// Secrets of one owner that are live at a time.
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

/// Adds a secret to those of its owner. The others go on until `overlap_secs` after its first use.
pub(super) async fn add_secret(
    change: &mut Change<'_>,
    merchant: MerchantId,
    owner: Owner,
    secrets: &mut Vec<StoredSecret>,
    plain: &PlainSecret,
    overlap_secs: i64,
) -> Result<(), Stop> {
    if !(0..=OVERLAP_SECS_MAX).contains(&overlap_secs) {
        return Err(Refused::invalid("overlap_secs", format!("must be 0 to {OVERLAP_SECS_MAX}")).into());
    }
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
    secrets.insert(0, added);
    Ok(())
}

/// Ends an earlier secret now. The newest stays: without it there would be none.
pub(super) async fn end_secret(
    change: &mut Change<'_>,
    owner: Owner,
    secrets: &mut [StoredSecret],
    id: SecretId,
) -> Result<(), Stop> {
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

/// Whether nothing would break if this secret ended: a newer one is in use, and this one has not been
/// used since.
#[must_use]
pub fn is_safe_to_revoke(secrets: &[StoredSecret], secret: &StoredSecret) -> bool {
    let newer_since = secrets
        .iter()
        .filter(|other| other.number > secret.number)
        .filter_map(|other| other.first_used_at)
        .min();
    newer_since.is_some_and(|since| secret.last_used_at.is_none_or(|used| used < since))
}
