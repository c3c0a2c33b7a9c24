//! Who an admin token stands for.

use std::net::IpAddr;

use super::failures::Surface;
use super::{Core, Decided};
use crate::domain::access::Reason;
use crate::domain::admin::AdminToken;
use crate::domain::secret::{ADMIN_TOKEN_CHARS, ADMIN_TOKEN_PREFIX, PlainSecret};
use crate::store::StoreError;

impl Core {
    /// Decides about an admin token that came from `ip`, and that must also be `fit` for what is asked.
    ///
    /// A token that was good when this replica last saw it is looked at again, whatever else comes from its
    /// address. All others stay within the failures that the address has left.
    pub async fn admit_admin_token(
        &self,
        surface: Surface,
        ip: IpAddr,
        presented: &PlainSecret,
        fit: impl Fn(&AdminToken) -> bool,
    ) -> Decided<AdminToken> {
        let attempt = async || {
            let token = self.admin_token(presented).await?;
            Ok(token.filter(&fit).ok_or(Reason::ServiceTokenUnknown))
        };
        let (hash, good) = (presented.hash(), &self.limits.good_tokens);
        if good.contains_key(&hash) {
            if let Ok(token) = attempt().await? {
                return Ok(Ok(token));
            }
            good.invalidate(&hash);
        }
        let decided = self.guard(surface, ip, attempt()).await?;
        if decided.is_ok() {
            good.insert(hash, ());
        }
        Ok(decided)
    }

    /// The live admin token that was presented; `None` for any other text.
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn admin_token(&self, presented: &PlainSecret) -> Result<Option<AdminToken>, StoreError> {
        let text = presented.expose();
        if text.len() != ADMIN_TOKEN_CHARS || !text.starts_with(ADMIN_TOKEN_PREFIX) {
            return Ok(None);
        }
        let token = self.store.hot().admin_token(presented.hash()).await?;
        let live = token.filter(|token| token.is_live(self.now()));
        if let Some(token) = &live {
            self.note_admin_token_use(token.id);
        }
        Ok(live)
    }
}
