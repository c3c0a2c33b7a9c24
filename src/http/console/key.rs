//! The page of one key: settings, secrets, access keys, use, sessions, addresses, webhook, and audit trail.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::audit::title_of;
use super::chart::{self, Chart, Column};
use super::context::MerchantContext;
use super::exchanges;
use super::form::RestorableForm;
use super::kept_form::FORM_RESTORED;
use super::key_form::{KeyFields, KeyForm};
use super::keys::{KeyPath, Status};
use super::listing::encoded;
use super::mistakes::Mistakes;
use super::page::{Page, Screen, answered, html, html_as};
use super::scopes::{self, Narrowing};
use super::secrets::{SecretRow, secret_rows};
use super::sessions::{self, SessionRow};
use super::webhooks::{Tried, tried};
use super::words::{self, Exactly, When};
use crate::domain::api_key::ApiKey;
use crate::domain::clock::Timestamp;
use crate::domain::credential::Credential;
use crate::domain::event::Outcome;
use crate::domain::ids::SecretId;
use crate::domain::licence::Product;
use crate::domain::scope::Scopes;
use crate::flows::key_activity::{CALLS_MAX, KeyActivity};
use crate::flows::manage_keys::{ApiKeyChanges, ChangedApiKey};
use crate::http::admin::page::Query;
use crate::http::error::Failure;
use crate::store::audit::Chained;
use crate::store::webhook_secrets::ListedSecret;

/// The most suggested addresses that the page shows.
const SUGGESTED_MAX: usize = 20;

#[derive(Template)]
#[template(path = "key.html")]
struct KeyPage {
    page: Page,
    /// The settings as they are stored.
    current: KeyFields,
    form: KeyForm,
    base: String,
    back: String,
    status: Status,
    environment: &'static str,
    may_change: bool,
    is_licensed_for_tokens: bool,
    once: String,
    secrets: Vec<SecretRow>,
    clients: Vec<ClientRow>,
    usage: Usage,
    sessions: Vec<SessionRow>,
    sessions_path: String,
    suggested: Vec<Suggested>,
    /// The form has the suggested addresses in it, and is not saved yet.
    is_filled: bool,
    webhook_disabled: Option<When>,
    webhooks_path: String,
    signing_secrets: Vec<SigningSecret>,
    /// The result of a webhook test.
    tried: Option<Tried>,
    /// Shown once, if setting the webhook URL has made it.
    webhook_secret: Option<String>,
    events: Vec<EventRow>,
    audit_path: String,
}

struct ClientRow {
    client_id: String,
    is_on: bool,
    scopes: Option<String>,
    last_used: Option<When>,
}

/// The calls of the last 24 hours.
struct Usage {
    answered: i64,
    denied: i64,
    chart: Chart,
    denials: Vec<Denial>,
    details_path: String,
    /// Set if only the newest calls of the account were counted.
    counted_max: Option<i64>,
}

struct Denial {
    why: String,
    path: String,
    calls: i64,
}

struct Suggested {
    range: String,
    calls: i64,
    last: When,
    is_allowed: bool,
}

struct SigningSecret {
    id: SecretId,
    created: When,
    ends: String,
}

struct EventRow {
    at: Exactly,
    who: String,
    what: String,
    is_refused: bool,
}

#[derive(Default, Deserialize)]
pub(super) struct Asked {
    done: Option<String>,
    /// Puts the suggested addresses into the form.
    #[serde(default)]
    suggest: bool,
}

pub(super) async fn show(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let mut page = key_page(&context, &key, KeyFields::of(&key), Mistakes::default()).await?;
    if asked.suggest && page.may_change {
        let more = page.suggested.iter().filter(|one| !one.is_allowed).map(|one| one.range.as_str());
        let now = page.form.fields.allowed_ips.lines();
        page.form.fields.allowed_ips = now.chain(more).collect::<Vec<_>>().join("\n");
        page.is_filled = true;
    }
    html(&KeyPage { page: page.page.saying(asked.done.as_deref()), ..page })
}

async fn key_page(
    context: &MerchantContext,
    key: &ApiKey,
    fields: KeyFields,
    mistakes: Mistakes,
) -> Result<KeyPage, Failure> {
    let now = context.context.now;
    let activity = context.context.core().key_activity(&context.context.principal, key).await?;
    let base = context.path(&format!("/api-keys/{}", key.id));
    Ok(KeyPage {
        page: context.page("API key", Screen::ApiKeys),
        current: KeyFields::of(key),
        form: KeyForm::of(context, key, fields, mistakes),
        back: context.path("/api-keys"),
        status: Status::of(key, now),
        environment: words::environment(key.environment),
        may_change: context.may_change(),
        is_licensed_for_tokens: context.is_licensed(Product::EnhancedSecurity),
        once: context.context.new_once(),
        secrets: secret_rows(&key.secrets, now),
        usage: usage(context, key, &activity),
        clients: activity.credentials.into_iter().map(client_row).collect(),
        sessions: activity
            .sessions
            .iter()
            .map(|one| sessions::row(one, key.name.clone(), &base, now))
            .collect(),
        sessions_path: context.path(&format!("/sessions?key={}", key.id)),
        suggested: activity
            .suggested
            .into_iter()
            .take(SUGGESTED_MAX)
            .map(|one| Suggested {
                is_allowed: key.allow_list.ranges().iter().any(|range| range.contains(&one.cidr)),
                range: words::range(&one.cidr),
                calls: one.calls,
                last: When(one.last_seen_at),
            })
            .collect(),
        is_filled: false,
        webhook_disabled: key.webhook_disabled_at.map(When),
        webhooks_path: context.path(&format!("/webhooks?key={}", key.id)),
        signing_secrets: activity.signing_secrets.into_iter().map(|one| signing_secret(one, now)).collect(),
        tried: None,
        webhook_secret: None,
        events: activity.events.into_iter().map(event_row).collect(),
        audit_path: context.path(&format!("/audit?object={}", key.id)),
        base,
    })
}

fn signing_secret(secret: ListedSecret, now: Timestamp) -> SigningSecret {
    let ends = match secret.ends_at {
        None => "Signs".to_owned(),
        Some(end) if now < end => format!("Signs, ends {}", words::relative(end, now)),
        Some(end) => format!("Ended {}", words::relative(end, now)),
    };
    SigningSecret { id: secret.id, created: When(secret.created_at), ends }
}

fn client_row(credential: Credential) -> ClientRow {
    ClientRow {
        is_on: credential.enabled,
        scopes: credential.scopes.as_ref().map(Scopes::to_string),
        last_used: credential.secrets.iter().filter_map(|secret| secret.last_used_at).max().map(When),
        client_id: credential.client_id,
    }
}

fn usage(context: &MerchantContext, key: &ApiKey, activity: &KeyActivity) -> Usage {
    let start = activity.hours.first().map(|hour| hour.start);
    let details_path = format!("{}&key={}", exchanges::path_since(context, start), key.id);
    let columns: Vec<Column<i64>> = activity
        .hours
        .iter()
        .map(|hour| Column {
            label: hour.start.to_published()[11..16].to_owned(),
            tooltip: format!(
                "{} UTC: {} answered, {} denied",
                &hour.start.to_published()[11..16],
                hour.answered,
                hour.denied
            ),
            values: vec![hour.answered, hour.denied],
        })
        .collect();
    Usage {
        answered: activity.hours.iter().map(|hour| hour.answered).sum(),
        denied: activity.hours.iter().map(|hour| hour.denied).sum(),
        chart: chart::bars("Calls answered and denied by hour, the last 24 hours", &columns),
        denials: activity
            .denials
            .iter()
            .map(|(reason, calls)| Denial {
                why: words::reason(reason),
                path: format!("{details_path}&denied={}", encoded(reason)),
                calls: *calls,
            })
            .collect(),
        counted_max: activity.is_partial.then_some(CALLS_MAX),
        details_path,
    }
}

fn event_row(chained: Chained) -> EventRow {
    let event = chained.event;
    EventRow {
        at: Exactly(event.at),
        who: words::actor(&event.actor),
        what: title_of(&event.action),
        is_refused: event.outcome == Outcome::Refused,
    }
}

pub(super) async fn save(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
    form: RestorableForm<KeyFields>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let fields = form.fields;
    if form.is_restored {
        let page = key_page(&context, &key, fields, Mistakes::default()).await?;
        return html(&KeyPage { page: page.page.saying(FORM_RESTORED), ..page });
    }
    let mistakes = match fields.to_changes(context.context.core(), &key) {
        Err(mistakes) => mistakes,
        Ok(changes) => {
            if let Some(asked) = ask_to_narrow(&context, &key, &fields, &changes).await? {
                return Ok(asked);
            }
            let version = Some(vec![fields.version]);
            match answered(
                context
                    .context
                    .core()
                    .update_api_key(&context.context.principal, key.id, version, changes)
                    .await,
            )? {
                Ok(changed) => return saved(&context, changed, "saved").await,
                Err(refused) => Mistakes::of(&refused),
            }
        }
    };
    html_as(StatusCode::UNPROCESSABLE_ENTITY, &key_page(&context, &key, fields, mistakes).await?)
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

/// Redirects to the page of the key. If its webhook has a new signing secret, shows it once instead.
async fn saved(context: &MerchantContext, changed: ChangedApiKey, done: &str) -> Result<Response, Failure> {
    let key = changed.object;
    let Some(secret) = changed.webhook_secret else {
        let to = context.path(&format!("/api-keys/{}?done={done}", key.id));
        return Ok(Redirect::to(&to).into_response());
    };
    let page = key_page(context, &key, KeyFields::of(&key), Mistakes::default()).await?;
    html(&KeyPage { webhook_secret: Some(secret.expose().to_owned()), ..page })
}

/// Sends a test event to the key's webhook and shows the answer.
pub(super) async fn test_webhook(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let shared = &context.context.shared;
    let answer = shared
        .core
        .test_webhook(&context.context.principal, key.id, |message| shared.egress.send(message))
        .await?;
    let page = key_page(&context, &key, KeyFields::of(&key), Mistakes::default()).await?;
    html(&KeyPage { tried: Some(tried(key.name, &answer)), ..page })
}

/// Enables the key's webhook again after it was disabled, with the same URL.
pub(super) async fn enable_webhook(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let changes = ApiKeyChanges { webhook_url: Some(key.webhook_url.clone()), ..ApiKeyChanges::default() };
    let core = context.context.core();
    let changed =
        core.update_api_key(&context.context.principal, key.id, Some(vec![key.version]), changes).await?;
    // Without a live secret, it has got a new one.
    saved(&context, changed, "webhook-enabled").await
}
