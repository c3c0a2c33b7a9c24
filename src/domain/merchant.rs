//! Merchants, and the record of everything that decides whether a merchant's calls are allowed.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use strum::{EnumString, IntoStaticStr};
use utoipa::ToSchema;

use super::api_key::ApiKey;
use super::clock::Timestamp;
use super::credential::Credential;
use super::ids::{ApiKeyId, CredentialId, MerchantId};
use super::licence::{Licences, StoredLicences};
use super::scope::Scopes;
use super::secret::{SecretHash, StoredSecret};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr, ToSchema)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum MerchantStatus {
    Active,
    Suspended,
}

#[derive(Clone, Debug, FromRow, Serialize, Deserialize, ToSchema)]
#[schema(as = MerchantView)]
pub struct Merchant {
    pub id: MerchantId,
    pub name: String,
    // Any name. [`super::api_key::MULTIPLE_JSON_GATEWAY`] allows the second webhook format.
    pub gateway: String,
    pub status: MerchantStatus,
    #[sqlx(flatten, try_from = "StoredLicences")]
    pub licences: Licences,
    /// Every change to the merchant, its licences, keys, credentials or their secrets raises this number in
    /// the same transaction. Statements that issue or verify compare it, so an outdated record in memory
    /// can never authorise anything.
    #[serde(skip)]
    pub revision: i64,
    /// Another cell serves the merchant, or none for a moment. Absent if this one does.
    #[serde(rename = "elsewhere", default, skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub is_elsewhere: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Merchant {
    /// For If-Match. The revision would not do: it also changes with every key and licence.
    pub const fn version(&self) -> i64 {
        self.updated_at.micros()
    }
}

/// A merchant with its keys and credentials, all read at one revision.
#[derive(Clone, Debug)]
pub struct MerchantRecord {
    pub merchant: Merchant,
    pub api_keys: Vec<ApiKey>,
    pub credentials: Vec<Credential>,
}

impl MerchantRecord {
    /// Its size in memory.
    pub fn bytes(&self) -> usize {
        let secrets = |secrets: &Vec<StoredSecret>| secrets.iter().map(StoredSecret::bytes).sum::<usize>();
        let scopes = |scopes: &Option<Scopes>| scopes.as_ref().map_or(0, |scopes| scopes.as_str().len());
        let of_key = |key: &ApiKey| {
            let url = key.webhook_url.as_ref().map_or(0, String::len);
            let ranges = size_of_val(key.allow_list.ranges());
            size_of::<ApiKey>() + key.name.len() + url + ranges + scopes(&key.scopes) + secrets(&key.secrets)
        };
        let of_client = |client: &Credential| {
            size_of::<Credential>()
                + client.client_id.len()
                + scopes(&client.scopes)
                + secrets(&client.secrets)
        };
        let keys: usize = self.api_keys.iter().map(of_key).sum();
        let clients: usize = self.credentials.iter().map(of_client).sum();
        size_of::<Self>() + self.merchant.name.len() + self.merchant.gateway.len() + keys + clients
    }

    pub fn api_key(&self, id: ApiKeyId) -> Option<&ApiKey> {
        self.api_keys.iter().find(|key| key.id == id)
    }

    pub fn api_key_by_hash(&self, hash: &SecretHash) -> Option<&ApiKey> {
        self.api_keys.iter().find(|key| key.secrets.iter().any(|secret| secret.hash.matches(hash)))
    }

    pub fn credential(&self, id: CredentialId) -> Option<&Credential> {
        self.credentials.iter().find(|credential| credential.id == id)
    }

    pub fn credential_by_client_id(&self, client_id: &str) -> Option<&Credential> {
        self.credentials.iter().find(|credential| credential.client_id == client_id)
    }

    /// Whether this key has credentials with Enhanced Security switched ON.
    pub fn has_enhanced_security(&self, key: ApiKeyId) -> bool {
        self.credentials.iter().any(|credential| credential.api_key_id == key && credential.enabled)
    }
}
