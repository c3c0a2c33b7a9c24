//! People and programs that administer: roles, permissions and their tokens.

use std::net::IpAddr;

use serde::{Deserialize, Serialize, Serializer};
use sqlx::FromRow;
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

use super::allow_list::AllowList;
use super::clock::Timestamp;
use super::ids::{AdminTokenId, MerchantId, UserId};
use super::stored::JsonText;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr, ToSchema)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// May manage every merchant, licences and users.
    Operator,
    /// May manage one merchant's keys, credentials and webhooks.
    MerchantAdmin,
    /// May read what a merchant admin can manage.
    MerchantViewer,
    /// A program of one merchant or of the platform. It may do only what its permissions allow.
    Service,
}

/// What a service token may do.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    ToSchema,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
pub enum Permission {
    /// Introspect the tokens of every client.
    #[serde(rename = "introspect")]
    #[strum(serialize = "introspect")]
    Introspect,
    /// End sessions.
    #[serde(rename = "revoke")]
    #[strum(serialize = "revoke")]
    Revoke,
    /// Publish events to webhooks.
    #[serde(rename = "events.write")]
    #[strum(serialize = "events.write")]
    EventsWrite,
    /// Read exchanges, sessions and webhook deliveries.
    #[serde(rename = "exchanges.read")]
    #[strum(serialize = "exchanges.read")]
    ExchangesRead,
    #[serde(rename = "audit.read")]
    #[strum(serialize = "audit.read")]
    AuditRead,
    /// Report secrets found in public.
    #[serde(rename = "leaks.report")]
    #[strum(serialize = "leaks.report")]
    LeaksReport,
    /// List merchants and their licences.
    #[serde(rename = "merchants.read")]
    #[strum(serialize = "merchants.read")]
    MerchantsRead,
    #[serde(rename = "merchants.write")]
    #[strum(serialize = "merchants.write")]
    MerchantsWrite,
    #[serde(rename = "licences.write")]
    #[strum(serialize = "licences.write")]
    LicencesWrite,
    /// Manage API keys with their credentials, secrets and webhook settings.
    #[serde(rename = "keys.write")]
    #[strum(serialize = "keys.write")]
    KeysWrite,
}

impl Permission {
    /// Whether only an operator can grant it.
    pub const fn is_of_platform(self) -> bool {
        matches!(self, Self::MerchantsWrite | Self::LicencesWrite)
    }
}

/// A rotation that is still under way: the previous secret works as well as the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenOverlap {
    pub secs: i64,
    /// When the previous secret ends. `None` until the newest is first used.
    pub earlier_ends_at: Option<Timestamp>,
}

fn end_of_earlier<S: Serializer>(overlap: &Option<TokenOverlap>, serializer: S) -> Result<S::Ok, S::Error> {
    overlap.and_then(|overlap| overlap.earlier_ends_at).serialize(serializer)
}

/// An overlap as it is stored. If the seconds are missing, there is no overlap.
#[derive(Debug, FromRow)]
struct StoredOverlap {
    overlap_secs: Option<i64>,
    earlier_ends_at: Option<Timestamp>,
}

impl From<StoredOverlap> for Option<TokenOverlap> {
    fn from(stored: StoredOverlap) -> Self {
        stored.overlap_secs.map(|secs| TokenOverlap { secs, earlier_ends_at: stored.earlier_ends_at })
    }
}

// Its secret is shown once; its SHA-256 is kept.
#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
#[schema(as = TokenView)]
pub struct AdminToken {
    pub id: AdminTokenId,
    pub name: String,
    pub role: Role,
    // Always set for the merchant roles and never for operators. For a service token, `None` means every
    // merchant.
    pub merchant_id: Option<MerchantId>,
    #[sqlx(try_from = "JsonText<Vec<Permission>>")]
    pub permissions: Vec<Permission>,
    /// Addresses and CIDR ranges that it may be used from; empty means any address.
    #[sqlx(rename = "allowed_ips")]
    #[serde(rename = "allowed_ips")]
    #[schema(value_type = Vec<String>)]
    pub allow_list: AllowList,
    /// When the previous secret stops working; null while that is not known.
    #[sqlx(flatten, try_from = "StoredOverlap")]
    #[serde(rename = "earlier_secret_ends_at", serialize_with = "end_of_earlier")]
    #[schema(value_type = Option<Timestamp>)]
    pub overlap: Option<TokenOverlap>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
}

impl AdminToken {
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether it may be used from this address. `None` means the address is unknown.
    pub fn may_come_from(&self, ip: Option<IpAddr>) -> bool {
        self.allow_list.ranges().is_empty() || ip.is_some_and(|ip| self.allow_list.allows(ip))
    }

    /// Operator and merchant tokens from before there were service tokens have only `introspect`, which
    /// allows `/api/revoke` as well.
    pub fn has(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
            || (self.role != Role::Service
                && permission == Permission::Revoke
                && self.permissions.contains(&Permission::Introspect))
    }
}

// A person who signs in to the console.
#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
#[schema(as = UserView)]
pub struct User {
    pub id: UserId,
    // Lower case.
    pub email: String,
    pub role: Role,
    // Set only for the merchant roles.
    pub merchant_id: Option<MerchantId>,
    pub locked_until: Option<Timestamp>,
    /// Whether signing in also needs a code from an authenticator app.
    #[serde(skip)]
    pub has_totp: bool,
    pub disabled_at: Option<Timestamp>,
    #[serde(skip)]
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub last_login_at: Option<Timestamp>,
}
