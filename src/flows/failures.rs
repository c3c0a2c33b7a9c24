//! Failed authentications per address: guessing is stopped, and nobody else pays for it.
//!
//! Counted in memory, per replica, and apart for the API, the admin API and the console.
//!
//! **What fails is limited, not the address.** A key, secret or admin token that is known to be good passes
//! before its address is asked about: see [`super::admission`] and [`super::admin_access`]. These cannot be
//! guessed, so that nothing is learnt from one that passes. Passwords can be, so a sign-in always asks.
//!
//! **Failures cannot be outrun in parallel.** An attempt borrows one unit of what its address has left
//! before the secret is looked at, and gives it back when the secret was right. With all of it on loan,
//! the next attempt waits until one is settled. So at no time are more guesses under way than there are
//! failures left, however many arrive at once. With nothing left an attempt is refused before the store is
//! asked.

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

/// Addresses kept in memory, some megabytes. Past it, addresses without a failure are forgotten, and if
/// every one of them has failed, new ones go uncounted: each of so many may guess as often anyway.
const ADDRESSES_MAX: usize = 100_000;

/// Where an attempt is made. Failures at one count nowhere else.
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

/// What an address has left: permits of the semaphore that are free or on loan.
struct Address {
    left: Arc<Semaphore>,
    failures: u32,
    /// When the first of the failures was.
    since: Duration,
}

impl Address {
    fn new(max: u32) -> Self {
        Self { left: Arc::new(Semaphore::new(max as usize)), failures: 0, since: Duration::ZERO }
    }

    /// Nothing would be lost by forgetting it. Whoever waits or has a loan holds the semaphore too.
    fn is_idle(&self) -> bool {
        self.failures == 0 && Arc::strong_count(&self.left) == 1
    }
}

impl Failures {
    /// `max` a minute.
    pub(super) fn new(max: u32, clock: &Clock) -> Self {
        Self { clock: clock.clone(), max: max.max(1), addresses: Mutex::default() }
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
                    return Some(Loan { of: self, network, permit: None });
                }
            }
            let address = addresses.entry(network).or_insert_with(|| Address::new(self.max));
            Arc::clone(&address.left)
        };
        // It is closed when the last unit is gone: who waits is told at once.
        let permit = left.acquire_owned().await.ok()?;
        Some(Loan { of: self, network, permit: Some(permit) })
    }

    /// The addresses, with the failures of `network` forgotten if they have had their time.
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

    /// How long until `ip` may try again: zero unless it has no failures left.
    pub fn locked_for(&self, ip: IpAddr) -> Duration {
        let network = network_of(ip);
        match self.current(network).get(&network) {
            Some(address) if address.failures >= self.max => {
                (address.since + WINDOW).saturating_sub(self.clock.monotonic())
            }
            _ => Duration::ZERO,
        }
    }

    /// Forgets addresses that have been quiet.
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

/// One of the failures that an address has left, for as long as its secret is looked at. Dropped, it is
/// given back.
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
            // Borrowed before the window that it falls into began.
            address.left.forget_permits(1);
        }
        if address.failures >= failures.max {
            address.left.close();
        }
    }
}

impl Core {
    /// Runs an attempt to authenticate from `ip` within what that address has left, and counts it if it
    /// fails.
    ///
    /// # Errors
    /// The fault that the attempt met; it then counts as none.
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
