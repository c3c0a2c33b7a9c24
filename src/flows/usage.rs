//! Last-used times, and how many sessions each client opens and refreshes. They are collected in memory and
//! written in batches, not by the request itself.
//!
//! The first use of a rotated secret is different: it sets when the previous secret ends. This is a real
//! change, and is written before the call continues.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use chrono::TimeDelta;

use super::Core;
use crate::domain::address::ClientAddress;
use crate::domain::clock::Timestamp;
use crate::domain::ids::{AdminTokenId, CredentialId, MerchantId, SecretId};
use crate::domain::record::SecretRecord;
use crate::store::client_activity::{self, Activity, SLOT};
use crate::store::secrets::Use;
use crate::store::{StoreError, admin_tokens, merchants, secrets};

/// The most uses that are remembered for a minute, some 2 MiB. Further ones are written each time.
const NOTED_MAX: usize = 200_000;

/// The latest use of each secret and admin token, and the activity of each client, since the last write. The
/// size is limited by their number, and by [`NOTED_MAX`].
#[derive(Default)]
pub struct Usage(Mutex<Uses>);

#[derive(Default)]
struct Uses {
    secrets: HashMap<SecretId, Use>,
    noted: Noted,
    admin_tokens: HashMap<AdminTokenId, Timestamp>,
    clients: HashMap<(CredentialId, Timestamp), Activity>,
}

/// The secrets that were used in this minute, by address. Further uses in that minute are not written, so that a busy
/// merchant costs one update of each secret in a minute, and not one in each second.
#[derive(Default)]
struct Noted {
    minute: i64,
    /// Hashes of secrets with their address, which take a quarter of the memory. Two with one hash, which nobody can
    /// bring about, only cost the second one its last-used time in that minute.
    secrets: HashSet<u64>,
    hashes: RandomState,
}

impl Noted {
    fn is_first(&mut self, used: &Use) -> bool {
        let minute = used.at.unix_secs().div_euclid(60);
        if self.minute != minute {
            *self = Self { minute, ..Self::default() };
        }
        let entry = self.hashes.hash_one((used.secret, used.ip));
        if self.secrets.len() < NOTED_MAX {
            return self.secrets.insert(entry);
        }
        !self.secrets.contains(&entry)
    }
}

impl Usage {
    fn note(&self, note: impl FnOnce(&mut Uses)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn take(&self) -> Uses {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = std::mem::take(&mut uses.noted);
        std::mem::replace(&mut uses, Uses { noted, ..Uses::default() })
    }
}

impl Core {
    /// Records the use of a secret. The first use of a rotated secret is durable when this returns.
    pub async fn note_use(
        &self,
        merchant: MerchantId,
        secret: &SecretRecord,
        address: &ClientAddress,
    ) -> Result<(), StoreError> {
        if secret.starts_an_overlap() {
            // Boxed, because this future is large and rare, and would make every call's future larger.
            Box::pin(self.start_overlap(merchant, secret)).await?;
        }
        self.note_use_later(secret, address);
        Ok(())
    }

    /// Records the use of a secret in memory.
    pub fn note_use_later(&self, secret: &SecretRecord, address: &ClientAddress) {
        let used = Use { secret: secret.id, at: self.now(), ip: address.ip };
        // Whether a secret that is about to end is safe to revoke depends on its latest use.
        let is_ending = secret.ends_at.is_some();
        self.usage.note(|uses| {
            if is_ending || uses.noted.is_first(&used) {
                uses.secrets.insert(secret.id, used);
            }
        });
    }

    /// Records the use of an admin token in memory.
    pub(super) fn note_admin_token_use(&self, id: AdminTokenId) {
        let now = self.now();
        self.usage.note(|uses| {
            uses.admin_tokens.insert(id, now);
        });
    }

    pub(super) fn note_opened(&self, client: CredentialId) {
        self.note_activity(client, |activity| activity.opened += 1);
    }

    pub(super) fn note_refreshed(&self, client: CredentialId) {
        self.note_activity(client, |activity| activity.refreshed += 1);
    }

    fn note_activity(&self, client: CredentialId, note: impl FnOnce(&mut Activity)) {
        let slot = client_activity::slot_of(self.now());
        self.usage.note(|uses| note(uses.clients.entry((client, slot)).or_default()));
    }

    /// What a client did in the last hour, in whole slots.
    pub async fn activity_of(&self, client: CredentialId) -> Result<Activity, StoreError> {
        // Leave out the slot that began before the hour, so that the numbers are never too high.
        let since = client_activity::slot_of(self.now().minus(TimeDelta::hours(1))).plus(SLOT);
        client_activity::since(&mut self.store.read().await?, client, since).await
    }

    /// Handles the first use of a rotated secret: older secrets end after the overlap.
    pub(super) async fn start_overlap(
        &self,
        merchant: MerchantId,
        secret: &SecretRecord,
    ) -> Result<(), StoreError> {
        let now = self.now();
        let overlap = TimeDelta::seconds(secret.overlap_secs.unwrap_or(0).into());
        let mut tx = self.store.begin().await?;
        merchants::lock(&mut tx, merchant).await?;
        if secrets::note_first_use(&mut tx, secret.id, now).await? {
            secrets::end_predecessors(&mut tx, secret.id, now.plus(overlap)).await?;
        }
        tx.commit().await
    }

    /// Writes everything collected since the last time. A crash or an error loses it, which is acceptable because
    /// the next use is written again, and no call depends on it.
    pub async fn write_uses(&self) -> Result<(), StoreError> {
        let Uses { secrets: used, admin_tokens: used_tokens, clients, .. } = self.usage.take();
        if !used.is_empty() {
            let written = self.write_secret_uses(used.into_values().collect()).await;
            if written.is_err() {
                self.usage.note(|uses| uses.noted = Noted::default());
            }
            written?;
        }
        if !used_tokens.is_empty() {
            let uses = used_tokens.into_iter().collect();
            admin_tokens::note_uses(&mut self.store.write().await?, uses).await?;
        }
        if !clients.is_empty() {
            let activities = clients.into_iter().collect();
            client_activity::add(&mut self.store.write().await?, activities).await?;
        }
        Ok(())
    }

    async fn write_secret_uses(&self, uses: Vec<Use>) -> Result<(), StoreError> {
        secrets::note_uses(&mut self.store.write().await?, uses).await
    }
}
