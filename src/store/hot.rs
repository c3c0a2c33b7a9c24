//! The hot path: one batcher for each operation, and a cache of merchants and sessions.
//!
//! The cache can be outdated, but it never leads to a wrong answer. Each decision is confirmed by a statement
//! that compares the record's revision and the session's generation with those in the database.

mod cache;
pub mod records;
mod sessions;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
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
use super::{StoreError, admin_tokens, secrets};
use crate::domain::clock::Timestamp;
use crate::domain::ids::{MerchantId, SessionId};
use crate::domain::record::{KeyOwner, MerchantRecord};
use crate::domain::secret::SecretHash;
use crate::domain::session::Session;
use crate::supervise::Supervisor;

pub use cache::CacheState;
use cache::Remembered;
pub use records::{Loaded, Wanted};
pub use sessions::{Found, Open, Rotate, Rotated};

/// Two workers for each operation, so that one can continue while the other's batch takes long.
const WORKERS: usize = 2;

pub struct HotPath {
    pool: Pool,
    open: Batcher<Open, bool>,
    rotate: Batcher<Rotate, Option<Rotated>>,
    look_up: Batcher<SessionId, Option<Found>>,
    revisions: Batcher<MerchantId, Option<i64>>,
    records: Batcher<(Wanted, Timestamp), Answer>,
    admin_tokens: Batcher<SecretHash, Option<Presented>>,
    remembered: Remembered,
}

impl HotPath {
    pub(super) fn start(pool: &Pool, timeout: Duration, cache_bytes_max: u64, tasks: &Supervisor) -> Self {
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
            records: batcher(pool, Access::Read, timeout, tasks, |db, asked| Box::pin(answers(db, asked))),
            admin_tokens: batcher(pool, Access::Read, timeout, tasks, |db, hashes| {
                Box::pin(tokens(db, hashes))
            }),
            remembered: Remembered::new(cache_bytes_max),
        }
    }

    pub fn queues(&self) -> Vec<QueueState> {
        vec![
            self.open.state("open_session"),
            self.rotate.state("rotate_session"),
            self.look_up.state("look_up_session"),
            self.revisions.state("revision"),
            self.records.state("load_record"),
            self.admin_tokens.state("admin_token"),
        ]
    }

    /// How the cache does for each kind of entry.
    pub fn caches(&self) -> [CacheState; 3] {
        self.remembered.states()
    }

    /// The memory of the cache, about.
    pub fn cache_bytes(&self) -> u64 {
        self.remembered.bytes()
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
    pub fn remembered_session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.remembered.session(id)
    }

    /// Caches a session, so that its next rotation needs no look-up.
    pub fn remember_session(&self, session: Session) {
        self.remembered.keep_session(session);
    }

    /// A merchant's current revision.
    pub async fn revision(&self, id: MerchantId) -> Result<Option<i64>, StoreError> {
        self.noted(self.revisions.call(id).await)
    }

    /// The merchant and key of a hash, if it is in the cache.
    pub fn known_owner(&self, hash: SecretHash) -> Option<KeyOwner> {
        self.remembered.owner(hash)
    }

    /// Caches the merchant and key of a hash before it is first used here.
    pub fn learn_owner(&self, hash: SecretHash, owner: KeyOwner) {
        self.remembered.keep_owner(hash, owner);
    }

    /// The current state of the admin token with this hash, even if it has ended.
    pub async fn admin_token(&self, hash: SecretHash) -> Result<Option<Presented>, StoreError> {
        self.noted(self.admin_tokens.call(hash).await)
    }

    /// The cached record, which may be outdated.
    pub fn cached_record(&self, id: MerchantId) -> Option<Arc<MerchantRecord>> {
        self.remembered.record(id)
    }

    /// Reads the current record from the database and caches it. Fails with [`StoreError::Elsewhere`] if another
    /// cell serves the merchant.
    pub async fn load_record(
        &self,
        id: MerchantId,
        now: Timestamp,
    ) -> Result<Option<Arc<MerchantRecord>>, StoreError> {
        let (_, loaded) = self.noted(self.records.call((Wanted::Merchant(id), now)).await)?;
        self.keep(loaded)
    }

    /// The same, for the owner of the API key with this hash.
    pub async fn load_record_of_key(
        &self,
        hash: SecretHash,
        now: Timestamp,
    ) -> Result<Option<(KeyOwner, Arc<MerchantRecord>)>, StoreError> {
        let (owner, loaded) = self.noted(self.records.call((Wanted::OwnerOf(hash), now)).await)?;
        if let Some(owner) = owner {
            self.remembered.keep_owner(hash, owner);
        }
        Ok(owner.zip(self.keep(loaded)?))
    }

    fn keep(&self, loaded: Option<Loaded>) -> Result<Option<Arc<MerchantRecord>>, StoreError> {
        let record = match loaded {
            Some(Loaded::Here(record)) => record,
            Some(Loaded::Elsewhere) => return Err(StoreError::Elsewhere),
            None => return Ok(None),
        };
        self.remembered.keep_record(&record);
        Ok(Some(record))
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

/// The owner of the API key that was asked for, if it was one, and the merchant.
type Answer = (Option<KeyOwner>, Option<Loaded>);

async fn answers(db: &mut Connection, asked: &[(Wanted, Timestamp)]) -> Result<Vec<Answer>, StoreError> {
    let wanted: Vec<_> = asked.iter().map(|(wanted, _)| *wanted).collect();
    // A secret that was live at the earliest of these times is in the record, and each call decides with its own.
    let Some(now) = asked.iter().map(|(_, now)| *now).min() else { return Ok(Vec::new()) };
    let loaded = records::load(db, &wanted, now).await?;
    let owners = owners(db, &wanted, &loaded).await?;
    let answer = |wanted: &Wanted| match wanted {
        Wanted::Merchant(id) => (None, loaded.get(id).cloned()),
        Wanted::OwnerOf(hash) => {
            let owner = owners.get(hash).copied();
            (owner, owner.and_then(|owner| loaded.get(&owner.merchant_id).cloned()))
        }
    };
    Ok(wanted.iter().map(answer).collect())
}

/// The owners of the API keys that were asked for.
///
/// A key that was revoked is in no record, but its merchant was loaded, so there is another look. A batch of keys that
/// nobody knows, of which strangers can send many, loads nothing and needs none.
async fn owners(
    db: &mut Connection,
    wanted: &[Wanted],
    loaded: &HashMap<MerchantId, Loaded>,
) -> Result<HashMap<SecretHash, KeyOwner>, StoreError> {
    let mut owners: HashMap<_, _> =
        loaded.values().filter_map(Loaded::here).flat_map(|record| record.owners()).collect();
    let is_missing = |wanted: &Wanted| match wanted {
        Wanted::OwnerOf(hash) if !owners.contains_key(hash) => Some(*hash),
        _ => None,
    };
    let missing: Vec<_> = wanted.iter().filter_map(is_missing).collect();
    if !missing.is_empty() && !loaded.is_empty() {
        owners.extend(secrets::owners_of_api_keys(db, &missing).await?);
    }
    Ok(owners)
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
