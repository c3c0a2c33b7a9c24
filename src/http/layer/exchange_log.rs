//! Records each call for "API details": the caller, the address, the result and the exact reason. Also adds
//! headers that tell the caller when its key or secret ends soon.
//!
//! A background task writes the records, so the call does not wait. A call without a known key belongs to no
//! merchant, so it is not recorded. Its log line has the reason. The number of recorded refusals per address
//! and minute is limited. Otherwise somebody with a key that no longer works could fill the database with
//! records.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use crate::domain::lengths::HOPS_MAX;
use crate::domain::reason::Reason;
use crate::flows::rotation::Ending;
use crate::http::Shared;
use crate::http::context::RequestContext;
use crate::http::error::Failure;
use crate::store::exchanges::Exchange;

/// The recorded reason if a call was allowed although its address is outside the key's list.
pub const OBSERVED: &str = "address_observed";

pub async fn record(
    shared: Arc<Shared>,
    context: RequestContext,
    answer: impl Future<Output = Response>,
) -> Response {
    let mut response = answer.await;
    let notes = context.take_notes();
    if let (Some(ending), true) = (notes.ending, response.status().is_success()) {
        put_ending(response.headers_mut(), ending);
    }
    let Some(owner) = notes.owner else { return response };
    let failure = response.extensions().get::<Failure>();
    let reason = failure.and_then(|failure| failure.reason);
    if reason.is_some_and(Reason::is_of_an_outsider)
        && !shared.exchanges.has_room_for_refusal(context.ip(), context.at())
    {
        return response;
    }
    let reason = reason.map(Reason::name);
    let hops = context.address().map(|address| address.hops.as_slice()).unwrap_or_default();
    let exchange = Exchange {
        id: context.id(),
        merchant_id: owner.merchant_id,
        at: context.at(),
        request_id: context.request_id().to_owned(),
        method: context.method().to_owned(),
        path: context.path().to_owned(),
        status: response.status().as_u16(),
        error: failure.map(|failure| failure.code.to_owned()),
        reason: reason.or(notes.observed.then_some(OBSERVED)).map(str::to_owned),
        client_ip: context.client_ip().to_owned(),
        hops: hops[hops.len().saturating_sub(HOPS_MAX)..].iter().map(ToString::to_string).collect(),
        api_key_id: Some(owner.api_key_id),
        client_id: notes.client_id,
        latency_us: context.latency_us(),
    };
    match notes.is_renewal {
        true => shared.exchanges.record_renewal(exchange),
        false => shared.exchanges.record(exchange),
    }
    response
}

/// `Sunset` (RFC 8594) says when the key or secret of this call stops working. `Deprecation` (RFC 9745) says
/// since when there is a newer one.
fn put_ending(headers: &mut HeaderMap, ending: Ending) {
    let date = HeaderValue::from_str(&ending.at.to_http_date()).expect("a date is printable ASCII");
    headers.insert("sunset", date);
    if let Some(at) = ending.replaced_at {
        let date = HeaderValue::from_str(&format!("@{}", at.unix_secs())).expect("digits are ASCII");
        headers.insert("deprecation", date);
    }
}
