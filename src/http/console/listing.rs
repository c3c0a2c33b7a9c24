//! What every list needs: pages, filters and the notice about the last action.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::context::MerchantContext;
use super::form::filled;
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
