//! Introspection (RFC 7662): the current state of a token.
//!
//! The answer is always current. The session is read together with its merchant's revision, and a cached
//! record is used only if it has that revision. Nothing is written.

use std::sync::Arc;

use super::admission::Caller;
use super::authorize::PresentedClient;
use super::error::{Decided, Fault};
use super::{Core, DECISIONS_MAX};
use crate::domain::access::{self, Backing};
use crate::domain::admin::AdminToken;
use crate::domain::api_key::Environment;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{MerchantId, SessionId};
use crate::domain::merchant::MerchantRecord;
use crate::domain::reason::Reason;
use crate::domain::scope::Scopes;
use crate::domain::session::{Session, judge_active};
use crate::domain::token::{Claims, SealedToken, TokenKind};
use crate::store::StoreError;
use crate::store::sessions::Found;

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
                if found.revision != caller.record.merchant.revision {
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
            Some(record) if record.merchant.revision == found.revision => Ok(Some(record)),
            _ => self.store.hot().load_record(id, self.now()).await,
        }
    }

    fn active(&self, record: &MerchantRecord, session: &Session, claims: Claims) -> Option<Active> {
        let now = self.now();
        let Backing { credential, scopes } = access::session_is_backed(record, session, now).ok()?;
        judge_active(session, claims, now).ok()?;
        let key = record.api_key(credential.api_key_id)?;
        let issued_at = if claims.generation == session.generation {
            session.rotated_at
        } else {
            claims.expires_at.minus(self.lifetimes.access_ttl)
        };
        Some(Active {
            kind: claims.kind,
            session: session.id,
            generation: claims.generation,
            client_id: credential.client_id.clone(),
            merchant_id: record.merchant.id,
            environment: key.environment,
            scopes,
            issued_at,
            expires_at: claims.expires_at,
        })
    }

    /// Forward authentication: decides about a key and, with Enhanced Security ON, its access token. Nothing
    /// is written. [`Core::note_verified`] is called after the answer.
    ///
    /// With Enhanced Security OFF, the key alone is enough, and other tokens in the request are ignored. But
    /// if the request has a token that we issued, it is checked: after a switch to OFF it is no longer valid.
    pub async fn verify(&self, caller: &mut Caller, token: Option<&str>) -> Decided<Option<Active>> {
        for _ in 0..DECISIONS_MAX {
            let found = match token.and_then(SealedToken::parse) {
                Some(token) => self.genuine_session(token).await?.map(|found| (token, found)),
                None => None,
            };
            let decided = match &found {
                Some((token, found)) => self.verify_session(caller, &found.session, token.claims()).map(Some),
                None if !caller.record.has_enhanced_security(caller.key_id) => Ok(None),
                None if token.is_none() => Err(Reason::TokenMissing),
                None => Err(Reason::TokenUnknown),
            };
            // An accepted session was read with its merchant's revision. Other decisions use only the record,
            // so they need the current revision.
            let revision = caller.record.merchant.revision;
            let is_current = match (&found, &decided) {
                (Some((_, found)), Ok(_)) => found.revision == revision,
                _ => self.store.hot().revision(caller.record.merchant.id).await? == Some(revision),
            };
            if is_current {
                return Ok(decided?);
            }
            self.reload(caller).await?;
        }
        Err(Fault::Busy.into())
    }

    fn verify_session(&self, caller: &Caller, session: &Session, claims: Claims) -> Result<Active, Reason> {
        let now = self.now();
        if claims.kind != TokenKind::Access {
            return Err(Reason::TokenUnknown);
        }
        let Backing { credential, .. } = access::session_is_backed(&caller.record, session, now)?;
        if credential.api_key_id != caller.key_id {
            return Err(Reason::TokenOfAnotherClient);
        }
        judge_active(session, claims, now)?;
        self.active(&caller.record, session, claims).ok_or(Reason::TokenUnknown)
    }

    /// Records the use of a key after [`Core::verify`], without a query. `false` if that is not enough, as
    /// for the first use of a rotated secret. Then call [`Core::note_verified`].
    pub fn note_verified_later(&self, caller: &Caller) -> bool {
        let Some(secret) = caller.key_secret() else { return true };
        if secret.starts_an_overlap() {
            return false;
        }
        self.note_use_later(secret, &caller.address);
        true
    }

    /// Records the use of a key after [`Core::verify`]. Call it after the answer.
    pub async fn note_verified(&self, caller: &Caller) -> Result<(), StoreError> {
        match caller.key_secret() {
            Some(secret) => self.note_use(caller.record.merchant.id, secret, &caller.address).await,
            None => Ok(()),
        }
    }
}
