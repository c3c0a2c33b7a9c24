//! The memory of the hot path: records, the owners of API keys, and sessions, within one limit. It counts how often it
//! has what is asked for.
//!
//! An entry that was used twice stays longer than new ones. So merchants that call in turns do not push each other
//! out, even if they are more than fit.

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::domain::ids::{MerchantId, SessionId};
use crate::domain::record::{KeyOwner, MerchantRecord};
use crate::domain::secret::SecretHash;
use crate::domain::session::Session;

/// What an entry takes beside what it points to: its place, which holds its key, and what allocations round up, about.
const ENTRY_BYTES: usize = 112;

/// Entries are estimated to be this large, only to set aside room for their places.
const BYTES_AT_LEAST: u64 = 256;

/// Each part has its own lock and its own share of the memory. A value larger than that is not kept, so there are few.
const PARTS: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Record(MerchantId),
    Owner(SecretHash),
    Session(SessionId),
}

#[derive(Clone)]
enum Value {
    Record(Arc<MerchantRecord>),
    /// A hash never changes its key, so this is never outdated.
    Owner(KeyOwner),
    Session(Arc<Session>),
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Value> for Bytes {
    fn weight(&self, _: &Key, value: &Value) -> u64 {
        let pointed_to = match value {
            Value::Record(record) => record.bytes(),
            Value::Owner(_) => 0,
            Value::Session(session) => session.bytes(),
        };
        (ENTRY_BYTES + pointed_to) as u64
    }
}

/// How often one kind of entry was asked for.
#[derive(Default)]
struct Looks {
    hits: AtomicU64,
    misses: AtomicU64,
}

/// How the cache does for one kind of entry.
#[derive(Clone, Copy, Debug)]
pub struct CacheState {
    pub name: &'static str,
    pub hits: u64,
    pub misses: u64,
}

pub(super) struct Remembered {
    entries: Cache<Key, Value, Bytes, RandomState>,
    records: Looks,
    owners: Looks,
    sessions: Looks,
}

impl Remembered {
    pub(super) fn new(bytes_max: u64) -> Self {
        let options = OptionsBuilder::new()
            .shards(PARTS)
            .weight_capacity(bytes_max)
            .estimated_items_capacity((bytes_max / BYTES_AT_LEAST) as usize)
            .build()
            .expect("the capacities are set");
        let entries = Cache::with_options(options, Bytes, RandomState::new(), DefaultLifecycle::default());
        Self { entries, records: Looks::default(), owners: Looks::default(), sessions: Looks::default() }
    }

    pub(super) fn record(&self, id: MerchantId) -> Option<Arc<MerchantRecord>> {
        self.look(&self.records, Key::Record(id), |value| match value {
            Value::Record(record) => Some(record),
            _ => None,
        })
    }

    pub(super) fn owner(&self, hash: SecretHash) -> Option<KeyOwner> {
        self.look(&self.owners, Key::Owner(hash), |value| match value {
            Value::Owner(owner) => Some(owner),
            _ => None,
        })
    }

    pub(super) fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.look(&self.sessions, Key::Session(id), |value| match value {
            Value::Session(session) => Some(session),
            _ => None,
        })
    }

    fn look<T>(&self, looks: &Looks, key: Key, of_its_kind: impl FnOnce(Value) -> Option<T>) -> Option<T> {
        let found = self.entries.get(&key).and_then(of_its_kind);
        let count = if found.is_some() { &looks.hits } else { &looks.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps a record, and the owners of its keys.
    pub(super) fn keep_record(&self, record: &Arc<MerchantRecord>) {
        self.entries.insert(Key::Record(record.id), Value::Record(Arc::clone(record)));
        for (hash, owner) in record.owners() {
            self.keep_owner(hash, owner);
        }
    }

    pub(super) fn keep_owner(&self, hash: SecretHash, owner: KeyOwner) {
        self.entries.insert(Key::Owner(hash), Value::Owner(owner));
    }

    pub(super) fn keep_session(&self, session: Session) {
        self.entries.insert(Key::Session(session.id), Value::Session(Arc::new(session)));
    }

    pub(super) fn states(&self) -> [CacheState; 3] {
        let kinds = [("records", &self.records), ("key_owners", &self.owners), ("sessions", &self.sessions)];
        kinds.map(|(name, looks)| CacheState {
            name,
            hits: looks.hits.load(Ordering::Relaxed),
            misses: looks.misses.load(Ordering::Relaxed),
        })
    }

    /// The memory that all entries take now, about.
    pub(super) fn bytes(&self) -> u64 {
        self.entries.weight()
    }
}
