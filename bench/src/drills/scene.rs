//! What everybody in a drill shares: where the edges are, what is true, and the record.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::record::{Demand, Record};
use crate::chance::Chance;
use crate::control::Control;
use crate::world::World;
use crate::world::truth::Truth;

/// Keys that most reads are for, so that there is something in the caches when a purge comes.
pub(crate) const HOT: usize = 200;

/// How many of ten reads are for one of those.
const HOT_READS: u64 = 8;

/// A drill's stage for those who read and purge on it.
#[derive(Debug)]
pub(crate) struct Scene {
    /// Speaks with the origin.
    pub(crate) control: Control,
    /// What is true.
    pub(crate) truth: Arc<Truth>,
    /// What was promised and seen.
    pub(crate) record: Record,
    /// Where each edge serves.
    pub(crate) edges: Vec<SocketAddr>,
    /// Within which time each purge completes.
    pub(crate) bound: Duration,
    over: AtomicBool,
}

impl Scene {
    /// Returns the scene of a world.
    pub(crate) fn of(world: &World) -> Self {
        Self {
            control: world.control.clone(),
            truth: Arc::clone(&world.truth),
            record: Record::new(world.names(), world.truth.keys()),
            edges: world.listen(),
            bound: world.plan.bound(),
            over: AtomicBool::new(false),
        }
    }

    /// Tells whether readers and purgers are to end.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Tells them to.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Chooses a key to read.
    pub(crate) fn key_to_read(&self, chance: &mut Chance) -> usize {
        let keys = self.truth.keys();
        if chance.below(10) < HOT_READS { chance.place(keys.min(HOT)) } else { chance.place(keys) }
    }

    /// Makes so many values change, one behind the other from `first` on, and returns what a purge of them is to demand.
    pub(crate) fn change(&self, first: usize, count: usize) -> Vec<Demand> {
        let keys = self.truth.keys();
        let changed = (first..).take(count.min(keys)).map(|key| key % keys.max(1));
        changed.map(|key| (key, self.truth.raise(key))).collect()
    }
}
