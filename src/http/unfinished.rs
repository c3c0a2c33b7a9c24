//! Bounds the memory of everything that has begun and is not complete: silent and idle connections, handshakes,
//! heads and bodies.
//!
//! Each of them counts with an estimate of its memory while it waits for its client. If all of them together
//! need more than they may, the ones that have waited longest are ended. An honest client sends a request
//! within milliseconds, and an attacker keeps it open. So the attacker's requests are ended first, from
//! however many addresses they come.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

/// An estimate of what a connection without a request takes, with its task and its buffers.
pub const CONNECTION_BYTES: usize = 16 * 1024;

/// An estimate of what a request takes while its body arrives, without its head and body.
pub const REQUEST_BYTES: usize = 16 * 1024;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
#[error("its memory was needed for other requests")]
pub struct Ended;

/// What waits, in the order in which it began to wait.
#[derive(Debug)]
pub struct Unfinished {
    bytes_max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_age: BTreeMap<u64, Entry>,
    next: u64,
    bytes: usize,
    /// How many were ended early.
    ended: u64,
}

#[derive(Debug)]
struct Entry {
    bytes: usize,
    /// Dropping this ends the wait.
    _end: oneshot::Sender<()>,
}

/// Counts until it is dropped. As a future, it resolves if the memory is needed for others.
pub struct Wait {
    unfinished: Arc<Unfinished>,
    age: u64,
    end: oneshot::Receiver<()>,
}

impl Unfinished {
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, waiting: Mutex::default() })
    }

    /// Counts something that starts to wait for its client.
    pub fn wait(self: &Arc<Self>, bytes: usize) -> Wait {
        let (entry, end) = oneshot::channel();
        let mut waiting = self.waiting();
        let age = waiting.next;
        waiting.next += 1;
        waiting.by_age.insert(age, Entry { bytes, _end: entry });
        waiting.bytes += bytes;
        waiting.make_room(self.bytes_max);
        Wait { unfinished: Arc::clone(self), age, end }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Ends the ones that have waited longest, until the others have room.
    fn make_room(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some((_, oldest)) = self.by_age.pop_first() else { return };
            self.bytes -= oldest.bytes;
            self.ended += 1;
            if self.ended.is_power_of_two() {
                tracing::warn!(
                    ended = self.ended,
                    "unfinished requests ended: together they hold too much memory"
                );
            }
        }
    }
}

impl Wait {
    /// Counts `bytes` from now on, instead of what it counted before.
    pub fn holds(&self, bytes: usize) {
        let mut waiting = self.unfinished.waiting();
        if let Some(entry) = waiting.by_age.get_mut(&self.age) {
            let before = std::mem::replace(&mut entry.bytes, bytes);
            waiting.bytes = waiting.bytes - before + bytes;
            waiting.make_room(self.unfinished.bytes_max);
        }
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.end).poll(cx).map(drop)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut waiting = self.unfinished.waiting();
        if let Some(entry) = waiting.by_age.remove(&self.age) {
            waiting.bytes -= entry.bytes;
        }
    }
}
