//! The hot path: one batcher for each operation, and a cache of merchants and sessions.
//!
//! The cache can be outdated, but it never leads to a wrong answer. Each decision is confirmed by a statement
//! that compares the record's revision and the session's generation with those in the database.

mod cache;
mod sessions;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tracing::Level;

use super::admin_tokens::Presented;
use super::batch::{Batcher, QueueState};
use super::driver::Connection;
use super::fault::Fault;
use super::pool::Pool;
use super::postgres::Lane;
use super::{StoreError, admin_tokens, merchants, secrets};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{ApiKeyId, MerchantId, SessionId};
use crate::domain::merchant::MerchantRecord;
use crate::domain::secret::SecretHash;
use crate::domain::session::Session;
use crate::supervise::Supervisor;

pub use cache::CacheState;
use cache::Remembered;
pub use sessions::{Found, Open, Rotate, Rotated};

/// The share of the memory for caches that each one has, in sixteenths.
const RECORDS_SHARE: u64 = 11;
const OWNERS_SHARE: u64 = 2;
const SESSIONS_SHARE: u64 = 3;

/// Two workers for each operation, so that one can continue while the other's batch takes long.
const WORKERS: usize = 2;

pub struct HotPath {
    pool: Pool,
    open: Batcher<Open, bool>,
    rotate: Batcher<Rotate, Option<Rotated>>,
    look_up: Batcher<SessionId, Option<Found>>,
    revisions: Batcher<MerchantId, Option<i64>>,
    records: Batcher<(MerchantId, Timestamp), Option<Arc<MerchantRecord>>>,
    key_owners: Batcher<SecretHash, Option<(MerchantId, ApiKeyId)>>,
    admin_tokens: Batcher<SecretHash, Option<Presented>>,
    record_cache: Remembered<MerchantId, Arc<MerchantRecord>>,
    /// A hash never changes its key, so an entry is never outdated.
    owner_cache: Remembered<SecretHash, (MerchantId, ApiKeyId)>,
    session_cache: Remembered<SessionId, Session>,
}

impl HotPath {
    pub(super) fn start(pool: &Pool, timeout: Duration, cache_bytes_max: u64, tasks: &Supervisor) -> Self {
        let share = |sixteenths| cache_bytes_max / 16 * sixteenths;
        Self {
            pool: pool.clone(),
            open: batcher(pool, Access::Write, timeout, tasks, |db, opens| {
                Box::pin(sessions::open(db, opens))
            }),
            rotate: batcher(pool, Access::Write, timeout, tasks, |db, rotations| {
                Box::pin(sessions::rotate(db, rotations))
            }),
            look_up: batcher(pool, Access::Read, timeout, tasks, |db, ids| {
                Box::pin(sessions::look_up(db, ids))
            }),
            revisions: batcher(pool, Access::Read, timeout, tasks, |db, ids| {
                Box::pin(sessions::revisions(db, ids))
            }),
            records: batcher(pool, Access::Read, timeout, tasks, |db, wanted| Box::pin(records(db, wanted))),
            key_owners: batcher(pool, Access::Read, timeout, tasks, |db, hashes| {
                Box::pin(key_owners(db, hashes))
            }),
            admin_tokens: batcher(pool, Access::Read, timeout, tasks, |db, hashes| {
                Box::pin(tokens(db, hashes))
            }),
            record_cache: Remembered::new(share(RECORDS_SHARE), |record| record.bytes()),
            owner_cache: Remembered::new(share(OWNERS_SHARE), |_| 0),
            session_cache: Remembered::new(share(SESSIONS_SHARE), Session::bytes),
        }
    }

    pub fn queues(&self) -> Vec<QueueState> {
        vec![
            self.open.state("open_session"),
            self.rotate.state("rotate_session"),
            self.look_up.state("look_up_session"),
            self.revisions.state("revision"),
            self.records.state("load_record"),
            self.key_owners.state("key_owner"),
            self.admin_tokens.state("admin_token"),
        ]
    }

    pub fn caches(&self) -> [CacheState; 3] {
        [
            self.record_cache.state("records"),
            self.owner_cache.state("key_owners"),
            self.session_cache.state("sessions"),
        ]
    }

    /// Writes a new session. `false` if the merchant has another revision by now.
    pub async fn open_session(&self, open: Open) -> Result<bool, StoreError> {
        self.noted(self.open.call(open).await)
    }

    /// Moves a session to its next generation. `None` if the row has changed in the meantime.
    pub async fn rotate_session(&self, rotation: Rotate) -> Result<Option<Rotated>, StoreError> {
        self.noted(self.rotate.call(rotation).await)
    }

    pub async fn look_up_session(&self, id: SessionId) -> Result<Option<Found>, StoreError> {
        self.noted(self.look_up.call(id).await)
    }

    /// The cached session, as it was when this replica last rotated it. It may be outdated.
    pub fn remembered_session(&self, id: SessionId) -> Option<Session> {
        self.session_cache.get(&id)
    }

    /// Caches a session, so that its next rotation needs no look-up.
    pub fn remember_session(&self, session: Session) {
        self.session_cache.insert(session.id, session);
    }

    /// A merchant's current revision.
    pub async fn revision(&self, id: MerchantId) -> Result<Option<i64>, StoreError> {
        self.noted(self.revisions.call(id).await)
    }

    /// The merchant and key of a hash, if it is in the cache.
    pub fn known_owner(&self, hash: SecretHash) -> Option<(MerchantId, ApiKeyId)> {
        self.owner_cache.get(&hash)
    }

    /// Caches the merchant and key of a hash before it is first used here.
    pub fn learn_owner(&self, hash: SecretHash, owner: (MerchantId, ApiKeyId)) {
        self.owner_cache.insert(hash, owner);
    }

    /// The merchant and key of a hash.
    pub async fn key_owner(&self, hash: SecretHash) -> Result<Option<(MerchantId, ApiKeyId)>, StoreError> {
        if let Some(owner) = self.owner_cache.get(&hash) {
            return Ok(Some(owner));
        }
        let owner = self.noted(self.key_owners.call(hash).await)?;
        if let Some(owner) = owner {
            self.owner_cache.insert(hash, owner);
        }
        Ok(owner)
    }

    /// The current state of the admin token with this hash, even if it has ended.
    pub async fn admin_token(&self, hash: SecretHash) -> Result<Option<Presented>, StoreError> {
        self.noted(self.admin_tokens.call(hash).await)
    }

    /// The cached record, which may be outdated.
    pub fn cached_record(&self, id: MerchantId) -> Option<Arc<MerchantRecord>> {
        self.record_cache.get(&id)
    }

    /// Reads the current record from the database and caches it. Fails with [`StoreError::Elsewhere`] if another
    /// cell serves the merchant.
    pub async fn load_record(
        &self,
        id: MerchantId,
        now: Timestamp,
    ) -> Result<Option<Arc<MerchantRecord>>, StoreError> {
        let record = self.noted(self.records.call((id, now)).await)?;
        if record.as_ref().is_some_and(|record| record.merchant.is_elsewhere) {
            return Err(StoreError::Elsewhere);
        }
        if let Some(record) = &record {
            self.record_cache.insert(id, Arc::clone(record));
            for key in &record.api_keys {
                for secret in &key.secrets {
                    self.owner_cache.insert(secret.hash, (id, key.id));
                }
            }
        }
        Ok(record)
    }
}

impl HotPath {
    /// Reports an overloaded queue as an outage too, although no statement failed.
    fn noted<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ StoreError::Busy) = &done {
            self.pool.outages().tell(Fault::QueueFull, Level::WARN, error);
        }
        done
    }
}

#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

type Run<I, O> = for<'c> fn(&'c mut Connection, &'c [I]) -> BoxFuture<'c, Result<Vec<O>, StoreError>>;

fn batcher<I, O>(
    pool: &Pool,
    access: Access,
    timeout: Duration,
    tasks: &Supervisor,
    run: Run<I, O>,
) -> Batcher<I, O>
where
    I: Clone + Send + Sync + 'static,
    O: Send + 'static,
{
    let pool = pool.clone();
    Batcher::start(WORKERS, timeout, tasks, move |inputs| {
        let pool = pool.clone();
        async move {
            let mut db = match access {
                Access::Read => pool.read(Lane::Hot).await?,
                Access::Write => pool.write(Lane::Hot).await?,
            };
            run(&mut db, &inputs).await
        }
    })
}

/// Loads each merchant of a batch once, because after a change many callers want the same one.
async fn records(
    db: &mut Connection,
    wanted: &[(MerchantId, Timestamp)],
) -> Result<Vec<Option<Arc<MerchantRecord>>>, StoreError> {
    let ids: BTreeSet<_> = wanted.iter().map(|(id, _)| *id).collect();
    // A secret that was live at the earliest of these times is in the record, and each call decides with its own.
    let Some(now) = wanted.iter().map(|(_, now)| *now).min() else { return Ok(Vec::new()) };
    let loaded = merchants::records(db, &Vec::from_iter(ids), now).await?;
    let loaded: HashMap<_, _> = loaded.into_iter().map(|(id, record)| (id, Arc::new(record))).collect();
    Ok(wanted.iter().map(|(id, _)| loaded.get(id).cloned()).collect())
}

async fn key_owners(
    db: &mut Connection,
    hashes: &[SecretHash],
) -> Result<Vec<Option<(MerchantId, ApiKeyId)>>, StoreError> {
    let owners = secrets::owners_of_api_keys(db, hashes).await?;
    Ok(hashes.iter().map(|hash| owners.get(hash).copied()).collect())
}

/// Reads each token of a batch once, because a busy service always uses the same one.
async fn tokens(db: &mut Connection, hashes: &[SecretHash]) -> Result<Vec<Option<Presented>>, StoreError> {
    let mut read: HashMap<SecretHash, Option<Presented>> = HashMap::new();
    for hash in hashes {
        if let Entry::Vacant(entry) = read.entry(*hash) {
            entry.insert(admin_tokens::by_hash(db, *hash).await?);
        }
    }
    Ok(hashes.iter().map(|hash| read.get(hash).cloned().flatten()).collect())
}
