//! Last-used times: collected here, written in batches, never by the request that they describe.
//!
//! One use is more than a note: the first of a rotated secret starts the end of its predecessor. That
//! is a change like any other, written before the call goes on.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::TimeDelta;

use super::Core;
use crate::domain::address::ClientAddress;
use crate::domain::ids::{MerchantId, SecretId};
use crate::domain::secret::StoredSecret;
use crate::store::secrets::Use;
use crate::store::{StoreError, merchants, secrets};

/// The latest use of each secret since the last write: bounded by the number of secrets.
#[derive(Default)]
pub struct Usage(Mutex<HashMap<SecretId, Use>>);

impl Usage {
    fn note(&self, used: Use) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(used.secret, used);
    }

    fn take(&self) -> Vec<Use> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_values().collect()
    }
}

impl Core {
    /// Records that a secret was used. The first use of a rotated one is durable when this returns.
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn note_use(
        &self,
        merchant: MerchantId,
        secret: &StoredSecret,
        address: &ClientAddress,
    ) -> Result<(), StoreError> {
        if secret.starts_an_overlap() {
            self.start_overlap(merchant, secret).await?;
        }
        self.note_use_later(secret, address);
        Ok(())
    }

    /// Records that a secret was used, without touching the store.
    pub fn note_use_later(&self, secret: &StoredSecret, address: &ClientAddress) {
        self.usage.note(Use { secret: secret.id, at: self.now(), ip: address.ip.to_string() });
    }

    /// The first use of a rotated secret: its predecessors end when the overlap is over.
    pub(super) async fn start_overlap(
        &self,
        merchant: MerchantId,
        secret: &StoredSecret,
    ) -> Result<(), StoreError> {
        let now = self.now();
        let overlap = TimeDelta::seconds(secret.overlap_secs.unwrap_or(0));
        let mut tx = self.store.begin().await?;
        merchants::lock(&mut tx, merchant).await?;
        if secrets::note_first_use(&mut tx, secret.id, now).await? {
            secrets::end_predecessors(&mut tx, secret.id, now.plus(overlap)).await?;
        }
        tx.commit().await
    }

    /// Writes what was noted since the last time. Lost on a crash: they are notes, not decisions.
    ///
    /// # Errors
    /// A fault of the store; the notes are gone then.
    pub async fn write_uses(&self) -> Result<(), StoreError> {
        let uses = self.usage.take();
        if uses.is_empty() {
            return Ok(());
        }
        secrets::note_uses(&mut self.store.write().await?, uses).await
    }
}
