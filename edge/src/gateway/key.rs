//! Under which key a response is stored: scheme, host and canonical target.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use wire::{Host, Target};

/// A request's scheme. A stored redirect from http to https must not answer https.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// Returns the scheme as it is written.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A URL as the cache knows it; its variants are told apart below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    pub(crate) scheme: Scheme,
    pub(crate) host: Host,
    pub(crate) target: Target,
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.host, self.target)
    }
}

/// Slots of the tombstones: 64 Ki generations are 512 KiB.
const SLOTS: usize = 1 << 16;

/// Which keys an unsafe method invalidated here (P8): a generation per slot. A fill remembers the
/// generation that it began with and stores nothing when it has changed. Keys that share a slot cost
/// a fill that is not stored.
#[derive(Debug)]
pub(crate) struct Tombstones {
    generations: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Tombstones {
    pub(crate) fn new() -> Self {
        Self { generations: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(), hasher: RandomState::new() }
    }

    fn cell(&self, key: &CacheKey) -> Option<&AtomicU64> {
        let slot = usize::try_from(self.hasher.hash_one(key) % SLOTS as u64).unwrap_or(0);
        self.generations.get(slot)
    }

    /// Returns the generation of a key.
    pub(crate) fn generation(&self, key: &CacheKey) -> u64 {
        self.cell(key).map_or(0, |cell| cell.load(Ordering::Acquire))
    }

    /// Begins the next generation of a key, and returns it.
    pub(crate) fn bury(&self, key: &CacheKey) -> u64 {
        self.cell(key).map_or(0, |cell| cell.fetch_add(1, Ordering::AcqRel) + 1)
    }

    /// Begins the next generation of all keys.
    pub(crate) fn bury_all(&self) {
        self.generations.iter().for_each(|cell| {
            cell.fetch_add(1, Ordering::AcqRel);
        });
    }
}
