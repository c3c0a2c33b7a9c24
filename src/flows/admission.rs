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
use crate::domain::ids::{ApiKeyId, SecretId};
use crate::domain::reason::Reason;
use crate::domain::record::{KeyOwner, KeyRecord, MerchantRecord, SecretRecord, with_hash};
use crate::domain::secret::{SecretHash, looks_like_api_key};
use crate::store::{StoreError, admin_tokens, api_keys, secrets};

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

impl Core {
    /// Finds the merchant and key of an `X-API-KEY`, without checking whether the key works.
    pub async fn recognise(&self, key: &[u8], address: ClientAddress) -> Decided<Caller> {
        match hash_of(key) {
            Some(hash) => {
                let owner = self.store.hot().known_owner(hash);
                Ok(self.caller_of(hash, owner, address).await?.ok_or_else(|| self.unknown_key(key))?)
            }
            None => Err(Reason::KeyUnknown.into()),
        }
    }

    async fn caller_of(
        &self,
        hash: SecretHash,
        owner: Option<KeyOwner>,
        address: ClientAddress,
    ) -> Result<Option<Caller>, StoreError> {
        let hot = self.store.hot();
        let cached = owner.and_then(|owner| Some((owner, hot.cached_record(owner.merchant_id)?)));
        let is_fresh = cached.is_none();
        let found = match cached {
            Some(cached) => Some(cached),
            None => hot.load_record_of_key(hash, self.now()).await?,
        };
        Ok(found.map(|(owner, record)| Caller { record, key_id: owner.api_key_id, address, hash, is_fresh }))
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
        for (hash, owner) in secrets::hashes_of_api_keys(&mut db, after, now, LEARNT_MAX).await? {
            if hot.known_owner(hash).is_none() {
                hot.learn_owner(hash, owner);
                late.extend(hot.cached_record(owner.merchant_id).map(|_| owner.merchant_id));
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
        let owner = hash.and_then(|hash| self.store.hot().known_owner(hash));
        if let (Some(hash), Some(_)) = (hash, owner)
            && let Some(caller) = self.caller_of(hash, owner, address.clone()).await?
        {
            note(caller.owner());
            if caller.admit_key(self.now()).is_ok() {
                return Ok(caller);
            }
        }
        let attempt = async {
            let hash = hash.ok_or(Reason::KeyUnknown)?;
            let mut caller =
                self.caller_of(hash, owner, address).await?.ok_or_else(|| self.unknown_key(key))?;
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
        let id = caller.record.id;
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

    /// The key of a call with everything that people see of it, which its record does not have.
    pub async fn key_of(&self, caller: &Caller) -> Result<Option<ApiKey>, StoreError> {
        api_keys::by_id(&mut self.store.read().await?, caller.key_id).await
    }

    /// Makes sure that the record is current, for calls without a statement that checks it.
    pub async fn confirm(&self, caller: &mut Caller) -> Decided<()> {
        if caller.is_fresh {
            return Ok(());
        }
        let revision = self.store.hot().revision(caller.record.id).await?;
        if revision == Some(caller.record.revision) {
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

    pub fn key(&self) -> Option<&KeyRecord> {
        self.record.api_key(self.key_id)
    }

    /// The key's secret that this call used.
    pub fn key_secret(&self) -> Option<&SecretRecord> {
        with_hash(&self.key()?.secrets, &self.hash)
    }

    pub fn owner(&self) -> KeyOwner {
        KeyOwner { merchant_id: self.record.id, api_key_id: self.key_id }
    }
}

/// The hash of a text that has the form of an API key.
fn hash_of(key: &[u8]) -> Option<SecretHash> {
    let key = std::str::from_utf8(key).ok().filter(|key| looks_like_api_key(key.as_bytes()))?;
    Some(SecretHash::of(key))
}
