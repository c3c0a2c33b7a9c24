//! Bounds the memory of what has begun and is not complete: silent connections, handshakes, heads and bodies.
//!
//! Each of them counts with an estimate of its memory while it waits for its client. If all of them together
//! need more than they may, we take an address (or IPv6 /64) that holds the most, and end what has waited
//! longest there. So whoever fills the memory loses it to the others. Where all hold the same, the oldest one is
//! ended, because an honest client goes on soon and an attacker does not.
//!
//! Connections of trusted proxies are from many clients, so each of their waits counts as of an address of its
//! own. Not counted are connections after their first request, also if they speak HTTP/2: their number is limited
//! ([`super::places`]).

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

/// What a connection takes before its first byte. Its buffers come with that byte.
pub const SILENT_BYTES: usize = 2 * 1024;

/// What a TLS session takes, during the handshake and after it. It may hold part of a record.
pub const TLS_BYTES: usize = 8 * 1024;

/// What a request takes while its body arrives, without its head and body.
pub const REQUEST_BYTES: usize = 8 * 1024;

/// What a head takes of which `bytes` have come.
pub const fn head_bytes(bytes: usize) -> usize {
    /// hyper's first buffer. hyper doubles it when a read fills it.
    const BUFFER: usize = 8 * 1024;
    if bytes == 0 { 0 } else { BUFFER + 2 * bytes }
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
#[error("its memory was needed for other requests")]
pub struct Ended;

/// Everything that waits for a client, on one listener.
#[derive(Debug)]
pub struct Unfinished {
    bytes_max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    holders: HashMap<Whose, Holder>,
    bytes: usize,
    /// The number of the next wait.
    next: u64,
    /// How many were ended early.
    ended: u64,
}

/// An address (or IPv6 /64), or a single wait of a trusted proxy by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Whose {
    Network(IpAddr),
    Wait(u64),
}

/// What waits for the clients of one address.
#[derive(Debug, Default)]
struct Holder {
    bytes: usize,
    /// In the order in which they began to wait.
    waits: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    bytes: usize,
    /// Dropping this ends the wait.
    _end: oneshot::Sender<()>,
}

/// Where the waits for one client are counted.
#[derive(Clone)]
pub struct Waits {
    unfinished: Arc<Unfinished>,
    network: Option<IpAddr>,
}

/// Counts until it is dropped. As a future, it resolves if the memory is needed for others.
pub struct Wait {
    unfinished: Arc<Unfinished>,
    whose: Whose,
    number: u64,
    /// `None` once it has ended.
    end: Option<oneshot::Receiver<()>>,
}

impl Unfinished {
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, waiting: Mutex::default() })
    }

    /// For a client of this network. `None` for a trusted proxy.
    pub fn waits_of(self: &Arc<Self>, network: Option<IpAddr>) -> Waits {
        Waits { unfinished: Arc::clone(self), network }
    }

    fn wait(self: &Arc<Self>, network: Option<IpAddr>, bytes: usize) -> Wait {
        let (end_of_entry, end) = oneshot::channel();
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        let whose = network.map_or(Whose::Wait(number), Whose::Network);
        let holder = waiting.holders.entry(whose).or_default();
        holder.waits.insert(number, Entry { bytes, _end: end_of_entry });
        holder.bytes += bytes;
        waiting.bytes += bytes;
        waiting.make_room(self.bytes_max);
        Wait { unfinished: Arc::clone(self), whose, number, end: Some(end) }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn make_room(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            // There are no more addresses than connections, and a flood is the only time to look at all of them.
            let most = self.holders.iter().max_by_key(|(_, holder)| {
                (holder.bytes, holder.waits.first_key_value().map(|(oldest, _)| Reverse(*oldest)))
            });
            let Some((oldest, whose)) = most.and_then(|(whose, holder)| {
                holder.waits.first_key_value().map(|(oldest, _)| (*oldest, *whose))
            }) else {
                return;
            };
            self.remove(whose, oldest);
            self.ended += 1;
            if self.ended.is_power_of_two() {
                let ended = self.ended;
                tracing::warn!(?whose, ended, "unfinished requests ended: they hold too much memory");
            }
        }
    }

    fn remove(&mut self, whose: Whose, number: u64) {
        let Some(holder) = self.holders.get_mut(&whose) else { return };
        let Some(entry) = holder.waits.remove(&number) else { return };
        holder.bytes -= entry.bytes;
        self.bytes -= entry.bytes;
        if holder.waits.is_empty() {
            self.holders.remove(&whose);
        }
    }
}

impl Waits {
    /// Counts something that starts to wait for the client.
    pub fn begin(&self, bytes: usize) -> Wait {
        self.unfinished.wait(self.network, bytes)
    }
}

impl Wait {
    /// Counts `bytes` from now on, instead of what it counted before.
    pub fn holds(&self, bytes: usize) {
        let mut waiting = self.unfinished.waiting();
        let Some(holder) = waiting.holders.get_mut(&self.whose) else { return };
        let Some(entry) = holder.waits.get_mut(&self.number) else { return };
        let before = std::mem::replace(&mut entry.bytes, bytes);
        holder.bytes = holder.bytes - before + bytes;
        waiting.bytes = waiting.bytes - before + bytes;
        waiting.make_room(self.unfinished.bytes_max);
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(end) = &mut self.end else { return Poll::Ready(()) };
        ready!(Pin::new(end).poll(cx)).ok();
        self.end = None;
        Poll::Ready(())
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.unfinished.waiting().remove(self.whose, self.number);
    }
}
