//! A cache with a limit of memory, which counts how often it has what is asked for.

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::sync::Cache;

/// What an entry takes beside its key and value: the cache's own links, counts and allocations, about.
const ENTRY_BYTES: usize = 250;

pub(super) struct Remembered<K, V> {
    entries: Cache<K, V>,
    hits: AtomicU64,
    misses: AtomicU64,
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

impl<K, V> Remembered<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// `bytes_of` is the memory that a value takes.
    pub(super) fn new(bytes_max: u64, bytes_of: fn(&V) -> usize) -> Self {
        let entries = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(move |_: &K, value: &V| {
                u32::try_from(ENTRY_BYTES + size_of::<K>() + bytes_of(value)).unwrap_or(u32::MAX)
            })
            .build();
        Self { entries, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        let found = self.entries.get(key);
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    pub(super) fn insert(&self, key: K, value: V) {
        self.entries.insert(key, value);
    }

    pub(super) fn state(&self, name: &'static str) -> CacheState {
        CacheState {
            name,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            bytes: self.entries.weighted_size(),
        }
    }
}
