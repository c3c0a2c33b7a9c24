//! Revocation (RFC 7009): revoking any token of a session ends the session.

use serde_json::json;

use super::Core;
use super::error::Decided;
use super::introspect::TokenRequester;
use super::principal::Origin;
use crate::domain::event::{Actor, ActorKind, EventType};
use crate::domain::ids::SessionId;
use crate::domain::token::SealedToken;
use crate::store::{StoreError, audit, sessions};

impl Core {
    /// Ends the session of a token. An unknown token, or one that the requester may not revoke, changes
    /// nothing and is not an error (RFC 7009 2.2).
    pub async fn revoke(&self, requester: TokenRequester, token: &str, origin: Origin) -> Decided<()> {
        let token = SealedToken::parse(token);
        let (actor, own_credential, own_merchant) = match requester {
            TokenRequester::Client { mut caller, presented } => {
                // Confirm the record, so that a client that is no longer valid cannot revoke anything.
                self.confirm(&mut caller).await?;
                let client = self.admit_client(&mut caller, &presented).await?;
                let actor = Actor { kind: ActorKind::Client, id: Some(presented.client_id), name: None };
                (actor, Some(client.credential), Some(caller.record.id))
            }
            TokenRequester::Service { service, .. } => {
                let id = Some(service.id.to_string());
                let actor = Actor { kind: ActorKind::AdminToken, id, name: Some(service.name) };
                (actor, None, service.merchant_id)
            }
        };
        let Some(token) = token else { return Ok(()) };
        let Some(found) = self.genuine_session(token).await? else { return Ok(()) };
        let session = found.session;
        let is_own = own_credential.is_none_or(|id| id == session.credential_id)
            && own_merchant.is_none_or(|id| id == session.merchant_id);
        if is_own {
            self.end_session(session.id, session.merchant_id, actor, origin).await?;
        }
        Ok(())
    }

    async fn end_session(
        &self,
        session: SessionId,
        merchant: crate::domain::ids::MerchantId,
        actor: Actor,
        origin: Origin,
    ) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        if !sessions::revoke(&mut tx, session, "revoked", self.now()).await? {
            return Ok(());
        }
        let mut event = self.audit_event(EventType::SessionRevoked).about(session);
        event.merchant_id = Some(merchant);
        event.actor = actor;
        event.client_ip = Some(origin.client_ip.to_string());
        event.request_id = Some(origin.request_id);
        event.detail = json!({});
        audit::append(&mut tx, &event).await?;
        tx.commit().await
    }
}
