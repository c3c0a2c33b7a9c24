//! Admission: finds the merchant and key of a call, and checks the key and the caller's address.
//!
//! Decisions use a cached record, which may be outdated. A refusal is confirmed with the database before the
//! caller gets it. If the call is admitted, the statement that it leads to confirms the record.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::Core;
use super::error::{Decided, Error};
use super::failures::Surface;
use crate::domain::access::{self, AddressVerdict};
use crate::domain::address::ClientAddress;
use crate::domain::api_key::ApiKey;
use crate::domain::cell::CellId;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, MerchantId, SecretId};
use crate::domain::merchant::MerchantRecord;
use crate::domain::reason::Reason;
use crate::domain::secret::{SecretHash, StoredSecret, looks_like_api_key};
use crate::store::{StoreError, admin_tokens, secrets};

/// How many keys, and how many admin tokens, are loaded before they are first used: the newest ones. Others
/// are loaded when they are used.
const LEARNT_MAX: i64 = 10_000;

/// A caller with a known key, and the record that decides about it.
#[derive(Clone)]
pub struct Caller {
    pub record: Arc<MerchantRecord>,
    pub key_id: ApiKeyId,
    pub address: ClientAddress,
    pub(super) hash: SecretHash,
    /// Whether the record was read from the database during this call.
    is_fresh: bool,
}

/// The owner of a key, for the exchange record, also if the call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyOwner {
    pub merchant_id: MerchantId,
    pub api_key_id: ApiKeyId,
}

impl Core {
    /// Finds the merchant and key of an `X-API-KEY`, without checking whether the key works.
    pub async fn recognise(&self, key: &[u8], address: ClientAddress) -> Decided<Caller> {
        match hash_of(key) {
            Some(hash) => Ok(self.caller_of(hash, address).await?.ok_or_else(|| self.unknown_key(key))?),
            None => Err(Reason::KeyUnknown.into()),
        }
    }

    async fn caller_of(
        &self,
        hash: SecretHash,
        address: ClientAddress,
    ) -> Result<Option<Caller>, StoreError> {
        let Some((merchant_id, key_id)) = self.store.hot().key_owner(hash).await? else { return Ok(None) };
        let (record, is_fresh) = match self.store.hot().cached_record(merchant_id) {
            Some(record) => (record, false),
            None => match self.store.hot().load_record(merchant_id, self.now()).await? {
                Some(record) => (record, true),
                None => return Ok(None),
            },
        };
        Ok(Some(Caller { record, key_id, address, hash, is_fresh }))
    }

    /// Loads the hashes of keys that were made since `since` (`None` means all keys), and of all admin
    /// tokens. A caller with one of them is then admitted even if others at the same address have used up its
    /// failures, also by a replica that has not seen the caller before.
    pub async fn learn_secrets(&self, since: Option<Timestamp>) -> Result<(), StoreError> {
        let after = since.map_or(SecretId::nil(), SecretId::first_of);
        let now = self.now();
        let mut db = self.store.read().await?;
        let hot = self.store.hot();
        let mut late = BTreeSet::new();
        for (hash, merchant, key) in secrets::hashes_of_api_keys(&mut db, after, now, LEARNT_MAX).await? {
            if hot.known_owner(hash).is_none() {
                hot.learn_owner(hash, (merchant, key));
                late.extend(hot.cached_record(merchant).map(|_| merchant));
            }
        }
        for hash in admin_tokens::hashes(&mut db, now, LEARNT_MAX).await? {
            self.limits.good_tokens.insert(hash, ());
        }
        drop(db);
        // The cached record does not have the new key yet.
        for merchant in late {
            match hot.load_record(merchant, now).await {
                Ok(_) | Err(StoreError::Elsewhere) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Decides about an `X-API-KEY` that came from `ip`. Calls `note` with the key's owner, also if the key
    /// is refused.
    ///
    /// A key that this replica knows and that works according to the cache is admitted at once, whatever
    /// other calls come from its address. Other keys may need a query, and are checked only while the address
    /// has failures left.
    pub async fn admit_key(
        &self,
        key: &[u8],
        address: ClientAddress,
        ip: IpAddr,
        note: impl Fn(KeyOwner),
    ) -> Decided<Caller> {
        let hash = hash_of(key);
        if let Some(hash) = hash
            && self.store.hot().known_owner(hash).is_some()
            && let Some(caller) = self.caller_of(hash, address.clone()).await?
        {
            note(caller.owner());
            if caller.admit_key(self.now()).is_ok() {
                return Ok(caller);
            }
        }
        let attempt = async {
            let hash = hash.ok_or(Reason::KeyUnknown)?;
            let mut caller = self.caller_of(hash, address).await?.ok_or_else(|| self.unknown_key(key))?;
            note(caller.owner());
            self.decide(&mut caller, |caller, now| caller.admit_key(now)).await?;
            Ok(caller)
        };
        self.guard(Surface::Api, ip, attempt).await
    }

    fn unknown_key(&self, key: &[u8]) -> Reason {
        let shown = std::str::from_utf8(key).ok().and_then(CellId::of_api_key);
        if self.is_of_another_cell(shown, &self.counters.wrong_cell.key) {
            return Reason::KeyOfAnotherCell;
        }
        Reason::KeyUnknown
    }

    /// Whether the key may be used from the caller's address.
    pub async fn admit_address(&self, caller: &mut Caller) -> Decided<AddressVerdict> {
        let decided = self.decide(caller, Caller::admit_address).await;
        if matches!(decided, Err(Error::Refused(Reason::AddressNotAllowed))) {
            self.note_blocked(caller);
        }
        decided
    }

    /// Decides with the current record. A refusal from a cached record is decided again with a fresh one.
    pub(super) async fn decide<T>(
        &self,
        caller: &mut Caller,
        decision: impl Fn(&Caller, Timestamp) -> Result<T, Reason>,
    ) -> Decided<T> {
        match decision(caller, self.now()) {
            Err(_) if !caller.is_fresh => {
                self.reload(caller).await?;
                Ok(decision(caller, self.now())?)
            }
            decided => Ok(decided?),
        }
    }

    /// Reads the record again, and checks the key and the address again, because both may have changed.
    pub(super) async fn reload(&self, caller: &mut Caller) -> Decided<()> {
        let id = caller.record.merchant.id;
        let Some(record) = self.store.hot().load_record(id, self.now()).await? else {
            return Err(Reason::KeyUnknown.into());
        };
        caller.record = record;
        caller.is_fresh = true;
        let now = self.now();
        caller.admit_key(now)?;
        caller.admit_address(now)?;
        Ok(())
    }

    /// Makes sure that the record is current, for calls without a statement that checks it.
    pub async fn confirm(&self, caller: &mut Caller) -> Decided<()> {
        if caller.is_fresh {
            return Ok(());
        }
        let revision = self.store.hot().revision(caller.record.merchant.id).await?;
        if revision == Some(caller.record.merchant.revision) {
            return Ok(());
        }
        self.reload(caller).await
    }
}

impl Caller {
    fn admit_key(&self, now: Timestamp) -> Result<SecretId, Reason> {
        let admitted = access::admit_key(&self.record, &self.hash, now).map(|(_, secret)| secret.id);
        admitted.map_err(|reason| match reason {
            // The key belongs to this merchant, and the record has all keys that are not revoked.
            Reason::KeyUnknown if self.record.api_key(self.key_id).is_none() => Reason::KeyRevoked,
            reason => reason,
        })
    }

    fn admit_address(&self, _now: Timestamp) -> Result<AddressVerdict, Reason> {
        let key = self.key().ok_or(Reason::KeyUnknown)?;
        match access::judge_address(key, &self.address) {
            AddressVerdict::Refused if !self.address.is_known => Err(Reason::AddressUnreadable),
            AddressVerdict::Refused => Err(Reason::AddressNotAllowed),
            verdict => Ok(verdict),
        }
    }

    pub fn key(&self) -> Option<&ApiKey> {
        self.record.api_key(self.key_id)
    }

    /// The key's secret that this call used.
    pub fn key_secret(&self) -> Option<&StoredSecret> {
        let key = self.key()?;
        key.secrets.iter().find(|secret| secret.hash.matches(&self.hash))
    }

    pub fn owner(&self) -> KeyOwner {
        KeyOwner { merchant_id: self.record.merchant.id, api_key_id: self.key_id }
    }
}

/// The hash of a text that has the form of an API key.
fn hash_of(key: &[u8]) -> Option<SecretHash> {
    let key = std::str::from_utf8(key).ok().filter(|key| looks_like_api_key(key.as_bytes()))?;
    Some(SecretHash::of(key))
}
