//! *Account security > API secret key*: the list of keys, "Generate API key", its settings, and Save.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::confirm::{ConfirmPage, costs};
use super::context::MerchantContext;
use super::form::RestorableForm;
use super::kept_form::FORM_RESTORED;
use super::key_form::{KeyFields, NewKeyPage};
use super::listing::{Listing, carried, next_page};
use super::mistakes::Mistakes;
use super::page::{Page, Screen, answered, html, html_as, stored};
use super::words::{self, When};
use crate::domain::api_key::ApiKey;
use crate::domain::clock::Timestamp;
use crate::domain::ids::ApiKeyId;
use crate::domain::licence::Product;
use crate::flows::live::Whose;
use crate::http::admin::page::Query;
use crate::http::error::Failure;
use crate::store::credentials::Clients;

/// The purpose of a stored answer, so that another form's name does not find it.
pub(super) const NEW_KEY: &str = "new api key";

#[derive(Template)]
#[template(path = "keys.html")]
struct KeysPage {
    page: Page,
    may_change: bool,
    is_licensed: bool,
    is_licensed_for_tokens: bool,
    base: String,
    rows: Vec<Row>,
    next: Option<String>,
    q: String,
    new: Option<NewKey>,
}

/// A key that was just made. Only this page shows its secret.
struct NewKey {
    id: String,
    name: String,
    key: String,
    /// Set if the key has a webhook URL.
    webhook_secret: Option<String>,
    once: String,
}

struct Row {
    id: ApiKeyId,
    name: String,
    hint: String,
    environment: &'static str,
    is_live_environment: bool,
    addresses: String,
    output: &'static str,
    status: Status,
    last_used: Option<When>,
    last_used_ago: String,
    expires: Option<String>,
    is_new: bool,
    once: String,
    credentials: i64,
    is_on: bool,
}

/// The status of a key, and the CSS class of its badge.
#[derive(Clone, Copy)]
pub(super) struct Status {
    pub(super) label: &'static str,
    pub(super) class: &'static str,
    pub(super) is_active: bool,
    pub(super) is_revoked: bool,
    pub(super) is_restorable: bool,
}

impl Status {
    pub(super) fn of(key: &ApiKey, now: Timestamp) -> Self {
        let (label, class) = if key.leaked {
            ("Leaked", "bad")
        } else if key.revoked_at.is_some() {
            ("Revoked", "bad")
        } else if key.is_expired(now) {
            ("Expired", "warn")
        } else {
            ("Active", "good")
        };
        let is_active = key.revoked_at.is_none() && !key.is_expired(now);
        Self {
            label,
            class,
            is_active,
            is_revoked: key.revoked_at.is_some(),
            is_restorable: key.is_restorable(now),
        }
    }
}

pub(super) async fn list(
    context: MerchantContext,
    Query(listing): Query<Listing>,
) -> Result<Response, Failure> {
    html(&keys_page(&context, listing, None).await?)
}

async fn keys_page(
    context: &MerchantContext,
    listing: Listing,
    new: Option<NewKey>,
) -> Result<KeysPage, Failure> {
    let core = context.context.core();
    let wanted = context.wanted("keys", listing.cursor)?;
    let (principal, id, limit) = (&context.context.principal, context.id(), wanted.to_read());
    let found = match &listing.q {
        Some(part) => core.api_keys_named(principal, id, part, wanted.before, limit).await?,
        None => core.api_keys(principal, id, wanted.before, limit).await?,
    };
    let listed = wanted.page(found, |key| key.id, |key| key);
    let clients = core.clients_of(&context.context.principal, context.id(), &listed.items).await?;
    let rows = listed.items.iter().map(|key| Row {
        once: context.context.new_once(),
        is_new: new.as_ref().is_some_and(|new| new.id == key.id.to_string()),
        ..row(key, context.context.now, clients.get(&key.id).copied().unwrap_or_default())
    });
    Ok(KeysPage {
        page: context.page("API secret key", Screen::ApiKeys).saying(listing.done.as_deref()),
        may_change: context.may_change(),
        is_licensed: context.is_licensed(Product::ApiKeys),
        is_licensed_for_tokens: context.is_licensed(Product::EnhancedSecurity),
        base: context.path("/api-keys"),
        rows: rows.collect(),
        next: next_page(&carried(&[("q", listing.q.as_deref())]), listed.next_cursor.as_deref()),
        q: listing.q.unwrap_or_default(),
        new,
    })
}

/// When a key was last used, with any of its secrets.
pub(super) fn last_used_at(key: &ApiKey) -> Option<Timestamp> {
    key.secrets.iter().filter_map(|secret| secret.last_used_at).max()
}

fn row(key: &ApiKey, now: Timestamp, clients: Clients) -> Row {
    let last_used_at = last_used_at(key);
    let ranges = key.allow_list.to_strings();
    Row {
        id: key.id,
        name: key.name.clone(),
        hint: key.secrets.first().map(|secret| secret.hint.clone()).unwrap_or_default(),
        environment: words::environment(key.environment),
        is_live_environment: key.environment == crate::domain::api_key::Environment::Live,
        addresses: match ranges.as_slice() {
            [] => "Any address".to_owned(),
            [one] => one.clone(),
            [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        },
        output: words::webhook_format(key.webhook_format),
        status: Status::of(key, now),
        last_used: last_used_at.map(When),
        last_used_ago: last_used_at.map(|at| words::relative(at, now)).unwrap_or_default(),
        expires: key.expires_at.filter(|end| now < *end).map(|end| words::relative(end, now)),
        is_new: false,
        once: String::new(),
        credentials: clients.count,
        is_on: clients.is_on,
    }
}

pub(super) async fn new(context: MerchantContext) -> Result<Response, Failure> {
    html(&NewKeyPage::new(&context, KeyFields::fresh(context.context.new_once()), Mistakes::default()))
}

/// Saves a new key. The answer is the list of keys with the new key's secret above it, shown only once.
pub(super) async fn save(
    context: MerchantContext,
    form: RestorableForm<KeyFields>,
) -> Result<Response, Failure> {
    let (merchant, fields) = (context.id(), form.fields);
    if form.is_restored {
        return html(&NewKeyPage::new(&context, fields, Mistakes::default()).saying(FORM_RESTORED));
    }
    let principal = context.context.once(&fields.once, NEW_KEY, merchant.uuid());
    let new = match fields.to_new(context.context.core()) {
        Ok(new) => new,
        Err(mistakes) => {
            let page = NewKeyPage::new(&context, fields, mistakes);
            return html_as(StatusCode::UNPROCESSABLE_ENTITY, &page);
        }
    };
    let core = context.context.core();
    let answer = match answered(core.create_api_key(&principal, merchant, new).await)? {
        Ok(answer) => answer,
        Err(refused) => {
            let page = NewKeyPage::new(&context, fields, Mistakes::of(&refused));
            return html_as(StatusCode::UNPROCESSABLE_ENTITY, &page);
        }
    };
    let shown: Shown = stored(&answer.into_body())?;
    let new = NewKey {
        id: shown.id,
        name: shown.name,
        key: shown.key,
        webhook_secret: shown.webhook_secret,
        once: fields.once,
    };
    html(&keys_page(&context, Listing::default(), Some(new)).await?)
}

/// The stored answer to a creation, both for the first time and for a repetition.
#[derive(Deserialize)]
pub(super) struct Shown {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) key: String,
    pub(super) webhook_secret: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct KeyPath {
    pub(super) key: ApiKeyId,
}

pub(super) async fn confirm_revoke(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let live = context.live(Whose::Key(key.id)).await?;
    html(&ConfirmPage {
        page: context.page("Revoke the key", Screen::ApiKeys),
        heading: format!("Revoke \u{201c}{}\u{201d}?", key.name),
        consequence: "All calls with this key are refused immediately, and all its sessions end. You can restore \
                      the key within 60 minutes. After that, this cannot be undone, and applications that use \
                      the key need a new one."
            .to_owned(),
        costs: costs(live, last_used_at(&key), context.context.now),
        hidden: Vec::new(),
        code: None,
        button: "Revoke this key",
        action: context.path(&format!("/api-keys/{}/revoke", key.id)),
        back: context.path(&format!("/api-keys/{}", key.id)),
    })
}

pub(super) async fn revoke(context: MerchantContext, Path(path): Path<KeyPath>) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let live = context.live(Whose::Key(key.id)).await?;
    context.context.core().revoke_api_key(&context.context.principal, key.id).await?;
    Ok(Redirect::to(&context.path(&format!("/api-keys?done=revoked.{}", live.sessions))).into_response())
}

pub(super) async fn restore(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    context.context.core().restore_api_key(&context.context.principal, key.id).await?;
    Ok(Redirect::to(&context.path(&format!("/api-keys/{}?done=restored", key.id))).into_response())
}
