//! Client credentials: "Generate tokens", and the Enhanced Security switch.

use serde_json::json;

use super::Core;
use super::manage::{By, Change, Managed, Refused, Stop};
use super::manage_keys::{WithSecret, first_secret};
use crate::domain::credential::{Credential, generate_client_id};
use crate::domain::ids::{ApiKeyId, CredentialId};
use crate::domain::licence::Product;
use crate::domain::secret::PlainSecret;
use crate::store::outbox::Audience;
use crate::store::{api_keys, credentials, merchants};

/// Credentials of one key: a key is shared by few applications.
pub const CREDENTIALS_MAX: usize = 50;

impl Core {
    /// Makes a client id and secret for a key, switched OFF.
    ///
    /// # Errors
    /// A fault of the store, as for all below.
    pub async fn generate_credentials(&self, by: &By, key: ApiKeyId) -> Managed<WithSecret<Credential>> {
        let mut change = self.change(by, "credentials.generated").await?;
        let result = generate(&mut change, by, key).await;
        change.finish(result).await
    }

    /// The switch. OFF ends every session of the credentials at once.
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn switch_credentials(&self, by: &By, client_id: &str, on: bool) -> Managed<Credential> {
        let action = if on { "credentials.enabled" } else { "credentials.disabled" };
        let mut change = self.change(by, action).await?;
        let result = switch(&mut change, by, client_id, on).await;
        change.finish(result).await
    }
}

async fn generate(change: &mut Change<'_>, by: &By, key: ApiKeyId) -> Result<WithSecret<Credential>, Stop> {
    let Some(key) = api_keys::by_id(&mut change.tx, key).await? else { return Err(Refused::NotFound.into()) };
    by.may_change(key.merchant_id)?;
    change.event.merchant_id = Some(key.merchant_id);
    merchants::lock(&mut change.tx, key.merchant_id).await?;
    let now = change.event.at;
    let licences = merchants::licences(&mut change.tx, key.merchant_id).await?;
    if !licences.is_good(Product::EnhancedSecurity, now) {
        return Err(Refused::NotLicensed(Product::EnhancedSecurity).into());
    }
    if key.revoked_at.is_some() {
        return Err(Refused::Conflict("the key is revoked".to_owned()).into());
    }
    if credentials::of_api_key(&mut change.tx, key.id).await?.len() >= CREDENTIALS_MAX {
        return Err(Refused::Conflict(format!("the key has {CREDENTIALS_MAX} credentials already")).into());
    }
    let entropy = &change.core.entropy;
    let plain = PlainSecret::client_secret(entropy);
    let credential = Credential {
        id: CredentialId::generate(now, entropy),
        merchant_id: key.merchant_id,
        api_key_id: key.id,
        client_id: generate_client_id(entropy),
        enabled: false,
        epoch: 1,
        version: 1,
        created_at: now,
        updated_at: now,
        secrets: vec![first_secret(change.core, &plain, now)],
    };
    credentials::insert(&mut change.tx, &credential).await?;
    change.concerns(Some(key.merchant_id), &credential.client_id);
    let data = json!({ "client_id": credential.client_id, "api_key_id": key.id });
    change.event.detail = data.clone();
    change.publish(key.merchant_id, "credentials.generated", data, Audience::Key(key.id)).await?;
    Ok(WithSecret { object: credential, secret: plain })
}

async fn switch(change: &mut Change<'_>, by: &By, client_id: &str, on: bool) -> Result<Credential, Stop> {
    change.concerns(None, client_id);
    let Some(found) = credentials::by_client_id(&mut change.tx, client_id).await? else {
        return Err(Refused::NotFound.into());
    };
    by.may_change(found.merchant_id)?;
    change.event.merchant_id = Some(found.merchant_id);
    merchants::lock(&mut change.tx, found.merchant_id).await?;
    // Read again under the lock.
    let Some(mut credential) = credentials::by_client_id(&mut change.tx, client_id).await? else {
        return Err(Refused::NotFound.into());
    };
    let now = change.event.at;
    let licences = merchants::licences(&mut change.tx, credential.merchant_id).await?;
    if on && !licences.is_good(Product::EnhancedSecurity, now) {
        return Err(Refused::NotLicensed(Product::EnhancedSecurity).into());
    }
    if credential.enabled == on {
        return Ok(credential);
    }
    credential.enabled = on;
    if !on {
        credential.epoch += 1;
    }
    credential.updated_at = now;
    credentials::update(&mut change.tx, &credential).await?;
    credential.version += 1;
    let data = json!({ "client_id": credential.client_id, "api_key_id": credential.api_key_id });
    let event_type = change.event.action.clone();
    change.publish(credential.merchant_id, &event_type, data, Audience::Key(credential.api_key_id)).await?;
    Ok(credential)
}
