//! The memory tier (L1): assets and responses in one cache with one bound. moka gives the room and
//! decides who stays; whether an entry may be used is decided from what it stores, never by moka.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use moka::sync::Cache;
use wire::Digest;

use crate::assets::AssetKey;
use crate::gateway::{CacheKey, Stored};

/// What is held.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// The bytes of an asset.
    Asset(Arc<AssetBytes>),
    /// The asset has no form in this coding: it would not get smaller.
    NoVariant,
    /// The responses of one URL.
    Responses(Arc<Stored>),
}

/// By what it is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HeldKey {
    /// A blob in a coding.
    Asset(AssetKey),
    /// A URL.
    Response(CacheKey),
}

/// The bytes of a small asset.
#[derive(Debug)]
pub(crate) struct AssetBytes {
    /// Their own digest.
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
    /// Since when this is a quick form, where a better one is being made.
    pub(crate) quick_since: Option<Instant>,
}

/// What an entry costs beside its bytes: key, table and counters.
const OVERHEAD: usize = 512;

/// The cache in this process' memory.
#[derive(Debug)]
pub(crate) struct Memory {
    cache: Cache<HeldKey, Held>,
    /// A change reads what is held and puts something made of it in its place: nothing is cleared in between, else what
    /// was dropped would come back. Changes share it; who only looks something up does not take it.
    clearing: RwLock<()>,
}

impl Memory {
    /// Returns an empty cache that may take `most` bytes.
    pub(crate) fn new(most: u64) -> Self {
        // moka counts weights in u32, so they are KiB.
        let cache = Cache::builder().max_capacity(most >> 10).weigher(weight).build();
        Self { cache, clearing: RwLock::default() }
    }

    pub(crate) fn get(&self, key: &HeldKey) -> Option<Held> {
        self.cache.get(key)
    }

    pub(crate) fn insert(&self, key: HeldKey, held: Held) {
        self.cache.insert(key, held);
    }

    /// Replaces what is held under `key` by what `change` makes of it, one change at a time.
    pub(crate) fn change(&self, key: HeldKey, change: impl FnOnce(Option<Held>) -> Option<Held>) {
        let _under_way = self.clearing.read().unwrap_or_else(PoisonError::into_inner);
        self.cache.entry(key).and_compute_with(|entry| match change(entry.map(moka::Entry::into_value)) {
            Some(held) => moka::ops::compute::Op::Put(held),
            None => moka::ops::compute::Op::Remove,
        });
    }

    /// Goes over the responses, without a lock and without making any of them look used. What is stored while it does
    /// may be missed.
    pub(crate) fn responses(&self) -> impl Iterator<Item = (Arc<HeldKey>, Arc<Stored>)> {
        self.cache.iter().filter_map(|(key, held)| if let Held::Responses(stored) = held { Some((key, stored)) } else { None })
    }

    /// Drops everything, what changes that are under way make of it included.
    pub(crate) fn clear(&self) {
        let _alone = self.clearing.write().unwrap_or_else(PoisonError::into_inner);
        self.cache.invalidate_all();
    }

    /// Does what moka puts off: eviction is lazy. Called on a timer.
    pub(crate) fn tidy(&self) {
        self.cache.run_pending_tasks();
    }

    /// Returns the bytes held, about, and the number of entries.
    pub(crate) fn size(&self) -> (u64, u64) {
        (self.cache.weighted_size() << 10, self.cache.entry_count())
    }
}

fn weight(key: &HeldKey, held: &Held) -> u32 {
    let name = match key {
        HeldKey::Asset(_) => 0,
        HeldKey::Response(key) => key.host.as_str().len() + key.target.as_str().len(),
    };
    let bytes = match held {
        Held::Asset(asset) => asset.bytes.len(),
        Held::NoVariant => 0,
        Held::Responses(stored) => stored.weight(),
    };
    u32::try_from((name + bytes + OVERHEAD) >> 10).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Scheme;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_change_under_way_does_not_bring_back_what_is_cleared() {
        let key = HeldKey::Response(CacheKey { scheme: Scheme::Http, host: "h".parse().unwrap(), target: "/".parse().unwrap() });
        let memory = Arc::new(Memory::new(1 << 20));
        memory.insert(key.clone(), Held::NoVariant);
        let (has_read, reads) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let changing = thread::spawn({
            let (memory, key) = (Arc::clone(&memory), key.clone());
            move || {
                memory.change(key, |held| {
                    has_read.send(()).unwrap();
                    may_go_on.recv().unwrap();
                    held
                });
            }
        });
        reads.recv().unwrap();

        let clearing = thread::spawn({
            let memory = Arc::clone(&memory);
            move || memory.clear()
        });
        thread::sleep(Duration::from_millis(50));
        assert!(!clearing.is_finished(), "it waits for the change");
        assert!(memory.get(&key).is_some(), "who looks something up waits for nobody");
        go_on.send(()).unwrap();
        changing.join().unwrap();
        clearing.join().unwrap();

        assert!(memory.get(&key).is_none());
    }
}
