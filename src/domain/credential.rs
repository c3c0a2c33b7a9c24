//! Client credentials: the client id and secret that "Generate tokens" makes for an API key, and their
//! Enhanced Security switch.

use super::clock::Timestamp;
use super::entropy::Entropy;
use super::ids::{ApiKeyId, CredentialId, MerchantId};
use super::scope::Scopes;
use super::secret::StoredSecret;

#[derive(Clone, Debug)]
pub struct Credential {
    pub id: CredentialId,
    pub merchant_id: MerchantId,
    pub api_key_id: ApiKeyId,
    /// 32 hex characters; public, unique on the server.
    pub client_id: String,
    /// The Enhanced Security switch.
    pub enabled: bool,
    /// `None`: everything that the key may do. Within the key's when they are set; the key may be narrowed later.
    pub scopes: Option<Scopes>,
    /// Raised at every switch to OFF. A session begun in an earlier epoch is over: one counter ends
    /// them all at once, those included whose row is being written at this moment.
    pub epoch: i64,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Newest first.
    pub secrets: Vec<StoredSecret>,
}

/// A fresh client id: 32 hex characters from the CSPRNG.
pub fn generate_client_id(entropy: &Entropy) -> String {
    hex::encode(entropy.bytes::<16>())
}
