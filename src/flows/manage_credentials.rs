//! Client credentials: "Generate tokens", and the Enhanced Security switch.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Core;
use super::authorize::PresentedClient;
use super::changes::{Versions, must_include, nullable};
use super::error::{Managed, Refused};
use super::idempotency::Answer;
use super::manage::Change;
use super::manage_keys::WithSecret;
use super::principal::Principal;
use super::rotation;
use super::scopes::check_within;
use crate::domain::api_key::ApiKey;
use crate::domain::credential::{Credential, generate_client_id};
use crate::domain::event::EventType;
use crate::domain::ids::{ApiKeyId, CredentialId, MerchantId, SecretId};
use crate::domain::licence::Product;
use crate::domain::merchant::Merchant;
use crate::domain::scope::Scopes;
use crate::domain::secret::{PlainSecret, StoredSecret};
use crate::store::credentials::Clients;
use crate::store::outbox::Audience;
use crate::store::secrets::Owner;
use crate::store::{api_keys, credentials};

/// The most credentials of one key. Only a few applications share a key.
pub const CREDENTIALS_MAX: usize = 50;

#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCredentials {
    /// The scopes of the credentials: 1 to 64 of the key's scopes; null means every scope of the key.
    #[schema(min_items = 1, max_items = 64)]
    pub scopes: Option<Vec<String>>,
}

/// Missing fields are not changed. Null removes `scopes`.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CredentialPatch)]
pub struct CredentialChanges {
    /// The Enhanced Security switch.
    pub enabled: Option<bool>,
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Vec<String>>, min_items = 1, max_items = 64)]
    pub scopes: Option<Option<Vec<String>>>,
}

impl CredentialChanges {
    pub fn switch(on: bool) -> Self {
        Self { enabled: Some(on), ..Self::default() }
    }
}

/// Who rotates a client secret: somebody who manages these credentials, or the client itself with one of its
/// secrets.
pub enum RotatedBy<'a> {
    Manager { client_id: &'a str },
    Client(&'a PresentedClient),
}

impl RotatedBy<'_> {
    fn client_id(&self) -> &str {
        match self {
            Self::Manager { client_id } => client_id,
            Self::Client(presented) => &presented.client_id,
        }
    }
}

impl Core {
    /// Makes a client id and secret for a key, switched OFF.
    pub async fn generate_credentials(
        &self,
        principal: &Principal,
        key: ApiKeyId,
        scopes: Option<Vec<String>>,
    ) -> Managed<Answer<WithSecret<Credential>>> {
        self.create(principal, EventType::CredentialsGenerated, async |change| {
            generate(change, key, scopes.as_deref()).await
        })
        .await
    }

    /// All credentials of a key, newest first.
    pub async fn credentials(&self, principal: &Principal, key: ApiKeyId) -> Managed<Vec<Credential>> {
        let key = self.api_key(principal, key).await?;
        Ok(credentials::of_api_key(&mut self.store.read().await?, key.id).await?)
    }

    /// How many credentials each of a merchant's keys has, and whether any of them is switched ON.
    pub async fn clients_of(
        &self,
        principal: &Principal,
        merchant: MerchantId,
        keys: &[ApiKey],
    ) -> Managed<HashMap<ApiKeyId, Clients>> {
        principal.may_see(merchant)?;
        let ids = keys.iter().filter(|key| key.merchant_id == merchant).map(|key| key.id);
        Ok(credentials::clients_of(&mut self.store.read().await?, ids).await?)
    }

    pub async fn credential(&self, principal: &Principal, client_id: &str) -> Managed<Credential> {
        let found = credentials::by_client_id(&mut self.store.read().await?, client_id).await?;
        let found = found.ok_or(Refused::NotFound)?;
        self.must_exist(principal, found.merchant_id).await?;
        Ok(found)
    }

    /// Sets the switch and the scopes. OFF ends all sessions of the credentials at once.
    pub async fn update_credentials(
        &self,
        principal: &Principal,
        client_id: &str,
        versions: Versions,
        changes: CredentialChanges,
    ) -> Managed<Credential> {
        let event_type = match changes.enabled {
            Some(true) => EventType::CredentialsEnabled,
            Some(false) => EventType::CredentialsDisabled,
            None => EventType::CredentialsUpdated,
        };
        self.change(principal, event_type, async |change| {
            update(change, event_type, client_id, versions, changes).await
        })
        .await
    }

    /// Gives credentials a new secret. Older secrets end `overlap_secs` after its first use.
    pub async fn rotate_client_secret(
        &self,
        principal: &Principal,
        by: RotatedBy<'_>,
        overlap_secs: i64,
    ) -> Managed<Answer<WithSecret<Credential>>> {
        self.create(principal, EventType::CredentialsSecretRotated, async |change| {
            rotate(change, &by, overlap_secs).await
        })
        .await
    }

    /// Ends an older secret now, instead of at the end of its overlap.
    pub async fn end_client_secret(
        &self,
        principal: &Principal,
        client_id: &str,
        secret: SecretId,
    ) -> Managed<Credential> {
        self.change(principal, EventType::CredentialsSecretEnded, async |change| {
            let (_, mut credential) = locked(change, client_id).await?;
            let owner = Owner::Credential(credential.id);
            rotation::end_secret(change, owner, &mut credential.secrets, secret).await?;
            Ok(credential)
        })
        .await
    }
}

/// Checks that the principal may change the credentials, locks their merchant, and reads them again.
async fn locked(change: &mut Change<'_>, client_id: &str) -> Managed<(Merchant, Credential)> {
    change.concerns(None, client_id);
    let found = credentials::by_client_id(&mut change.tx, client_id).await?.ok_or(Refused::NotFound)?;
    change.principal.may_change(found.merchant_id)?;
    let merchant = change.lock_merchant(found.merchant_id).await?;
    let credential = credentials::by_client_id(&mut change.tx, client_id).await?.ok_or(Refused::NotFound)?;
    Ok((merchant, credential))
}

async fn generate(
    change: &mut Change<'_>,
    key: ApiKeyId,
    scopes: Option<&[String]>,
) -> Managed<WithSecret<Credential>> {
    let found = api_keys::by_id(&mut change.tx, key).await?.ok_or(Refused::NotFound)?;
    change.principal.may_change(found.merchant_id)?;
    change.principal.may_handle(found.environment)?;
    let merchant = change.lock_merchant(found.merchant_id).await?;
    let key = api_keys::by_id(&mut change.tx, key).await?.ok_or(Refused::NotFound)?;
    let now = change.event.at;
    change.must_be_licensed(&merchant, Product::EnhancedSecurity)?;
    if key.revoked_at.is_some() {
        return Err(Refused::Conflict("the key is revoked".to_owned()).into());
    }
    if credentials::of_api_key(&mut change.tx, key.id).await?.len() >= CREDENTIALS_MAX {
        return Err(Refused::Conflict(format!("the key already has {CREDENTIALS_MAX} credentials")).into());
    }
    let scopes = change.core.check_scopes(scopes)?;
    check_within(scopes.as_ref(), key.scopes.as_ref())?;
    let entropy = &change.core.entropy;
    let plain = PlainSecret::client_secret(entropy);
    let credential = Credential {
        id: CredentialId::generate(now, entropy),
        merchant_id: key.merchant_id,
        api_key_id: key.id,
        client_id: generate_client_id(entropy),
        enabled: false,
        scopes,
        epoch: 1,
        version: 1,
        created_at: now,
        updated_at: now,
        secrets: vec![rotation::first_secret(change.core, &plain, now)],
    };
    credentials::insert(&mut change.tx, &credential).await?;
    change.concerns(Some(key.merchant_id), &credential.client_id);
    tell(change, EventType::CredentialsGenerated, &credential).await?;
    Ok(WithSecret { object: credential, secret: plain })
}

async fn update(
    change: &mut Change<'_>,
    event_type: EventType,
    client_id: &str,
    versions: Versions,
    changes: CredentialChanges,
) -> Managed<Credential> {
    let (merchant, mut credential) = locked(change, client_id).await?;
    must_include(&versions, credential.version)?;
    if changes.enabled == Some(true) {
        change.must_be_licensed(&merchant, Product::EnhancedSecurity)?;
    }
    let switched = changes.enabled.filter(|on| *on != credential.enabled);
    if switched.is_none() && changes.scopes.is_none() {
        return Ok(credential);
    }
    if let Some(names) = changes.scopes {
        let key = api_keys::by_id(&mut change.tx, credential.api_key_id).await?.ok_or(Refused::NotFound)?;
        credential.scopes = change.core.check_scopes(names.as_deref())?;
        check_within(credential.scopes.as_ref(), key.scopes.as_ref())?;
    }
    if let Some(on) = switched {
        credential.enabled = on;
        credential.epoch += i64::from(!on);
    }
    credential.updated_at = change.event.at;
    credentials::update(&mut change.tx, &credential).await?;
    credential.version += 1;
    match switched {
        Some(_) => tell(change, event_type, &credential).await?,
        None => {
            EventType::CredentialsUpdated.name().clone_into(&mut change.event.action);
            change.event.detail = settings(&credential);
        }
    }
    Ok(credential)
}

async fn rotate(
    change: &mut Change<'_>,
    by: &RotatedBy<'_>,
    overlap_secs: i64,
) -> Managed<WithSecret<Credential>> {
    let (merchant, mut credential) = locked(change, by.client_id()).await?;
    match by {
        RotatedBy::Manager { .. } => {
            let key = api_keys::by_id(&mut change.tx, credential.api_key_id).await?;
            change.principal.may_handle(key.ok_or(Refused::NotFound)?.environment)?;
        }
        RotatedBy::Client(presented) => {
            // Check the secret again under the lock, because it may have ended in the meantime.
            let is_live = |secret: &StoredSecret| {
                secret.hash.matches(&presented.hash) && secret.is_live(change.event.at)
            };
            if !credential.enabled || !credential.secrets.iter().any(is_live) {
                return Err(Refused::Conflict("the secret has just ended".to_owned()).into());
            }
        }
    }
    change.must_be_licensed(&merchant, Product::EnhancedSecurity)?;
    let plain = PlainSecret::client_secret(&change.core.entropy);
    let owner = Owner::Credential(credential.id);
    rotation::add_secret(change, merchant.id, owner, &mut credential.secrets, &plain, overlap_secs).await?;
    tell(change, EventType::CredentialsSecretRotated, &credential).await?;
    Ok(WithSecret { object: credential, secret: plain })
}

/// Adds the change to the audit event, and publishes it to the key's webhook.
async fn tell(change: &mut Change<'_>, event_type: EventType, credential: &Credential) -> Managed<()> {
    change.event.detail = settings(credential);
    let audience = Audience::Key(credential.api_key_id);
    change.publish(credential.merchant_id, event_type, settings(credential), audience).await?;
    Ok(())
}

fn settings(credential: &Credential) -> Value {
    json!({
        "client_id": credential.client_id,
        "api_key_id": credential.api_key_id,
        "scopes": credential.scopes.as_ref().map(Scopes::to_strings),
    })
}
