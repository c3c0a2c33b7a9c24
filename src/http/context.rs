//! The context of a request: what the layers and the handler know about it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, Method, Uri};

use super::error::Failure;
use crate::domain::address::{ClientAddress, Unreadable};
use crate::domain::clock::Timestamp;
use crate::domain::ids::ExchangeId;
use crate::domain::lengths::{METHOD_BYTES_MAX, PATH_BYTES_MAX, cut};
use crate::domain::record::KeyOwner;
use crate::flows::admin_access::AdminCall;
use crate::flows::admission::Caller;
use crate::flows::failures::Surface;
use crate::flows::rotation::Ending;

/// The other end of the connection. The listener adds it to each request.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub ip: IpAddr,
    /// False if this is a proxy whose PROXY header names no client.
    pub is_client: bool,
}

impl Peer {
    pub const fn client(ip: IpAddr) -> Self {
        Self { ip, is_client: true }
    }

    pub const fn proxy(ip: IpAddr) -> Self {
        Self { ip, is_client: false }
    }
}

/// One request. Clones share it.
#[derive(Clone)]
pub struct RequestContext(Arc<Inner>);

struct Inner {
    head: Head,
    client_ip: String,
    started: Instant,
    notes: Mutex<Notes>,
}

/// The request as it arrived.
pub struct Head {
    pub id: ExchangeId,
    pub request_id: String,
    pub at: Timestamp,
    pub method: Method,
    pub uri: Uri,
    /// The pattern of the matched route.
    pub route: Option<Cow<'static, str>>,
    pub peer: IpAddr,
    pub address: Result<ClientAddress, Unreadable>,
}

impl Head {
    fn client_ip(&self) -> IpAddr {
        self.address.as_ref().map_or(self.peer, |address| address.ip)
    }
}

/// What the layers and handlers learn about the caller, for the exchange record.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    pub owner: Option<KeyOwner>,
    pub client_id: Option<String>,
    /// When the key or secret that the caller used ends, if that is soon.
    pub ending: Option<Ending>,
    /// The call's address is outside the allow list, but the list is only observed.
    pub observed: bool,
    /// Set if the call presented a refresh token.
    pub is_renewal: bool,
}

impl RequestContext {
    pub fn new(head: Head) -> Self {
        let started = Instant::now();
        let client_ip = head.client_ip().to_string();
        Self(Arc::new(Inner { head, client_ip, started, notes: Mutex::default() }))
    }

    /// # Errors
    /// 500 outside the layer of all routes.
    pub fn of(extensions: &Extensions) -> Result<Self, Failure> {
        extensions.get::<Self>().cloned().ok_or_else(|| Failure::fault("a route outside the context layer"))
    }

    /// The id of the exchange record. It is also the request id, unless the caller sent one.
    pub fn id(&self) -> ExchangeId {
        self.0.head.id
    }

    pub fn request_id(&self) -> &str {
        &self.0.head.request_id
    }

    pub fn at(&self) -> Timestamp {
        self.0.head.at
    }

    /// Cut to the length that is recorded.
    pub fn method(&self) -> &str {
        cut(self.0.head.method.as_str(), METHOD_BYTES_MAX)
    }

    /// Cut to the length that is recorded.
    pub fn path(&self) -> &str {
        cut(self.0.head.uri.path(), PATH_BYTES_MAX)
    }

    /// The pattern of the matched route.
    pub fn route(&self) -> Option<&str> {
        self.0.head.route.as_deref()
    }

    /// This call, for the decision about its admin token.
    pub fn admin_call(&self, surface: Surface) -> AdminCall<'_> {
        AdminCall {
            surface,
            ip: self.ip(),
            request_id: self.request_id(),
            method: self.method(),
            route: self.route().unwrap_or("unknown"),
        }
    }

    pub fn latency(&self) -> Duration {
        self.0.started.elapsed()
    }

    pub fn latency_us(&self) -> i64 {
        micros_of(self.latency())
    }

    /// # Errors
    /// [`Unreadable`] if a trusted proxy sent a header without a usable address.
    pub fn address(&self) -> Result<&ClientAddress, Unreadable> {
        self.0.head.address.as_ref().map_err(|unreadable| *unreadable)
    }

    /// The client's address, or the peer's if the client's is unknown.
    pub fn ip(&self) -> IpAddr {
        self.0.head.client_ip()
    }

    /// The same, as text.
    pub fn client_ip(&self) -> &str {
        &self.0.client_ip
    }

    pub fn note(&self, change: impl FnOnce(&mut Notes)) {
        change(&mut self.0.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes the client id, but only if it exists: somebody may have put a secret into this field.
    pub fn note_client(&self, caller: &Caller, client_id: &str) {
        if caller.record.credential_by_client_id(client_id).is_some() {
            self.note(|notes| notes.client_id = Some(client_id.to_owned()));
        }
    }

    /// Notes that the caller's client secret ends soon.
    pub fn note_ending(&self, ending: Option<Ending>) {
        self.note(|notes| notes.ending = Ending::first(notes.ending, ending));
    }

    pub fn take_notes(&self) -> Notes {
        std::mem::take(&mut *self.0.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A latency in microseconds, for the log and the exchange records.
pub fn micros_of(latency: Duration) -> i64 {
    i64::try_from(latency.as_micros()).unwrap_or(i64::MAX)
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Self::of(&parts.extensions)
    }
}
