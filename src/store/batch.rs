//! Group commit: concurrent callers share statements and transactions.
//!
//! A durable write costs a transaction, however many rows it has. A worker takes all waiting calls, up to
//! [`BATCH_MAX`], runs one statement for them and answers each caller after the commit. No call waits for a
//! batch to fill up. An idle server runs batches of one without extra latency, and a busy server runs larger
//! ones.
//!
//! One batch of a kind runs at a time, because two concurrent batches double the commits for the same work.
//! If a batch takes long, behind a lock or a slow commit, the next one runs beside it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::error::StoreError;
use crate::supervise::Supervisor;

/// The most rows in a statement. A larger number gains little, and the first caller of a batch would wait
/// longer.
const BATCH_MAX: usize = 128;

/// Upper bounds of the histogram's buckets.
const SIZE_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// How long a batch may run before the next one runs beside it.
const PATIENCE: Duration = Duration::from_millis(5);

/// The most waiting calls. With a full queue, the store is seconds behind, so it is better to refuse calls.
const QUEUE_MAX: usize = 4096;

/// How often a whole batch is retried after a deadlock or serialisation failure.
const RETRIES_MAX: u32 = 2;

struct Job<I, O> {
    input: I,
    reply: oneshot::Sender<Result<O, StoreError>>,
}

/// A queue of calls of one kind, and the workers that empty it.
pub struct Batcher<I, O> {
    queue: mpsc::Sender<Job<I, O>>,
    timeout: Duration,
    sizes: Histogram,
}

#[derive(Clone, Debug)]
pub struct QueueState {
    pub operation: &'static str,
    /// How many calls wait.
    pub depth: usize,
    /// The sizes of all batches so far.
    pub batch_sizes: Histogram,
}

impl<I, O> Batcher<I, O>
where
    I: Clone + Send + Sync + 'static,
    O: Send + 'static,
{
    /// Starts `workers` tasks, which end when this is dropped. `run` takes a batch and returns one result for
    /// each input, in order.
    pub fn start<F, R>(workers: usize, timeout: Duration, tasks: &Supervisor, run: F) -> Self
    where
        F: Fn(Arc<[I]>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Vec<O>, StoreError>> + Send + 'static,
    {
        let (queue, receiver) = mpsc::channel(QUEUE_MAX);
        let lane = Arc::new(Lane { receiver: Mutex::new(receiver), turn: Mutex::new(()) });
        let run = Arc::new(run);
        let sizes = Histogram::new(SIZE_BUCKETS);
        for _ in 0..workers {
            let (lane, run, sizes) = (Arc::clone(&lane), Arc::clone(&run), sizes.clone());
            tasks.keep("batches", move || work(Arc::clone(&lane), Arc::clone(&run), sizes.clone()));
        }
        Self { queue, timeout, sizes }
    }

    pub(super) fn state(&self, operation: &'static str) -> QueueState {
        let depth = self.queue.max_capacity() - self.queue.capacity();
        QueueState { operation, depth, batch_sizes: self.sizes.clone() }
    }

    /// Waits for the batch with this call. The statement runs in the worker, so it continues if the caller
    /// goes away.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if the queue is full or the time is over, or the error of the statement.
    pub async fn call(&self, input: I) -> Result<O, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Job { input, reply }).map_err(|_| StoreError::Busy)?;
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(StoreError::Busy),
        }
    }
}

/// Shared by the workers of a queue.
struct Lane<I, O> {
    receiver: Mutex<mpsc::Receiver<Job<I, O>>>,
    /// Locked while a batch runs.
    turn: Mutex<()>,
}

async fn work<I, O, F, R>(lane: Arc<Lane<I, O>>, run: Arc<F>, sizes: Histogram)
where
    I: Clone + Send + Sync + 'static,
    O: Send + 'static,
    F: Fn(Arc<[I]>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Vec<O>, StoreError>> + Send + 'static,
{
    let mut jobs = Vec::with_capacity(BATCH_MAX);
    loop {
        let mut receiver = lane.receiver.lock().await;
        // Calls that arrive while the previous batch runs share the next one.
        let turn = tokio::time::timeout(PATIENCE, lane.turn.lock()).await.ok();
        if receiver.recv_many(&mut jobs, BATCH_MAX).await == 0 {
            return;
        }
        // Let all tasks that are ready run first, because their calls can share this batch.
        if jobs.len() < BATCH_MAX {
            tokio::task::yield_now().await;
            while jobs.len() < BATCH_MAX
                && let Ok(job) = receiver.try_recv()
            {
                jobs.push(job);
            }
        }
        drop(receiver);
        // Drop calls whose caller has timed out, because the caller was told that the call failed.
        jobs.retain(|job| !job.reply.is_closed());
        if jobs.is_empty() {
            continue;
        }
        sizes.observe(jobs.len() as f64);
        let (inputs, replies): (Vec<I>, Vec<_>) = jobs.drain(..).map(|job| (job.input, job.reply)).unzip();
        let results = run_isolated(inputs.into(), &*run).await;
        for (reply, result) in replies.into_iter().zip(results) {
            // The caller may be gone by now.
            let _ = reply.send(result);
        }
        drop(turn);
    }
}

/// Runs a batch so that one bad row does not fail the other calls.
async fn run_isolated<I, O, F, R>(inputs: Arc<[I]>, run: &F) -> Vec<Result<O, StoreError>>
where
    I: Clone,
    F: Fn(Arc<[I]>) -> R,
    R: Future<Output = Result<Vec<O>, StoreError>>,
{
    let mut retries = 0;
    let error = loop {
        match run(Arc::clone(&inputs)).await {
            Ok(outputs) => return outputs.into_iter().map(Ok).collect(),
            Err(StoreError::Contention(_)) if retries < RETRIES_MAX => retries += 1,
            Err(error) => break error,
        }
    };
    if inputs.len() == 1 {
        return vec![Err(error)];
    }
    // If the database is unavailable, it is for all calls of the batch. Trying each one would only take
    // longer.
    if let StoreError::Unavailable(fault, cause) = &error {
        return inputs.iter().map(|_| Err(StoreError::Unavailable(*fault, Arc::clone(cause)))).collect();
    }
    tracing::warn!(%error, calls = inputs.len(), "a batch failed; its calls are tried one by one");
    let mut results = Vec::with_capacity(inputs.len());
    for input in inputs.iter() {
        results.push(match run(Arc::new([input.clone()])).await {
            Ok(mut outputs) => outputs.pop().ok_or(StoreError::Busy),
            Err(error) => Err(error),
        });
    }
    results
}
