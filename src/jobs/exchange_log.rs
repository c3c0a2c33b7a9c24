//! Writes exchange records in batches, in the background.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use crate::domain::address::network_of;
use crate::domain::clock::Timestamp;
use crate::flows::SharedCore;
use crate::store::call_counts;
use crate::store::exchanges::{self, Call, Exchange};
use crate::store::{Engine, StoreError};

/// The most waiting records: about a second of a busy server. Further records are dropped and counted,
/// because they must not delay calls.
const QUEUE_MAX: usize = 50_000;

/// The most memory for waiting records, including the batch that is being written.
pub const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How many refusals of unauthenticated callers are recorded per address (or IPv6 /64) and minute. Further
/// ones are only counted.
pub const REFUSALS_PER_ADDRESS_AND_MINUTE: u32 = 30;

/// The most addresses that are counted in a minute. Refusals of further addresses are not recorded.
const ADDRESSES_MAX: usize = 10_000;

/// The most records in a transaction. The larger it is, the more calls share a row of the counts for the overview.
/// On SQLite it occupies the only writer, for a few milliseconds.
const fn batch_max(engine: Engine) -> usize {
    match engine {
        Engine::Postgres => 2000,
        Engine::Sqlite => 250,
    }
}

/// The pause after a batch that was not full, so that a quiet server writes few, larger batches.
const PAUSE: Duration = Duration::from_millis(100);

/// The pause before a batch is retried while the store does not answer. It is retried until the store
/// answers, and new records wait in the queue.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How long a stop waits for the records in the queue.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Which calls are recorded: all that were refused or observed, and a share of the others.
#[derive(Clone, Copy, Debug)]
pub struct Sample(f64);

impl Sample {
    /// `share` is from 0 to 1.
    pub const fn of_successes(share: f64) -> Self {
        Self(share)
    }

    fn keeps(self, exchange: &Exchange) -> bool {
        if self.0 >= 1.0 || exchange.status >= 400 || exchange.reason.is_some() {
            return true;
        }
        // The end of the record's id is random, and the caller cannot choose it, as it can the request id.
        let end =
            exchange.id.uuid().as_bytes()[12..].iter().fold(0, |end: u32, byte| end << 8 | u32::from(*byte));
        f64::from(end) < self.0 * f64::from(u32::MAX)
    }
}

enum Entry {
    Record(Box<Call>),
    Flush(oneshot::Sender<()>),
}

/// Queues exchange records for the writer.
pub struct ExchangeLog {
    queue: mpsc::Sender<Entry>,
    /// The size of the waiting records.
    bytes: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
    refusals: Mutex<Refusals>,
    unrecorded: AtomicU64,
}

/// The refusals that were recorded in a minute, by address.
#[derive(Default)]
struct Refusals {
    minute: i64,
    recorded: HashMap<IpAddr, u32>,
}

impl ExchangeLog {
    /// Starts the writer, which ends when this is dropped.
    pub fn start(core: SharedCore, sample: Sample) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE_MAX);
        let receiver = Arc::new(AsyncMutex::new(receiver));
        let (bytes, dropped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
        let log = Self {
            queue,
            bytes: Arc::clone(&bytes),
            dropped: Arc::clone(&dropped),
            refusals: Mutex::default(),
            unrecorded: AtomicU64::new(0),
        };
        core.store.tasks().clone().keep("exchange_log", move || {
            let (core, receiver) = (Arc::clone(&core), Arc::clone(&receiver));
            write_all(core, sample, receiver, Arc::clone(&bytes), Arc::clone(&dropped))
        });
        log
    }

    pub fn record(&self, exchange: Exchange) {
        self.queue(Call { exchange, is_renewal: false });
    }

    /// Records a call that renews a session, on any path.
    pub fn record_renewal(&self, exchange: Exchange) {
        self.queue(Call { exchange, is_renewal: true });
    }

    fn queue(&self, call: Call) {
        let bytes = call.exchange.bytes();
        let is_full = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUE_BYTES_MAX;
        if is_full || self.queue.try_send(Entry::Record(Box::new(call))).is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "exchange records dropped: the store is too slow");
            }
        }
    }

    /// Counts a refusal of `ip`. Returns whether to record it.
    pub fn has_room_for_refusal(&self, ip: IpAddr, at: Timestamp) -> bool {
        let minute = at.unix_secs().div_euclid(60);
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.minute != minute {
            *refusals = Refusals { minute, recorded: HashMap::new() };
        }
        let network = network_of(ip);
        let is_known = refusals.recorded.contains_key(&network);
        let has_room = (is_known || refusals.recorded.len() < ADDRESSES_MAX) && {
            let recorded = refusals.recorded.entry(network).or_default();
            *recorded += 1;
            *recorded <= REFUSALS_PER_ADDRESS_AND_MINUTE
        };
        if !has_room {
            self.unrecorded.fetch_add(1, Ordering::Relaxed);
        }
        has_room
    }

    /// Refusals that were not recorded because their address had too many.
    pub fn unrecorded(&self) -> u64 {
        self.unrecorded.load(Ordering::Relaxed)
    }

    /// Records that were not written, because there was no room or the store refused them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all records so far are written, but not longer than [`FLUSH_TIMEOUT`].
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        let flush = async {
            if self.queue.send(Entry::Flush(done)).await.is_ok() {
                let _ = written.await;
            }
        };
        if tokio::time::timeout(FLUSH_TIMEOUT, flush).await.is_err() {
            tracing::error!("exchange records lost: the store does not answer");
        }
    }
}

async fn write_all(
    core: SharedCore,
    sample: Sample,
    receiver: Arc<AsyncMutex<mpsc::Receiver<Entry>>>,
    bytes: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
) {
    let mut receiver = receiver.lock().await;
    let batch_max = batch_max(core.store.engine());
    let mut entries = Vec::new();
    while receiver.recv_many(&mut entries, batch_max).await > 0 {
        let was_full = entries.len() == batch_max;
        let mut calls = Vec::with_capacity(entries.len());
        let mut flushes = Vec::new();
        for entry in entries.drain(..) {
            match entry {
                Entry::Record(call) => calls.push(*call),
                Entry::Flush(done) => flushes.push(done),
            }
        }
        dropped.fetch_add(write(&core, sample, &calls).await, Ordering::Relaxed);
        bytes.fetch_sub(calls.iter().map(|call| call.exchange.bytes()).sum(), Ordering::Relaxed);
        let is_awaited = !flushes.is_empty();
        for done in flushes {
            let _ = done.send(());
        }
        if !was_full && !is_awaited {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Writes the records and the counts for the overview, in one transaction. Counts calls without a record too.
async fn insert(core: &SharedCore, sample: Sample, batch: &[Call]) -> Result<(), StoreError> {
    let mut tx = core.store.begin().await?;
    let kept: Vec<&Call> = batch.iter().filter(|call| sample.keeps(&call.exchange)).collect();
    exchanges::insert(&mut tx, &kept).await?;
    call_counts::add(&mut tx, batch).await?;
    tx.commit().await
}

/// Writes a batch. Returns how many records were lost.
async fn write(core: &SharedCore, sample: Sample, batch: &[Call]) -> u64 {
    if batch.is_empty() {
        return 0;
    }
    loop {
        match insert(core, sample, batch).await {
            Ok(()) => return 0,
            Err(error) if error.is_temporary() => tokio::time::sleep(RETRY_PAUSE).await,
            Err(error) => {
                tracing::error!(%error, records = batch.len(), "exchange records lost");
                return batch.len() as u64;
            }
        }
    }
}
