//! What a seed makes of the world: how many nodes there are, how they are connected, and what goes wrong in it.
//!
//! A seed turns most faults off and some up: a world in which everything fails all the time rarely comes to the rare
//! moments that need several things to hold.

use crate::chance::Chance;

/// A moment or a span of true time, in microseconds.
pub(crate) type Time = u64;

/// A millisecond.
pub(crate) const MS: Time = 1000;

/// Keys that are read; each has an upstream value of its own.
pub(crate) const KEYS: usize = 3;

/// How likely each fault is, in a thousand.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) edges: usize,
    pub(crate) regions: usize,
    /// Whether regions have a shared tier.
    pub(crate) shares: bool,
    /// The length of a lease at the start.
    pub(crate) lease: Time,
    pub(crate) heartbeat: Time,
    /// How long the world runs before everything is healed.
    pub(crate) lasts: Time,
    /// The longest that a message takes.
    pub(crate) slowest: Time,
    pub(crate) lost: u64,
    pub(crate) late: u64,
    pub(crate) doubled: u64,
    /// The longest that a fetch takes.
    pub(crate) slowest_fetch: Time,
    /// How long the upstream's replicas may lag; 0 for not at all.
    pub(crate) lag: Time,
    /// Whether each key's responses have a strong ETag.
    pub(crate) has_etag: [bool; KEYS],
    /// The pauses between two reads, writes, faults.
    pub(crate) between_reads: Time,
    pub(crate) between_writes: Time,
    pub(crate) between_faults: Time,
    /// How likely a fault is of each kind.
    pub(crate) faults: Vec<(Fault, u64)>,
    /// How likely a write is of each kind.
    pub(crate) writes: Vec<(Write, u64)>,
    /// How likely a fetch fails, in a thousand.
    pub(crate) failing: u64,
    /// Whether the last edge is a second process under the name of the first.
    pub(crate) has_twin: bool,
    /// How likely an event is put in force late, in a thousand.
    pub(crate) laggard: u64,
    /// Origins that share an engine; 0 for one with a journal of its own.
    pub(crate) origins: usize,
    /// How likely such an origin sees nothing of the others for a while, in a thousand looks.
    pub(crate) tardy: u64,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An edge is killed and started again, with its disk.
    EdgeKilled,
    /// An edge is started anew on an empty disk.
    EdgeLost,
    /// An edge's machine loses its power, and its disk what was written last.
    PowerCut,
    /// The origin is killed and started again.
    OriginKilled,
    /// The origin's disk is replaced by an older copy; where origins share an engine, that is.
    OriginRestored,
    /// The engine that origins share fails, and a replica takes its place that lacks the newest of it.
    EngineFails,
    /// An edge and the origin can't reach each other.
    Cut,
    /// An edge does not hear the feed, and its acks go through.
    FeedCut,
    /// A process is stopped and goes on later: its clocks run on.
    Paused,
    /// A machine is stopped and goes on later: its boot clock stands still meanwhile.
    Frozen,
    /// The shared tier forgets some of what it holds.
    SharedLoses,
    /// The shared tier holds what it held at an earlier time.
    SharedRestored,
}

/// What somebody writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// The upstream's value changes, and then a hard purge.
    Hard,
    /// The same with a soft purge.
    Soft,
    /// The same by an event that only a newer version understands.
    Unknown,
    /// An unsafe request through an edge.
    Unsafe,
    /// The routes' settings change.
    Settings,
    /// The length of a lease changes.
    Lease,
    /// A site is published.
    Publish,
    /// A configuration that nobody here understands.
    UnknownConfig,
}

const ALL_FAULTS: [Fault; 11] = [
    Fault::EdgeKilled,
    Fault::EdgeLost,
    Fault::PowerCut,
    Fault::OriginKilled,
    Fault::OriginRestored,
    Fault::Cut,
    Fault::FeedCut,
    Fault::Paused,
    Fault::Frozen,
    Fault::SharedLoses,
    Fault::SharedRestored,
];

impl Plan {
    pub(crate) fn of(chance: &mut Chance) -> Self {
        let lease = chance.between(4, 20) * 100 * MS;
        let regions = chance.between(1, 2);
        let edges = chance.between(2, 5);
        let some = |chance: &mut Chance, of_thousand, most| if chance.of_thousand(of_thousand) { chance.between(1, most) } else { 0 };
        let mut faults: Vec<_> = ALL_FAULTS.into_iter().map(|fault| (fault, some(chance, 350, 10))).collect();
        if faults.iter().all(|(_, weight)| *weight == 0) {
            let at = chance.index(faults.len());
            if let Some(fault) = faults.get_mut(at) {
                fault.1 = 1;
            }
        }
        let writes = vec![
            (Write::Hard, chance.between(2, 10)),
            (Write::Soft, some(chance, 500, 6)),
            (Write::Unknown, some(chance, 150, 3)),
            (Write::Unsafe, some(chance, 400, 6)),
            (Write::Settings, some(chance, 300, 3)),
            (Write::Lease, some(chance, 300, 6)),
            (Write::Publish, some(chance, 300, 4)),
            (Write::UnknownConfig, some(chance, 40, 1)),
        ];
        // From a stream of its own: worlds with one origin are what they were.
        let mut apart = Chance::of(chance.clone().number() ^ 0x0517_3A9D_0000_0005);
        let origins = if apart.of_thousand(350) { apart.between(1, 3) } else { 0 };
        let tardy = some(&mut apart, 500, 60);
        if origins > 0 {
            faults.push((Fault::EngineFails, some(&mut apart, 700, 12)));
        }
        Self {
            origins: usize::try_from(origins).unwrap_or(0),
            tardy,
            edges: usize::try_from(edges).unwrap_or(2),
            regions: usize::try_from(regions).unwrap_or(1),
            shares: chance.of_thousand(600),
            lease,
            heartbeat: lease / 5,
            lasts: lease * chance.between(8, 16),
            slowest: [2 * MS, 20 * MS, lease / 4][chance.index(3)],
            lost: some(chance, 400, 100),
            late: some(chance, 400, 100),
            doubled: some(chance, 300, 100),
            slowest_fetch: [5 * MS, lease / 8, lease, lease * 2][chance.index(4)],
            lag: if chance.of_thousand(250) { chance.between(1, 4) * lease / 4 } else { 0 },
            has_etag: [true, chance.of_thousand(500), chance.of_thousand(700)],
            between_reads: lease / chance.between(6, 40),
            between_writes: lease / chance.between(1, 6),
            between_faults: lease * chance.between(1, 4) / 2,
            faults,
            writes,
            failing: some(chance, 250, 200),
            has_twin: chance.of_thousand(150),
            laggard: some(chance, 250, 150),
        }
    }
}

/// Picks one by its weight; nothing where all weigh nothing.
pub(crate) fn pick<T: Copy>(chance: &mut Chance, of: &[(T, u64)]) -> Option<T> {
    let sum: u64 = of.iter().map(|(_, weight)| weight).sum();
    if sum == 0 {
        return None;
    }
    let mut at = chance.between(0, sum - 1);
    for (one, weight) in of {
        if at < *weight {
            return Some(*one);
        }
        at -= weight;
    }
    None
}
