//! A cache with a limit of memory, which counts how often it has what is asked for.
//!
//! An entry that was used twice stays longer than new ones. So merchants that call in turns do not push each other
//! out, even if they are more than fit.

use std::hash::{Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

/// What an entry takes beside its key and value: places in tables, and what allocations round up, about.
const ENTRY_BYTES: usize = 64;

/// Entries are estimated to be this large, only to set aside room for their places.
const BYTES_AT_LEAST: u64 = 512;

/// Each part has its own lock and its own share of the memory. A value larger than that is not kept, so there are few.
const PARTS: usize = 4;

pub(super) struct Remembered<K, V> {
    entries: Cache<K, Entry<V>, OfEntry, RandomState>,
    bytes_of: fn(&V) -> usize,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    bytes: u64,
}

#[derive(Clone)]
struct OfEntry;

impl<K, V> Weighter<K, Entry<V>> for OfEntry {
    fn weight(&self, _: &K, entry: &Entry<V>) -> u64 {
        entry.bytes
    }
}

/// How a cache does.
#[derive(Clone, Copy, Debug)]
pub struct CacheState {
    pub name: &'static str,
    pub hits: u64,
    pub misses: u64,
    /// The memory that its entries take now, about.
    pub bytes: u64,
}

impl<K: Hash + Eq, V: Clone> Remembered<K, V> {
    /// `bytes_of` is the memory that a value takes.
    pub(super) fn new(bytes_max: u64, bytes_of: fn(&V) -> usize) -> Self {
        let options = OptionsBuilder::new()
            .shards(PARTS)
            .weight_capacity(bytes_max)
            .estimated_items_capacity((bytes_max / BYTES_AT_LEAST) as usize)
            .build()
            .expect("the capacities are set");
        let entries = Cache::with_options(options, OfEntry, RandomState::new(), DefaultLifecycle::default());
        Self { entries, bytes_of, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let found = self.entries.get(key);
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found.map(|entry| entry.value)
    }

    pub(super) fn insert(&self, key: K, value: V) {
        let bytes = ENTRY_BYTES + size_of::<K>() + size_of::<Entry<V>>() + (self.bytes_of)(&value);
        self.entries.insert(key, Entry { value, bytes: bytes as u64 });
    }

    pub(super) fn state(&self, name: &'static str) -> CacheState {
        CacheState {
            name,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bytes: self.entries.weight(),
        }
    }
}
