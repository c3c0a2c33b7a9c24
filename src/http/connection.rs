//! The requests of one connection: counts them, checks their heads, and passes them on.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::{Body as _, Incoming};
use hyper::service::{Service, service_fn};

use super::context::Peer;
use super::front::Front;
use super::head::{self, Refused};
use super::rest;
use super::unfinished::Waits;

/// We check this many times per idle limit. So a connection may stay open longer by this fraction of the
/// limit.
const QUIET_PARTS: u32 = 4;

/// Counts the requests of one connection.
#[derive(Default)]
pub struct Activity {
    begun: AtomicU64,
    ended: AtomicU64,
    under_way: AtomicUsize,
    is_rest_unread: AtomicBool,
}

impl Activity {
    /// How many requests have begun.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub fn is_quiet(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) == 0
    }

    /// Whether the client sent something that we will not read.
    pub fn is_rest_unread(&self) -> bool {
        self.is_rest_unread.load(Ordering::Relaxed)
    }

    pub fn leave_rest_unread(&self) {
        self.is_rest_unread.store(true, Ordering::Relaxed);
    }

    /// Returns when there has been no request for `limit`, or up to a quarter longer.
    pub async fn idle_for(&self, limit: Duration) {
        let moves = || (self.begun(), self.ended.load(Ordering::Relaxed));
        let (mut seen, mut quiet) = (moves(), 0);
        while quiet < QUIET_PARTS {
            tokio::time::sleep(limit / QUIET_PARTS).await;
            let now = moves();
            quiet = if self.is_quiet() && now == seen { quiet + 1 } else { 0 };
            seen = now;
        }
    }
}

/// Counts as an open request until it is dropped.
pub struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn new(activity: Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        activity.under_way.fetch_add(1, Ordering::Relaxed);
        Self(activity)
    }

    pub fn left_unread(&self) {
        self.0.leave_rest_unread();
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The service that hyper calls for each request. A request counts from the call on, before its future is polled.
/// hyper reads again in between, and [`super::stream`] must not think then that the head is incomplete.
pub fn service(
    front: Front,
    client: Peer,
    activity: Arc<Activity>,
    waits: Waits,
) -> impl Service<
    Request<Incoming>,
    Response = Response,
    Error = Infallible,
    Future = impl Future<Output = Result<Response, Infallible>> + Send,
> {
    service_fn(move |request: Request<Incoming>| {
        let under_way = UnderWay::new(Arc::clone(&activity));
        let (mut head, body) = request.into_parts();
        head.extensions.insert(client);
        if let Some(failure) = head::judge(&head) {
            head.extensions.insert(Refused(failure));
        }
        let (body, rest) = if body.is_end_stream() {
            (Body::empty(), None)
        } else {
            let (body, rest) = rest::watch(&head, body, &waits);
            (Body::new(body), Some(rest))
        };
        let answer = front.call(Request::from_parts(head, body));
        async move {
            let mut answer = answer.await?;
            if let Some(rest) = rest {
                rest.settle(&mut answer, under_way).await;
            }
            Ok(answer)
        }
    })
}
