//! The memory of the hot path: the owners of API keys, records, and sessions. It counts how often it has what is asked
//! for.
//!
//! An entry that was used twice stays longer than new ones. So merchants that call in turns do not push each other
//! out, even if they are more than fit.
//!
//! Records and sessions share most of the memory. The owners have a part for themselves, because a caller whose key is
//! not there depends on the failures that its address has left (see [`crate::flows::admission`]). Nobody else's
//! sessions may bring that about.

use std::hash::{Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::domain::ids::{MerchantId, SessionId};
use crate::domain::record::{KeyOwner, MerchantRecord};
use crate::domain::secret::SecretHash;
use crate::domain::session::Session;

/// The part of the memory for the owners, in sixteenths. It has room for as many keys as the rest has for records with
/// one key.
const OWNERS_PART: u64 = 3;

/// What an entry takes beside what it points to: its place, which holds its key, and what allocations round up, about.
const ENTRY_BYTES: usize = 112;

/// Entries are estimated to be this large, only to set aside room for their places.
const BYTES_AT_LEAST: u64 = 256;

/// Each part has its own lock and its own share of the memory. A value larger than that is not kept, so there are few.
const PARTS: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Record(MerchantId),
    Session(SessionId),
}

#[derive(Clone)]
enum Value {
    Record(Arc<MerchantRecord>),
    Session(Arc<Session>),
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Value> for Bytes {
    fn weight(&self, _: &Key, value: &Value) -> u64 {
        let pointed_to = match value {
            Value::Record(record) => record.bytes(),
            Value::Session(session) => session.bytes(),
        };
        (ENTRY_BYTES + pointed_to) as u64
    }
}

impl Weighter<SecretHash, KeyOwner> for Bytes {
    fn weight(&self, _: &SecretHash, _: &KeyOwner) -> u64 {
        ENTRY_BYTES as u64
    }
}

/// How often one kind of entry was asked for.
#[derive(Default)]
struct Looks {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Looks {
    fn counted<T>(&self, found: Option<T>) -> Option<T> {
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }
}

/// How the cache does for one kind of entry.
#[derive(Clone, Copy, Debug)]
pub struct CacheState {
    pub name: &'static str,
    pub hits: u64,
    pub misses: u64,
}

pub(super) struct Remembered {
    /// A hash never changes its key, so an entry is never outdated.
    owners: Kept<SecretHash, KeyOwner>,
    entries: Kept<Key, Value>,
    looks_for_owners: Looks,
    looks_for_records: Looks,
    looks_for_sessions: Looks,
}

type Kept<K, V> = Cache<K, V, Bytes, RandomState>;

fn kept<K: Eq + Hash, V: Clone>(bytes_max: u64, bytes_at_least: u64) -> Kept<K, V>
where
    Bytes: Weighter<K, V>,
{
    let options = OptionsBuilder::new()
        .shards(PARTS)
        .weight_capacity(bytes_max)
        .estimated_items_capacity((bytes_max / bytes_at_least) as usize)
        .build()
        .expect("the capacities are set");
    Cache::with_options(options, Bytes, RandomState::new(), DefaultLifecycle::default())
}

impl Remembered {
    pub(super) fn new(bytes_max: u64) -> Self {
        let for_owners = bytes_max / 16 * OWNERS_PART;
        Self {
            owners: kept(for_owners, ENTRY_BYTES as u64),
            entries: kept(bytes_max - for_owners, BYTES_AT_LEAST),
            looks_for_owners: Looks::default(),
            looks_for_records: Looks::default(),
            looks_for_sessions: Looks::default(),
        }
    }

    pub(super) fn record(&self, id: MerchantId) -> Option<Arc<MerchantRecord>> {
        let found = self.entries.get(&Key::Record(id)).and_then(|value| match value {
            Value::Record(record) => Some(record),
            Value::Session(_) => None,
        });
        self.looks_for_records.counted(found)
    }

    pub(super) fn owner(&self, hash: SecretHash) -> Option<KeyOwner> {
        self.looks_for_owners.counted(self.owners.get(&hash))
    }

    pub(super) fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        let found = self.entries.get(&Key::Session(id)).and_then(|value| match value {
            Value::Session(session) => Some(session),
            Value::Record(_) => None,
        });
        self.looks_for_sessions.counted(found)
    }

    /// Keeps a record, and the owners of its keys.
    pub(super) fn keep_record(&self, record: &Arc<MerchantRecord>) {
        self.entries.insert(Key::Record(record.id), Value::Record(Arc::clone(record)));
        for (hash, owner) in record.owners() {
            self.keep_owner(hash, owner);
        }
    }

    pub(super) fn keep_owner(&self, hash: SecretHash, owner: KeyOwner) {
        self.owners.insert(hash, owner);
    }

    pub(super) fn keep_session(&self, session: Session) {
        self.entries.insert(Key::Session(session.id), Value::Session(Arc::new(session)));
    }

    pub(super) fn states(&self) -> [CacheState; 3] {
        let kinds = [
            ("records", &self.looks_for_records),
            ("key_owners", &self.looks_for_owners),
            ("sessions", &self.looks_for_sessions),
        ];
        kinds.map(|(name, looks)| CacheState {
            name,
            hits: looks.hits.load(Ordering::Relaxed),
            misses: looks.misses.load(Ordering::Relaxed),
        })
    }

    /// The memory that all entries take now, about.
    pub(super) fn bytes(&self) -> u64 {
        self.owners.weight() + self.entries.weight()
    }
}
