//! What every list needs: pages, filters and the notice about the last action.

use std::collections::{HashMap, HashSet};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use uuid::Uuid;

use super::context::MerchantContext;
use super::form::filled;
use crate::domain::api_key::ApiKey;
use crate::domain::ids::ApiKeyId;
use crate::http::admin::page::{PageQuery, Wanted};
use crate::http::error::Failure;

#[derive(Default, Deserialize)]
pub(super) struct Listing {
    /// The text to search for, if the list can be searched.
    #[serde(default, deserialize_with = "filled")]
    pub(super) q: Option<String>,
    pub(super) cursor: Option<String>,
    pub(super) done: Option<String>,
}

impl MerchantContext {
    /// The requested page of this merchant's list `of`. The cursor of another list is 400.
    pub(super) fn wanted<C: serde::Serialize + serde::de::DeserializeOwned>(
        &self,
        of: &str,
        cursor: Option<String>,
    ) -> Result<Wanted<'_, C>, Failure> {
        let of = format!("console {of} of {}", self.id());
        Wanted::new(self.context.core(), of, PageQuery { limit: None, cursor })
    }
}

/// How many keys a filter offers: as many as a merchant can have that are not revoked.
const KEYS_MAX: i64 = 200;

/// The names of a merchant's keys.
pub(super) struct KeyNames {
    pub(super) newest: Vec<ApiKey>,
    others: HashMap<Uuid, String>,
}

impl KeyNames {
    pub(super) fn key(&self, id: ApiKeyId) -> Option<&ApiKey> {
        self.newest.iter().find(|key| key.id == id)
    }

    /// The name of a key, or its id if the key does not exist any more.
    pub(super) fn of(&self, id: ApiKeyId) -> String {
        let name = self.key(id).map(|key| &key.name).or_else(|| self.others.get(&id.uuid()));
        name.cloned().unwrap_or_else(|| id.to_string())
    }

    /// The keys that a filter offers.
    pub(super) fn choices(&self) -> Vec<(ApiKeyId, String)> {
        self.newest.iter().map(|key| (key.id, key.name.clone())).collect()
    }
}

impl MerchantContext {
    /// The names of the merchant's newest keys and of those with these ids.
    pub(super) async fn key_names(&self, ids: impl Iterator<Item = ApiKeyId>) -> Result<KeyNames, Failure> {
        let (core, principal) = (self.context.core(), &self.context.principal);
        let newest = core.api_keys(principal, self.id(), None, KEYS_MAX).await?;
        let listed: HashSet<ApiKeyId> = newest.iter().map(|key| key.id).collect();
        let others: Vec<Uuid> = ids.filter(|id| !listed.contains(id)).map(ApiKeyId::uuid).collect();
        let others = match others.is_empty() {
            true => HashMap::new(),
            false => core.names(principal, Some(self.id()), others).await?,
        };
        Ok(KeyNames { newest, others })
    }
}

/// The part of a query string with the filters that are set, each followed by `&`.
pub(super) fn carried(filters: &[(&str, Option<&str>)]) -> String {
    let set = filters.iter().filter_map(|(name, value)| value.map(|value| (name, value)));
    set.map(|(name, value)| format!("{name}={}&", encoded(value))).collect()
}

/// The link to the next page of a filtered list.
pub(super) fn next_page(carried: &str, cursor: Option<&str>) -> Option<String> {
    cursor.map(|cursor| format!("?{carried}cursor={}", encoded(cursor)))
}

pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
