//! How the API shows a secret of a key or of credentials, without the secret itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shown::Shown;
use crate::domain::clock::Timestamp;
use crate::domain::secret::StoredSecret;
use crate::flows::rotation::is_safe_to_revoke;

#[derive(Serialize, ToSchema)]
#[schema(as = SecretView)]
pub struct SecretState {
    active: bool,
    /// True if a newer secret is in use and this one has not been used since.
    safe_to_revoke: bool,
}

pub type SecretView = Shown<StoredSecret, SecretState>;

/// All secrets of one owner, newest first.
pub fn views(secrets: &[StoredSecret], now: Timestamp) -> Vec<SecretView> {
    let view = |secret: &StoredSecret| Shown {
        object: secret.clone(),
        worked_out: SecretState {
            active: secret.is_live(now),
            safe_to_revoke: is_safe_to_revoke(secrets, secret),
        },
    };
    secrets.iter().map(view).collect()
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
