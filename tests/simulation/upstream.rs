//! The upstream: a value per key, whose replicas may lag behind what was written.

use crate::chance::Chance;
use crate::plan::{KEYS, Time};

/// What the upstream holds.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Each key's versions, with when they were written.
    written: [Vec<(Time, u64)>; KEYS],
    lag: Time,
}

impl Upstream {
    pub(crate) fn new(lag: Time) -> Self {
        Self { written: std::array::from_fn(|_| vec![(0, 1)]), lag }
    }

    /// Writes the next version.
    pub(crate) fn write(&mut self, key: usize, now: Time) {
        if let Some(written) = self.written.get_mut(key) {
            let next = written.last().map_or(1, |(_, version)| version + 1);
            written.push((now, next));
        }
    }

    /// Reads from some replica.
    pub(crate) fn read(&self, key: usize, now: Time, chance: &mut Chance) -> u64 {
        let seen = now.saturating_sub(if self.lag > 0 { chance.between(0, self.lag) } else { 0 });
        let written = self.written.get(key).map_or(&[][..], Vec::as_slice);
        written.iter().rev().find(|(at, _)| *at <= seen).or_else(|| written.first()).map_or(0, |(_, version)| *version)
    }
}
