//! Refresh: a token of the current generation moves its session to the next one (RFC 6749 6, RFC 9700
//! 4.14.2).
//!
//! The rule is in [`crate::domain::session::judge_refresh`]. This flow reads the row, applies the rule, and
//! updates the row only if it still has the generation that was read. If several callers use the same token,
//! one of them updates the row. The others see the new generation, apply the rule again, and get the same
//! pair.

use serde_json::json;

use super::admission::Caller;
use super::authorize::{Issued, PresentedClient};
use super::error::{Decided, Fault, commit_then_refuse};
use super::{Core, DECISIONS_MAX};
use crate::domain::access;
use crate::domain::address::ClientAddress;
use crate::domain::cell::CellId;
use crate::domain::event::{Actor, ActorKind, EventType, WebhookEvent};
use crate::domain::ids::CredentialId;
use crate::domain::reason::Reason;
use crate::domain::scope::Scopes;
use crate::domain::session::{Session, Verdict, judge_refresh};
use crate::domain::token::{SealedToken, TokenKind};
use crate::store::hot::{Found, Rotate};
use crate::store::outbox::Audience;
use crate::store::{audit, outbox, sessions};

impl Core {
    /// Refreshes the session of `token`. It keeps its scopes, and `asked` must not contain others.
    /// `request_id` is for the audit trail.
    pub async fn refresh(
        &self,
        caller: &mut Caller,
        presented: &PresentedClient,
        token: &str,
        asked: Option<&Scopes>,
        request_id: &str,
    ) -> Decided<Issued> {
        let token = SealedToken::parse(token).filter(|token| token.claims().kind == TokenKind::Refresh);
        for _ in 0..DECISIONS_MAX {
            // Authenticate the client first, so that strangers learn nothing about tokens.
            let client = self.admit_client(caller, presented).await?;
            let token = token.ok_or(Reason::TokenUnknown)?;
            if let Some(issued) = self.rotate_remembered(caller, client.credential, token, asked).await? {
                return Ok(issued);
            }
            let own = match self.genuine_session(token).await? {
                Some(found) if found.session.credential_id == client.credential => Ok(found),
                Some(_) => Err(Reason::TokenOfAnotherClient),
                None => Err(Reason::TokenUnknown),
            };
            let found = match own {
                Ok(found) => found,
                Err(reason) => {
                    self.confirm_client(caller, presented).await?;
                    return Err(reason.into());
                }
            };
            let session = found.session;
            if found.revision != caller.record.revision {
                self.reload(caller).await?;
                continue;
            }
            let scopes = access::session_is_backed(&caller.record, &session, self.now())?.scopes;
            match judge_refresh(&session, token.claims(), self.lifetimes, self.now()) {
                Verdict::Refuse(reason) => return Err(reason.into()),
                Verdict::Rotate | Verdict::Repeat if !session.has_scopes(asked) => {
                    return Err(Reason::ScopeNotGranted.into());
                }
                Verdict::Repeat => {
                    self.counters.repeated.add_one();
                    return Ok(Issued { pair: self.pair_of(&session)?, scopes });
                }
                Verdict::Replay => {
                    // Boxed, because this future is large and rare, and would make every call's future
                    // larger.
                    return Box::pin(self.end_replayed(caller, &session, token, request_id)).await;
                }
                Verdict::Rotate => {
                    if let Some(issued) = self.rotate(caller, session, scopes).await? {
                        return Ok(issued);
                    }
                    // The row has changed in the meantime, so decide again.
                }
            }
        }
        Err(Fault::Busy.into())
    }

    /// Rotates a cached session without reading its row. `None` if the cache is outdated or not enough to
    /// decide. A cached session is never a reason to refuse.
    async fn rotate_remembered(
        &self,
        caller: &Caller,
        credential: CredentialId,
        token: SealedToken,
        asked: Option<&Scopes>,
    ) -> Result<Option<Issued>, Fault> {
        let Some(session) = self.store.hot().remembered_session(token.claims().session) else {
            return Ok(None);
        };
        let now = self.now();
        let Ok(backing) = access::session_is_backed(&caller.record, &session, now) else { return Ok(None) };
        let may_rotate = session.credential_id == credential
            && self.is_genuine(token, &session)?
            && session.has_scopes(asked)
            && judge_refresh(&session, token.claims(), self.lifetimes, now) == Verdict::Rotate;
        if may_rotate {
            self.rotate(caller, Session::clone(&session), backing.scopes).await
        } else {
            Ok(None)
        }
    }

    /// Rotates a session if its generation and the merchant's revision are still those of the decision.
    /// `None` if one of them has changed.
    async fn rotate(
        &self,
        caller: &Caller,
        mut session: Session,
        scopes: Option<Scopes>,
    ) -> Result<Option<Issued>, Fault> {
        let rotation = Rotate {
            session: session.id,
            generation: session.generation,
            revision: caller.record.revision,
            now: self.now(),
        };
        let Some(rotated) = self.store.hot().rotate_session(rotation).await? else { return Ok(None) };
        self.counters.refreshed.add_one();
        self.note_refreshed(session.credential_id);
        session.generation = rotated.generation;
        session.rotated_at = rotated.rotated_at;
        let pair = self.pair_of(&session)?;
        self.store.hot().remember_session(session);
        Ok(Some(Issued { pair, scopes }))
    }

    /// The session of a token, if we sealed the token.
    pub(super) async fn genuine_session(&self, token: SealedToken) -> Result<Option<Found>, Fault> {
        let id = token.claims().session;
        let Some(found) = self.store.hot().look_up_session(id).await? else {
            self.is_of_another_cell(CellId::of_id(id.uuid()), &self.counters.wrong_cell.token);
            return Ok(None);
        };
        Ok(self.is_genuine(token, &found.session)?.then_some(found))
    }

    /// Whether we sealed the token. An `Err` if the key to check it is missing here.
    fn is_genuine(&self, token: SealedToken, session: &Session) -> Result<bool, Fault> {
        if let Some(signer) = self.keyring.signer_by_id(session.token_key_id) {
            return Ok(token.is_genuine(&signer, &session.secret));
        }
        let key = self.keyring.key_of(session.token_key_id);
        if self.keyring.is_lost(key) { Ok(false) } else { Err(self.key_missing(key)) }
    }

    /// Ends a session after a replay, because somebody else may have its token. This is recorded and
    /// committed before the caller is refused. The result is always a refusal.
    async fn end_replayed(
        &self,
        caller: &Caller,
        session: &Session,
        token: SealedToken,
        request_id: &str,
    ) -> Decided<Issued> {
        let now = self.now();
        let mut tx = self.store.begin().await?;
        if !sessions::revoke(&mut tx, session.id, "replayed", now).await? {
            // The session has already ended, and that is recorded.
            return Err(Reason::TokenReplayed.into());
        }
        self.counters.replayed.add_one();
        let credential = caller.record.credential(session.credential_id);
        let client_id = credential.map(|credential| credential.client_id.to_string());
        let detail = json!({
            "client_id": client_id,
            "presented_generation": token.claims().generation,
            "current_generation": session.generation,
        });
        let data = json!({
            "session_id": session.id,
            "client_id": client_id,
            "api_key_id": caller.key_id,
            "client_ip": caller.address.ip.to_string(),
        });
        let event_type = EventType::SessionReplayDetected;
        let event = WebhookEvent::new(event_type, session.merchant_id, data, now, &self.entropy);
        outbox::publish(&mut tx, &event, Audience::Key(caller.key_id), &self.entropy).await?;
        let mut event = self.audit_event(event_type).about(session.id);
        event.merchant_id = Some(session.merchant_id);
        event.actor = Actor { kind: ActorKind::Client, id: client_id, name: None };
        event.client_ip = Some(address_text(&caller.address));
        event.request_id = Some(request_id.to_owned());
        event.detail = detail;
        audit::append(&mut tx, &event).await?;
        commit_then_refuse(tx, Reason::TokenReplayed).await
    }
}

fn address_text(address: &ClientAddress) -> String {
    address.ip.to_string()
}
