//! Merchants. What decides about their calls is in [`super::record`].

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use strum::{EnumString, IntoStaticStr};
use utoipa::ToSchema;

use super::clock::Timestamp;
use super::ids::MerchantId;
use super::licence::{Licences, StoredLicences};

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
