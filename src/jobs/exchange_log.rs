//! Writes exchange records in batches, off the hot path.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::flows::SharedCore;
use crate::store::StoreError;
use crate::store::exchanges::{self, Exchange};

/// Records that may wait: about a second of a busy server, some megabytes. Past it, records are
/// dropped and counted, since troubleshooting data must not hold up the calls it is about.
const QUEUE_MAX: usize = 50_000;

/// Records of one statement: a few milliseconds of SQLite's one writer.
const BATCH_MAX: usize = 250;

/// The pause after a batch that was not full, so that a quiet server writes few, larger batches.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a batch is tried again while the store does not answer, a second apart.
const RETRIES_MAX: u32 = 30;

enum Entry {
    Record(Box<Exchange>),
    Flush(oneshot::Sender<()>),
}

/// Where exchange records are handed in.
pub struct ExchangeLog {
    queue: mpsc::Sender<Entry>,
    dropped: AtomicU64,
}

impl ExchangeLog {
    /// Starts the writer, which ends when this is dropped.
    #[must_use]
    pub fn start(core: SharedCore) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(write_all(core, receiver));
        Self { queue, dropped: AtomicU64::new(0) }
    }

    pub fn record(&self, exchange: Exchange) {
        if self.queue.try_send(Entry::Record(Box::new(exchange))).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(dropped, "exchange records dropped: the store is too slow");
            }
        }
    }

    /// Records that were never written, for want of room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Returns when everything recorded so far is written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.queue.send(Entry::Flush(done)).await.is_ok() {
            let _ = written.await;
        }
    }
}

async fn write_all(core: SharedCore, mut receiver: mpsc::Receiver<Entry>) {
    let mut entries = Vec::with_capacity(BATCH_MAX);
    while receiver.recv_many(&mut entries, BATCH_MAX).await > 0 {
        let was_full = entries.len() == BATCH_MAX;
        let mut exchanges = Vec::with_capacity(entries.len());
        let mut flushes = Vec::new();
        for entry in entries.drain(..) {
            match entry {
                Entry::Record(exchange) => exchanges.push(*exchange),
                Entry::Flush(done) => flushes.push(done),
            }
        }
        write(&core, &exchanges).await;
        let is_awaited = !flushes.is_empty();
        for done in flushes {
            let _ = done.send(());
        }
        if !was_full && !is_awaited {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn write(core: &SharedCore, batch: &[Exchange]) {
    if batch.is_empty() {
        return;
    }
    for _ in 0..RETRIES_MAX {
        let result: Result<(), StoreError> =
            async { exchanges::insert(&mut core.store.write().await?, batch).await }.await;
        match result {
            Ok(()) => return,
            Err(error) if error.is_temporary() => tokio::time::sleep(Duration::from_secs(1)).await,
            Err(error) => {
                tracing::error!(%error, records = batch.len(), "exchange records lost");
                return;
            }
        }
    }
    tracing::error!(records = batch.len(), "exchange records lost: the store does not answer");
}
