//! Under which key a response is stored: scheme, host and canonical target.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use wire::{Host, Target};

use crate::validity::Place;

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

impl CacheKey {
    /// Returns where its entries are stored, as purges see it.
    pub(crate) fn place(&self) -> Place<'_> {
        Place { host: &self.host, target: &self.target }
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.host, self.target)
    }
}

/// Slots of the tombstones: 64 Ki generations are 512 KiB.
const SLOTS: usize = 1 << 16;

/// What they take of an edge's memory.
pub(crate) const TOMBSTONES_BYTES: u64 = (SLOTS * size_of::<AtomicU64>()) as u64;

/// Which keys an unsafe method invalidated here (P8): a generation per slot. A fill remembers the
/// generation that it began with and stores nothing when it has changed. Keys that share a slot cost
/// a fill that is not stored.
#[derive(Debug)]
pub struct Tombstones<S = RandomState> {
    generations: Box<[AtomicU64]>,
    hasher: S,
}

impl Tombstones {
    pub(crate) fn new() -> Self {
        Self::sized(SLOTS, RandomState::new())
    }
}

impl<S: BuildHasher> Tombstones<S> {
    /// Returns tombstones of no key, with so many slots, which `hasher` picks.
    pub fn sized(slots: usize, hasher: S) -> Self {
        Self { generations: (0..slots).map(|_| AtomicU64::new(0)).collect(), hasher }
    }

    fn cell(&self, key: &impl Hash) -> Option<&AtomicU64> {
        let slot = self.hasher.hash_one(key).checked_rem(self.generations.len() as u64)?;
        self.generations.get(usize::try_from(slot).ok()?)
    }

    /// Returns the generation of a key.
    pub fn generation(&self, key: &impl Hash) -> u64 {
        self.cell(key).map_or(0, |cell| cell.load(Ordering::Acquire))
    }

    /// Begins the next generation of a key, and returns it.
    pub fn bury(&self, key: &impl Hash) -> u64 {
        self.cell(key).map_or(0, |cell| cell.fetch_add(1, Ordering::AcqRel) + 1)
    }

    /// Begins the next generation of all keys.
    pub fn bury_all(&self) {
        self.generations.iter().for_each(|cell| {
            cell.fetch_add(1, Ordering::AcqRel);
        });
    }
}
