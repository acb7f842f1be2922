//! What a world is like: how long its leases are, how many origins and edges it has, and which engines they share.

use std::time::Duration;

/// A place with an edge.
#[derive(Debug)]
pub(crate) struct Region {
    /// Its name; its edge has a `-1` behind it.
    pub(crate) name: &'static str,
    /// Milliseconds to the origin.
    pub(crate) one_way_ms: u64,
}

/// The regions. Origins stand in the first.
pub(crate) const REGIONS: [Region; 3] =
    [Region { name: "fra", one_way_ms: 0 }, Region { name: "iad", one_way_ms: 40 }, Region { name: "sin", one_way_ms: 75 }];

/// The region that has two edges where there is a second tier for them to share: the one that is farthest away.
pub(crate) const SHARING: usize = 2;

/// Which engines stand beside the processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shared {
    /// None: one origin keeps all by itself.
    #[default]
    Nothing,
    /// A Redis between two edges of one region.
    SecondTier,
    /// A Redis under two origins: their journal and lease book.
    Control,
    /// The same, and a store for their blobs.
    ControlAndStore,
}

/// An edge of a world.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    /// Its name.
    pub(crate) name: String,
    /// The number of its region.
    pub(crate) region: usize,
}

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The length of a lease; a fifth of it passes between heartbeats.
    pub(crate) lease: Duration,
    /// How many keys the truth has.
    pub(crate) keys: usize,
    /// What its processes share.
    pub(crate) shared: Shared,
}

impl Plan {
    /// Returns what the origin adds to a lease (L1), reckoned here once more: a checker takes nobody's word.
    pub(crate) fn margin(&self) -> Duration {
        self.lease / 100 + Duration::from_millis(50)
    }

    /// Returns the time within which every purge completes, whatever is broken (P2).
    pub(crate) fn bound(&self) -> Duration {
        (self.lease + self.margin()) * 2
    }

    /// Returns how many origins there are.
    pub(crate) fn origins(&self) -> usize {
        match self.shared {
            Shared::Nothing | Shared::SecondTier => 1,
            Shared::Control | Shared::ControlAndStore => 2,
        }
    }

    /// Returns the edges: one in each region, in their order, and behind them the second one of a region that shares a tier.
    pub(crate) fn edges(&self) -> Vec<Seat> {
        let seat = |region: usize, number: usize| {
            let name = REGIONS.get(region).map_or("", |region| region.name);
            Seat { name: format!("{name}-{number}"), region }
        };
        let mut edges: Vec<Seat> = (0..REGIONS.len()).map(|region| seat(region, 1)).collect();
        if self.shared == Shared::SecondTier {
            edges.push(seat(SHARING, 2));
        }
        edges
    }
}

impl Region {
    /// Returns how far it is from the origin.
    pub(crate) fn one_way(&self) -> Duration {
        Duration::from_millis(self.one_way_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_has_the_number_of_its_region_and_a_second_one_comes_behind_them() {
        let plan = |shared| Plan { lease: Duration::from_secs(5), keys: 1, shared };
        let names = |shared| plan(shared).edges().into_iter().map(|seat| seat.name).collect::<Vec<_>>();
        assert_eq!(names(Shared::Control), ["fra-1", "iad-1", "sin-1"]);
        assert_eq!(names(Shared::SecondTier), ["fra-1", "iad-1", "sin-1", "sin-2"]);
        assert_eq!(plan(Shared::SecondTier).edges()[3].region, SHARING);
    }
}
