//! The outermost step: determines the request's id and the client's address, adds the id to the answer, and
//! writes the log line.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use opentelemetry::Context;

use crate::config::ForwardedHeader;
use crate::domain::address::{self, ClientAddress, Unreadable};
use crate::domain::ids::ExchangeId;
use crate::http::context::{Head, Peer, RequestContext, micros_of};
use crate::http::error::Failure;
use crate::http::{Edge, Shared};
use crate::telemetry::traces::Call;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The start of a request, for [`end`].
pub struct Begun {
    pub context: RequestContext,
    /// The trace to continue, if a trusted proxy named one.
    parent: Option<Context>,
}

/// Adds the context to the request, for the handlers.
pub fn begin(shared: &Shared, route: Option<Cow<'static, str>>, request: &mut Request) -> Begun {
    let at = shared.core.now();
    let id = ExchangeId::generate(at, &shared.core.entropy);
    let request_id = request_id(request.headers()).map_or_else(|| id.to_string(), str::to_owned);
    // The listener always adds the peer. Without it, the address is unknown.
    let peer =
        request.extensions().get::<Peer>().map_or(Peer::client(Ipv4Addr::UNSPECIFIED.into()), |peer| *peer);
    let address = client_address(peer, request.headers(), &shared.edge);
    let comes_through_proxy = address.as_ref().is_ok_and(|address| !address.hops.is_empty());
    let parent = match &shared.traces {
        Some(traces) if comes_through_proxy => Some(traces.named_by(request.headers())),
        _ => None,
    };
    let context = RequestContext::new(Head {
        id,
        request_id,
        at,
        method: request.method().clone(),
        uri: request.uri().clone(),
        route,
        peer: peer.ip,
        address,
    });
    request.extensions_mut().insert(context.clone());
    Begun { context, parent }
}

/// Adds the id to the answer, counts the request and writes its log line.
pub fn end(shared: &Shared, Begun { context, parent }: &Begun, response: &mut Response, has_hung_up: bool) {
    if let Ok(value) = HeaderValue::from_str(context.request_id()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let reason = response.extensions().get::<Failure>().and_then(|failure| failure.reason);
    let (status, latency) = (response.status().as_u16(), context.latency());
    let (route, method, path) = (context.route(), context.method(), context.path());
    shared.metrics.count(route, status, reason, latency);
    let trace = shared.traces.as_ref().and_then(|traces| {
        traces.record(&Call {
            parent: parent.as_ref().unwrap_or(&Context::new()),
            at: context.at(),
            request_id: context.request_id(),
            method,
            route,
            path,
            status,
            reason: reason.map(|reason| reason.name()),
            client_ip: context.ip(),
            latency,
        })
    });
    if !shared.logs_probes && response.status().is_success() && route.is_some_and(is_probe) {
        return;
    }
    tracing::info!(
        target: "tollgate::access",
        request_id = context.request_id(),
        method,
        path,
        status,
        reason = reason.map(|reason| reason.name()),
        client_ip = %context.client_ip(),
        latency_us = micros_of(latency),
        has_hung_up = has_hung_up.then_some(true),
        trace_id = trace.map(display),
    );
}

/// Routes that machines call every few seconds.
fn is_probe(route: &str) -> bool {
    matches!(route, "/healthz" | "/readyz" | "/metrics")
}

/// The caller's request id, if it is 1 to 64 characters of `[A-Za-z0-9._-]`.
fn request_id(headers: &HeaderMap) -> Option<&str> {
    let is_fine = |id: &&str| {
        (1..=64).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_fine)
}

/// Reads the entries of one header line.
type Entries = fn(&str) -> Vec<Cow<'_, str>>;

fn client_address(peer: Peer, headers: &HeaderMap, edge: &Edge) -> Result<ClientAddress, Unreadable> {
    if !peer.is_client {
        // The proxy did not name its client, so the headers may come from anybody.
        return Ok(ClientAddress::unknown(peer.ip));
    }
    let (name, entries): (_, Entries) = match edge.forwarded_header {
        ForwardedHeader::XForwardedFor => ("x-forwarded-for", address::x_forwarded_for_entries),
        ForwardedHeader::Forwarded => ("forwarded", address::forwarded_entries),
    };
    // A header line that is not text becomes an empty entry, which is then refused.
    let entries: Vec<Cow<'_, str>> = headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.to_str().map_or_else(|_| vec![Cow::Borrowed("")], entries))
        .collect();
    address::decide(peer.ip, entries.into_iter(), &edge.trusted_proxies)
}
