//! What every list has: a page of it, and what was done before it was shown.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::context::MerchantContext;
use crate::http::admin::page::{PageQuery, Wanted};
use crate::http::error::Failure;

#[derive(Deserialize)]
pub(super) struct Listing {
    pub(super) cursor: Option<String>,
    pub(super) done: Option<String>,
}

impl MerchantContext {
    /// A page of the list `of` this merchant.
    ///
    /// # Errors
    /// 400 for a cursor of another list.
    pub(super) fn wanted<C: serde::Serialize + serde::de::DeserializeOwned>(
        &self,
        of: &str,
        cursor: Option<String>,
    ) -> Result<Wanted<'_, C>, Failure> {
        let of = format!("console {of} of {}", self.id());
        Wanted::new(self.context.core(), of, PageQuery { limit: None, cursor })
    }
}

/// A part of a query string: the filters that are set, each with `&` after it. Empty where none is.
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
