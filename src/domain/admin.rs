//! People and programs that administer: roles, permissions and their tokens.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr};
use utoipa::ToSchema;

use super::clock::Timestamp;
use super::ids::{AdminTokenId, MerchantId, UserId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr, ToSchema)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// The platform: every merchant, licences, users.
    Operator,
    /// One merchant's keys, credentials, webhooks.
    MerchantAdmin,
    /// The same, reading only.
    MerchantViewer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// See and check every client's tokens: for the platform's own services.
    Introspect,
}

/// A token for the admin API. Its secret is shown once; its SHA-256 is kept.
#[derive(Clone, Debug)]
pub struct AdminToken {
    pub id: AdminTokenId,
    pub name: String,
    pub role: Role,
    /// Set for the merchant roles alone.
    pub merchant_id: Option<MerchantId>,
    pub permissions: Vec<Permission>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
}

impl AdminToken {
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// A person who signs in to the console.
#[derive(Clone, Debug)]
pub struct User {
    pub id: UserId,
    /// Lower case.
    pub email: String,
    pub role: Role,
    /// Set for the merchant roles alone.
    pub merchant_id: Option<MerchantId>,
    pub locked_until: Option<Timestamp>,
    /// Whether signing in takes a code from an authenticator app as well.
    pub has_totp: bool,
    pub disabled_at: Option<Timestamp>,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub last_login_at: Option<Timestamp>,
}
