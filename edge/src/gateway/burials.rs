//! When a URL was last made invalid here (P8), for entries that come from outside of this process: they say when their
//! fetch started, and one that started before is of no use, whoever wrote it. Pure.
//!
//! Keys share slots: what shares one with a URL that was made invalid costs a fetch.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Slots: 128 KiB.
const SLOTS: usize = 1 << 14;

/// When each of many keys was last made invalid (CLOCK_BOOTTIME).
#[derive(Debug)]
pub(crate) struct Burials {
    at_ns: Box<[AtomicU64]>,
    all_ns: AtomicU64,
    hasher: RandomState,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Burials {
    pub(crate) fn new() -> Self {
        Self { at_ns: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(), all_ns: AtomicU64::new(0), hasher: RandomState::new() }
    }

    fn cell(&self, key: &impl Hash) -> Option<&AtomicU64> {
        let slot = self.hasher.hash_one(key) % SLOTS as u64;
        self.at_ns.get(usize::try_from(slot).ok()?)
    }

    /// Returns which of so many shares a key belongs to.
    pub(crate) fn share(&self, key: &impl Hash, shares: usize) -> usize {
        usize::try_from(self.hasher.hash_one(key) % shares.max(1) as u64).unwrap_or(0)
    }

    /// A key was made invalid at `now`.
    pub(crate) fn bury(&self, key: &impl Hash, now: Duration) {
        if let Some(cell) = self.cell(key) {
            cell.fetch_max(nanos(now), Ordering::AcqRel);
        }
    }

    /// All were.
    pub(crate) fn bury_all(&self, now: Duration) {
        self.all_ns.fetch_max(nanos(now), Ordering::AcqRel);
    }

    /// Tells whether what was fetched for a key from `started` on came before it was last made invalid.
    pub(crate) fn is_buried(&self, key: &impl Hash, started: Duration) -> bool {
        let at = self.cell(key).map_or(0, |cell| cell.load(Ordering::Acquire)).max(self.all_ns.load(Ordering::Acquire));
        at > 0 && nanos(started) <= at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p8_what_was_fetched_before_its_url_was_made_invalid_is_of_no_use() {
        let (burials, s) = (Burials::new(), Duration::from_secs);
        assert!(!burials.is_buried(&"a", s(0)), "nothing was made invalid yet");
        burials.bury(&"a", s(10));
        burials.bury(&"a", s(9));
        assert!(burials.is_buried(&"a", s(9)) && burials.is_buried(&"a", s(10)) && !burials.is_buried(&"a", s(11)));
        burials.bury_all(s(20));
        assert!(burials.is_buried(&"b", s(20)) && !burials.is_buried(&"b", s(21)));
    }
}
