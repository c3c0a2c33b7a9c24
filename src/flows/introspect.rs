//! Introspection (RFC 7662): the current state of a token.
//!
//! The answer is always current. The session is read together with its merchant's revision, and a cached
//! record is used only if it has that revision. Nothing is written.

use std::sync::Arc;

use super::Core;
use super::admission::Caller;
use super::authorize::PresentedClient;
use super::error::Decided;
use crate::domain::access::{self, Backing};
use crate::domain::admin::AdminToken;
use crate::domain::api_key::Environment;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{MerchantId, SessionId};
use crate::domain::record::MerchantRecord;
use crate::domain::scope::Scopes;
use crate::domain::session::{Session, judge_active};
use crate::domain::token::{Claims, SealedToken, TokenKind};
use crate::store::StoreError;
use crate::store::hot::Found;

/// The caller who asks about a token.
pub enum TokenRequester {
    /// A client, for its own tokens.
    Client { caller: Caller, presented: PresentedClient },
    /// One of the platform's services, for all tokens, or for those of one merchant.
    Service {
        service: AdminToken,
        /// Whether the service asks about a refresh token. A resource server does not, and must not accept a
        /// refresh token as an access token.
        expects_refresh_token: bool,
    },
}

/// An active token.
pub struct Active {
    pub kind: TokenKind,
    pub session: SessionId,
    pub generation: u32,
    pub client_id: String,
    pub merchant_id: MerchantId,
    pub environment: Environment,
    /// The current scopes. `None` means every scope.
    pub scopes: Option<Scopes>,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

impl Core {
    /// The inner `None` means that the token is not active, or that the requester may not know about it.
    pub async fn introspect(&self, requester: TokenRequester, token: &str) -> Decided<Option<Active>> {
        let token = SealedToken::parse(token);
        match requester {
            TokenRequester::Client { mut caller, presented } => {
                let client = self.admit_client(&mut caller, &presented).await?;
                let found = match token {
                    Some(token) => self.genuine_session(token).await?.map(|found| (token, found)),
                    None => None,
                };
                let own = found.filter(|(_, found)| found.session.credential_id == client.credential);
                let Some((token, found)) = own else {
                    // No statement has checked the record that admitted the client yet.
                    self.confirm_client(&mut caller, &presented).await?;
                    return Ok(None);
                };
                if found.revision != caller.record.revision {
                    self.reload(&mut caller).await?;
                    self.admit_client(&mut caller, &presented).await?;
                }
                Ok(self.active(&caller.record, &found.session, token.claims()))
            }
            TokenRequester::Service { service, expects_refresh_token } => {
                let is_meant =
                    |token: &SealedToken| token.claims().kind == TokenKind::Access || expects_refresh_token;
                let Some(token) = token.filter(is_meant) else { return Ok(None) };
                let Some(found) = self.genuine_session(token).await? else { return Ok(None) };
                if service.merchant_id.is_some_and(|id| id != found.session.merchant_id) {
                    return Ok(None);
                }
                let Some(record) = self.record_of(&found).await? else { return Ok(None) };
                Ok(self.active(&record, &found.session, token.claims()))
            }
        }
    }

    /// The record of a session's merchant, with the revision that was read with the session or a later one.
    pub(super) async fn record_of(&self, found: &Found) -> Result<Option<Arc<MerchantRecord>>, StoreError> {
        let id = found.session.merchant_id;
        match self.store.hot().cached_record(id) {
            Some(record) if record.revision == found.revision => Ok(Some(record)),
            _ => self.store.hot().load_record(id, self.now()).await,
        }
    }

    fn active(&self, record: &MerchantRecord, session: &Session, claims: Claims) -> Option<Active> {
        let now = self.now();
        let backing = access::session_is_backed(record, session, now).ok()?;
        judge_active(session, claims, now).ok()?;
        Some(self.described(session, claims, backing))
    }

    /// What callers learn about a token that was found active.
    pub(super) fn described(&self, session: &Session, claims: Claims, backing: Backing<'_>) -> Active {
        let issued_at = if claims.generation == session.generation {
            session.rotated_at
        } else {
            claims.expires_at.minus(self.lifetimes.access_ttl)
        };
        Active {
            kind: claims.kind,
            session: session.id,
            generation: claims.generation,
            client_id: backing.credential.client_id.to_string(),
            merchant_id: session.merchant_id,
            environment: backing.key.environment,
            scopes: backing.scopes,
            issued_at,
            expires_at: claims.expires_at,
        }
    }
}
