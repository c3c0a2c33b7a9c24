//! Publishes `address.blocked` when a caller's address is not allowed: at most once per key, network and
//! hour. A network is an IPv4 address or an IPv6 /64, which is what one caller commonly has.
//!
//! A refusal is only noted in memory. Each key has its own limit. So somebody who uses a stolen key from many
//! addresses fills neither the memory nor the outbox, and does not suppress events of other keys.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::Core;
use super::admission::Caller;
use crate::domain::address::network_of;
use crate::domain::clock::Timestamp;
use crate::domain::event::{EventType, WebhookEvent};
use crate::domain::ids::{ApiKeyId, MerchantId};
use crate::store::StoreError;
use crate::store::outbox::{self, Audience};

/// The most networks that one process reports for a key in an hour. Others are only in its exchange records.
const PER_KEY_MAX: usize = 20;

/// The most events in one transaction.
const BATCH_MAX: usize = 100;

/// The blocked calls of this hour, and those that are not published yet.
#[derive(Default)]
pub struct Blocked(Mutex<State>);

#[derive(Default)]
struct State {
    hour: i64,
    seen: HashMap<ApiKeyId, HashSet<IpAddr>>,
    waiting: Vec<BlockedCall>,
}

#[derive(Clone, Copy)]
struct BlockedCall {
    merchant: MerchantId,
    key: ApiKeyId,
    ip: IpAddr,
    at: Timestamp,
}

impl BlockedCall {
    const fn hour(&self) -> i64 {
        self.at.unix_secs().div_euclid(3600)
    }
}

impl Core {
    /// Notes that the caller's address is not allowed, if the key has a webhook.
    pub(super) fn note_blocked(&self, caller: &Caller) {
        let key = caller.record.api_key(caller.key_id);
        if !key.is_some_and(|key| key.has_webhook) {
            return;
        }
        let call = BlockedCall {
            merchant: caller.record.id,
            key: caller.key_id,
            ip: caller.address.ip,
            at: self.now(),
        };
        let mut state = self.blocked.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.hour != call.hour() {
            state.hour = call.hour();
            state.seen.clear();
        }
        let seen = state.seen.entry(call.key).or_default();
        if seen.len() < PER_KEY_MAX && seen.insert(network_of(call.ip)) {
            state.waiting.push(call);
        }
    }

    /// Publishes the noted calls, and returns how many events were new. The idempotency key prevents a second
    /// event if another replica has already published one. After an error, the rest is tried again next time.
    pub async fn publish_blocked(&self) -> Result<usize, StoreError> {
        let mut waiting = {
            let mut state = self.blocked.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut state.waiting)
        };
        // Sort, so that replicas that publish the same calls do not deadlock.
        waiting.sort_by_key(|call| (call.key, call.ip, call.hour()));
        let mut published = 0;
        let mut result = Ok(());
        while !waiting.is_empty() && result.is_ok() {
            let batch = waiting.split_off(waiting.len().saturating_sub(BATCH_MAX));
            match self.publish_batch(&batch).await {
                Ok(count) => published += count,
                Err(error) => {
                    waiting.extend(batch);
                    result = Err(error);
                }
            }
        }
        if !waiting.is_empty() {
            let mut state = self.blocked.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Drop earlier hours, so that memory does not fill up while the store is away.
            waiting.retain(|call| call.hour() == state.hour);
            state.waiting.append(&mut waiting);
        }
        result.map(|()| published)
    }

    async fn publish_batch(&self, batch: &[BlockedCall]) -> Result<usize, StoreError> {
        let mut tx = self.store.begin().await?;
        let mut published = 0;
        for call in batch {
            let data = json!({ "api_key_id": call.key, "client_ip": call.ip.to_string() });
            let name = EventType::AddressBlocked.name();
            let idempotency_key = format!("{name}:{}:{}:{}", call.key, network_of(call.ip), call.hour());
            let event = WebhookEvent {
                idempotency_key: Some(idempotency_key),
                ..WebhookEvent::new(EventType::AddressBlocked, call.merchant, data, call.at, &self.entropy)
            };
            let is_new =
                outbox::publish_once(&mut tx, &event, Audience::Key(call.key), &self.entropy).await?;
            published += usize::from(is_new);
        }
        tx.commit().await?;
        Ok(published)
    }
}
