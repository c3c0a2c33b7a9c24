//! Client credentials: the client id and secret that "Generate tokens" makes for an API key, with the
//! Enhanced Security switch.

use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;

use super::clock::Timestamp;
use super::entropy::Entropy;
use super::ids::{ApiKeyId, CredentialId, MerchantId};
use super::scope::Scopes;
use super::secret::StoredSecret;

#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
pub struct Credential {
    #[serde(skip)]
    pub id: CredentialId,
    /// 32 hex characters, after the three digits of the cell if there is one. It is not a secret.
    pub client_id: String,
    pub merchant_id: MerchantId,
    pub api_key_id: ApiKeyId,
    /// The Enhanced Security switch.
    pub enabled: bool,
    // They are checked against the key's scopes when they are set, but the key may be narrowed later.
    /// The scopes of the credentials; null means every scope of the key.
    #[schema(value_type = Option<Vec<String>>)]
    pub scopes: Option<Scopes>,
    /// Raised each time the switch is turned OFF. A session from an earlier epoch is over, so raising this
    /// one counter ends all sessions at once, even one whose row is being written at that moment.
    #[serde(skip)]
    pub epoch: i64,
    #[serde(skip)]
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Newest first.
    #[sqlx(skip)]
    #[serde(skip)]
    pub secrets: Vec<StoredSecret>,
}

/// A new client id: the digits of the cell, if there is one, then 32 hex characters from the CSPRNG.
pub fn generate_client_id(entropy: &Entropy) -> String {
    format!("{}{}", entropy.cell_digits(), hex::encode(entropy.bytes::<16>()))
}
