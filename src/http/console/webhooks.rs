//! Sent webhooks with their attempts and a Resend button, and webhook tests.

use std::collections::HashMap;

use askama::Template;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use chrono::TimeDelta;
use serde::Deserialize;

use super::confirm::ConfirmPage;
use super::context::MerchantContext;
use super::exchanges::latency;
use super::form::filled;
use super::keys::KeyPath;
use super::page::{Page, Screen, html};
use super::words::{self, When};
use crate::domain::delivery::{Answer, Attempt, Delivery, DeliveryState, SendError};
use crate::domain::ids::{ApiKeyId, DeliveryId};
use crate::http::admin::page::Query;
use crate::http::error::Failure;
use crate::store::delivery_log::Filter;

const KEYS_MAX: i64 = 200;

#[derive(Template)]
#[template(path = "webhooks.html")]
struct WebhooksPage {
    page: Page,
    base: String,
    keys_path: String,
    may_change: bool,
    state: String,
    targets: Vec<Target>,
    rows: Vec<Row>,
    next_cursor: Option<String>,
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
    key_name: String,
    created: When,
    state: &'static str,
    class: &'static str,
    next: Option<String>,
    attempts: Vec<AttemptRow>,
    data: String,
}

struct AttemptRow {
    number: i64,
    at: When,
    outcome: String,
    latency: String,
    response: String,
}

/// The result of a ping.
struct Tried {
    name: String,
    is_good: bool,
    outcome: String,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default, deserialize_with = "filled")]
    state: Option<String>,
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
    let filter = Filter { api_key: None, state };
    let found = core
        .list_deliveries(&context.context.principal, context.id(), filter, wanted.before, wanted.to_read())
        .await?;
    let keys = core.api_keys(&context.context.principal, context.id(), None, KEYS_MAX).await?;
    let names: HashMap<ApiKeyId, String> = keys.iter().map(|key| (key.id, key.name.clone())).collect();
    let now = context.context.now;
    let listed = wanted.page(
        found,
        |delivery| delivery.id,
        |delivery| {
            let next = delivery.next_attempt_at.map(|at| words::relative(at.max(now), now));
            row(delivery, &names, next)
        },
    );
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
        state: asked.state.unwrap_or_default(),
        targets: keys.into_iter().filter_map(target).collect(),
        rows: listed.items,
        next_cursor: listed.next_cursor,
        tried,
    })
}

fn row(delivery: Delivery, names: &HashMap<ApiKeyId, String>, next: Option<String>) -> Row {
    let (state, class) = match delivery.state {
        DeliveryState::Pending if delivery.attempts.is_empty() => ("Waiting", ""),
        DeliveryState::Pending => ("Retrying", "warn"),
        DeliveryState::Delivered => ("Delivered", "good"),
        DeliveryState::Failed => ("Failed", "bad"),
    };
    Row {
        id: delivery.id,
        event_type: delivery.event_type,
        key_name: names.get(&delivery.api_key_id).cloned().unwrap_or_default(),
        created: When(delivery.created_at),
        state,
        class,
        next,
        attempts: delivery.attempts.into_iter().rev().map(attempt_row).collect(),
        data: delivery.data.as_str().to_owned(),
    }
}

fn attempt_row(attempt: Attempt) -> AttemptRow {
    AttemptRow {
        number: attempt.number,
        at: When(attempt.at),
        outcome: outcome(attempt.status, attempt.error),
        latency: latency(attempt.latency_us),
        response: attempt.response,
    }
}

fn outcome(status: Option<u16>, error: Option<SendError>) -> String {
    match (status, error) {
        (Some(status), _) => format!("The receiver answered {status}."),
        (None, Some(error)) => no_answer(error).to_owned(),
        (None, None) => "No answer.".to_owned(),
    }
}

const fn no_answer(error: SendError) -> &'static str {
    match error {
        SendError::UrlNotAllowed => "The URL is not one that webhooks may go to.",
        SendError::NameNotResolved => "The host name was not found.",
        SendError::AddressNotAllowed => "The host has a private address; webhooks may not go there.",
        SendError::ConnectionRefused => "The connection was refused.",
        SendError::ConnectFailed => "The host could not be reached.",
        SendError::TlsFailed => "The connection broke off while TLS was being set up.",
        SendError::TlsNameMismatch => "The host's certificate is for another name.",
        SendError::TlsCertificateExpired => "The host's certificate has expired, or is not valid yet.",
        SendError::TlsUnknownAuthority => {
            "The host's certificate is not from an authority that is trusted, or its chain is incomplete."
        }
        SendError::TlsProtocol => "The host does not speak TLS 1.2 or 1.3 on this port.",
        SendError::ProxyUnreachable => "The platform's proxy for webhooks could not be reached.",
        SendError::ProxyRefused => "The platform's proxy for webhooks did not connect to the host.",
        SendError::ConnectionLost => "The connection broke off.",
        SendError::AnswerMalformed => "What came back was not HTTP.",
        SendError::TimedOut => "The receiver took too long.",
        SendError::SecretMissing => "There is no secret to sign it with; save the webhook URL again.",
    }
}

#[derive(Deserialize)]
pub(super) struct DeliveryPath {
    delivery: DeliveryId,
}

pub(super) async fn resend(
    context: MerchantContext,
    Path(path): Path<DeliveryPath>,
) -> Result<Response, Failure> {
    context.context.core().redeliver(&context.context.principal, context.id(), path.delivery).await?;
    Ok(Redirect::to(&context.path("/webhooks?done=resent")).into_response())
}

/// How far back failed webhooks are sent again.
const RESENT_SINCE: TimeDelta = TimeDelta::days(7);

pub(super) async fn confirm_resend_failed(context: MerchantContext) -> Result<Response, Failure> {
    html(&ConfirmPage {
        page: context.page("Resend failed webhooks", Screen::Webhooks),
        heading: "Send all failed webhooks again?".to_owned(),
        consequence:
            "Every webhook of the last 7 days that has failed is sent again, in the order in which it was \
                      made. A receiver may get an event a second time; its webhook-id tells."
                .to_owned(),
        costs: Vec::new(),
        hidden: Vec::new(),
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
    let asked = Asked { state: None, cursor: None, done: None };
    html(&webhooks_page(&context, asked, Some(tried(key.name, &answer))).await?)
}

fn tried(name: String, answer: &Answer) -> Tried {
    let outcome = match &answer.result {
        Ok(received) => outcome(Some(received.status), None),
        Err(error) => outcome(None, Some(*error)),
    };
    Tried { name, is_good: answer.is_success(), outcome }
}
