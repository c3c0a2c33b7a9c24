//! "Generate tokens": the access keys of an API key, with their Enhance Security switch.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::context::MerchantContext;
use super::form::Form;
use super::key::{OVERLAPS, RotatePage, Rotation, SecretRow, secret_rows};
use super::keys::{KeyPath, NEW_KEY, Shown, Status};
use super::page::{Page, Screen, answered, html, html_as};
use super::words::{self, When};
use crate::domain::api_key::ApiKey;
use crate::domain::credential::Credential;
use crate::domain::ids::{ApiKeyId, SecretId};
use crate::domain::licence::Product;
use crate::flows::error::Refused;
use crate::flows::manage_credentials::{CredentialChanges, RotatedBy};
use crate::http::error::Failure;

const NEW_CREDENTIALS: &str = "new credentials";
const ROTATION: &str = "rotate client secret";

#[derive(Template)]
#[template(path = "access_keys.html")]
struct AccessKeysPage {
    page: Page,
    key_name: String,
    key_status: Status,
    base: String,
    back: String,
    may_change: bool,
    is_licensed: bool,
    once: String,
    /// The name under which the key's own secret can be shown again if it was just made. Otherwise empty.
    key_once: String,
    rows: Vec<AccessKey>,
    error: Option<String>,
}

struct AccessKey {
    client_id: String,
    is_on: bool,
    created: When,
    secrets: Vec<SecretRow>,
    /// Set if these credentials were just made.
    new: Option<NewSecret>,
}

impl AccessKey {
    /// An HTML id that is unique on the page.
    fn id_of(&self, what: &str) -> String {
        format!("{what}-{}", self.client_id)
    }

    fn base_of(&self, base: &str) -> String {
        format!("{base}/{}", self.client_id)
    }
}

struct NewSecret {
    client_secret: String,
    once: String,
    curl: String,
    lacks_key: bool,
}

/// Names under which secrets that were just made can be shown again. Each form passes them to the next one,
/// so that switching ON does not hide a secret that the user still has to copy.
#[derive(Clone, Default, Deserialize)]
pub(super) struct Remembered {
    #[serde(default)]
    once: String,
    #[serde(default)]
    key_once: String,
    /// The new position of the switch.
    #[serde(default)]
    enabled: bool,
}

#[derive(Deserialize)]
pub(super) struct ClientPath {
    key: ApiKeyId,
    client: String,
}

#[derive(Deserialize)]
struct MadeCredentials {
    client_id: String,
    client_secret: String,
}

pub(super) async fn show(context: MerchantContext, Path(path): Path<KeyPath>) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    html(&access_keys(&context, &key, &Remembered::default(), None).await?)
}

pub(super) async fn generate(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
    Form(form): Form<Remembered>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let principal = context.context.once(&form.once, NEW_CREDENTIALS, key.id.uuid());
    if principal.idempotency.is_none() {
        return Err(Failure::invalid_request("the form is incomplete; open the page again"));
    }
    match answered(context.context.core().generate_credentials(&principal, key.id, None).await)? {
        Ok(_) => html(&access_keys(&context, &key, &form, None).await?),
        Err(refused) => {
            let error = Some(words::refusal(&refused));
            let page =
                access_keys(&context, &key, &Remembered { once: String::new(), ..form }, error).await?;
            html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

/// Switches Enhanced Security. The answer still shows the secrets that the previous page showed.
pub(super) async fn switch(
    context: MerchantContext,
    Path(path): Path<ClientPath>,
    Form(form): Form<Remembered>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let client = credentials_of(&context, &key, &path.client).await?;
    let core = context.context.core();
    let changes = CredentialChanges::switch(form.enabled);
    match answered(
        core.update_credentials(&context.context.principal, &client.client_id, None, changes).await,
    )? {
        Ok(_) if form.once.is_empty() => {
            Ok(Redirect::to(&context.path(&format!("/api-keys/{}/tokens", key.id))).into_response())
        }
        Ok(_) => html(&access_keys(&context, &key, &form, None).await?),
        Err(refused) => {
            let page = access_keys(&context, &key, &form, Some(words::refusal(&refused))).await?;
            html_as(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

async fn access_keys(
    context: &MerchantContext,
    key: &ApiKey,
    remembered: &Remembered,
    error: Option<String>,
) -> Result<AccessKeysPage, Failure> {
    let core = context.context.core();
    let made = kept(context, &remembered.once, NEW_CREDENTIALS, key.id.uuid()).await?;
    let made: Option<MadeCredentials> = made.and_then(|body| serde_json::from_slice(&body).ok());
    let key_secret = kept(context, &remembered.key_once, NEW_KEY, context.id().uuid()).await?;
    let key_secret = key_secret
        .and_then(|body| Shown::parse(&body).ok())
        .filter(|shown| shown.id == key.id.to_string())
        .map(|shown| shown.key);
    let row = |credential: Credential| AccessKey {
        is_on: credential.enabled,
        created: When(credential.created_at),
        secrets: secret_rows(&credential.secrets, context.context.now),
        new: made.as_ref().filter(|made| made.client_id == credential.client_id).map(|made| NewSecret {
            client_secret: made.client_secret.clone(),
            once: remembered.once.clone(),
            curl: curl(&core.issuer, key_secret.as_deref(), made),
            lacks_key: key_secret.is_none(),
        }),
        client_id: credential.client_id,
    };
    let credentials = core.credentials(&context.context.principal, key.id).await?;
    Ok(AccessKeysPage {
        page: context.page("Access keys", Screen::ApiKeys),
        key_name: key.name.clone(),
        key_status: Status::of(key, context.context.now),
        base: context.path(&format!("/api-keys/{}/tokens", key.id)),
        back: context.path("/api-keys"),
        may_change: context.may_change(),
        is_licensed: context.is_licensed(Product::EnhancedSecurity),
        once: context.context.new_once(),
        key_once: if key_secret.is_some() { remembered.key_once.clone() } else { String::new() },
        rows: credentials.into_iter().map(row).collect(),
        error,
    })
}

/// The stored answer to an earlier form, if there is one.
async fn kept(
    context: &MerchantContext,
    once: &str,
    what: &str,
    object: uuid::Uuid,
) -> Result<Option<Vec<u8>>, Failure> {
    let Some(key) = context.context.once_key(once, what, object) else { return Ok(None) };
    Ok(answered(context.context.core().earlier_answer(&key).await)?.unwrap_or(None))
}

/// A command to paste into a shell. No value can contain a quote, so nothing is escaped.
fn curl(base: &str, key: Option<&str>, made: &MadeCredentials) -> String {
    let key = key.unwrap_or("YOUR_API_KEY");
    format!(
        "curl --location '{base}/api/authorize' \\\n--header 'X-API-KEY: {key}' \\\n--form 'client_id=\"{}\"' \\\n\
         --form 'client_secret=\"{}\"'",
        made.client_id, made.client_secret
    )
}

/// The credentials, if they belong to this key.
async fn credentials_of(
    context: &MerchantContext,
    key: &ApiKey,
    client_id: &str,
) -> Result<Credential, Failure> {
    let credential = context.context.core().credential(&context.context.principal, client_id).await?;
    if credential.api_key_id == key.id { Ok(credential) } else { Err(Refused::NotFound.into()) }
}

fn rotate_page(context: &MerchantContext, key: &ApiKey, credential: &Credential) -> RotatePage {
    let base = context.path(&format!("/api-keys/{}/tokens", key.id));
    RotatePage {
        page: context.page("Rotate the client secret", Screen::ApiKeys),
        heading: format!("Rotate the secret of {}", credential.client_id),
        what: "client secret",
        action: format!("{base}/{}/rotate", credential.client_id),
        back: base,
        once: context.context.new_once(),
        overlaps: &OVERLAPS,
        secret: None,
        error: None,
    }
}

pub(super) async fn show_rotate(
    context: MerchantContext,
    Path(path): Path<ClientPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let credential = credentials_of(&context, &key, &path.client).await?;
    html(&rotate_page(&context, &key, &credential))
}

pub(super) async fn rotate(
    context: MerchantContext,
    Path(path): Path<ClientPath>,
    Form(form): Form<Rotation>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let credential = credentials_of(&context, &key, &path.client).await?;
    let principal = context.context.once(&form.once, ROTATION, credential.id.uuid());
    let page = rotate_page(&context, &key, &credential);
    let core = context.context.core();
    let by = RotatedBy::Manager { client_id: &credential.client_id };
    match answered(core.rotate_client_secret(&principal, by, form.overlap_secs).await)? {
        Ok(answer) => {
            let made: MadeCredentials = serde_json::from_slice(&answer.into_body())
                .map_err(|_| Failure::fault("a kept answer is not one to this form"))?;
            html(&RotatePage { secret: Some(made.client_secret), ..page })
        }
        Err(refused) => {
            let error = Some(words::refusal(&refused));
            html_as(StatusCode::UNPROCESSABLE_ENTITY, &RotatePage { error, ..page })
        }
    }
}

#[derive(Deserialize)]
pub(super) struct ClientSecretPath {
    key: ApiKeyId,
    client: String,
    secret: SecretId,
}

pub(super) async fn end_secret(
    context: MerchantContext,
    Path(path): Path<ClientSecretPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let credential = credentials_of(&context, &key, &path.client).await?;
    context
        .context
        .core()
        .end_client_secret(&context.context.principal, &credential.client_id, path.secret)
        .await?;
    Ok(Redirect::to(&context.path(&format!("/api-keys/{}/tokens", key.id))).into_response())
}
