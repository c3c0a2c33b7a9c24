//! Licences: what a merchant has bought. A licence is checked at each call, so it ends exactly at its
//! time and no job is needed.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use strum::{EnumString, IntoStaticStr};
use utoipa::ToSchema;

use super::clock::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr, ToSchema)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Product {
    /// Allows making and using API keys.
    ApiKeys,
    /// Allows making client credentials, switching them ON, and using their tokens.
    EnhancedSecurity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = LicenceView)]
pub struct Licence {
    pub active: bool,
    pub expires_at: Option<Timestamp>,
}

impl Licence {
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.active && self.expires_at.is_none_or(|end| now < end)
    }
}

/// Null means that the product was never licensed.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = LicencesView)]
pub struct Licences {
    pub api_keys: Option<Licence>,
    pub enhanced_security: Option<Licence>,
}

/// Both licences as the row of a merchant has them. A product that was never licensed has no `active`.
#[derive(Debug, FromRow)]
pub struct StoredLicences {
    api_keys_active: Option<bool>,
    api_keys_expires_at: Option<Timestamp>,
    enhanced_security_active: Option<bool>,
    enhanced_security_expires_at: Option<Timestamp>,
}

impl From<StoredLicences> for Licences {
    fn from(stored: StoredLicences) -> Self {
        let licence = |active: Option<bool>, expires_at| active.map(|active| Licence { active, expires_at });
        Self {
            api_keys: licence(stored.api_keys_active, stored.api_keys_expires_at),
            enhanced_security: licence(stored.enhanced_security_active, stored.enhanced_security_expires_at),
        }
    }
}

impl Licences {
    pub const fn of(&self, product: Product) -> Option<Licence> {
        match product {
            Product::ApiKeys => self.api_keys,
            Product::EnhancedSecurity => self.enhanced_security,
        }
    }

    pub fn is_good(&self, product: Product, now: Timestamp) -> bool {
        self.of(product).is_some_and(|licence| licence.is_good(now))
    }
}
