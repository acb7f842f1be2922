//! Everything about stored responses of routes: the memory tier's share of them, what runs for them, and
//! what makes them invalid.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moka::sync::Cache;
use tokio::sync::Semaphore;

use super::announce::Announcer;
use super::codings::Coded;
use super::compress::Coding;
use super::entry::{Content, Entry, Stored};
use super::fills::Fills;
use super::flow::Budget;
use super::key::{CacheKey, Tombstones};
use super::second::Second;
use super::upstream::Upstreams;
use crate::memory::{Held, HeldKey, Memory};

/// For how long a key whose response could not be stored is fetched by each request for itself.
const HIT_FOR_MISS: Duration = Duration::from_secs(5);

/// Keys that are hit-for-miss at a time.
const HIT_FOR_MISS_KEYS: u64 = 100_000;

/// Bodies that are compressed at a time: it must not take all processors from those who only read.
const COMPRESSING: usize = 2;

/// Everything about stored responses of routes.
#[derive(Debug)]
pub(crate) struct Responses {
    pub(crate) memory: Arc<Memory>,
    pub(crate) fills: Fills,
    pub(crate) tombstones: Tombstones,
    pub(crate) upstreams: Upstreams,
    hit_for_miss: HitForMiss,
    /// Tells the journal what unsafe methods made invalid here.
    pub(crate) announcer: Announcer,
    /// What is stored outside of this process.
    pub(crate) second: Arc<Second>,
    /// Bounds what flows from upstreams to clients, beside what is stored.
    pub(crate) flowing: Arc<Budget>,
    compressing: Arc<Semaphore>,
}

/// Keys whose last response could not be stored, by their hash: two that share one only share fetches less.
#[derive(Debug)]
struct HitForMiss {
    keys: Cache<u64, ()>,
    hasher: RandomState,
}

impl HitForMiss {
    fn new() -> Self {
        let keys = Cache::builder().max_capacity(HIT_FOR_MISS_KEYS).time_to_live(HIT_FOR_MISS).build();
        Self { keys, hasher: RandomState::new() }
    }
}

impl Responses {
    /// `flowing`: the bytes of bodies on their way.
    pub(crate) fn new(memory: Arc<Memory>, flowing: usize, second: Arc<Second>) -> Self {
        Self {
            memory,
            fills: Fills::default(),
            tombstones: Tombstones::new(),
            upstreams: Upstreams::default(),
            hit_for_miss: HitForMiss::new(),
            announcer: Announcer::default(),
            second,
            flowing: Arc::new(Budget::new(flowing)),
            compressing: Arc::new(Semaphore::new(COMPRESSING)),
        }
    }

    /// Returns what is stored for a URL.
    pub(crate) fn stored(&self, key: &CacheKey) -> Option<Arc<Stored>> {
        match self.memory.get(&HeldKey::Response(key.clone())) {
            Some(Held::Responses(stored)) => Some(stored),
            _ => None,
        }
    }

    /// Stores an entry if `may` still holds at the very moment: one change of a key at a time, so an
    /// invalidation comes either before, and is seen, or after, and takes the entry. What is made of an entry
    /// that was stored replaces that one only: a newer one may have come meanwhile. Tells whether it is stored.
    pub(crate) fn store(&self, key: &CacheKey, entry: &Arc<Entry>, of: Option<&Entry>, may: impl FnOnce() -> bool) -> bool {
        let mut is_stored = false;
        self.memory.change(HeldKey::Response(key.clone()), |held| {
            let stored = if let Some(Held::Responses(stored)) = &held { (**stored).clone() } else { Stored::default() };
            let is_there = |of: &Entry| stored.variants.iter().any(|known| std::ptr::eq(known.as_ref(), of));
            if !of.is_none_or(is_there) || !may() {
                return held;
            }
            let Some(stored) = stored.with(Arc::clone(entry)) else { return held };
            is_stored = true;
            Some(Held::Responses(Arc::new(stored)))
        });
        is_stored
    }

    /// Makes a URL invalid here, at once: what is stored, and what is being fetched (P8). Returns its generation
    /// from here on.
    pub(crate) fn invalidate(&self, key: &CacheKey) -> u64 {
        let generation = self.tombstones.bury(key);
        self.memory.change(HeldKey::Response(key.clone()), |_| None);
        self.second.bury(key);
        generation
    }

    /// Makes everything invalid here, at once.
    pub(crate) fn invalidate_all(&self) {
        self.tombstones.bury_all();
        self.second.bury_all();
        self.memory.clear();
    }

    /// Drops everything: the journal is of another history.
    pub(crate) fn clear(&self) {
        self.memory.clear();
    }

    /// What came for a key could not be stored: for a while nobody waits for what others fetch.
    pub(crate) fn pass_for_a_while(&self, key: &CacheKey) {
        self.hit_for_miss.keys.insert(self.hit_for_miss.hasher.hash_one(key), ());
    }

    /// What came for a key can be stored again.
    pub(crate) fn share_again(&self, key: &CacheKey) {
        self.hit_for_miss.keys.invalidate(&self.hit_for_miss.hasher.hash_one(key));
    }

    /// Tells whether each request for a key fetches for itself.
    pub(crate) fn is_passing(&self, key: &CacheKey) -> bool {
        self.hit_for_miss.keys.contains_key(&self.hit_for_miss.hasher.hash_one(key))
    }

    /// Makes a coding of a stored body, unless as many are being made as may be: then who comes next may.
    pub(crate) async fn code(&self, key: &CacheKey, entry: &Arc<Entry>, coding: Coding) {
        let Ok(permit) = Arc::clone(&self.compressing).try_acquire_owned() else { return };
        let Some(body) = uncoded(entry, coding) else { return };
        let codings = Arc::clone(&entry.codings);
        let made = tokio::task::spawn_blocking(move || {
            codings.make(coding, &body);
            drop(permit);
        });
        // A compressor that panics has made nothing, and the body is served as it came.
        if made.await.is_ok() {
            // Put back as it is, so that its weight is taken anew.
            self.memory.change(HeldKey::Response(key.clone()), |held| held);
        }
    }
}

/// Returns the body where this coding of it is still to be made.
fn uncoded(entry: &Entry, coding: Coding) -> Option<Bytes> {
    match (&entry.content, entry.codings.get(coding)) {
        (Content::Whole(body), Coded::Unmade) => Some(body.clone()),
        _ => None,
    }
}
