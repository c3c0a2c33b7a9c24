//! The record of a merchant: everything that decides whether its calls are allowed, and nothing else, because many
//! records are kept in memory. What people see of a merchant is in [`super::merchant`], [`super::api_key`] and
//! [`super::credential`].

use super::allow_list::AllowList;
use super::api_key::{Environment, IpMode};
use super::clock::Timestamp;
use super::ids::{ApiKeyId, CredentialId, MerchantId, SecretId};
use super::licence::Licences;
use super::merchant::MerchantStatus;
use super::scope::Scopes;
use super::secret::SecretHash;

/// All of it was read at one revision. It has no revoked keys, and not their credentials.
#[derive(Clone, Debug)]
pub struct MerchantRecord {
    pub id: MerchantId,
    pub revision: i64,
    pub status: MerchantStatus,
    pub licences: Licences,
    pub api_keys: Box<[KeyRecord]>,
    pub credentials: Box<[ClientRecord]>,
}

#[derive(Clone, Debug)]
pub struct KeyRecord {
    pub id: ApiKeyId,
    pub environment: Environment,
    pub allow_list: AllowList,
    pub ip_mode: IpMode,
    /// The key has a webhook, and it is enabled.
    pub has_webhook: bool,
    pub scopes: Option<Scopes>,
    pub expires_at: Option<Timestamp>,
    pub secrets: Box<[SecretRecord]>,
}

#[derive(Clone, Debug)]
pub struct ClientRecord {
    pub id: CredentialId,
    pub client_id: Box<str>,
    pub api_key_id: ApiKeyId,
    /// Enhanced Security is ON.
    pub enabled: bool,
    pub scopes: Option<Scopes>,
    pub epoch: i64,
    pub secrets: Box<[SecretRecord]>,
}

/// A secret of a key or a client. The newest one is the first in its list.
#[derive(Clone, Copy, Debug)]
pub struct SecretRecord {
    pub id: SecretId,
    pub hash: SecretHash,
    /// How long the previous secret still works after the first use of this one. `None` for the first secret.
    pub overlap_secs: Option<u32>,
    pub first_used_at: Option<Timestamp>,
    pub ends_at: Option<Timestamp>,
}

/// The owner of an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyOwner {
    pub merchant_id: MerchantId,
    pub api_key_id: ApiKeyId,
}

impl MerchantRecord {
    /// Its size in memory.
    pub fn bytes(&self) -> usize {
        let scopes = |scopes: &Option<Scopes>| scopes.as_ref().map_or(0, |scopes| scopes.as_str().len());
        let of_key = |key: &KeyRecord| {
            size_of_val(key)
                + size_of_val(key.allow_list.ranges())
                + scopes(&key.scopes)
                + size_of_val(&*key.secrets)
        };
        let of_client = |client: &ClientRecord| {
            size_of_val(client)
                + client.client_id.len()
                + scopes(&client.scopes)
                + size_of_val(&*client.secrets)
        };
        let keys: usize = self.api_keys.iter().map(of_key).sum();
        let clients: usize = self.credentials.iter().map(of_client).sum();
        size_of::<Self>() + keys + clients
    }

    pub fn api_key(&self, id: ApiKeyId) -> Option<&KeyRecord> {
        self.api_keys.iter().find(|key| key.id == id)
    }

    /// The key with this hash among its secrets, and that secret.
    pub fn api_key_by_hash(&self, hash: &SecretHash) -> Option<(&KeyRecord, &SecretRecord)> {
        self.api_keys.iter().find_map(|key| Some((key, with_hash(&key.secrets, hash)?)))
    }

    /// The hashes of its API keys, with their owner.
    pub fn owners(&self) -> impl Iterator<Item = (SecretHash, KeyOwner)> {
        self.api_keys.iter().flat_map(|key| {
            let owner = KeyOwner { merchant_id: self.id, api_key_id: key.id };
            key.secrets.iter().map(move |secret| (secret.hash, owner))
        })
    }

    pub fn credential(&self, id: CredentialId) -> Option<&ClientRecord> {
        self.credentials.iter().find(|credential| credential.id == id)
    }

    pub fn credential_by_client_id(&self, client_id: &str) -> Option<&ClientRecord> {
        self.credentials.iter().find(|credential| *credential.client_id == *client_id)
    }

    /// Whether this key has credentials with Enhanced Security switched ON.
    pub fn has_enhanced_security(&self, key: ApiKeyId) -> bool {
        self.credentials.iter().any(|credential| credential.api_key_id == key && credential.enabled)
    }
}

impl KeyRecord {
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

impl SecretRecord {
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.ends_at.is_none_or(|end| now < end)
    }

    /// Whether the next use of this secret starts the countdown of the previous one.
    pub const fn starts_an_overlap(&self) -> bool {
        self.overlap_secs.is_some() && self.first_used_at.is_none()
    }
}

/// Compares in constant time with each secret.
pub fn with_hash<'a>(secrets: &'a [SecretRecord], hash: &SecretHash) -> Option<&'a SecretRecord> {
    secrets.iter().find(|secret| secret.hash.matches(hash))
}
