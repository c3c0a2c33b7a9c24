//! The bytes of a connection below HTTP. This adds a deadline for each head, replaces hyper's own refusals,
//! and closes connections so that the client does not lose its last answer.
//!
//! **Deadlines.** A head that has begun must be complete in time. The first head must be complete in time
//! after the connection was made. Otherwise a client could hold a connection by sending nothing, half a head,
//! or the start of HTTP/2's preface (RFC 9113 3.4). A trusted proxy may wait longer before its first request,
//! because it opens connections in bursts before it needs them. Between requests the longer idle time-out
//! applies, which [`super::connection::Activity`] measures. We make a timer only if a head does not come in
//! one piece. Such a wait also counts in [`super::unfinished`].
//!
//! **Lingering.** If bytes arrive after a socket was closed, the kernel sends a reset, which can overtake the
//! answer. So if something was left unread, we first close only the sending half. Then we read and drop bytes
//! until the client closes too (RFC 9112 9.6).

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::connection::Activity;
use super::refusal::{Refuser, Start};
use super::unfinished::{Wait, Waits, head_bytes};

/// The first line of HTTP/2's preface.
const HTTP2_PREFACE_LINE: &[u8] = b"PRI * HTTP/2.0\r";

/// How long a closed connection lingers while no bytes arrive.
const LINGER_QUIET: Duration = Duration::from_secs(5);

/// How long a closed connection lingers at most.
const LINGER_MAX: Duration = Duration::from_secs(30);

/// The stream that hyper uses.
pub struct Stream<S> {
    io: S,
    activity: Arc<Activity>,
    refuser: Refuser,
    head_timeout: Duration,
    /// The time for the first byte.
    silence_timeout: Duration,
    waits: Waits,
    /// What the connection itself takes while it waits.
    own_bytes: usize,
    /// Set while we wait for the rest of a head.
    awaited: Option<Awaited>,
    start: Start,
    /// How much of the head has come.
    head_bytes: usize,
    /// How many requests had begun when `start` began.
    start_after: u64,
    is_http2: bool,
    /// Our answer that replaces hyper's.
    reply: Vec<u8>,
    replied: usize,
    linger: Option<Linger>,
}

struct Awaited {
    deadline: Pin<Box<Sleep>>,
    wait: Wait,
}

struct Linger {
    quiet: Pin<Box<Sleep>>,
    end: Instant,
}

impl<S> Stream<S> {
    pub fn new(
        io: S,
        activity: Arc<Activity>,
        refuser: Refuser,
        head_timeout: Duration,
        silence_timeout: Duration,
        waits: Waits,
        own_bytes: usize,
    ) -> Self {
        Self {
            io,
            activity,
            refuser,
            head_timeout,
            silence_timeout,
            waits,
            own_bytes,
            awaited: None,
            start: Start::default(),
            head_bytes: 0,
            start_after: 0,
            is_http2: false,
            reply: Vec::new(),
            replied: 0,
            linger: None,
        }
    }

    /// Bytes that arrive while no request is open belong to a head.
    fn saw(&mut self, bytes: &[u8]) {
        if self.is_http2 || bytes.is_empty() || !self.activity.is_quiet() {
            return;
        }
        let begun = self.activity.begun();
        if self.start_after != begun {
            self.start = Start::default();
            self.start_after = begun;
            self.head_bytes = 0;
        }
        if self.start.is_empty() {
            // From here on, the deadline is that of the head.
            self.awaited = None;
        }
        self.start.saw(bytes);
        self.head_bytes += bytes.len();
        self.is_http2 = begun == 0 && self.start.is_line(HTTP2_PREFACE_LINE);
    }

    /// Whether a head takes too long, or its memory is needed.
    fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let begun = self.activity.begun();
        let is_partial = !self.is_http2 && self.start_after == begun && !self.start.is_empty();
        let is_awaited = self.activity.is_quiet() && (begun == 0 || is_partial);
        if !is_awaited {
            self.awaited = None;
            return false;
        }
        let is_silent = begun == 0 && self.start.is_empty();
        let timeout = if is_silent { self.silence_timeout } else { self.head_timeout };
        let awaited = self.awaited.get_or_insert_with(|| Awaited {
            deadline: Box::pin(tokio::time::sleep(timeout)),
            wait: self.waits.begin(self.own_bytes),
        });
        awaited.wait.holds(self.own_bytes + head_bytes(self.head_bytes));
        awaited.deadline.as_mut().poll(cx).is_ready() || Pin::new(&mut awaited.wait).poll(cx).is_ready()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        match &polled {
            Poll::Pending if self.is_overdue(cx) => return Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Ready(Ok(())) => self.saw(&buf.filled()[before..]),
            Poll::Pending | Poll::Ready(Err(_)) => {}
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Stream<S> {
    /// Sends our answer instead of one that hyper wrote by itself. `None` if `written` is not such an answer.
    fn poll_replace(&mut self, cx: &mut Context<'_>, written: &[u8]) -> Option<Poll<io::Result<()>>> {
        if self.is_http2 {
            return None;
        }
        if self.reply.is_empty() {
            if self.start_after != self.activity.begun() {
                // This head arrived together with an earlier request, so we do not know where it began.
                self.start = Start::default();
            }
            self.reply = self.refuser.instead_of(written, &self.start)?;
            self.activity.leave_rest_unread();
        }
        while self.replied < self.reply.len() {
            match Pin::new(&mut self.io).poll_write(cx, &self.reply[self.replied..]) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(bytes)) => self.replied += bytes,
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
        }
        Some(Poll::Ready(Ok(())))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// Reads and drops bytes until the client closes too.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger.get_or_insert_with(|| Linger {
            quiet: Box::pin(tokio::time::sleep(LINGER_QUIET)),
            end: Instant::now() + LINGER_MAX,
        });
        let mut dropped = [MaybeUninit::uninit(); 4096];
        loop {
            if linger.quiet.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut buf = ReadBuf::uninit(&mut dropped);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {
                    linger.quiet.as_mut().reset(linger.end.min(Instant::now() + LINGER_QUIET));
                }
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.poll_replace(cx, buf) {
            Some(replaced) => replaced.map_ok(|()| buf.len()),
            None => Pin::new(&mut self.io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // hyper's own answer is one head without a body.
        match bufs.first().and_then(|first| Some((first.len(), self.poll_replace(cx, first)?))) {
            Some((bytes, replaced)) => replaced.map_ok(|()| bytes),
            None => Pin::new(&mut self.io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        }
        if self.activity.is_rest_unread() && !self.is_http2 {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
