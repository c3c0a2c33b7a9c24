//! The rest of a body that was answered before it was read to its end.
//!
//! A caller that was refused has often sent its body already, or is about to. Left unread, it costs the
//! caller the answer (the reset that follows unread bytes overtakes it) or the next call on the same
//! connection. So a bounded rest is read and dropped; a longer one is announced with `Connection: close`,
//! and the connection lingers (RFC 9112 9.3 and 9.6). Over HTTP/2 the stream alone is concerned, and is
//! ended with NO_ERROR after the bound (RFC 9113 8.1).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderValue, Version, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

use super::connection::UnderWay;

/// Sixteen times what any body may be. Whoever sends more did not mean us.
const REST_BYTES_MAX: u64 = 256 * 1024;

/// How long the rest may take to arrive once the answer is given.
const REST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer waits for a rest of unknown length, to be able to say what becomes of the connection.
const UNSIZED_REST_WAIT: Duration = Duration::from_millis(250);

/// What became of a body whose reader is done with it.
enum Left {
    Unread(Incoming),
    /// The caller waits to be told to send it (RFC 9110 10.1.1).
    Unasked,
    /// It broke off, or is no HTTP.
    Broken,
}

/// A body on its way through the router, handed back if it is not read to its end.
pub struct Watched {
    body: Option<Incoming>,
    back: Option<oneshot::Sender<Left>>,
    is_unasked: bool,
    is_broken: bool,
}

/// Where it is handed back.
pub struct Rest {
    back: oneshot::Receiver<Left>,
    version: Version,
}

/// Splits a body that has something in it into what is read and what is left.
pub fn watch(head: &Parts, body: Incoming) -> (Watched, Rest) {
    let (handed, back) = oneshot::channel();
    let is_unasked = head.version == Version::HTTP_11 && head.headers.contains_key(header::EXPECT);
    let watched = Watched { body: Some(body), back: Some(handed), is_unasked, is_broken: false };
    (watched, Rest { back, version: head.version })
}

impl Rest {
    /// Sees to it that the answer arrives. `under_way` lives until the rest is read.
    pub async fn settle(mut self, answer: &mut Response, under_way: UnderWay) {
        let left = match self.back.try_recv() {
            // Read to its end.
            Err(oneshot::error::TryRecvError::Closed) => return,
            Ok(left) => Some(left),
            // A request that goes on without its caller still has it.
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

/// Whether the end came within the bound.
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
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_unasked = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        match &frame {
            Some(Ok(_)) => {}
            Some(Err(_)) => self.is_broken = true,
            // Whoever is done with it gets nothing handed back.
            None => self.body = None,
        }
        Poll::Ready(frame)
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
