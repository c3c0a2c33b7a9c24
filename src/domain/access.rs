//! Access decisions about a key, an address, a client and a session.

use super::address::ClientAddress;
use super::api_key::IpMode;
use super::clock::Timestamp;
use super::ids::ApiKeyId;
use super::licence::Product;
use super::merchant::MerchantStatus;
use super::reason::Reason;
use super::record::{ClientRecord, KeyRecord, MerchantRecord, SecretRecord, with_hash};
use super::scope::{NothingLeft, Scopes};
use super::secret::SecretHash;
use super::session::Session;

/// Finds a key by its hash, and checks that it works now. The error says why it does not.
pub fn admit_key<'a>(
    record: &'a MerchantRecord,
    hash: &SecretHash,
    now: Timestamp,
) -> Result<(&'a KeyRecord, &'a SecretRecord), Reason> {
    let (key, secret) = record.api_key_by_hash(hash).ok_or(Reason::KeyUnknown)?;
    if key.is_expired(now) {
        Err(Reason::KeyExpired)
    } else if !secret.is_live(now) {
        Err(Reason::KeyReplaced)
    } else {
        merchant_is_good(record, now)?;
        Ok((key, secret))
    }
}

fn merchant_is_good(record: &MerchantRecord, now: Timestamp) -> Result<(), Reason> {
    if record.status == MerchantStatus::Suspended {
        Err(Reason::MerchantSuspended)
    } else if !record.licences.is_good(Product::ApiKeys, now) {
        Err(Reason::ApiKeysLicenceInactive)
    } else {
        Ok(())
    }
}

/// The result of checking an address against a key's allow list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressVerdict {
    Allowed,
    /// The address is outside the list, but the key only observes. The call is allowed and recorded.
    Observed,
    Refused,
}

pub fn judge_address(key: &KeyRecord, address: &ClientAddress) -> AddressVerdict {
    let is_allowed =
        key.allow_list.ranges().is_empty() || address.is_known && key.allow_list.allows(address.ip);
    match (is_allowed, key.ip_mode) {
        (true, _) => AddressVerdict::Allowed,
        (false, IpMode::Observe) => AddressVerdict::Observed,
        (false, IpMode::Enforce) => AddressVerdict::Refused,
    }
}

/// Checks a client id and secret that came with a key. Unknown ids and wrong secrets take the same
/// comparison, so that timing does not reveal which ids exist.
///
/// # Errors
/// The [`Reason`]. The caller sees the same answer for all reasons except the two about Enhanced Security.
pub fn admit_client<'a>(
    record: &'a MerchantRecord,
    key: ApiKeyId,
    client_id: &str,
    secret: &SecretHash,
    now: Timestamp,
) -> Result<(&'a ClientRecord, &'a SecretRecord), Reason> {
    let Some(credential) = record.credential_by_client_id(client_id) else {
        let _ = secret.matches(&SecretHash::from_bytes([0; 32]));
        return Err(Reason::ClientUnknown);
    };
    let stored = with_hash(&credential.secrets, secret).ok_or(Reason::ClientSecretWrong)?;
    if credential.api_key_id != key {
        Err(Reason::ClientOfAnotherKey)
    } else if !stored.is_live(now) {
        Err(Reason::ClientSecretReplaced)
    } else {
        credential_is_on(record, credential, now)?;
        Ok((credential, stored))
    }
}

fn credential_is_on(
    record: &MerchantRecord,
    credential: &ClientRecord,
    now: Timestamp,
) -> Result<(), Reason> {
    if !credential.enabled {
        Err(Reason::EnhancedSecurityOff)
    } else if !record.licences.is_good(Product::EnhancedSecurity, now) {
        Err(Reason::EnhancedSecurityLicenceInactive)
    } else {
        Ok(())
    }
}

/// The scopes of a new session: the requested ones, or all that the client may have.
///
/// # Errors
/// [`Reason::ScopeNotAllowed`] if the client may not have a requested scope, or has no scope at all.
pub fn grant_scopes(
    record: &MerchantRecord,
    credential: &ClientRecord,
    asked: Option<&Scopes>,
) -> Result<Option<Scopes>, Reason> {
    let key = record.api_key(credential.api_key_id).ok_or(Reason::KeyUnknown)?;
    let allowed = Scopes::in_all([credential.scopes.as_ref(), key.scopes.as_ref()])
        .map_err(|NothingLeft| Reason::ScopeNotAllowed)?;
    match (asked, allowed) {
        (Some(asked), Some(allowed)) if !asked.is_within(&allowed) => Err(Reason::ScopeNotAllowed),
        (Some(asked), _) => Ok(Some(asked.clone())),
        (None, allowed) => Ok(allowed),
    }
}

/// What a live session depends on.
pub struct Backing<'a> {
    pub key: &'a KeyRecord,
    pub credential: &'a ClientRecord,
    /// The session's current scopes: those that were granted and that the credentials and the key still have.
    pub scopes: Option<Scopes>,
}

/// Checks that everything a session depends on is still valid: its credentials and their epoch, the key, both
/// licences, the merchant, and at least one of its scopes. The error says what is not.
pub fn session_is_backed<'a>(
    record: &'a MerchantRecord,
    session: &Session,
    now: Timestamp,
) -> Result<Backing<'a>, Reason> {
    let credential = record.credential(session.credential_id).ok_or(Reason::SessionEnded)?;
    let key = record.api_key(credential.api_key_id).ok_or(Reason::KeyUnknown)?;
    if key.is_expired(now) {
        return Err(Reason::KeyExpired);
    }
    merchant_is_good(record, now)?;
    credential_is_on(record, credential, now)?;
    if credential.epoch != session.epoch {
        return Err(Reason::SessionEnded);
    }
    let limits = [session.scopes.as_ref(), credential.scopes.as_ref(), key.scopes.as_ref()];
    let scopes = Scopes::in_all(limits).map_err(|NothingLeft| Reason::ScopesTakenAway)?;
    Ok(Backing { key, credential, scopes })
}
