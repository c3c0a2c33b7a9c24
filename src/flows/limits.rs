//! Limits: how often something may happen before the caller is told to slow down.
//!
//! Counted in memory, per replica: what must agree across replicas is decided in the database, and a
//! limit need not. Three of them: failed authentications per address, calls per key, new sessions per
//! client.
//!
//! **Failures cannot be outrun in parallel.** An attempt borrows one unit of what its address has left
//! before the secret is looked at, and gives it back when the secret was right. With all of it on loan,
//! the next attempt waits until one is settled. So at no time are more guesses under way than there are
//! failures left, however many arrive at once, and a busy address that knows its secret loses nothing.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Core, Decided};
use crate::domain::access::Reason;
use crate::domain::address::network_of;
use crate::domain::clock::Clock;
use crate::domain::ids::{ApiKeyId, CredentialId};

/// How long failures count.
const WINDOW: Duration = Duration::from_secs(60);

/// Addresses kept in memory, some megabytes. Past it, addresses without a failure are forgotten, and if
/// every one of them has failed, new ones go uncounted: each of so many may guess as often anyway.
const ADDRESSES_MAX: usize = 100_000;

/// From the `[limits]` settings. Zero is "off" for the last two.
#[derive(Clone, Copy, Debug)]
pub struct LimitSettings {
    pub failures_per_address_per_minute: u32,
    pub calls_per_key_per_second: u32,
    pub new_sessions_per_client_per_minute: u32,
}

pub struct Limits {
    clock: Clock,
    failures_max: u32,
    addresses: Mutex<HashMap<IpAddr, Address>>,
    calls: Option<Rate<ApiKeyId>>,
    sessions: Option<Rate<CredentialId>>,
}

/// What an address has left: permits of the semaphore that are free or on loan.
struct Address {
    left: Arc<Semaphore>,
    failures: u32,
    /// When the first of the failures was.
    since: Duration,
}

impl Address {
    fn new(failures_max: u32) -> Self {
        Self { left: Arc::new(Semaphore::new(failures_max as usize)), failures: 0, since: Duration::ZERO }
    }

    /// Nothing would be lost by forgetting it. Whoever waits or has a loan holds the semaphore too.
    fn is_idle(&self) -> bool {
        self.failures == 0 && Arc::strong_count(&self.left) == 1
    }
}

impl Limits {
    #[must_use]
    pub fn new(settings: LimitSettings, clock: &Clock) -> Self {
        let time = AppClock(clock.clone());
        Self {
            clock: clock.clone(),
            failures_max: settings.failures_per_address_per_minute.max(1),
            addresses: Mutex::default(),
            calls: NonZeroU32::new(settings.calls_per_key_per_second)
                .map(|calls| Rate::new(Quota::per_second(calls), &time)),
            sessions: NonZeroU32::new(settings.new_sessions_per_client_per_minute)
                .map(|sessions| Rate::new(Quota::per_minute(sessions), &time)),
        }
    }

    /// Borrows one of the failures that `ip` has left; waits while all of them are on loan. `None` when
    /// there is nothing left.
    async fn borrow(&self, ip: IpAddr) -> Option<Loan<'_>> {
        let network = network_of(ip);
        let left = {
            let mut addresses = self.current(network);
            if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&network) {
                forget(&mut addresses, self.clock.monotonic());
                if addresses.len() >= ADDRESSES_MAX {
                    return Some(Loan { limits: self, network, permit: None });
                }
            }
            let address = addresses.entry(network).or_insert_with(|| Address::new(self.failures_max));
            Arc::clone(&address.left)
        };
        // It is closed when the last unit is gone: who waits is told at once.
        let permit = left.acquire_owned().await.ok()?;
        Some(Loan { limits: self, network, permit: Some(permit) })
    }

    /// The addresses, with the failures of `network` forgotten if they have had their time.
    fn current(&self, network: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, Address>> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = addresses.get_mut(&network) {
            let is_over = address.since + WINDOW <= self.clock.monotonic();
            if address.failures > 0 && is_over {
                *address = Address::new(self.failures_max);
            }
        }
        addresses
    }

    /// How long until `ip` may try again: zero unless it has no failures left.
    #[must_use]
    pub fn locked_for(&self, ip: IpAddr) -> Duration {
        let network = network_of(ip);
        match self.current(network).get(&network) {
            Some(address) if address.failures >= self.failures_max => {
                (address.since + WINDOW).saturating_sub(self.clock.monotonic())
            }
            _ => Duration::ZERO,
        }
    }

    /// Counts a call with a key; `false` when it is one too many.
    #[must_use]
    pub fn count_call(&self, key: ApiKeyId) -> bool {
        self.calls.as_ref().is_none_or(|calls| calls.0.check_key(&key).is_ok())
    }

    /// Counts a session of a client; `false` when it is one too many.
    #[must_use]
    pub fn count_session(&self, client: CredentialId) -> bool {
        self.sessions.as_ref().is_none_or(|sessions| sessions.0.check_key(&client).is_ok())
    }

    /// Seconds after which a caller refused for `reason` may do better.
    #[must_use]
    pub fn retry_after_secs(&self, reason: Reason, ip: IpAddr) -> u32 {
        let wait = match reason {
            Reason::TooManyFailures => self.locked_for(ip),
            Reason::TooManySessions => self.sessions.as_ref().map_or(Duration::ZERO, |rate| rate.1),
            _ => Duration::ZERO,
        };
        u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
    }

    /// Forgets what no longer matters, so that memory does not grow with every caller there ever was.
    pub fn tidy(&self) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        forget(&mut addresses, self.clock.monotonic());
        addresses.shrink_to(0);
        drop(addresses);
        if let Some(calls) = &self.calls {
            calls.0.retain_recent();
            calls.0.shrink_to_fit();
        }
        if let Some(sessions) = &self.sessions {
            sessions.0.retain_recent();
            sessions.0.shrink_to_fit();
        }
    }

    /// Addresses, keys and clients in memory.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).len()
            + self.calls.as_ref().map_or(0, |rate| rate.0.len())
            + self.sessions.as_ref().map_or(0, |rate| rate.0.len())
    }
}

fn forget(addresses: &mut HashMap<IpAddr, Address>, now: Duration) {
    addresses
        .retain(|_, address| !address.is_idle() && (address.failures == 0 || now < address.since + WINDOW));
}

/// One of the failures that an address has left, for as long as its secret is looked at. Dropped, it is
/// given back.
struct Loan<'a> {
    limits: &'a Limits,
    network: IpAddr,
    /// `None` for an address that is not counted.
    permit: Option<OwnedSemaphorePermit>,
}

impl Loan<'_> {
    /// The secret was wrong.
    fn spend(mut self) {
        let Some(permit) = self.permit.take() else { return };
        let limits = self.limits;
        let mut addresses = limits.current(self.network);
        let address = addresses.entry(self.network).or_insert_with(|| Address::new(limits.failures_max));
        if address.failures == 0 {
            address.since = limits.clock.monotonic();
        }
        address.failures = address.failures.saturating_add(1);
        if Arc::ptr_eq(permit.semaphore(), &address.left) {
            permit.forget();
        } else {
            // Borrowed before the window that it falls into began.
            address.left.forget_permits(1);
        }
        if address.failures >= limits.failures_max {
            address.left.close();
        }
    }
}

/// The application's clock, as the rate limiter reads it.
#[derive(Clone)]
struct AppClock(Clock);

impl clock::Clock for AppClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

/// A rate per key, and how long one more takes to be earned. There are no more keys in it than there
/// are rows in the database: only admitted callers are counted.
struct Rate<K: Clone + Hash + Eq>(
    RateLimiter<K, DashMapStateStore<K>, AppClock, NoOpMiddleware<Duration>>,
    Duration,
);

impl<K: Clone + Hash + Eq> Rate<K> {
    fn new(quota: Quota, time: &AppClock) -> Self {
        let store = DashMapStateStore::default();
        Self(RateLimiter::new(quota, store, time.clone()), quota.replenish_interval())
    }
}

impl Core {
    /// Runs an attempt to authenticate from `ip` within what that address has left, and counts it if it
    /// fails.
    ///
    /// # Errors
    /// The fault that the attempt met; it then counts as none.
    pub async fn guard<T>(&self, ip: IpAddr, attempt: impl Future<Output = Decided<T>>) -> Decided<T> {
        let Some(loan) = self.limits.borrow(ip).await else {
            return Ok(Err(Reason::TooManyFailures));
        };
        let decided = attempt.await?;
        if let Err(reason) = &decided
            && reason.is_failed_authentication()
        {
            loan.spend();
        }
        Ok(decided)
    }
}
