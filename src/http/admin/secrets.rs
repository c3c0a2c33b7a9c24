//! How the API shows a secret of a key or of credentials, without the secret itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::clock::Timestamp;
use crate::domain::ids::SecretId;
use crate::domain::secret::StoredSecret;
use crate::flows::rotation::is_safe_to_revoke;

#[derive(Serialize, ToSchema)]
pub struct SecretView {
    id: SecretId,
    /// Its last characters.
    hint: String,
    created_at: Timestamp,
    first_used_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    last_used_ip: Option<String>,
    /// When it stops working; null while that is not known.
    ends_at: Option<Timestamp>,
    active: bool,
    /// True if a newer secret is in use and this one has not been used since.
    safe_to_revoke: bool,
}

/// All secrets of one owner, newest first.
pub fn views(secrets: &[StoredSecret], now: Timestamp) -> Vec<SecretView> {
    secrets
        .iter()
        .map(|secret| SecretView {
            id: secret.id,
            hint: secret.hint.clone(),
            created_at: secret.created_at,
            first_used_at: secret.first_used_at,
            last_used_at: secret.last_used_at,
            last_used_ip: secret.last_used_ip.clone(),
            ends_at: secret.ends_at,
            active: secret.is_live(now),
            safe_to_revoke: is_safe_to_revoke(secrets, secret),
        })
        .collect()
}

/// A rotation with overlap.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// How many seconds the previous secret still works after the first use of the new one; the default is a
    /// day.
    #[schema(minimum = 0, maximum = 2_592_000)]
    #[serde(default = "a_day_secs")]
    pub overlap_secs: i64,
}

const fn a_day_secs() -> i64 {
    24 * 3600
}
