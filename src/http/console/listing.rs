//! What every list has: a page of it, and what was done before it was shown.

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
