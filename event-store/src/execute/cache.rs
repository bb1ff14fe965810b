//! Aggregates in memory, bounded, by least recent use. They are taken, not shared: while a command runs
//! nobody else has the state, so a failed decision cannot leave a half-changed copy behind.

use std::hash::BuildHasher;
use std::num::NonZeroUsize;
use std::sync::Mutex;

use lru::{DefaultHasher, LruCache};

use super::loader::Loaded;

const SHARDS: usize = 16;

pub(super) struct Cache<A> {
    shards: Vec<Mutex<LruCache<String, Loaded<A>>>>,
    hasher: DefaultHasher,
}

impl<A> Cache<A> {
    pub(super) fn new(capacity: usize) -> Self {
        let each = NonZeroUsize::new(capacity.div_ceil(SHARDS)).unwrap_or(NonZeroUsize::MIN);
        // Unbounded maps with a bound kept by hand: a bounded one reserves its whole table at once, and an
        // idle mart with a dozen buses would pay for room it never uses.
        let shards = (0..SHARDS).map(|_| Mutex::new(bounded(each))).collect();
        Self { shards, hasher: DefaultHasher::default() }
    }

    pub(super) fn take(&self, id: &str) -> Option<Loaded<A>> {
        self.shard(id).lock().ok()?.pop(id)
    }

    /// A look that leaves the state where it is.
    pub(super) fn peek(&self, id: &str) -> Option<Loaded<A>>
    where
        A: Clone,
    {
        self.shard(id).lock().ok()?.peek(id).cloned()
    }

    pub(super) fn put(&self, id: &str, loaded: Loaded<A>) {
        if let Ok(mut shard) = self.shard(id).lock() {
            shard.put(id.to_owned(), loaded);
        }
    }

    /// Keeps a state that was read, unless one that is as new is there.
    pub(super) fn offer(&self, id: &str, loaded: &Loaded<A>)
    where
        A: Clone,
    {
        if let Ok(mut shard) = self.shard(id).lock() {
            let is_known = shard
                .get(id)
                .is_some_and(|known| known.life == loaded.life && known.version >= loaded.version);
            if !is_known {
                shard.put(id.to_owned(), loaded.clone());
            }
        }
    }

    fn shard(&self, id: &str) -> &Mutex<LruCache<String, Loaded<A>>> {
        &self.shards[self.hasher.hash_one(id) as usize % SHARDS]
    }
}

fn bounded<A>(capacity: NonZeroUsize) -> LruCache<String, Loaded<A>> {
    let mut cache = LruCache::unbounded();
    cache.resize(capacity);
    cache
}
