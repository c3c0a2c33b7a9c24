//! Finds admin tokens that may do more than they are used for. If such a token leaks, it does more harm than
//! it has to. So the audit trail names each of them once, and lists of tokens mark them.

use std::collections::HashMap;

use chrono::TimeDelta;
use serde_json::json;

use super::Core;
use crate::domain::admin::{AdminToken, Permission};
use crate::domain::event::EventType;
use crate::domain::ids::AdminTokenId;
use crate::store::{StoreError, admin_tokens, audit};

/// A token that changed nothing for this long counts as one that never changes anything.
const IDLE_AFTER: TimeDelta = TimeDelta::days(30);

/// The same for a token with the permission `introspect`, which is clearly meant for introspection.
const INTROSPECTS_AFTER: TimeDelta = TimeDelta::days(1);

/// Why a token should be replaced by a narrower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Advice {
    /// It may introspect and has changed nothing. A service token with `introspect` is enough.
    OnlyIntrospects,
    /// It has changed nothing for a month. A service token that can only read is enough.
    ChangesNothing,
    NeverUsed,
}

impl Core {
    /// The live tokens that should be narrowed.
    pub async fn tokens_to_narrow(&self) -> Result<HashMap<AdminTokenId, Advice>, StoreError> {
        let found = self.broad_tokens().await?;
        Ok(found.into_iter().map(|(token, advice)| (token.id, advice)).collect())
    }

    /// Writes each token that should be narrowed to the audit trail, once. Returns how many were written.
    pub async fn advise_narrowing(&self) -> Result<u64, StoreError> {
        let mut told = 0;
        for (token, advice) in self.broad_tokens().await? {
            let mut event = self.audit_event(EventType::AdminTokenTooBroad);
            event.object_id = Some(token.id.to_string());
            event.merchant_id = token.merchant_id;
            event.detail = json!({
                "name": token.name, "role": token.role, "why": <&str>::from(advice),
                "last_used_at": token.last_used_at,
            });
            let mut tx = self.store.begin().await?;
            // Only one of several replicas writes the event.
            if admin_tokens::tell_narrow(&mut tx, token.id, event.at).await? {
                audit::append(&mut tx, &event).await?;
                told += 1;
            }
            tx.commit().await?;
        }
        Ok(told)
    }

    async fn broad_tokens(&self) -> Result<Vec<(AdminToken, Advice)>, StoreError> {
        let now = self.now();
        let mut db = self.store.read().await?;
        let tokens = admin_tokens::broad(&mut db, now, now.minus(INTROSPECTS_AFTER)).await?;
        let ids = tokens.iter().map(|token| token.id);
        let busy = audit::tokens_that_changed(&mut db, ids, now.minus(IDLE_AFTER)).await?;
        let advice = |token: &AdminToken| {
            let is_old = token.created_at <= now.minus(IDLE_AFTER);
            if busy.contains(&token.id) {
                None
            } else if token.permissions.contains(&Permission::Introspect) {
                Some(Advice::OnlyIntrospects)
            } else if token.last_used_at.is_none() {
                is_old.then_some(Advice::NeverUsed)
            } else {
                is_old.then_some(Advice::ChangesNothing)
            }
        };
        Ok(tokens.into_iter().filter_map(|token| advice(&token).map(|why| (token, why))).collect())
    }
}
