//! Refused sign-ins. They are collected in memory and written to the audit trail in batches. So an attempt
//! costs no transaction, and takes the same time whether the user exists or not.
//!
//! Each wrong password for a user is written within a second. The lock of the account limits their number.
//! Attempts without a known user are counted, and become one event for each address and minute.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

use super::Core;
use crate::domain::address::network_of;
use crate::domain::event::AuditEvent;
use crate::store::{StoreError, audit};

/// The most addresses that are counted separately in a minute. Attempts from further addresses are counted
/// together.
const ADDRESSES_MAX: usize = 1_000;

/// The most events that wait while the store is away. Further ones are dropped.
const EVENTS_MAX: usize = 10_000;

/// The most events in one transaction.
const BATCH_MAX: usize = 100;

const SECS_PER_MINUTE: i64 = 60;

/// Refused sign-ins that are not in the audit trail yet.
#[derive(Default)]
pub struct Refusals(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    events: Vec<AuditEvent>,
    /// By minute and address. `None` stands for all addresses above [`ADDRESSES_MAX`].
    counts: BTreeMap<(i64, Option<IpAddr>), Count>,
}

/// The attempts of one address in one minute.
struct Count {
    first: AuditEvent,
    attempts: BTreeMap<&'static str, u64>,
}

impl Count {
    /// One event for all attempts. It has a request id only if there was a single attempt.
    fn into_event(self) -> AuditEvent {
        let attempts: u64 = self.attempts.values().sum();
        let mut event = self.first;
        event.request_id = event.request_id.filter(|_| attempts == 1);
        event.detail = json!({ "attempts": attempts, "why": self.attempts });
        event
    }
}

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an attempt for a known user.
    pub(super) fn note(&self, event: AuditEvent) {
        let mut noted = self.lock();
        if noted.events.len() < EVENTS_MAX {
            noted.events.push(event);
        }
    }

    /// Counts an attempt without a known user.
    pub(super) fn count(&self, ip: IpAddr, why: &'static str, mut event: AuditEvent) {
        let minute = event.at.unix_secs().div_euclid(SECS_PER_MINUTE);
        let mut noted = self.lock();
        let mut slot = (minute, Some(network_of(ip)));
        if noted.counts.len() >= ADDRESSES_MAX && !noted.counts.contains_key(&slot) {
            slot.1 = None;
            event.client_ip = None;
        }
        let count =
            noted.counts.entry(slot).or_insert_with(|| Count { first: event, attempts: BTreeMap::new() });
        *count.attempts.entry(why).or_default() += 1;
    }

    /// Takes the events to write, and the counts of minutes before `minute`.
    fn take(&self, minute: i64) -> Vec<AuditEvent> {
        let mut noted = self.lock();
        let later = noted.counts.split_off(&(minute, None));
        let over = std::mem::replace(&mut noted.counts, later);
        let mut events = std::mem::take(&mut noted.events);
        events.extend(over.into_values().map(Count::into_event));
        events
    }

    /// Puts events back after a failed write, to be tried again next time.
    fn put_back(&self, events: &[AuditEvent]) {
        let mut noted = self.lock();
        let room = EVENTS_MAX.saturating_sub(noted.events.len());
        noted.events.extend(events.iter().take(room).cloned());
    }
}

impl Core {
    /// Writes all noted attempts, and the counts of past minutes.
    pub async fn write_refusals(&self) -> Result<(), StoreError> {
        self.write_refusals_before(self.now().unix_secs().div_euclid(SECS_PER_MINUTE)).await
    }

    /// Writes everything, including the current minute: before somebody reads the trail, and before the
    /// process ends.
    pub async fn write_all_refusals(&self) -> Result<(), StoreError> {
        self.write_refusals_before(i64::MAX).await
    }

    async fn write_refusals_before(&self, minute: i64) -> Result<(), StoreError> {
        let events = self.refusals.take(minute);
        for (index, batch) in events.chunks(BATCH_MAX).enumerate() {
            if let Err(error) = self.write_events(batch).await {
                self.refusals.put_back(&events[index * BATCH_MAX..]);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn write_events(&self, events: &[AuditEvent]) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        audit::append_all(&mut tx, events).await?;
        tx.commit().await
    }
}
