//! Sends webhooks: finds endpoints that have deliveries due, and runs one worker for each.
//!
//! A worker claims a few deliveries, sends them concurrently, records the answers, and repeats until nothing
//! is due. So a slow endpoint delays only itself. Each merchant may have only part of all attempts, so a
//! merchant with many slow endpoints does not delay the others.
//!
//! The loop only starts workers. It runs when this process commits an event. It also runs once a second, for
//! events from other replicas, for retries and for claims that have lapsed.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::egress::Egress;
use crate::domain::delivery::Answer;
use crate::domain::ids::{ApiKeyId, MerchantId};
use crate::flows::SharedCore;
use crate::flows::deliver::{Claim, Claimed, PER_ENDPOINT_MAX};
use crate::flows::error::Fault;
use crate::store::StoreError;

/// The most attempts at a time. Each takes a connection and a few kilobytes. An endpoint that fails gets
/// only one, so others have to wait only when this many endpoints hang.
pub const ATTEMPTS_MAX: usize = 512;

/// The most attempts of one merchant at a time, for all its endpoints together.
pub const PER_MERCHANT_MAX: usize = 32;

/// How often we retry to record an attempt, with a pause of [`POLL`].
const RECORD_RETRIES_MAX: u32 = 5;

const POLL: Duration = Duration::from_secs(1);

pub struct Deliverer {
    core: SharedCore,
    egress: Arc<Egress>,
    busy: Mutex<HashMap<MerchantId, Busy>>,
    attempts: Semaphore,
    workers: TaskTracker,
    stop: CancellationToken,
}

/// The endpoints of one merchant that have a worker, and the attempts that they share.
struct Busy {
    endpoints: HashSet<ApiKeyId>,
    attempts: Arc<Semaphore>,
}

impl Deliverer {
    pub fn new(core: SharedCore, egress: Arc<Egress>) -> Arc<Self> {
        Arc::new(Self {
            core,
            egress,
            busy: Mutex::default(),
            attempts: Semaphore::new(ATTEMPTS_MAX),
            workers: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Attempts everything that is due now, and returns when all answers are recorded.
    ///
    /// # Errors
    /// The first error. Deliveries that were not recorded are due again when their claims lapse.
    pub async fn tick(self: &Arc<Self>) -> Result<(), Fault> {
        let endpoints = self.core.due_endpoints().await?;
        let workers = endpoints.into_iter().filter_map(|due| self.take(due)).map(Worker::run);
        join_all(workers).await.into_iter().try_for_each(|attempts| attempts.map(drop))
    }

    /// Runs until [`Deliverer::stop`] and until all started attempts are recorded.
    pub async fn run(self: Arc<Self>) {
        while !self.stop.is_cancelled() {
            match self.core.due_endpoints().await {
                Ok(endpoints) => {
                    for worker in endpoints.into_iter().filter_map(|due| self.take(due)) {
                        self.workers.spawn(worker.run_and_log());
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot find webhooks to deliver"),
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.core.store.published().notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
        self.workers.close();
        self.workers.wait().await;
    }

    /// Starts no further attempts. Workers that wait for a permit end.
    pub fn stop(&self) {
        self.stop.cancel();
        self.attempts.close();
    }

    /// A worker for this endpoint. `None` if it already has one.
    fn take(self: &Arc<Self>, (merchant, key): (MerchantId, ApiKeyId)) -> Option<Worker> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let of_merchant = busy.entry(merchant).or_insert_with(|| Busy {
            endpoints: HashSet::new(),
            attempts: Arc::new(Semaphore::new(PER_MERCHANT_MAX)),
        });
        let share = Arc::clone(&of_merchant.attempts);
        of_merchant.endpoints.insert(key).then(|| Worker {
            deliverer: Arc::clone(self),
            merchant,
            key,
            share,
        })
    }
}

/// Sends what is due for one endpoint. Dropping the worker frees the endpoint, also after a panic.
struct Worker {
    deliverer: Arc<Deliverer>,
    merchant: MerchantId,
    key: ApiKeyId,
    /// Permits for the attempts of the merchant.
    share: Arc<Semaphore>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut busy = self.deliverer.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut of_merchant) = busy.entry(self.merchant) {
            of_merchant.get_mut().endpoints.remove(&self.key);
            if of_merchant.get().endpoints.is_empty() {
                of_merchant.remove();
            }
        }
    }
}

impl Worker {
    async fn run_and_log(self) {
        let deliverer = Arc::clone(&self.deliverer);
        match self.run().await {
            Ok(0) => {}
            // A delivery that became due in the meantime found the endpoint still busy, so look again.
            Ok(_) => deliverer.core.store.published().notify_one(),
            Err(error) => tracing::warn!(%error, "webhook deliveries failed and will be retried"),
        }
    }

    /// Returns how many attempts it made.
    async fn run(self) -> Result<usize, Fault> {
        let mut made = 0;
        while !self.deliverer.stop.is_cancelled() {
            // Get the permits before claiming, so that no claim lapses while it waits for a permit.
            let Some(mut permits) = self.permits().await else { break };
            let limit = i64::try_from(permits.len()).unwrap_or(1);
            let claimed = self.deliverer.core.claim_deliveries(self.key, limit).await?;
            if claimed.is_empty() {
                break;
            }
            permits.truncate(claimed.len());
            made += claimed.len();
            let attempts = claimed.into_iter().map(|claimed| self.attempt(claimed));
            join_all(attempts).await.into_iter().collect::<Result<(), _>>()?;
            drop(permits);
        }
        Ok(made)
    }

    /// Waits for permits for one attempt, then takes more if they are free, up to the endpoint's maximum.
    /// The merchant's permit comes first: waiting for it holds no permit that another merchant could use.
    async fn permits(&self) -> Option<Vec<[SemaphorePermit<'_>; 2]>> {
        let (share, attempts) = (&self.share, &self.deliverer.attempts);
        let mut permits = vec![[share.acquire().await.ok()?, attempts.acquire().await.ok()?]];
        for _ in 1..PER_ENDPOINT_MAX {
            match (share.try_acquire(), attempts.try_acquire()) {
                (Ok(of_merchant), Ok(of_all)) => permits.push([of_merchant, of_all]),
                _ => break,
            }
        }
        Some(permits)
    }

    async fn attempt(&self, Claimed { claim, message }: Claimed) -> Result<(), StoreError> {
        let answer = match message {
            Ok(message) => self.deliverer.egress.send(message).await,
            Err(error) => Answer { result: Err(error), latency_us: 0 },
        };
        tracing::debug!(
            delivery = %claim.delivery,
            api_key = %claim.api_key_id,
            status = answer.result.as_ref().ok().map(|received| received.status),
            error = answer.result.as_ref().err().map(|error| <&str>::from(*error)),
            latency_us = answer.latency_us,
            "webhook attempt",
        );
        self.record(&claim, &answer).await
    }

    /// Records the answer. An unrecorded success would be sent again, so this retries if the store is away
    /// for a moment.
    async fn record(&self, claim: &Claim, answer: &Answer) -> Result<(), StoreError> {
        for _ in 0..RECORD_RETRIES_MAX {
            match self.deliverer.core.record_attempt(claim, answer).await {
                Err(error) if error.is_temporary() => tokio::time::sleep(POLL).await,
                result => return result,
            }
        }
        self.deliverer.core.record_attempt(claim, answer).await
    }
}
