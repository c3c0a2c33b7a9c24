//! Authenticating callers by an admin token.

use std::net::IpAddr;

use chrono::TimeDelta;

use super::Core;
use super::error::Decided;
use super::failures::Surface;
use crate::domain::admin::{AdminToken, TokenOverlap};
use crate::domain::cell::CellId;
use crate::domain::clock::Timestamp;
use crate::domain::reason::Reason;
use crate::domain::secret::{PlainSecret, SecretHash, looks_like_admin_token};
use crate::store::StoreError;
use crate::store::admin_tokens::{self, Presented};

/// A call with an admin token.
#[derive(Clone, Copy, Debug)]
pub struct AdminCall<'a> {
    pub surface: Surface,
    pub ip: IpAddr,
    pub request_id: &'a str,
    pub method: &'a str,
    /// The pattern of the path, without the ids.
    pub route: &'a str,
}

impl Core {
    /// Decides about the admin token of a call. The token must also be `fit` for it.
    ///
    /// A token that was valid when this replica last saw it is always checked again. Other tokens are checked
    /// only while the address has failures left.
    pub async fn admit_admin_token(
        &self,
        call: AdminCall<'_>,
        presented: &PlainSecret,
        fit: impl Fn(&AdminToken) -> bool,
    ) -> Decided<AdminToken> {
        let (hash, good) = (presented.hash(), &self.limits.good_tokens);
        if good.contains_key(&hash) {
            if let Some(found) = self.live_token(presented).await?.filter(|found| fit(&found.token)) {
                return Ok(self.used(found).await?);
            }
            good.invalidate(&hash);
        }
        let attempt = async {
            let found = self.live_token(presented).await?.ok_or(Reason::ServiceTokenUnknown)?;
            if !fit(&found.token) {
                self.note_refused_call(&found.token, &call, Reason::ServiceTokenUnfit);
                return Err(Reason::ServiceTokenUnfit.into());
            }
            Ok(found)
        };
        let found = self.guard(call.surface, call.ip, attempt).await?;
        good.insert(hash, ());
        Ok(self.used(found).await?)
    }

    /// The presented admin token, if it is live. `None` for any other text.
    async fn live_token(&self, presented: &PlainSecret) -> Result<Option<Presented>, StoreError> {
        if !looks_like_admin_token(presented.expose()) {
            return Ok(None);
        }
        let now = self.now();
        let Some(found) = self.store.hot().admin_token(presented.hash()).await? else {
            self.must_not_be_elsewhere(presented.hash(), now).await?;
            let shown = CellId::of_admin_token(presented.expose());
            self.is_of_another_cell(shown, &self.counters.wrong_cell.admin_token);
            return Ok(None);
        };
        Ok(found.is_live(now).then_some(found))
    }

    /// Notes the use of a token.
    async fn used(&self, found: Presented) -> Result<AdminToken, StoreError> {
        let Presented { token, is_earlier } = found;
        if let (false, Some(TokenOverlap { secs, earlier_ends_at: None })) = (is_earlier, token.overlap) {
            // This is the first use of the newest secret, so the previous one ends after the overlap.
            let mut tx = self.store.begin().await?;
            admin_tokens::end_earlier(&mut tx, token.id, self.now().plus(TimeDelta::seconds(secs))).await?;
            tx.commit().await?;
        }
        self.note_admin_token_use(token.id);
        Ok(token)
    }

    /// Fails with [`StoreError::Elsewhere`] if this is a token of a merchant that another cell serves, or that is on its
    /// way there. So its caller tries again, as with a key, until the proxy knows where the merchant is.
    async fn must_not_be_elsewhere(&self, hash: SecretHash, now: Timestamp) -> Result<(), StoreError> {
        if self.cell.is_none() {
            return Ok(());
        }
        match admin_tokens::by_hash_in_any_cell(&mut self.store.read().await?, hash).await? {
            Some(found) if found.is_live(now) => Err(StoreError::Elsewhere),
            _ => Ok(()),
        }
    }
}
