//! "Generate tokens": the access keys of an API key, with their Enhance Security switch.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::confirm::{ConfirmPage, costs, ending_a_secret};
use super::context::MerchantContext;
use super::form::Form;
use super::keys::{KeyPath, NEW_KEY, Shown, Status};
use super::listing::Listing;
use super::page::{Page, Screen, answered, html, html_as, stored};
use super::secrets::{FROM_FIRST_USE, OVERLAPS, RotatePage, Rotation, SecretRow, ending, secret_rows};
use super::words::{self, When};
use crate::domain::api_key::ApiKey;
use crate::domain::credential::Credential;
use crate::domain::ids::{ApiKeyId, SecretId};
use crate::domain::licence::Product;
use crate::domain::scope::Scopes;
use crate::flows::error::Refused;
use crate::flows::live::Whose;
use crate::flows::manage_credentials::{CredentialChanges, RotatedBy};
use crate::http::admin::page::Query;
use crate::http::error::Failure;

const NEW_CREDENTIALS: &str = "new credentials";
const ROTATION: &str = "rotate client secret";

#[derive(Template)]
#[template(path = "access_keys.html")]
struct AccessKeysPage {
    page: Page,
    /// Whether at least one of the access keys is ON.
    is_any_on: bool,
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
    /// What it may do. `None` means everything that the key may do.
    scopes: Option<String>,
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
    pub(super) key: ApiKeyId,
    pub(super) client: String,
}

#[derive(Deserialize)]
struct MadeCredentials {
    client_id: String,
    client_secret: String,
}

pub(super) async fn show(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
    Query(listing): Query<Listing>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let page = access_keys(&context, &key, &Remembered::default(), None).await?;
    html(&AccessKeysPage { page: page.page.saying(listing.done.as_deref()), ..page })
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

/// The page that asks before the switch is set to OFF.
pub(super) async fn confirm_switch(
    context: MerchantContext,
    Path(path): Path<ClientPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let client = credentials_of(&context, &key, &path.client).await?;
    let base = context.path(&format!("/api-keys/{}/tokens", key.id));
    let others = context.context.core().credentials(&context.context.principal, key.id).await?;
    let is_another_on = others.iter().any(|other| other.enabled && other.id != client.id);
    let after = if is_another_on {
        "All calls with this API key still need an access token, because other access keys are ON."
    } else {
        "While it is OFF, the API key alone is enough for every call."
    };
    let last_used_at = client.secrets.iter().filter_map(|secret| secret.last_used_at).max();
    html(&ConfirmPage {
        page: context.page("Switch OFF", Screen::ApiKeys),
        heading: format!("Switch Enhanced Security OFF for {}?", client.client_id),
        consequence: format!(
            "All sessions of these access keys end immediately, with all their tokens. This cannot be undone. After \
             you switch ON again, the application has to request new tokens. {after}"
        ),
        costs: costs(context.live(Whose::Client(client.id)).await?, last_used_at, context.context.now),
        hidden: vec![("enabled", "false".to_owned())],
        code: None,
        button: "Switch OFF",
        action: format!("{base}/{}/switch", client.client_id),
        back: base,
    })
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
    let live = context.live(Whose::Client(client.id)).await?;
    match answered(
        core.update_credentials(&context.context.principal, &client.client_id, None, changes).await,
    )? {
        Ok(_) if form.once.is_empty() => {
            let done = match form.enabled {
                true => "switched-on".to_owned(),
                false => format!("switched-off.{}", live.sessions),
            };
            let to = context.path(&format!("/api-keys/{}/tokens?done={done}", key.id));
            Ok(Redirect::to(&to).into_response())
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
        .and_then(|body| stored::<Shown>(&body).ok())
        .filter(|shown| shown.id == key.id.to_string())
        .map(|shown| shown.key);
    let row = |credential: Credential| AccessKey {
        is_on: credential.enabled,
        created: When(credential.created_at),
        scopes: credential.scopes.as_ref().map(Scopes::to_string),
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
        is_any_on: credentials.iter().any(|one| one.enabled),
        page: context.page("Access keys", Screen::ApiKeys),
        key_name: key.name.clone(),
        key_status: Status::of(key, context.context.now),
        base: context.path(&format!("/api-keys/{}/tokens", key.id)),
        back: context.path(&format!("/api-keys/{}", key.id)),
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

/// Credentials of this key. Those of another key are not found.
pub(super) async fn credentials_of(
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
        explains: FROM_FIRST_USE,
        overlaps: &OVERLAPS,
        secret: None,
        error: None,
    }
}

pub(super) async fn show_rotate(
    context: MerchantContext,
    Path(path): Path<ClientPath>,
    Query(listing): Query<Listing>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let credential = credentials_of(&context, &key, &path.client).await?;
    let page = rotate_page(&context, &key, &credential);
    html(&RotatePage { page: page.page.saying(listing.done.as_deref()), ..page })
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
    let rotated = core.rotate_client_secret(&principal, by, form.overlap_secs).await;
    page.after(rotated, |body| Ok(stored::<MadeCredentials>(body)?.client_secret))
}

#[derive(Deserialize)]
pub(super) struct ClientSecretPath {
    key: ApiKeyId,
    client: String,
    secret: SecretId,
}

/// The page that asks before an earlier client secret ends.
pub(super) async fn confirm_end_secret(
    context: MerchantContext,
    Path(path): Path<ClientSecretPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let credential = credentials_of(&context, &key, &path.client).await?;
    let secret = ending(&credential.secrets, path.secret, context.context.now)?;
    let (consequence, costs) = ending_a_secret("client", &credential.secrets, secret, context.context.now);
    let base = context.path(&format!("/api-keys/{}/tokens", key.id));
    html(&ConfirmPage {
        page: context.page("End a secret", Screen::ApiKeys),
        heading: format!("End the secret \u{2026}{} of {}?", secret.hint, credential.client_id),
        consequence,
        costs,
        hidden: Vec::new(),
        code: None,
        button: "End this secret",
        action: format!("{base}/{}/secrets/{}/end", credential.client_id, secret.id),
        back: base,
    })
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
    let to = context.path(&format!("/api-keys/{}/tokens?done=secret-ended", key.id));
    Ok(Redirect::to(&to).into_response())
}
