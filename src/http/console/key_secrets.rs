//! The secrets of one key: rotating them, ending an earlier one, and rotating the secret of its webhook.

use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::confirm::{ConfirmPage, ending_a_secret};
use super::context::MerchantContext;
use super::form::Form;
use super::keys::{KeyPath, Shown};
use super::listing::Listing;
use super::page::{Screen, html, stored};
use super::secrets::{FROM_FIRST_USE, OVERLAPS, RotatePage, Rotation, ending};
use crate::domain::api_key::ApiKey;
use crate::domain::ids::{ApiKeyId, SecretId};
use crate::http::admin::page::Query;
use crate::http::error::Failure;

const ROTATION: &str = "rotate api key";
const WEBHOOK_ROTATION: &str = "rotate webhook secret";

/// How long the previous secret of a webhook also signs.
const WEBHOOK_OVERLAPS: [(i64, &str); 4] = [
    (0, "Immediately"),
    (3600, "1 hour from now"),
    (24 * 3600, "1 day from now"),
    (7 * 24 * 3600, "7 days from now"),
];

fn rotate_page(context: &MerchantContext, key: &ApiKey) -> RotatePage {
    RotatePage {
        page: context.page("Rotate the key", Screen::ApiKeys),
        heading: format!("Rotate \u{201c}{}\u{201d}", key.name),
        what: "API key",
        action: context.path(&format!("/api-keys/{}/rotate", key.id)),
        back: context.path(&format!("/api-keys/{}", key.id)),
        once: context.context.new_once(),
        explains: FROM_FIRST_USE,
        overlaps: &OVERLAPS,
        secret: None,
        error: None,
    }
}

pub(super) async fn show_rotate(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
    Query(listing): Query<Listing>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let page = rotate_page(&context, &key);
    html(&RotatePage { page: page.page.saying(listing.done.as_deref()), ..page })
}

pub(super) async fn rotate(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
    Form(form): Form<Rotation>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let principal = context.context.once(&form.once, ROTATION, key.id.uuid());
    let page = rotate_page(&context, &key);
    let rotated = context.context.core().rotate_api_key(&principal, key.id, form.overlap_secs).await;
    page.after(rotated, |body| Ok(stored::<Shown>(body)?.key))
}

fn webhook_rotate_page(context: &MerchantContext, key: &ApiKey) -> RotatePage {
    RotatePage {
        page: context.page("Rotate the webhook secret", Screen::ApiKeys),
        heading: format!("Rotate the webhook secret of \u{201c}{}\u{201d}", key.name),
        what: "webhook secret",
        action: context.path(&format!("/api-keys/{}/webhook-secret", key.id)),
        explains: "Until the previous one ends, each webhook has a signature for both, so your receiver can \
                   change to the new one without losing a webhook.",
        overlaps: &WEBHOOK_OVERLAPS,
        ..rotate_page(context, key)
    }
}

pub(super) async fn show_rotate_webhook(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
    Query(listing): Query<Listing>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let page = webhook_rotate_page(&context, &key);
    html(&RotatePage { page: page.page.saying(listing.done.as_deref()), ..page })
}

/// The stored answer to a rotation.
#[derive(Deserialize)]
struct RotatedWebhookSecret {
    webhook_secret: String,
}

pub(super) async fn rotate_webhook(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
    Form(form): Form<Rotation>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let principal = context.context.once(&form.once, WEBHOOK_ROTATION, key.id.uuid());
    let page = webhook_rotate_page(&context, &key);
    let rotated = context.context.core().rotate_webhook_secret(&principal, key.id, form.overlap_secs).await;
    page.after(rotated, |body| Ok(stored::<RotatedWebhookSecret>(body)?.webhook_secret))
}

#[derive(Deserialize)]
pub(super) struct SecretPath {
    key: ApiKeyId,
    secret: SecretId,
}

/// The page that asks before an earlier secret of the key ends.
pub(super) async fn confirm_end_secret(
    context: MerchantContext,
    Path(path): Path<SecretPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let secret = ending(&key.secrets, path.secret, context.context.now)?;
    let (consequence, costs) = ending_a_secret("API key", &key.secrets, secret, context.context.now);
    let base = context.path(&format!("/api-keys/{}", key.id));
    html(&ConfirmPage {
        page: context.page("End a secret", Screen::ApiKeys),
        heading: format!("End the secret \u{2026}{} of \u{201c}{}\u{201d}?", secret.hint, key.name),
        consequence,
        costs,
        hidden: Vec::new(),
        code: None,
        button: "End this secret",
        action: format!("{base}/secrets/{}/end", secret.id),
        back: base,
    })
}

pub(super) async fn end_secret(
    context: MerchantContext,
    Path(path): Path<SecretPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    context.context.core().end_api_key_secret(&context.context.principal, key.id, path.secret).await?;
    Ok(Redirect::to(&context.path(&format!("/api-keys/{}?done=secret-ended", key.id))).into_response())
}
