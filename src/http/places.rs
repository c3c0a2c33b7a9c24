//! Counts the connections of each address, so that one client cannot use all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::address::network_of;

/// The number of connections of each address.
pub struct Places {
    /// Zero means no limit.
    max: u32,
    taken: Mutex<HashMap<IpAddr, u32>>,
    refused: AtomicU64,
}

/// Counts as one connection until it is dropped.
pub struct Place<'a> {
    places: &'a Places,
    network: IpAddr,
}

impl Places {
    pub fn new(max: u32) -> Self {
        Self { max, taken: Mutex::default(), refused: AtomicU64::new(0) }
    }

    /// `None` if the address already has as many connections as it may have.
    pub fn take(&self, ip: IpAddr) -> Option<Place<'_>> {
        let network = network_of(ip);
        let mut taken = self.taken();
        let count = taken.entry(network).or_default();
        if self.max > 0 && *count >= self.max {
            drop(taken);
            let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
            if refused.is_power_of_two() {
                tracing::warn!(client_ip = %ip, refused, "connections closed: their address has too many");
            }
            return None;
        }
        *count += 1;
        Some(Place { places: self, network })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.network);
            }
        }
    }
}
