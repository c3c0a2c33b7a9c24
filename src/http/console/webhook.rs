//! One webhook: its body, and each attempt with its headers and the answer.

use askama::Template;
use axum::extract::Path;
use axum::response::Response;

use super::context::MerchantContext;
use super::exchanges::latency;
use super::listing::Listing;
use super::page::{Page, Screen, html};
use super::webhooks::{DeliveryPath, next_attempt, outcome, state_of};
use super::words::{Exactly, When};
use crate::domain::ids::{DeliveryId, EventId};
use crate::flows::sent_webhook::{SentAttempt, SentWebhook};
use crate::http::admin::page::Query;
use crate::http::error::Failure;

#[derive(Template)]
#[template(path = "webhook.html")]
struct WebhookPage {
    page: Page,
    id: DeliveryId,
    event_id: EventId,
    event_type: String,
    back: String,
    key_name: String,
    key_path: String,
    url: Option<String>,
    created: When,
    state: &'static str,
    class: &'static str,
    next: Option<String>,
    body: String,
    attempts: Vec<AttemptRow>,
    may_change: bool,
}

struct AttemptRow {
    number: i64,
    at: Exactly,
    outcome: String,
    is_good: bool,
    latency: String,
    /// Empty if nothing was sent.
    headers: String,
    may_differ: bool,
    /// The beginning of the answer's body.
    response: String,
}

pub(super) async fn show(
    context: MerchantContext,
    Path(path): Path<DeliveryPath>,
    Query(listing): Query<Listing>,
) -> Result<Response, Failure> {
    let core = context.context.core();
    let sent = core.sent_webhook(&context.context.principal, context.id(), path.delivery).await?;
    let SentWebhook { delivery, key_name, url, body, attempts } = sent;
    let (state, class) = state_of(&delivery);
    html(&WebhookPage {
        page: context.page("Webhook", Screen::Webhooks).saying(listing.done.as_deref()),
        id: delivery.id,
        event_id: delivery.event_id,
        back: context.path("/webhooks"),
        key_name,
        key_path: context.path(&format!("/api-keys/{}", delivery.api_key_id)),
        url,
        created: When(delivery.created_at),
        state,
        class,
        next: next_attempt(&delivery, context.context.now),
        body,
        attempts: attempts.into_iter().map(|sent| attempt_row(sent, context.may_change())).collect(),
        may_change: context.may_change(),
        event_type: delivery.event_type,
    })
}

/// A signature is valid for some minutes, so viewers do not see it.
fn attempt_row(sent: SentAttempt, shows_signature: bool) -> AttemptRow {
    let attempt = sent.attempt;
    let headers = sent.message.map(|message| {
        format!(
            "POST {}\ncontent-type: application/json\nwebhook-id: {}\nwebhook-timestamp: {}\n\
             webhook-signature: {}",
            message.url.as_str(),
            message.id,
            message.timestamp_secs,
            if shows_signature { &*message.signature } else { "(not shown to viewers)" }
        )
    });
    AttemptRow {
        number: attempt.number,
        at: Exactly(attempt.at),
        outcome: outcome(attempt.status, attempt.error),
        is_good: attempt.status.is_some_and(|status| (200..300).contains(&status)),
        latency: latency(attempt.latency_us),
        headers: headers.unwrap_or_default(),
        may_differ: sent.may_differ,
        response: attempt.response,
    }
}
