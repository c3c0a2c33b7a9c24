//! Limits webhook tests. A test makes this server wait for a receiver that the caller chose, so each webhook
//! can have one ping at a time, and each merchant a few.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::error::Refused;
use crate::domain::ids::{ApiKeyId, MerchantId};

/// The most concurrent pings of one merchant, in one process.
const PER_MERCHANT_MAX: usize = 8;

/// The keys whose webhooks are being tested, with their merchants.
#[derive(Default)]
pub struct Pings(Mutex<HashMap<ApiKeyId, MerchantId>>);

/// A running ping. Dropping it allows the next one.
pub(super) struct Ping<'a> {
    pings: &'a Pings,
    key: ApiKeyId,
}

impl Pings {
    pub(super) fn begin(&self, key: ApiKeyId, merchant: MerchantId) -> Result<Ping<'_>, Refused> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.contains_key(&key) {
            return Err(Refused::Conflict("this webhook is being tested; wait for the answer".to_owned()));
        }
        if under_way.values().filter(|of| **of == merchant).count() >= PER_MERCHANT_MAX {
            let detail = format!("{PER_MERCHANT_MAX} webhooks are being tested; wait for an answer");
            return Err(Refused::Conflict(detail));
        }
        under_way.insert(key, merchant);
        Ok(Ping { pings: self, key })
    }
}

impl Drop for Ping<'_> {
    fn drop(&mut self) {
        self.pings.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
