//! Refused sign-ins, and calls that an admin token may not make. They are collected in memory and written to the
//! audit trail in batches. So an attempt costs no transaction, and takes the same time whether the user exists
//! or not.
//!
//! Each wrong password for a user is written within a second. The lock of the account limits their number.
//! Attempts without a known user are counted, and become one event for each address and minute. The refused
//! calls of an admin token become one event for each token and minute.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

use super::Core;
use super::admin_access::AdminCall;
use super::principal::Principal;
use crate::domain::address::network_of;
use crate::domain::admin::AdminToken;
use crate::domain::event::{AuditEvent, EventType, Outcome};
use crate::domain::ids::AdminTokenId;
use crate::domain::reason::Reason;
use crate::store::{StoreError, audit};

/// The most addresses that are counted separately in a minute. Attempts from further addresses are counted
/// together.
const ADDRESSES_MAX: usize = 1_000;

/// The most kinds of attempts in one event. Further ones are counted together.
const KINDS_MAX: usize = 100;

/// The most events that wait while the store is away. Further ones are dropped.
const EVENTS_MAX: usize = 10_000;

/// The most events in one transaction.
const BATCH_MAX: usize = 100;

const SECS_PER_MINUTE: i64 = 60;

/// Refusals that are not in the audit trail yet.
#[derive(Default)]
pub struct Refusals(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    events: Vec<AuditEvent>,
    /// By minute and address. `None` stands for all addresses above [`ADDRESSES_MAX`].
    by_address: BTreeMap<(i64, Option<IpAddr>), Count>,
    /// By minute and admin token. Their number needs no limit, because only tokens that exist are counted.
    by_token: BTreeMap<(i64, AdminTokenId), Count>,
}

/// The attempts of one caller in one minute.
struct Count {
    first: AuditEvent,
    attempts: BTreeMap<Cow<'static, str>, u64>,
}

impl Count {
    fn new(first: AuditEvent) -> Self {
        Self { first, attempts: BTreeMap::new() }
    }

    fn add(&mut self, why: Cow<'static, str>) {
        let is_too_much = self.attempts.len() >= KINDS_MAX && !self.attempts.contains_key(&why);
        *self.attempts.entry(if is_too_much { "other".into() } else { why }).or_default() += 1;
    }

    /// One event for all attempts. It has a request id only if there was a single attempt.
    fn into_event(self) -> AuditEvent {
        let attempts: u64 = self.attempts.values().sum();
        let mut event = self.first;
        event.request_id = event.request_id.filter(|_| attempts == 1);
        event.detail = json!({ "attempts": attempts, "why": self.attempts });
        event
    }
}

/// Takes what comes before `end`, as events.
fn before<K: Ord>(end: &K, counts: &mut BTreeMap<K, Count>) -> impl Iterator<Item = AuditEvent> + use<K> {
    let later = counts.split_off(end);
    std::mem::replace(counts, later).into_values().map(Count::into_event)
}

fn minute_of(event: &AuditEvent) -> i64 {
    event.at.unix_secs().div_euclid(SECS_PER_MINUTE)
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
        let mut noted = self.lock();
        let mut slot = (minute_of(&event), Some(network_of(ip)));
        if noted.by_address.len() >= ADDRESSES_MAX && !noted.by_address.contains_key(&slot) {
            slot.1 = None;
            event.client_ip = None;
        }
        noted.by_address.entry(slot).or_insert_with(|| Count::new(event)).add(why.into());
    }

    /// Counts a call that an admin token may not make.
    fn count_call(&self, token: AdminTokenId, what: String, event: AuditEvent) {
        let slot = (minute_of(&event), token);
        self.lock().by_token.entry(slot).or_insert_with(|| Count::new(event)).add(what.into());
    }

    /// Takes the events to write, and the counts of minutes before `minute`.
    fn take(&self, minute: i64) -> Vec<AuditEvent> {
        let mut noted = self.lock();
        let mut events = std::mem::take(&mut noted.events);
        events.extend(before(&(minute, None), &mut noted.by_address));
        events.extend(before(&(minute, AdminTokenId::nil()), &mut noted.by_token));
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
    /// Notes that an admin token may not make a call.
    pub fn note_refused_call(&self, token: &AdminToken, call: &AdminCall<'_>, why: Reason) {
        let principal = Principal::admin_token(token, call.ip.to_string(), call.request_id.to_owned());
        let what = format!("{why}: {} {}", call.method, call.route);
        let event = self.event_by(&principal, EventType::AdminCallRefused).about(token.id);
        self.refusals.count_call(token.id, what, AuditEvent { outcome: Outcome::Refused, ..event });
    }

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
