//! Handles the rest of a body if the answer came before the body was read completely.
//!
//! A refused caller has often already sent its body, or is still sending it. If we do not read it, the caller
//! can lose the answer, because the kernel sends a reset that overtakes it. Or the next call on the
//! connection fails. So we read and drop the rest up to a limit. If the rest is longer, we send `Connection:
//! close` and let the connection linger (RFC 9112 9.3 and 9.6). Over HTTP/2 this concerns only the stream,
//! which ends with NO_ERROR after the limit (RFC 9113 8.1).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Version, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

use super::connection::UnderWay;
use super::head;
use super::unfinished::{Ended, REQUEST_BYTES, Wait, Waits};

/// Sixteen times the largest body of a client. A caller that sends more is surely not using our API.
const REST_BYTES_MAX: u64 = 256 * 1024;

/// How long the rest may take to arrive after the answer.
const REST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer waits for a rest of unknown length, to find out whether the connection can stay open.
const UNSIZED_REST_WAIT: Duration = Duration::from_millis(250);

/// The state of a body when its reader is dropped.
enum Left {
    Unread(Incoming),
    /// The caller waits for a 100 before it sends the body (RFC 9110 10.1.1).
    Unasked,
    /// The body was cut off or is malformed.
    Broken,
}

/// A body for the router. If it is not read completely, it is handed back to [`Rest`].
///
/// While it waits for its client, it counts in [`super::unfinished`].
pub struct Watched {
    body: Option<Incoming>,
    /// The memory of the request so far.
    bytes: usize,
    waits: Waits,
    wait: Option<Wait>,
    back: Option<oneshot::Sender<Left>>,
    is_unasked: bool,
    is_broken: bool,
}

/// Receives the body back.
pub struct Rest {
    back: oneshot::Receiver<Left>,
    version: Version,
}

/// Wraps a body that is not empty.
pub fn watch(head: &Parts, body: Incoming, waits: &Waits) -> (Watched, Rest) {
    let (handed, back) = oneshot::channel();
    let is_unasked = head.version == Version::HTTP_11 && head.headers.contains_key(header::EXPECT);
    let watched = Watched {
        body: Some(body),
        bytes: REQUEST_BYTES + head::bytes_of(&head.headers, ""),
        waits: waits.clone(),
        wait: None,
        back: Some(handed),
        is_unasked,
        is_broken: false,
    };
    (watched, Rest { back, version: head.version })
}

impl Rest {
    /// Makes sure that the answer arrives. `under_way` is dropped when the rest has been read.
    pub async fn settle(mut self, answer: &mut Response, under_way: UnderWay) {
        let left = match self.back.try_recv() {
            // The body was read completely.
            Err(oneshot::error::TryRecvError::Closed) => return,
            Ok(left) => Some(left),
            // A request that continues after its time-out still has the body.
            Err(oneshot::error::TryRecvError::Empty) => None,
        };
        let mut body = match left {
            Some(Left::Unread(body)) => body,
            Some(Left::Unasked | Left::Broken) | None => return self.close(answer, &under_way),
        };
        if self.version < Version::HTTP_2 {
            match body.size_hint().exact() {
                Some(bytes) if bytes <= REST_BYTES_MAX => {}
                Some(_) => return self.close(answer, &under_way),
                None => {
                    let read = tokio::time::timeout(UNSIZED_REST_WAIT, read_out(&mut body)).await;
                    if read != Ok(true) {
                        self.close(answer, &under_way);
                    }
                    return;
                }
            }
        }
        tokio::spawn(async move {
            if tokio::time::timeout(REST_TIMEOUT, read_out(&mut body)).await != Ok(true) {
                under_way.left_unread();
            }
            drop((body, under_way));
        });
    }

    fn close(&self, answer: &mut Response, under_way: &UnderWay) {
        under_way.left_unread();
        if self.version < Version::HTTP_2 {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Reads and drops the rest. Returns whether it ended within the limit.
async fn read_out(body: &mut Incoming) -> bool {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        if bytes > REST_BYTES_MAX {
            return false;
        }
    }
    true
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        this.is_unasked = false;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
            let wait = this.wait.get_or_insert_with(|| this.waits.begin(this.bytes));
            ready!(Pin::new(wait).poll(cx));
            this.is_broken = true;
            return Poll::Ready(Some(Err(Ended.into())));
        };
        match &frame {
            Some(Ok(frame)) => {
                this.bytes += frame.data_ref().map_or(0, Bytes::len);
                if let Some(wait) = &this.wait {
                    wait.holds(this.bytes);
                }
            }
            Some(Err(_)) => this.is_broken = true,
            // The body was read completely, so there is nothing to hand back.
            None => (this.body, this.wait) = (None, None),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let (Some(body), Some(back)) = (self.body.take(), self.back.take()) else { return };
        let left = if self.is_broken {
            Left::Broken
        } else if body.is_end_stream() {
            return;
        } else if self.is_unasked {
            Left::Unasked
        } else {
            Left::Unread(body)
        };
        drop(back.send(left));
    }
}
