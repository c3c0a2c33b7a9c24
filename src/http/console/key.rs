//! One key: its settings, its secrets and their rotation.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::context::MerchantContext;
use super::form::Form;
use super::key_form::{KeyFields, KeyFormPage};
use super::keys::{KeyPath, Shown, Status};
use super::mistakes::Mistakes;
use super::page::{Page, Screen, answered, html, html_as};
use super::scopes::{self, Narrowing};
use super::words::{self, When};
use crate::domain::api_key::ApiKey;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, SecretId};
use crate::domain::secret::StoredSecret;
use crate::flows::manage_keys::{ApiKeyChanges, ChangedApiKey};
use crate::flows::rotation::is_safe_to_revoke;
use crate::http::error::Failure;

const ROTATION: &str = "rotate api key";

/// The part of the page that only an existing key has.
pub(super) struct Manage {
    pub(super) base: String,
    pub(super) status: Status,
    pub(super) environment: &'static str,
    pub(super) webhook_disabled: Option<When>,
    pub(super) secrets: Vec<SecretRow>,
    pub(super) may_change: bool,
}

impl Manage {
    pub(super) fn new(context: &MerchantContext, key: &ApiKey) -> Self {
        Self {
            base: context.path(&format!("/api-keys/{}", key.id)),
            status: Status::of(key, context.context.now),
            environment: words::environment(key.environment),
            webhook_disabled: key.webhook_disabled_at.map(When),
            secrets: secret_rows(&key.secrets, context.context.now),
            may_change: context.may_change(),
        }
    }
}

/// A secret of a key or of credentials, without the secret itself.
pub(super) struct SecretRow {
    pub(super) id: SecretId,
    pub(super) hint: String,
    pub(super) created: When,
    pub(super) last_used: Option<When>,
    pub(super) last_used_ip: String,
    pub(super) state: String,
    pub(super) is_live: bool,
    pub(super) is_newest: bool,
    pub(super) is_safe_to_end: bool,
}

pub(super) fn secret_rows(secrets: &[StoredSecret], now: Timestamp) -> Vec<SecretRow> {
    let row = |(position, secret): (usize, &StoredSecret)| SecretRow {
        id: secret.id,
        hint: secret.hint.clone(),
        created: When(secret.created_at),
        last_used: secret.last_used_at.map(When),
        last_used_ip: secret.last_used_ip.clone().unwrap_or_default(),
        state: match (secret.is_live(now), secret.ends_at) {
            (false, _) => "Ended".to_owned(),
            (true, Some(end)) => format!("Active, ends {}", words::relative(end, now)),
            (true, None) => "Active".to_owned(),
        },
        is_live: secret.is_live(now),
        is_newest: position == 0,
        is_safe_to_end: is_safe_to_revoke(secrets, secret),
    };
    secrets.iter().enumerate().map(row).collect()
}

pub(super) async fn show(context: MerchantContext, Path(path): Path<KeyPath>) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let fields = KeyFields::of(&key);
    html(&KeyFormPage::change(&context, &key, fields, Mistakes::default()))
}

pub(super) async fn save(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
    Form(fields): Form<KeyFields>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let mistakes = match fields.to_changes(&key) {
        Err(mistakes) => mistakes,
        Ok(changes) => {
            if let Some(asked) = ask_to_narrow(&context, &key, &fields, &changes).await? {
                return Ok(asked);
            }
            let version = Some(fields.version);
            match answered(
                context
                    .context
                    .core()
                    .update_api_key(&context.context.principal, key.id, version, changes)
                    .await,
            )? {
                Ok(changed) => return saved(&context, changed),
                Err(refused) => Mistakes::of(&refused),
            }
        }
    };
    html_as(StatusCode::UNPROCESSABLE_ENTITY, &KeyFormPage::change(&context, &key, fields, mistakes))
}

async fn ask_to_narrow(
    context: &MerchantContext,
    key: &ApiKey,
    fields: &KeyFields,
    changes: &ApiKeyChanges,
) -> Result<Option<Response>, Failure> {
    let Some(wanted) = &changes.scopes else { return Ok(None) };
    let narrowing = Narrowing {
        key: key.id,
        client_id: None,
        name: &format!("\u{201c}{}\u{201d}", key.name),
        now: key.scopes.as_ref(),
        wanted: wanted.as_ref(),
        action: context.path(&format!("/api-keys/{}", key.id)),
        hidden: fields.hidden(),
    };
    scopes::question(context, &fields.scopes, narrowing).await
}

/// Redirects to the list. If this was the first webhook URL, shows its signing secret once instead.
fn saved(context: &MerchantContext, changed: ChangedApiKey) -> Result<Response, Failure> {
    let Some(secret) = changed.webhook_secret else {
        return Ok(Redirect::to(&context.path("/api-keys?done=saved")).into_response());
    };
    let page =
        KeyFormPage::change(context, &changed.object, KeyFields::of(&changed.object), Mistakes::default());
    html(&page.with_webhook_secret(secret.expose()))
}

/// The choices for how long the previous secret keeps working.
pub(super) const OVERLAPS: [(i64, &str); 5] = [
    (0, "At once, when the new one is first used"),
    (3600, "1 hour after the new one is first used"),
    (24 * 3600, "1 day after the new one is first used"),
    (7 * 24 * 3600, "7 days after the new one is first used"),
    (30 * 24 * 3600, "30 days after the new one is first used"),
];

#[derive(Template)]
#[template(path = "rotate.html")]
pub(super) struct RotatePage {
    pub(super) page: Page,
    pub(super) heading: String,
    pub(super) what: &'static str,
    pub(super) action: String,
    pub(super) back: String,
    pub(super) once: String,
    pub(super) overlaps: &'static [(i64, &'static str)],
    /// The new secret. Only this page shows it.
    pub(super) secret: Option<String>,
    pub(super) error: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Rotation {
    pub(super) overlap_secs: i64,
    pub(super) once: String,
}

fn rotate_page(context: &MerchantContext, key: &ApiKey) -> RotatePage {
    RotatePage {
        page: context.page("Rotate the key", Screen::ApiKeys),
        heading: format!("Rotate \u{201c}{}\u{201d}", key.name),
        what: "API key",
        action: context.path(&format!("/api-keys/{}/rotate", key.id)),
        back: context.path(&format!("/api-keys/{}", key.id)),
        once: context.context.new_once(),
        overlaps: &OVERLAPS,
        secret: None,
        error: None,
    }
}

pub(super) async fn show_rotate(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    html(&rotate_page(&context, &key))
}

pub(super) async fn rotate(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
    Form(form): Form<Rotation>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let principal = context.context.once(&form.once, ROTATION, key.id.uuid());
    let page = rotate_page(&context, &key);
    match answered(context.context.core().rotate_api_key(&principal, key.id, form.overlap_secs).await)? {
        Ok(answer) => html(&RotatePage { secret: Some(Shown::parse(&answer.into_body())?.key), ..page }),
        Err(refused) => {
            let error = Some(words::refusal(&refused));
            html_as(StatusCode::UNPROCESSABLE_ENTITY, &RotatePage { error, ..page })
        }
    }
}

#[derive(Deserialize)]
pub(super) struct SecretPath {
    key: ApiKeyId,
    secret: SecretId,
}

pub(super) async fn end_secret(
    context: MerchantContext,
    Path(path): Path<SecretPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    context.context.core().end_api_key_secret(&context.context.principal, key.id, path.secret).await?;
    Ok(Redirect::to(&context.path("/api-keys?done=secret-ended")).into_response())
}
