//! Secrets found in public. Only the reported secret ends.
//!
//! Anybody with an admin token may report a secret. So neither the answer, nor its time, nor the reporter's
//! own audit trail reveals whether it was one of ours. The owner learns about it from an audit event and a
//! webhook, which do not name the reporter. A secret that no longer works counts as unknown, so it ends
//! nothing and adds nothing to the owner's trail. If another cell serves the owner, the secret cannot end here:
//! the reporter gets the usual answer, and operators are told which secret it is.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Core;
use super::error::{Fault, Managed};
use super::principal::Principal;
use crate::domain::api_key::ApiKey;
use crate::domain::clock::Timestamp;
use crate::domain::event::{AuditEvent, EventType, WebhookEvent};
use crate::domain::ids::{ApiKeyId, CredentialId, MerchantId, SecretId};
use crate::domain::secret::{PlainSecret, SecretHash};
use crate::domain::session::judge_active;
use crate::domain::token::SealedToken;
use crate::store::admin_tokens::Presented;
use crate::store::hot::Found;
use crate::store::outbox::{self, Audience};
use crate::store::secrets::{self, LiveSecret, Owner};
use crate::store::{
    StoreError, Tx, admin_tokens, api_keys, audit, credentials, merchants, sessions, webhook_secrets,
};

/// Answers are sent only at the end of a slot of this length, because ending a secret takes longer than
/// finding nothing.
const SLOT: Duration = Duration::from_millis(100);

/// A secret of ours that works, as far as this cell knows.
enum Working {
    Token(Found),
    KeyOrClientSecret(LiveSecret),
    WebhookSecret(SecretId, ApiKey),
    AdminToken(Presented),
}

impl Working {
    const fn merchant(&self) -> Option<MerchantId> {
        match self {
            Self::Token(found) => Some(found.session.merchant_id),
            Self::KeyOrClientSecret(secret) => Some(secret.merchant),
            Self::WebhookSecret(_, owner) => Some(owner.merchant_id),
            Self::AdminToken(presented) => presented.token.merchant_id,
        }
    }
}

/// The object that ended, for the event to its owner.
struct Ended {
    event_type: EventType,
    object_id: String,
    merchant: Option<MerchantId>,
    audience: Audience,
    detail: Value,
}

impl Core {
    /// Ends a secret that was found in public, if it is one of ours and still works. The caller does not
    /// learn whether it was.
    pub async fn report_leak(&self, principal: &Principal, presented: &PlainSecret) -> Managed<()> {
        let event = self.event_by(principal, EventType::LeakReported);
        self.on_record(&event, async { Ok(principal.must_not_only_look()?) }).await?;
        let begun = Instant::now();
        let result = self.end_leaked(principal, presented.expose().trim()).await;
        let slots = begun.elapsed().as_millis() / SLOT.as_millis() + 1;
        tokio::time::sleep_until(begun + SLOT * u32::try_from(slots).unwrap_or(u32::MAX)).await;
        Ok(result?)
    }

    async fn end_leaked(&self, principal: &Principal, presented: &str) -> Result<(), Fault> {
        self.index_webhook_secrets().await?;
        let session = match SealedToken::parse(presented) {
            Some(token) => self
                .genuine_session(token)
                .await?
                .filter(|found| judge_active(&found.session, token.claims(), self.now()).is_ok()),
            None => None,
        };
        let now = self.now();
        let mut tx = self.store.begin().await?;
        let found = match session {
            Some(found) => Some(Working::Token(found)),
            None => find(&mut tx, SecretHash::of(presented), now).await?,
        };
        // Write two events in all cases, so that the numbers of later events reveal nothing.
        let outcome = match found {
            Some(found) => match end(&mut tx, &found, now).await {
                Ok(Some(ended)) => self.tell_owner(&mut tx, ended, now).await?,
                Ok(None) => self.not_ours(),
                Err(StoreError::Elsewhere) => self.tell_operators(&mut tx, &found).await?,
                Err(error) => return Err(error.into()),
            },
            None => self.not_ours(),
        };
        audit::append_all(&mut tx, &[self.event_by(principal, EventType::LeakReported), outcome]).await?;
        Ok(tx.commit().await?)
    }

    fn not_ours(&self) -> AuditEvent {
        self.audit_event(EventType::LeakNotOurs).about("")
    }

    /// Another cell serves the merchant, and the secret may still work there.
    async fn tell_operators(&self, tx: &mut Tx, found: &Working) -> Result<AuditEvent, StoreError> {
        let (kind, object_id) = match found {
            Working::Token(found) => ("token", found.session.id.to_string()),
            Working::KeyOrClientSecret(secret) => match secret.owner {
                Owner::ApiKey(id) => ("api_key", id.to_string()),
                Owner::Credential(id) => ("client_secret", credentials::client_of(tx, id).await?.0),
            },
            Working::WebhookSecret(_, owner) => ("webhook_secret", owner.id.to_string()),
            Working::AdminToken(presented) => ("admin_token", presented.token.id.to_string()),
        };
        tracing::warn!(
            kind,
            object_id,
            "a leaked secret was reported, but another cell serves its merchant: end it there"
        );
        let mut event = self.audit_event(EventType::LeakOfAnotherCell).about(object_id);
        event.merchant_id = found.merchant();
        event.detail = json!({ "kind": kind });
        Ok(event)
    }

    async fn tell_owner(&self, tx: &mut Tx, ended: Ended, now: Timestamp) -> Result<AuditEvent, StoreError> {
        let mut event = self.audit_event(ended.event_type).about(ended.object_id);
        event.merchant_id = ended.merchant;
        event.detail = ended.detail.clone();
        if let Some(merchant) = ended.merchant {
            let told = WebhookEvent::new(ended.event_type, merchant, ended.detail, now, &self.entropy);
            outbox::publish(tx, &told, ended.audience, &self.entropy).await?;
        }
        Ok(event)
    }

    /// Adds missing hashes to webhook secrets. Earlier releases stored none, and a rollback to one makes such
    /// secrets again.
    async fn index_webhook_secrets(&self) -> Result<(), StoreError> {
        let mut after = SecretId::nil();
        loop {
            let page = webhook_secrets::without_hash(&mut self.store.read().await?, after).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id;
            let hashes = page
                .iter()
                .filter_map(|sealed| Some((sealed.id, self.open_webhook_secret(sealed)?.to_plain().hash())));
            let hashes: Vec<_> = hashes.collect();
            let mut tx = self.store.begin().await?;
            for (id, hash) in hashes {
                webhook_secrets::set_hash(&mut tx, id, hash).await?;
            }
            tx.commit().await?;
        }
    }
}

async fn find(tx: &mut Tx, hash: SecretHash, now: Timestamp) -> Result<Option<Working>, StoreError> {
    if let Some(secret) = secrets::live_by_hash(tx, hash, now).await? {
        return Ok(Some(Working::KeyOrClientSecret(secret)));
    }
    if let Some((id, key)) = webhook_secrets::live_by_hash(tx, hash, now).await? {
        return Ok(api_keys::by_id(tx, key).await?.map(|owner| Working::WebhookSecret(id, owner)));
    }
    let found = admin_tokens::by_hash_in_any_cell(tx, hash).await?;
    Ok(found.filter(|presented| presented.is_live(now)).map(Working::AdminToken))
}

/// `None` if the secret ended in the meantime. Fails with [`StoreError::Elsewhere`] if another cell serves the
/// merchant, where the end would be lost.
async fn end(tx: &mut Tx, found: &Working, now: Timestamp) -> Result<Option<Ended>, StoreError> {
    match found {
        Working::Token(found) => end_session(tx, found, now).await,
        Working::KeyOrClientSecret(secret) => end_key_or_client_secret(tx, secret, now).await,
        Working::WebhookSecret(id, owner) => end_webhook_secret(tx, *id, owner, now).await,
        Working::AdminToken(presented) => end_admin_token(tx, presented, now).await,
    }
}

async fn end_session(tx: &mut Tx, found: &Found, now: Timestamp) -> Result<Option<Ended>, StoreError> {
    let session = &found.session;
    if !sessions::revoke(tx, session.id, "leaked", now).await? {
        return Ok(None);
    }
    let (client_id, key) = credentials::client_of(tx, session.credential_id).await?;
    Ok(Some(Ended {
        event_type: EventType::SessionLeaked,
        object_id: session.id.to_string(),
        merchant: Some(session.merchant_id),
        audience: Audience::Key(key),
        detail: json!({ "session_id": session.id, "client_id": client_id, "api_key_id": key }),
    }))
}

async fn end_key_or_client_secret(
    tx: &mut Tx,
    secret: &LiveSecret,
    now: Timestamp,
) -> Result<Option<Ended>, StoreError> {
    merchants::lock(tx, secret.merchant).await?;
    // The secret may have ended before we got the lock.
    if !secrets::end(tx, secret.owner, secret.id, now).await? {
        return Ok(None);
    }
    match secret.owner {
        Owner::ApiKey(key) => key_secret_ended(tx, secret.merchant, key, &secret.hint, now).await,
        Owner::Credential(id) => client_secret_ended(tx, secret.merchant, id, &secret.hint).await.map(Some),
    }
}

/// If the key's last secret leaked, the key is revoked for good and cannot be restored. If it has another
/// secret, it keeps working with that.
async fn key_secret_ended(
    tx: &mut Tx,
    merchant: MerchantId,
    id: ApiKeyId,
    hint: &str,
    now: Timestamp,
) -> Result<Option<Ended>, StoreError> {
    let Some(mut key) = api_keys::by_id(tx, id).await? else { return Ok(None) };
    let is_over = !key.secrets.iter().any(|secret| secret.is_live(now));
    if is_over && !key.leaked {
        key.leaked = true;
        key.revoked_at = key.revoked_at.or(Some(now));
        key.updated_at = now;
        api_keys::update(tx, &key).await?;
    }
    Ok(Some(Ended {
        event_type: EventType::ApiKeyLeaked,
        object_id: id.to_string(),
        merchant: Some(merchant),
        audience: Audience::Key(id),
        detail: json!({ "api_key_id": id, "name": key.name, "secret_hint": hint, "key_revoked": is_over }),
    }))
}

async fn client_secret_ended(
    tx: &mut Tx,
    merchant: MerchantId,
    id: CredentialId,
    hint: &str,
) -> Result<Ended, StoreError> {
    let (client_id, key) = credentials::client_of(tx, id).await?;
    Ok(Ended {
        event_type: EventType::CredentialsLeaked,
        object_id: client_id.clone(),
        merchant: Some(merchant),
        audience: Audience::Key(key),
        detail: json!({ "client_id": client_id, "api_key_id": key, "secret_hint": hint }),
    })
}

async fn end_webhook_secret(
    tx: &mut Tx,
    id: SecretId,
    owner: &ApiKey,
    now: Timestamp,
) -> Result<Option<Ended>, StoreError> {
    merchants::by_id(tx, owner.merchant_id).await?;
    if !webhook_secrets::end(tx, id, now).await? {
        return Ok(None);
    }
    Ok(Some(Ended {
        event_type: EventType::WebhookSecretLeaked,
        object_id: owner.id.to_string(),
        merchant: Some(owner.merchant_id),
        audience: Audience::Key(owner.id),
        detail: json!({ "api_key_id": owner.id, "name": owner.name }),
    }))
}

async fn end_admin_token(
    tx: &mut Tx,
    presented: &Presented,
    now: Timestamp,
) -> Result<Option<Ended>, StoreError> {
    let token = &presented.token;
    if let Some(merchant) = token.merchant_id {
        merchants::by_id(tx, merchant).await?;
    }
    if presented.is_earlier {
        admin_tokens::end_earlier(tx, token.id, now).await?;
    } else if presented.earlier_is_live(now) {
        admin_tokens::end_newest(tx, token.id).await?;
    } else if !admin_tokens::revoke(tx, token.id, now).await? {
        return Ok(None);
    }
    Ok(Some(Ended {
        event_type: EventType::AdminTokenLeaked,
        object_id: token.id.to_string(),
        merchant: token.merchant_id,
        audience: Audience::Merchant,
        detail: json!({ "token_id": token.id, "name": token.name }),
    }))
}
