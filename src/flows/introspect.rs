//! Introspection (RFC 7662): what a token is worth at this moment.
//!
//! Always the current truth: the session is read together with its merchant's revision, and a record
//! in memory is believed only if it is of that revision. Nothing is written.

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

/// Who asks about a token.
pub enum TokenRequester {
    /// A client: about its own tokens.
    Client { caller: Caller, presented: PresentedClient },
    /// One of the platform's services: about every token, or those of the token's one merchant.
    Service {
        service: AdminToken,
        /// Whether it asks about a refresh token. Whoever guards a resource does not, and must not take one
        /// for an access token.
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
    /// What it may do at this moment; `None` is everything.
    pub scopes: Option<Scopes>,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

impl Core {
    /// `None` inside stands for a token that is not active, or not this asker's to know of.
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
                    // No statement has checked the record that admitted the client.
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

    /// The record of a session's merchant at the revision that was read with the session, or later.
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

    /// Decides about a key, and its access token where the key has Enhanced Security ON: forward
    /// authentication. Nothing is written; [`Core::note_verified`] comes after the answer.
    ///
    /// Where it is OFF the key passes alone, and what else a request carries is none of our business;
    /// but a token that we issued is held to what it is worth: after a switch to OFF, nothing.
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
            // A session that passed was read with its merchant's revision; all else is decided by the
            // record alone, and has to be held against the revision of now.
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

    /// Records the use of a key that [`Core::verify`] passed, without touching the store. `false` where that
    /// is not enough, as for the first use of a rotated secret: [`Core::note_verified`] is owed then.
    pub fn note_verified_later(&self, caller: &Caller) -> bool {
        let Some(secret) = caller.key_secret() else { return true };
        if secret.starts_an_overlap() {
            return false;
        }
        self.note_use_later(secret, &caller.address);
        true
    }

    /// Records the use of a key that [`Core::verify`] passed. Called after the answer.
    pub async fn note_verified(&self, caller: &Caller) -> Result<(), StoreError> {
        match caller.key_secret() {
            Some(secret) => self.note_use(caller.record.merchant.id, secret, &caller.address).await,
            None => Ok(()),
        }
    }
}
