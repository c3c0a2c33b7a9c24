//! Checks the head of a request before any route: its size, that it has one host, and that it has no NUL. The
//! rules are the same over HTTP/1.1 and HTTP/2.
//!
//! hyper itself enforces the limits of an HTTP/1.1 head, because they limit its buffer. [`super::refusal`]
//! replaces hyper's answer with ours.

use std::net::Ipv6Addr;

use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri, Version, header};

use super::api::verify;
use super::error::Failure;
use crate::domain::reason::Reason;

/// The size of the request line and all fields. The default limits of reverse proxies are not larger.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;

/// The number of header fields: twice what a call gets on its way through several proxies.
pub const FIELDS_MAX: usize = 200;

/// The size of the request target. RFC 9110 4.1 recommends at least 8000.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;

/// A request extension: answer with this failure, without any route.
#[derive(Clone)]
pub struct Refused(pub Failure);

/// Why a head is refused, in the form that its path allows. `None` if the head is fine.
pub fn judge(head: &Parts) -> Option<Failure> {
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > TARGET_BYTES_MAX {
        return Some(target_too_long());
    }
    if !has_one_host(head) {
        return Some(Failure::invalid_request(
            "exactly one Host header is needed, with a name or address and at most a port",
        ));
    }
    // Nobody has a scope with a NUL in its name, so verify-scope refuses it after it has checked the key.
    if target.contains("%00") && !target.starts_with("/api/verify-scope/") {
        return Some(heard_at(
            head.uri.path(),
            Failure::invalid_request("the path or query has a NUL in it"),
        ));
    }
    let is_too_large = head.headers.len() > FIELDS_MAX
        || (head.version == Version::HTTP_2 && bytes_of(&head.headers, target) > HEAD_BYTES_MAX);
    is_too_large.then(|| of_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, head.uri.path()))
}

pub fn target_too_long() -> Failure {
    Failure { reason: Some(Reason::RequestInvalid), ..Failure::of_status(StatusCode::URI_TOO_LONG) }
}

/// Our failure for a head that hyper refused with `status`.
pub fn of_status(status: StatusCode, path: &str) -> Failure {
    heard_at(path, Failure { reason: Some(Reason::RequestInvalid), ..Failure::of_status(status) })
}

/// Forward authentication has only two refusals. Proxies turn any other status into an error of their own.
fn heard_at(path: &str, failure: Failure) -> Failure {
    if verify::is_verify(path) { verify::as_verify(failure) } else { failure }
}

/// The size in HTTP/1.1: names, values, and four bytes of separators for each field.
pub fn bytes_of(headers: &HeaderMap, target: &str) -> usize {
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    target.len() + fields
}

/// RFC 9112 3.2, RFC 9113 8.3.1. HTTP/1.0 needs no host.
fn has_one_host(head: &Parts) -> bool {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|host| host.as_bytes());
    if hosts.next().is_some() {
        return false;
    }
    let authority = |uri: &Uri| uri.authority().map(|authority| authority.as_str().to_owned());
    match (host, head.version) {
        (Some(host), Version::HTTP_2) => {
            is_host(host)
                && authority(&head.uri).is_none_or(|named| named.as_bytes().eq_ignore_ascii_case(host))
        }
        (Some(host), _) => is_host(host),
        (None, Version::HTTP_2) => authority(&head.uri).is_some_and(|named| is_host(named.as_bytes())),
        (None, version) => version < Version::HTTP_11,
    }
}

/// `uri-host [ ":" port ]` of RFC 9110 7.2, with a host that is not empty.
fn is_host(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    let (is_name_fine, port) = match value.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((inside, port)) => (inside.parse::<Ipv6Addr>().is_ok(), port),
            None => return false,
        },
        None => {
            let (name, port) = value.split_at(value.find(':').unwrap_or(value.len()));
            // unreserved / pct-encoded / sub-delims (RFC 3986 3.2.2).
            let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
            (!name.is_empty() && name.bytes().all(is_fine), port)
        }
    };
    let is_port_fine = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| {
            port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
        });
    is_name_fine && is_port_fine
}
