//! Client credentials: the client id and secret that "Generate tokens" makes for an API key, with the
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
    /// 32 hex characters. Public, and unique across all merchants.
    pub client_id: String,
    /// The Enhanced Security switch.
    pub enabled: bool,
    /// `None` means everything that the key may do. They are checked against the key's scopes when they are
    /// set, but the key may be narrowed later.
    pub scopes: Option<Scopes>,
    /// Raised each time the switch is turned OFF. A session from an earlier epoch is over, so raising this
    /// one counter ends all sessions at once, even one whose row is being written at that moment.
    pub epoch: i64,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Newest first.
    pub secrets: Vec<StoredSecret>,
}

/// A new client id: 32 hex characters from the CSPRNG.
pub fn generate_client_id(entropy: &Entropy) -> String {
    hex::encode(entropy.bytes::<16>())
}
