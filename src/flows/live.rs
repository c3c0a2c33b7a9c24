//! Counts what is live now, to show it before somebody ends it.

use super::Core;
use super::error::Managed;
use super::principal::Principal;
use crate::domain::ids::{ApiKeyId, CredentialId, MerchantId};
use crate::store::sessions;

/// Counting stops at one more than this, so that the caller can tell that there are more.
pub const SESSIONS_COUNTED_MAX: i64 = 10_000;

/// Whose sessions to count.
#[derive(Clone, Copy, Debug)]
pub enum Whose {
    Merchant,
    Key(ApiKeyId),
    Client(CredentialId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    pub sessions: i64,
}

impl Core {
    /// What is live for a merchant, or for one of its keys or clients.
    pub async fn live(&self, principal: &Principal, merchant: MerchantId, whose: Whose) -> Managed<Live> {
        self.must_exist(principal, merchant).await?;
        let (key, client) = match whose {
            Whose::Merchant => (None, None),
            Whose::Key(key) => (Some(key), None),
            Whose::Client(client) => (None, Some(client)),
        };
        let mut db = self.store.read().await?;
        let sessions =
            sessions::count_live(&mut db, merchant, key, client, self.now(), SESSIONS_COUNTED_MAX + 1)
                .await?;
        Ok(Live { sessions })
    }
}
