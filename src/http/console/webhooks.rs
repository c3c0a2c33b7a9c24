//! Sent webhooks with their attempts and a Resend button, and webhook tests.

use askama::Template;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use chrono::TimeDelta;
use serde::Deserialize;

use super::confirm::ConfirmPage;
use super::context::MerchantContext;
use super::form::filled;
use super::keys::KeyPath;
use super::listing::{carried, next_page};
use super::page::{Page, Screen, html};
use super::words::{self, When};
use crate::domain::clock::Timestamp;
use crate::domain::delivery::{Answer, Delivery, DeliveryState, SendError};
use crate::domain::ids::{ApiKeyId, DeliveryId};
use crate::flows::manage_webhooks::RESENT_MAX;
use crate::http::admin::page::Query;
use crate::http::error::Failure;
use crate::store::delivery_log::Filter;

#[derive(Template)]
#[template(path = "webhooks.html")]
struct WebhooksPage {
    page: Page,
    base: String,
    keys_path: String,
    may_change: bool,
    state: String,
    keys: Vec<(ApiKeyId, String)>,
    key: String,
    is_filtered: bool,
    targets: Vec<Target>,
    rows: Vec<Row>,
    next: Option<String>,
    tried: Option<Tried>,
}

/// A key that has a webhook.
struct Target {
    id: ApiKeyId,
    name: String,
    url: String,
    disabled: Option<When>,
}

struct Row {
    id: DeliveryId,
    event_type: String,
    /// The path of the key, and its name.
    key: (String, String),
    created: When,
    state: &'static str,
    class: &'static str,
    next: Option<String>,
    attempts: usize,
    last: Option<String>,
}

/// The result of a ping.
pub(super) struct Tried {
    pub(super) name: String,
    pub(super) is_good: bool,
    pub(super) outcome: String,
}

#[derive(Default, Deserialize)]
pub(super) struct Asked {
    #[serde(default, deserialize_with = "filled")]
    state: Option<String>,
    #[serde(default, deserialize_with = "filled")]
    key: Option<String>,
    cursor: Option<String>,
    done: Option<String>,
}

pub(super) async fn list(context: MerchantContext, Query(asked): Query<Asked>) -> Result<Response, Failure> {
    html(&webhooks_page(&context, asked, None).await?)
}

async fn webhooks_page(
    context: &MerchantContext,
    asked: Asked,
    tried: Option<Tried>,
) -> Result<WebhooksPage, Failure> {
    let core = context.context.core();
    let state: Option<DeliveryState> = asked.state.as_deref().and_then(|state| state.parse().ok());
    let wanted = context.wanted("webhooks", asked.cursor)?;
    let filter = Filter { api_key: asked.key.as_deref().and_then(|key| key.parse().ok()), state };
    let found = core
        .list_deliveries(&context.context.principal, context.id(), filter, wanted.before, wanted.to_read())
        .await?;
    let keys = context.key_names(found.iter().map(|delivery| delivery.api_key_id)).await?;
    let now = context.context.now;
    let listed = wanted.page(
        found,
        |delivery| delivery.id,
        |delivery| {
            let key =
                (context.path(&format!("/api-keys/{}", delivery.api_key_id)), keys.of(delivery.api_key_id));
            row(delivery, key, now)
        },
    );
    let carried = carried(&[("state", asked.state.as_deref()), ("key", asked.key.as_deref())]);
    let target = |key: crate::domain::api_key::ApiKey| {
        let url = key.webhook_url.filter(|_| key.revoked_at.is_none())?;
        let disabled = key.webhook_disabled_at.map(When);
        Some(Target { id: key.id, name: key.name, url: url.to_string(), disabled })
    };
    Ok(WebhooksPage {
        page: context.page("Webhooks sent", Screen::Webhooks).saying(asked.done.as_deref()),
        base: context.path("/webhooks"),
        keys_path: context.path("/api-keys"),
        may_change: context.may_change(),
        next: next_page(&carried, listed.next_cursor.as_deref()),
        is_filtered: !carried.is_empty(),
        state: asked.state.unwrap_or_default(),
        keys: keys.choices(),
        key: asked.key.clone().unwrap_or_default(),
        targets: keys.newest.into_iter().filter_map(target).collect(),
        rows: listed.items,
        tried,
    })
}

/// The state of a delivery, and the CSS class of its badge.
pub(super) fn state_of(delivery: &Delivery) -> (&'static str, &'static str) {
    match delivery.state {
        DeliveryState::Pending if delivery.attempts.is_empty() => ("Waiting", ""),
        DeliveryState::Pending => ("Retrying", "warn"),
        DeliveryState::Delivered => ("Delivered", "good"),
        DeliveryState::Failed => ("Failed", "bad"),
    }
}

/// When a pending delivery is attempted next.
pub(super) fn next_attempt(delivery: &Delivery, now: Timestamp) -> Option<String> {
    delivery.next_attempt_at.map(|at| words::relative(at.max(now), now))
}

fn row(delivery: Delivery, key: (String, String), now: Timestamp) -> Row {
    let ((state, class), next) = (state_of(&delivery), next_attempt(&delivery, now));
    Row {
        id: delivery.id,
        event_type: delivery.event_type,
        key,
        created: When(delivery.created_at),
        state,
        class,
        next,
        attempts: delivery.attempts.len(),
        last: delivery.attempts.last().map(|attempt| outcome(attempt.status, attempt.error)),
    }
}

pub(super) fn outcome(status: Option<u16>, error: Option<SendError>) -> String {
    match (status, error) {
        (Some(status), _) => format!("The receiver answered {status}."),
        (None, Some(error)) => no_answer(error).to_owned(),
        (None, None) => "No answer.".to_owned(),
    }
}

const fn no_answer(error: SendError) -> &'static str {
    match error {
        SendError::UrlNotAllowed => "Webhooks may not be sent to this URL.",
        SendError::NameNotResolved => "The host name was not found.",
        SendError::AddressNotAllowed => "The host has a private address. Webhooks may not be sent there.",
        SendError::ConnectionRefused => "The connection was refused.",
        SendError::ConnectFailed => "The host could not be reached.",
        SendError::TlsFailed => "The connection was lost during the TLS handshake.",
        SendError::TlsNameMismatch => "The host's certificate is for another name.",
        SendError::TlsCertificateExpired => "The host's certificate has expired, or is not valid yet.",
        SendError::TlsUnknownAuthority => {
            "The host's certificate is not from an authority that is trusted, or its chain is incomplete."
        }
        SendError::TlsProtocol => "The host does not support TLS 1.2 or 1.3 on this port.",
        SendError::ProxyUnreachable => "The platform's proxy for webhooks could not be reached.",
        SendError::ProxyRefused => "The platform's proxy for webhooks did not connect to the host.",
        SendError::ConnectionLost => "The connection was lost.",
        SendError::AnswerMalformed => "The response was not HTTP.",
        SendError::TimedOut => "The receiver took too long to answer.",
        SendError::SecretMissing => "There is no signing secret. Save the webhook URL again.",
    }
}

#[derive(Deserialize)]
pub(super) struct DeliveryPath {
    pub(super) delivery: DeliveryId,
}

pub(super) async fn resend(
    context: MerchantContext,
    Path(path): Path<DeliveryPath>,
) -> Result<Response, Failure> {
    context.context.core().redeliver(&context.context.principal, context.id(), path.delivery).await?;
    let to = context.path(&format!("/webhooks/{}?done=resent", path.delivery));
    Ok(Redirect::to(&to).into_response())
}

/// How far back failed webhooks are sent again.
const RESENT_SINCE: TimeDelta = TimeDelta::days(7);

pub(super) async fn confirm_resend_failed(context: MerchantContext) -> Result<Response, Failure> {
    let since = context.context.now.minus(RESENT_SINCE);
    let core = context.context.core();
    let failed = match core.count_failed(&context.context.principal, context.id(), None, since).await? {
        RESENT_MAX => format!("{RESENT_MAX} or more; the oldest {RESENT_MAX} are sent"),
        count => count.to_string(),
    };
    html(&ConfirmPage {
        page: context.page("Resend failed webhooks", Screen::Webhooks),
        heading: "Send all failed webhooks again?".to_owned(),
        consequence:
            "All webhooks of the last 7 days that failed are sent again, oldest first. A receiver may get an \
                      event twice. The webhook-id is then the same."
                .to_owned(),
        costs: vec![("Failed webhooks", failed)],
        hidden: Vec::new(),
        code: None,
        button: "Send them again",
        action: context.path("/webhooks/resend-failed"),
        back: context.path("/webhooks?state=failed"),
    })
}

pub(super) async fn resend_failed(context: MerchantContext) -> Result<Response, Failure> {
    let since = context.context.now.minus(RESENT_SINCE);
    let core = context.context.core();
    let count = core.redeliver_failed(&context.context.principal, context.id(), None, since).await?;
    Ok(Redirect::to(&context.path(&format!("/webhooks?done=all-resent.{count}"))).into_response())
}

/// Sends a ping to a key's webhook and shows the answer.
pub(super) async fn send_ping(
    context: MerchantContext,
    Path(path): Path<KeyPath>,
) -> Result<Response, Failure> {
    let key = context.key(path.key).await?;
    let shared = &context.context.shared;
    let answer = shared
        .core
        .test_webhook(&context.context.principal, key.id, |message| shared.egress.send(message))
        .await?;
    let asked = Asked::default();
    html(&webhooks_page(&context, asked, Some(tried(key.name, &answer))).await?)
}

pub(super) fn tried(name: String, answer: &Answer) -> Tried {
    let outcome = match &answer.result {
        Ok(received) => outcome(Some(received.status), None),
        Err(error) => outcome(None, Some(*error)),
    };
    Tried { name, is_good: answer.is_success(), outcome }
}
