//! Revocation (RFC 7009): revoking any token of a session ends the session.

use serde_json::json;

use super::introspect::TokenRequester;
use super::principal::Origin;
use super::record::audit_event;
use super::{Core, Decided};
use crate::domain::event::{Actor, ActorKind};
use crate::domain::ids::SessionId;
use crate::domain::token::SealedToken;
use crate::store::{StoreError, audit, sessions};

impl Core {
    /// Ends the session of a token. A token that is unknown, or not this asker's, changes nothing and
    /// is no error (RFC 7009 2.2).
    pub async fn revoke(&self, requester: TokenRequester, token: &str, origin: Origin) -> Decided<()> {
        let token = SealedToken::parse(token);
        let (actor, own_credential, own_merchant) = match requester {
            TokenRequester::Client { mut caller, presented } => {
                // A stale record must not let a client act that is one no longer.
                if let Err(reason) = self.confirm(&mut caller).await? {
                    return Ok(Err(reason));
                }
                match self.admit_client(&mut caller, &presented).await? {
                    Ok(client) => {
                        let actor =
                            Actor { kind: ActorKind::Client, id: Some(presented.client_id), name: None };
                        (actor, Some(client.credential), Some(caller.record.merchant.id))
                    }
                    Err(reason) => return Ok(Err(reason)),
                }
            }
            TokenRequester::Service { service, .. } => {
                let id = Some(service.id.to_string());
                let actor = Actor { kind: ActorKind::AdminToken, id, name: Some(service.name) };
                (actor, None, service.merchant_id)
            }
        };
        let Some(token) = token else { return Ok(Ok(())) };
        let Some(found) = self.genuine_session(token).await? else { return Ok(Ok(())) };
        let session = found.session;
        let is_own = own_credential.is_none_or(|id| id == session.credential_id)
            && own_merchant.is_none_or(|id| id == session.merchant_id);
        if is_own {
            self.end_session(session.id, session.merchant_id, actor, origin).await?;
        }
        Ok(Ok(()))
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
        let mut event = audit_event(self, "session.revoked", "session", session.to_string());
        event.merchant_id = Some(merchant);
        event.actor = actor;
        event.client_ip = Some(origin.client_ip.to_string());
        event.request_id = Some(origin.request_id);
        event.detail = json!({});
        audit::append(&mut tx, &event).await?;
        tx.commit().await
    }
}
