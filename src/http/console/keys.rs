//! *Account security > API secret key*: the list of keys, "Generate API key", its settings, and Save.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::context::MerchantContext;
use super::form::Form;
use super::key_form::{KeyFields, KeyFormPage};
use super::page::{Page, Screen, answered, html, html_as};
use super::words::{self, When};
use crate::domain::api_key::ApiKey;
use crate::domain::clock::Timestamp;
use crate::domain::ids::ApiKeyId;
use crate::domain::licence::Product;
use crate::http::admin::page::{PageQuery, Query, Wanted};
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
    next_cursor: Option<String>,
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
            ("Saved, active", "good")
        };
        let is_active = key.revoked_at.is_none() && !key.is_expired(now);
        Self { label, class, is_active, is_restorable: key.is_restorable(now) }
    }
}

#[derive(Deserialize)]
pub(super) struct ListQuery {
    cursor: Option<String>,
    done: Option<String>,
}

pub(super) async fn list(
    context: MerchantContext,
    Query(query): Query<ListQuery>,
) -> Result<Response, Failure> {
    html(&keys_page(&context, query.cursor, query.done.as_deref(), None).await?)
}

async fn keys_page(
    context: &MerchantContext,
    cursor: Option<String>,
    done: Option<&str>,
    new: Option<NewKey>,
) -> Result<KeysPage, Failure> {
    let core = context.context.core();
    let wanted =
        Wanted::new(core, format!("console keys of {}", context.id()), PageQuery { limit: None, cursor })?;
    let found =
        core.api_keys(&context.context.principal, context.id(), wanted.before, wanted.to_read()).await?;
    let listed = wanted.page(found, |key| key.id, |key| key);
    let clients = core.clients_of(&context.context.principal, context.id(), &listed.items).await?;
    let rows = listed.items.iter().map(|key| Row {
        once: context.context.new_once(),
        is_new: new.as_ref().is_some_and(|new| new.id == key.id.to_string()),
        ..row(key, context.context.now, clients.get(&key.id).copied().unwrap_or_default())
    });
    Ok(KeysPage {
        page: context.page("API secret key", Screen::ApiKeys).saying(done),
        may_change: context.may_change(),
        is_licensed: context.is_licensed(Product::ApiKeys),
        is_licensed_for_tokens: context.is_licensed(Product::EnhancedSecurity),
        base: context.path("/api-keys"),
        rows: rows.collect(),
        next_cursor: listed.next_cursor,
        new,
    })
}

fn row(key: &ApiKey, now: Timestamp, clients: Clients) -> Row {
    let last_used_at = key.secrets.iter().filter_map(|secret| secret.last_used_at).max();
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
    html(&KeyFormPage::new(&context, KeyFields::fresh(context.context.new_once()), None))
}

/// Saves a new key. The answer is the list of keys with the new key's secret above it, shown only once.
pub(super) async fn save(
    context: MerchantContext,
    Form(fields): Form<KeyFields>,
) -> Result<Response, Failure> {
    let merchant = context.id();
    let principal = context.context.once(&fields.once, NEW_KEY, merchant.uuid());
    let new = match fields.to_new() {
        Ok(new) => new,
        Err(words) => {
            return html_as(
                StatusCode::UNPROCESSABLE_ENTITY,
                &KeyFormPage::new(&context, fields, Some(words)),
            );
        }
    };
    let core = context.context.core();
    let answer = match answered(core.create_api_key(&principal, merchant, new).await)? {
        Ok(answer) => answer,
        Err(refused) => {
            let words = words::refusal(&refused);
            let page = KeyFormPage::new(&context, fields, Some(words));
            return html_as(StatusCode::UNPROCESSABLE_ENTITY, &page);
        }
    };
    let shown = Shown::parse(&answer.into_body())?;
    let new = NewKey {
        id: shown.id,
        name: shown.name,
        key: shown.key,
        webhook_secret: shown.webhook_secret,
        once: fields.once,
    };
    html(&keys_page(&context, None, None, Some(new)).await?)
}

/// The stored answer to a creation, both for the first time and for a repetition.
#[derive(Deserialize)]
pub(super) struct Shown {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) key: String,
    pub(super) webhook_secret: Option<String>,
}

impl Shown {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(body).map_err(|_| Failure::fault("a kept answer is not one to this form"))
    }
}

#[derive(Deserialize)]
pub(super) struct KeyPath {
    pub(super) key: ApiKeyId,
}

#[derive(Template)]
#[template(path = "confirm.html")]
pub(super) struct ConfirmPage {
    pub(super) page: Page,
    pub(super) heading: String,
    pub(super) consequence: String,
    pub(super) button: &'static str,
    pub(super) action: String,
    pub(super) back: String,
}

pub(super) async fn confirm_revoke(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    html(&ConfirmPage {
        page: context.page("Revoke the key", Screen::ApiKeys),
        heading: format!("Revoke \u{201c}{}\u{201d}?", key.name),
        consequence: "From the next second on, every call with this key is refused, and every session \
                      started with it ends. You can restore the key within 60 minutes; after that it is \
                      gone for good, and whatever still uses it needs a new one."
            .to_owned(),
        button: "Revoke this key",
        action: context.path(&format!("/api-keys/{}/revoke", key.id)),
        back: context.path("/api-keys"),
    })
}

pub(super) async fn revoke(context: MerchantContext, Path(path): Path<KeyPath>) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    context.context.core().revoke_api_key(&context.context.principal, key.id).await?;
    Ok(Redirect::to(&context.path("/api-keys?done=revoked")).into_response())
}

pub(super) async fn restore(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    context.context.core().restore_api_key(&context.context.principal, key.id).await?;
    Ok(Redirect::to(&context.path("/api-keys?done=restored")).into_response())
}
