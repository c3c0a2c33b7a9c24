//! Forward authentication: whether a key, and its access token where it needs one, may pass.
//!
//! As for introspection, the session is read together with its merchant's revision, and a cached record is
//! used only if it has that revision. Without a session, the current revision is read.

use super::admission::Caller;
use super::error::{Decided, Fault};
use super::introspect::Active;
use super::{Core, DECISIONS_MAX};
use crate::domain::access;
use crate::domain::reason::Reason;
use crate::domain::session::{Session, judge_active};
use crate::domain::token::{Claims, SealedToken, TokenKind};
use crate::store::StoreError;

impl Core {
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
            let revision = caller.record.revision;
            let is_current = match (&found, &decided) {
                (Some((_, found)), Ok(_)) => found.revision == revision,
                _ => self.store.hot().revision(caller.record.id).await? == Some(revision),
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
        let backing = access::session_is_backed(&caller.record, session, now)?;
        if backing.key.id != caller.key_id {
            return Err(Reason::TokenOfAnotherClient);
        }
        judge_active(session, claims, now)?;
        Ok(self.described(session, claims, backing))
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
            Some(secret) => self.note_use(caller.record.id, secret, &caller.address).await,
            None => Ok(()),
        }
    }
}
