//! The bytes of a connection below HTTP: a deadline for each head, our words for hyper's own refusals, and
//! an end that does not cost the client its last answer.
//!
//! **Deadlines.** A head that has begun must be whole in time, and so must the first one from the moment of
//! connecting: a client that sends nothing, half a head, or the start of HTTP/2's preface (RFC 9113 3.4)
//! would otherwise hold its place. A trusted proxy may be silent for longer: it opens connections in a burst
//! that it needs only later. Between requests the longer time for idle connections counts, which
//! [`super::connection::Activity`] measures. A timer is made only when a head does not come in one piece.
//!
//! **Lingering.** Bytes that are still on their way when a socket is closed make the kernel send a reset,
//! which can overtake the answer. Where something was left unread, the sending half is closed first, and
//! what comes is read and dropped until the client closes too (RFC 9112 9.6).

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

/// The first line of HTTP/2's preface.
const HTTP2_PREFACE_LINE: &[u8] = b"PRI * HTTP/2.0\r";

/// How long a connection that was closed lingers while nothing comes.
const LINGER_QUIET: Duration = Duration::from_secs(5);

/// How long it lingers at all.
const LINGER_MAX: Duration = Duration::from_secs(30);

/// What hyper reads from and writes to.
pub struct Stream<S> {
    io: S,
    activity: Arc<Activity>,
    refuser: Refuser,
    head_timeout: Duration,
    /// For the first byte.
    silence_timeout: Duration,
    /// While a head is awaited and did not come in one piece.
    deadline: Option<Pin<Box<Sleep>>>,
    start: Start,
    /// Requests that had begun when `start` did.
    start_after: u64,
    is_http2: bool,
    /// What is left of an answer that replaces hyper's.
    reply: Vec<u8>,
    replied: usize,
    linger: Option<Linger>,
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
    ) -> Self {
        Self {
            io,
            activity,
            refuser,
            head_timeout,
            silence_timeout,
            deadline: None,
            start: Start::default(),
            start_after: 0,
            is_http2: false,
            reply: Vec::new(),
            replied: 0,
            linger: None,
        }
    }

    /// Bytes that come while no request is under way begin a head, or go on with it.
    fn saw(&mut self, bytes: &[u8]) {
        if self.is_http2 || bytes.is_empty() || !self.activity.is_quiet() {
            return;
        }
        let begun = self.activity.begun();
        if self.start_after != begun {
            self.start = Start::default();
            self.start_after = begun;
        }
        if self.start.is_empty() {
            // From here on it is the head that is awaited.
            self.deadline = None;
        }
        self.start.saw(bytes);
        self.is_http2 = begun == 0 && self.start.is_line(HTTP2_PREFACE_LINE);
    }

    /// Whether a head is awaited for too long.
    fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let begun = self.activity.begun();
        let is_partial = !self.is_http2 && self.start_after == begun && !self.start.is_empty();
        let is_awaited = self.activity.is_quiet() && (begun == 0 || is_partial);
        if !is_awaited {
            self.deadline = None;
            return false;
        }
        let is_silent = begun == 0 && self.start.is_empty();
        let timeout = if is_silent { self.silence_timeout } else { self.head_timeout };
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        deadline.as_mut().poll(cx).is_ready()
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
    /// Sends another answer in place of one that hyper gave by itself; `None` when `written` is not one.
    fn poll_replace(&mut self, cx: &mut Context<'_>, written: &[u8]) -> Option<Poll<io::Result<()>>> {
        if self.is_http2 {
            return None;
        }
        if self.reply.is_empty() {
            if self.start_after != self.activity.begun() {
                // It came with an earlier request in one piece, and nobody knows where it began.
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
    /// Reads and drops what comes, until the client has closed too.
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
        // What hyper says by itself is one head and no body.
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
