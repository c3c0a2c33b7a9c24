//! Bounds the memory of everything that has begun and is not complete: silent connections, handshakes, heads and
//! bodies.
//!
//! Each of them counts with an estimate of its memory while it waits for its client. If all of them together
//! need more than they may, we take an address (or IPv6 /64) that holds the most, and end what has waited
//! longest there. So whoever fills the memory loses it to the others. Where all hold as little, the oldest one
//! is ended: an honest client sends a request within milliseconds, and an attacker keeps it open.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::domain::address::network_of;

/// What a connection takes before its first byte. Its buffers come with that byte.
pub const SILENT_BYTES: usize = 2 * 1024;

/// What a TLS handshake or a PROXY header takes.
pub const HANDSHAKE_BYTES: usize = 16 * 1024;

/// What a request takes while its body arrives, without its head and body.
pub const REQUEST_BYTES: usize = 8 * 1024;

/// What a head takes of which `bytes` have come.
pub const fn head_bytes(bytes: usize) -> usize {
    /// hyper's first buffer. hyper doubles it when a read fills it.
    const BUFFER: usize = 8 * 1024;
    if bytes == 0 { SILENT_BYTES } else { SILENT_BYTES + BUFFER + 2 * bytes }
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
#[error("its memory was needed for other requests")]
pub struct Ended;

#[derive(Debug)]
pub struct Unfinished {
    bytes_max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    holders: HashMap<IpAddr, Holder>,
    bytes: usize,
    /// The number of the next wait.
    next: u64,
    /// How many were ended early.
    ended: u64,
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

/// Counts until it is dropped. As a future, it resolves if the memory is needed for others.
pub struct Wait {
    unfinished: Arc<Unfinished>,
    network: IpAddr,
    number: u64,
    end: oneshot::Receiver<()>,
}

impl Unfinished {
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, waiting: Mutex::default() })
    }

    /// Counts something that starts to wait for its client.
    pub fn wait(self: &Arc<Self>, client: IpAddr, bytes: usize) -> Wait {
        let (end_of_entry, end) = oneshot::channel();
        let network = network_of(client);
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        let holder = waiting.holders.entry(network).or_default();
        holder.waits.insert(number, Entry { bytes, _end: end_of_entry });
        holder.bytes += bytes;
        waiting.bytes += bytes;
        waiting.make_room(self.bytes_max);
        Wait { unfinished: Arc::clone(self), network, number, end }
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
            let Some((oldest, network)) = most.and_then(|(network, holder)| {
                holder.waits.first_key_value().map(|(oldest, _)| (*oldest, *network))
            }) else {
                return;
            };
            self.remove(network, oldest);
            self.ended += 1;
            if self.ended.is_power_of_two() {
                let ended = self.ended;
                tracing::warn!(client_ip = %network, ended, "unfinished requests ended: they hold too much memory");
            }
        }
    }

    fn remove(&mut self, network: IpAddr, number: u64) {
        let Some(holder) = self.holders.get_mut(&network) else { return };
        let Some(entry) = holder.waits.remove(&number) else { return };
        holder.bytes -= entry.bytes;
        self.bytes -= entry.bytes;
        if holder.waits.is_empty() {
            self.holders.remove(&network);
        }
    }
}

impl Wait {
    /// Counts `bytes` from now on, instead of what it counted before.
    pub fn holds(&self, bytes: usize) {
        let mut waiting = self.unfinished.waiting();
        let Some(holder) = waiting.holders.get_mut(&self.network) else { return };
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
        Pin::new(&mut self.end).poll(cx).map(drop)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.unfinished.waiting().remove(self.network, self.number);
    }
}
