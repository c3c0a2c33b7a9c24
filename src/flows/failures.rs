//! Limits failed authentications per address, to stop guessing without affecting other callers.
//!
//! Each replica counts in memory, separately for the API, the admin API and the console.
//!
//! **Only failures are limited, not the address.** A key, secret or admin token that is known to be valid is
//! accepted without checking its address: see [`super::admission`] and [`super::admin_access`]. This is safe
//! because these cannot be guessed. Passwords can be guessed, so a sign-in always checks the address.
//!
//! **Parallel attempts get no extra guesses.** Before a secret is checked, the attempt borrows one of the
//! failures that its address has left. It gives it back if the secret was right. If all are borrowed, further
//! attempts wait. So there are never more guesses at a time than failures left. If none is left, an attempt
//! is refused without a query.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Core;
use super::error::{Decided, Error};
use crate::domain::address::network_of;
use crate::domain::clock::Clock;
use crate::domain::reason::Reason;

/// How long failures count.
const WINDOW: Duration = Duration::from_secs(60);

/// The most addresses in memory, which take a few megabytes. If there are more, addresses without a failure
/// are removed. If all have failures, new addresses are not counted: an attacker with that many addresses has
/// enough guesses anyway.
const ADDRESSES_MAX: usize = 100_000;

/// Where an attempt is made. Each surface counts its own failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    Api,
    Admin,
    Console,
}

/// The failures of every address at one surface.
pub struct Failures {
    clock: Clock,
    max: u32,
    addresses: Mutex<HashMap<IpAddr, Address>>,
}

/// The failures that an address has left: the semaphore's permits, free or borrowed.
struct Address {
    left: Arc<Semaphore>,
    failures: u32,
    /// When the first failure was.
    since: Duration,
}

impl Address {
    fn new(max: u32) -> Self {
        Self { left: Arc::new(Semaphore::new(max as usize)), failures: 0, since: Duration::ZERO }
    }

    /// Whether the address can be removed. Attempts that wait or have borrowed also hold the semaphore.
    fn is_idle(&self) -> bool {
        self.failures == 0 && Arc::strong_count(&self.left) == 1
    }
}

impl Failures {
    /// `max` is the number of failures per minute.
    pub(super) fn new(max: u32, clock: &Clock) -> Self {
        Self { clock: clock.clone(), max: max.max(1), addresses: Mutex::default() }
    }

    /// Borrows one of the failures that `ip` has left. Waits while all are borrowed. `None` if none is left.
    async fn borrow(&self, ip: IpAddr) -> Option<Loan<'_>> {
        let network = network_of(ip);
        let left = {
            let mut addresses = self.current(network);
            if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&network) {
                forget(&mut addresses, self.clock.monotonic());
                if addresses.len() >= ADDRESSES_MAX {
                    return Some(Loan { of: self, network, permit: None });
                }
            }
            let address = addresses.entry(network).or_insert_with(|| Address::new(self.max));
            Arc::clone(&address.left)
        };
        // The semaphore is closed when the last failure is used, so waiting attempts are refused at once.
        let permit = left.acquire_owned().await.ok()?;
        Some(Loan { of: self, network, permit: Some(permit) })
    }

    /// The addresses. Resets the failures of `network` if their time is over.
    fn current(&self, network: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, Address>> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = addresses.get_mut(&network) {
            let is_over = address.since + WINDOW <= self.clock.monotonic();
            if address.failures > 0 && is_over {
                *address = Address::new(self.max);
            }
        }
        addresses
    }

    /// How many failures `ip` has left at this moment.
    pub(super) fn left(&self, ip: IpAddr) -> u32 {
        let network = network_of(ip);
        let failures = self.current(network).get(&network).map_or(0, |address| address.failures);
        self.max.saturating_sub(failures)
    }

    /// How long until `ip` may try again. Zero if it has failures left.
    pub fn locked_for(&self, ip: IpAddr) -> Duration {
        let network = network_of(ip);
        match self.current(network).get(&network) {
            Some(address) if address.failures >= self.max => {
                (address.since + WINDOW).saturating_sub(self.clock.monotonic())
            }
            _ => Duration::ZERO,
        }
    }

    /// Removes addresses that are no longer active.
    pub(super) fn tidy(&self) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        forget(&mut addresses, self.clock.monotonic());
        addresses.shrink_to(0);
    }

    /// Addresses in memory.
    pub(super) fn tracked(&self) -> usize {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn forget(addresses: &mut HashMap<IpAddr, Address>, now: Duration) {
    addresses
        .retain(|_, address| !address.is_idle() && (address.failures == 0 || now < address.since + WINDOW));
}

/// A borrowed failure of an address, while a secret is checked. Dropping it gives it back.
struct Loan<'a> {
    of: &'a Failures,
    network: IpAddr,
    /// `None` for an address that is not counted.
    permit: Option<OwnedSemaphorePermit>,
}

impl Loan<'_> {
    /// The secret was wrong.
    fn spend(mut self) {
        let Some(permit) = self.permit.take() else { return };
        let failures = self.of;
        let mut addresses = failures.current(self.network);
        let address = addresses.entry(self.network).or_insert_with(|| Address::new(failures.max));
        if address.failures == 0 {
            address.since = failures.clock.monotonic();
        }
        address.failures = address.failures.saturating_add(1);
        if Arc::ptr_eq(permit.semaphore(), &address.left) {
            permit.forget();
        } else {
            // The failure was borrowed before the current window began.
            address.left.forget_permits(1);
        }
        if address.failures >= failures.max {
            address.left.close();
        }
    }
}

impl Core {
    /// Runs an authentication attempt from `ip` if the address has failures left, and counts it if it fails.
    /// An attempt that ends with an error is not counted.
    pub async fn guard<T>(
        &self,
        surface: Surface,
        ip: IpAddr,
        attempt: impl Future<Output = Decided<T>>,
    ) -> Decided<T> {
        let Some(loan) = self.limits.failures(surface).borrow(ip).await else {
            return Err(Reason::TooManyFailures.into());
        };
        let decided = attempt.await;
        if let Err(Error::Refused(reason)) = &decided
            && reason.is_failed_authentication()
        {
            loan.spend();
        }
        decided
    }
}
