//! What is known of a request while it is under way, from the outermost layer to the handler.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::error::Failure;
use crate::domain::address::{ClientAddress, Unreadable};
use crate::domain::clock::Timestamp;
use crate::domain::ids::ExchangeId;
use crate::flows::admission::{Caller, KeyOwner};
use crate::flows::rotation::Ending;

/// The connection's other end. Put into each request by whoever accepted it.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub ip: IpAddr,
    /// False where it is a proxy that said by the PROXY protocol that it cannot name its client.
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

/// One request. Cloning shares it.
#[derive(Clone)]
pub struct RequestContext(Arc<Inner>);

struct Inner {
    id: ExchangeId,
    request_id: String,
    at: Timestamp,
    started: Instant,
    peer: IpAddr,
    address: Result<ClientAddress, Unreadable>,
    notes: Mutex<Notes>,
}

/// What the layers and handlers find out about the caller, for the exchange record.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    pub owner: Option<KeyOwner>,
    pub client_id: Option<String>,
    /// When what the caller authenticated with ends, if that is soon.
    pub ending: Option<Ending>,
    /// Set on a call that passed although its address is outside an observed allow list.
    pub observed: bool,
}

impl RequestContext {
    pub fn new(
        id: ExchangeId,
        request_id: String,
        at: Timestamp,
        peer: IpAddr,
        address: Result<ClientAddress, Unreadable>,
    ) -> Self {
        let notes = Mutex::default();
        Self(Arc::new(Inner { id, request_id, at, started: Instant::now(), peer, address, notes }))
    }

    /// That of the exchange, should it be recorded; a request whose caller chose no id of its own is named by it.
    pub fn id(&self) -> ExchangeId {
        self.0.id
    }

    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    pub fn at(&self) -> Timestamp {
        self.0.at
    }

    pub fn latency(&self) -> Duration {
        self.0.started.elapsed()
    }

    pub fn latency_us(&self) -> i64 {
        micros_of(self.latency())
    }

    /// # Errors
    /// [`Unreadable`] when a trusted proxy sent something that names no address.
    pub fn address(&self) -> Result<&ClientAddress, Unreadable> {
        self.0.address.as_ref().map_err(|unreadable| *unreadable)
    }

    /// The client's address, or the peer's where the client's cannot be read.
    pub fn ip(&self) -> IpAddr {
        self.0.address.as_ref().map_or(self.0.peer, |address| address.ip)
    }

    pub fn note(&self, change: impl FnOnce(&mut Notes)) {
        change(&mut self.0.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes the client id, if it exists: somebody may have put a secret in the wrong field.
    pub fn note_client(&self, caller: &Caller, client_id: &str) {
        if caller.record.credential_by_client_id(client_id).is_some() {
            self.note(|notes| notes.client_id = Some(client_id.to_owned()));
        }
    }

    /// Notes that the caller's client secret ends soon.
    pub fn note_ending(&self, ending: Option<Ending>) {
        self.note(|notes| notes.ending = Ending::first(notes.ending, ending));
    }

    pub fn notes(&self) -> Notes {
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// As the log and the exchange records have it.
pub fn micros_of(latency: Duration) -> i64 {
    i64::try_from(latency.as_micros()).unwrap_or(i64::MAX)
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Failure::fault("a route outside the context layer"))
    }
}
