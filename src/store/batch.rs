//! Group commit: concurrent callers share statements and transactions.
//!
//! The cost of a durable write is the transaction, not the row. A worker takes whatever is waiting,
//! 1 to [`BATCH_MAX`], runs one statement for all of it and answers each caller after the commit. Nobody
//! waits for others to come: an idle server runs batches of one at no extra latency, a busy one amortises.
//!
//! One batch of a kind runs at a time, since two at once are two halves at the price of two. A batch that
//! takes long, behind a lock or a slow commit, does not hold up those after it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::error::StoreError;
use crate::supervise::Supervisor;

/// Rows of one statement. More gains little and makes the first caller of a batch wait for the last.
const BATCH_MAX: usize = 128;

/// Upper bounds of the sizes that are counted together.
const SIZE_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// How long a batch is left to itself before the next one runs beside it.
const PATIENCE: Duration = Duration::from_millis(5);

/// Calls that may wait. Full means that the store has fallen seconds behind: better to say so.
const QUEUE_MAX: usize = 4096;

/// How often a batch is tried again as a whole after a deadlock or serialisation failure.
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

/// How a queue is doing.
#[derive(Clone, Debug)]
pub struct QueueState {
    pub operation: &'static str,
    /// Calls that wait.
    pub depth: usize,
    /// Calls in each batch so far.
    pub batch_sizes: Histogram,
}

impl<I, O> Batcher<I, O>
where
    I: Clone + Send + Sync + 'static,
    O: Send + 'static,
{
    /// Starts `workers` tasks, which end when this is dropped. `run` takes a batch and returns one result for each input, in order.
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

    /// Waits for the batch that carries this call. A caller that goes away takes nothing with it: the
    /// statement runs in the worker.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the queue is full or the time is up, else what the statement met.
    pub async fn call(&self, input: I) -> Result<O, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Job { input, reply }).map_err(|_| StoreError::Busy)?;
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(StoreError::Busy),
        }
    }
}

/// What the workers of a queue share.
struct Lane<I, O> {
    receiver: Mutex<mpsc::Receiver<Job<I, O>>>,
    /// Held while a batch runs.
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
        // Whatever comes until the batch before is done shares the next one.
        let turn = tokio::time::timeout(PATIENCE, lane.turn.lock()).await.ok();
        if receiver.recv_many(&mut jobs, BATCH_MAX).await == 0 {
            return;
        }
        drop(receiver);
        // Callers whose time was up have gone: what they asked for must not happen behind their back.
        jobs.retain(|job| !job.reply.is_closed());
        if jobs.is_empty() {
            continue;
        }
        sizes.observe(jobs.len() as f64);
        let (inputs, replies): (Vec<I>, Vec<_>) = jobs.drain(..).map(|job| (job.input, job.reply)).unzip();
        let results = run_isolated(inputs.into(), &*run).await;
        for (reply, result) in replies.into_iter().zip(results) {
            // The caller may have gone in the meantime.
            let _ = reply.send(result);
        }
        drop(turn);
    }
}

/// Runs a batch such that one bad row never fails its neighbours.
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
    // Out of reach for one is out of reach for all: asking again for each would only pile up.
    if let StoreError::Unavailable(fault, cause) = &error {
        return inputs.iter().map(|_| Err(StoreError::Unavailable(*fault, Arc::clone(cause)))).collect();
    }
    tracing::warn!(%error, calls = inputs.len(), "a batch failed; its calls run one by one");
    let mut results = Vec::with_capacity(inputs.len());
    for input in inputs.iter() {
        results.push(match run(Arc::new([input.clone()])).await {
            Ok(mut outputs) => outputs.pop().ok_or(StoreError::Busy),
            Err(error) => Err(error),
        });
    }
    results
}
