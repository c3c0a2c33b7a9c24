//! The outermost layer: gives the request its id and its client's address, answers with the id, and
//! writes the one log line.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use crate::config::ForwardedHeader;
use crate::domain::address::{self, ClientAddress, Unreadable};
use crate::domain::clock::Timestamp;
use crate::domain::ids::Id;
use crate::http::context::{Peer, RequestContext};
use crate::http::error::Failure;
use crate::http::{Edge, Shared};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub async fn context(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let at = shared.core.now();
    let id = request_id(request.headers(), at, &shared);
    // Without a peer nobody can say where the call comes from; only a wrong set-up leads here.
    let peer =
        request.extensions().get::<Peer>().map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0);
    let address = client_address(peer, request.headers(), &shared.edge);
    let context = RequestContext::new(id, at, peer, address);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(context.clone());

    let mut response = next.run(request).await;

    if let Ok(value) = HeaderValue::from_str(context.request_id()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let reason = response.extensions().get::<Failure>().and_then(|failure| failure.reason);
    let (status, latency) = (response.status().as_u16(), context.latency());
    shared.metrics.count(route.as_ref().map(MatchedPath::as_str), status, reason, latency);
    tracing::info!(
        target: "tollgate::access",
        request_id = context.request_id(),
        method = method.as_str(),
        ?path,
        status,
        reason = reason.map(|reason| reason.name()),
        client_ip = %context.ip(),
        latency_us = latency.as_micros(),
    );
    response
}

/// The caller's id where it is 1 to 64 characters of `[A-Za-z0-9._-]`, else a fresh UUIDv7.
fn request_id(headers: &HeaderMap, at: Timestamp, shared: &Shared) -> String {
    let is_fine = |id: &&str| {
        (1..=64).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(is_fine)
        .map_or_else(|| Id::<RequestContext>::generate(at, &shared.core.entropy).to_string(), str::to_owned)
}

fn client_address(
    peer: std::net::IpAddr,
    headers: &HeaderMap,
    edge: &Edge,
) -> Result<ClientAddress, Unreadable> {
    let (name, entries): (_, fn(&str) -> Vec<&str>) = match edge.forwarded_header {
        ForwardedHeader::XForwardedFor => {
            ("x-forwarded-for", |line| address::x_forwarded_for_entries(line).collect())
        }
        ForwardedHeader::Forwarded => ("forwarded", |line| address::forwarded_entries(line).collect()),
    };
    // A header line that is not text is an entry that names no address.
    let entries: Vec<&str> = headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.to_str().map_or_else(|_| vec![""], entries))
        .collect();
    address::decide(peer, entries.into_iter(), &edge.trusted_proxies)
}
