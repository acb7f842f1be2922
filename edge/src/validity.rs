//! Whether what is stored, or on its way, may be used: the rules of a purge (P1, P4, P5, P7, P8) over what an entry
//! says of how it came to be. Pure: what is in force here and how the node stands come in as values, so that the
//! simulation can drive the very functions that the edge asks.

use config::WhenFenced;
use follow::Standing;
use wire::mistake::{Mistake, makes};
use wire::{Epoch, Host, Matched, PurgeTable, Slots, Target};

/// How an entry came to be, as far as purges are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// The seq that its edge had applied when its fetch started (P4).
    pub filled_at: u64,
    /// The history that `filled_at` is of: it changes when all that was held had to be dropped.
    pub generation: u64,
    /// The route's settings that it came to be by.
    pub settings: u64,
    /// What purges it, by the table's key.
    pub slots: Slots,
}

/// What is in force at an edge.
#[derive(Clone, Copy, Debug)]
pub struct InForce<'a> {
    /// What was purged.
    pub purges: &'a PurgeTable,
    /// The history that is followed.
    pub generation: u64,
}

/// Where an entry is stored.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The host of its URL.
    pub host: &'a Host,
    /// The target of its URL, as it is keyed.
    pub target: &'a Target,
}

/// Whether an entry may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// As far as purges are concerned it is as good as when it came.
    Valid,
    /// A soft purge made it stale.
    Stale,
    /// A hard purge took it, or another history: nothing of it may be used again.
    Purged,
    /// The route's settings have changed since.
    OtherSettings,
}

impl Provenance {
    /// Decides whether an entry may be used under the route's `settings` (P1).
    #[must_use]
    pub fn validity(&self, place: Place<'_>, in_force: InForce<'_>, settings: u64) -> Validity {
        if self.is_of_another_history(in_force) {
            return Validity::Purged;
        }
        if self.settings != settings && !makes(Mistake::OldSettings) {
            return Validity::OtherSettings;
        }
        match self.matched(place, in_force) {
            Matched::Hard(_) => Validity::Purged,
            Matched::Soft(_) if !makes(Mistake::SoftPurgeIgnored) => Validity::Stale,
            Matched::Soft(_) | Matched::Nothing => Validity::Valid,
        }
    }

    /// Tells whether a hard purge or another history took it: its validators and body are never used again (P4).
    #[must_use]
    pub fn is_purged(&self, place: Place<'_>, in_force: InForce<'_>) -> bool {
        self.is_of_another_history(in_force) || matches!(self.matched(place, in_force), Matched::Hard(_))
    }

    fn is_of_another_history(&self, in_force: InForce<'_>) -> bool {
        self.generation != in_force.generation && !makes(Mistake::OtherHistoryValid)
    }

    /// Returns the purge that it meets.
    #[must_use]
    pub fn matched(&self, place: Place<'_>, in_force: InForce<'_>) -> Matched {
        in_force.purges.matched(&self.slots, place.host, place.target, self.filled_at)
    }

    /// Tells whether it may take the place of `known`: never of what was filled later (P5).
    #[must_use]
    pub fn may_replace(&self, known: &Self) -> bool {
        known.generation != self.generation || known.filled_at <= self.filled_at
    }
}

/// Decides whether a fenced node may go on as if its lease held: the route's choice (P7).
#[must_use]
pub fn may_rely(when_fenced: WhenFenced, standing: &Standing) -> bool {
    match (standing.fenced_for, when_fenced) {
        (None, _) | (Some(_), WhenFenced::Serve) => true,
        (Some(fenced_for), WhenFenced::ServeFor(span)) => fenced_for < span,
        (Some(_), WhenFenced::Revalidate | WhenFenced::Refuse) => makes(Mistake::ServeWhileFenced),
    }
}

/// A request that may have to do with a fetch that others started.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// How the node stood when the request had been read.
    pub standing: Standing,
    /// The history that the node followed then.
    pub generation: u64,
    /// Whether what it found before was not for it, so that it asks again.
    pub asks_again: bool,
    /// Whether what is stored may have been purged without a word of it here, since the node was fenced, or since the
    /// request names a position that was not in force: then no weak validator proves that it is right (P4).
    pub must_be_strong: bool,
}

/// How a fetch came to know that the body that it brings is what the upstream has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It came from there, all of it or beside parts that a strong validator joins with it; or a strong validator was
    /// found to be right, which is of these very bytes.
    Strong,
    /// A weak validator was found to be right, or a time: the bytes may be others by now, as they may be after a purge.
    Weak,
}

impl Proof {
    /// Returns what a 304 proves of an entry that was asked about.
    #[must_use]
    pub fn by_304(has_strong_etag: bool) -> Self {
        if has_strong_etag { Self::Strong } else { Self::Weak }
    }
}

/// Decides whether a request may rely on a fetch that started before it came (P4): a fenced node does not know what
/// was purged since, and who asks again was not served by one.
#[must_use]
pub fn may_join(arrival: &Arrival) -> bool {
    (arrival.standing.holds() && !arrival.asks_again) || makes(Mistake::JoinAnyFill)
}

/// Decides whether what a fetch brought is for a request that waited for it (P4). What was fetched after the request
/// came is, unless the request may rely on nothing that was stored and the fetch has only asked about that, with a weak
/// validator. Who came when the edge had moved past the fetch's start takes it only if no purge that matches came since
/// that start: comparing the table's highest seq with the position of the arrival looks right and is wrong.
#[must_use]
pub fn may_take(brought: &Provenance, proof: Proof, place: Place<'_>, in_force: InForce<'_>, had_started: bool, arrival: &Arrival) -> bool {
    if makes(Mistake::JoinAnyFill) {
        return true;
    }
    if arrival.must_be_strong && proof == Proof::Weak {
        return false;
    }
    if makes(Mistake::CompareHighestSeq) {
        return in_force.purges.newest() <= arrival.standing.applied;
    }
    let came_before = arrival.generation == brought.generation && arrival.standing.applied <= brought.filled_at;
    let is_unpurged = || in_force.generation == brought.generation && matches!(brought.matched(place, in_force), Matched::Nothing);
    !had_started || came_before || is_unpurged()
}

/// Decides whether what a fetch brought may be stored now: nothing that it must not outlive passed since it started,
/// neither a purge (P4) nor an invalidation of its key, whose generations are `buried` (P8).
#[must_use]
pub fn may_store(brought: &Provenance, place: Place<'_>, in_force: InForce<'_>, buried: Buried) -> bool {
    let is_unburied = buried.at_start == buried.now || makes(Mistake::NoTombstone);
    is_unburied && !brought.is_purged(place, in_force)
}

/// How often a key was invalidated (P8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buried {
    /// When its fetch started.
    pub at_start: u64,
    /// Now.
    pub now: u64,
}

/// What an upstream said of a stored entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// 304: the body is right.
    NotModified,
    /// 200 to HEAD: these are the fields; of the body it says nothing.
    Head,
}

/// Returns the position of an entry that the upstream spoke of, to a request that started at `started_at`: a 304 raises
/// it to there, a HEAD never does (P4).
#[must_use]
pub fn renewed_at(said: Said, filled_at: u64, started_at: u64) -> u64 {
    if said == Said::NotModified || makes(Mistake::HeadRaises) { started_at.max(filled_at) } else { filled_at }
}

/// Decides whether a 304 may renew the entry that it was asked for: not one that was purged meanwhile (P4).
#[must_use]
pub fn may_renew(entry: &Provenance, place: Place<'_>, in_force: InForce<'_>) -> bool {
    makes(Mistake::RenewPurged) || !entry.is_purged(place, in_force)
}

/// What a shared tier says of an entry: its readers follow one journal, each as far as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The life of the journal that `filled_at` is of.
    pub epoch: Epoch,
    /// The seq that the edge which filled it had applied when its fetch started.
    pub filled_at: u64,
}

/// Returns the provenance of what a shared tier held, as if it had been filled here, where it is of this epoch. It is
/// judged like any other then: a shared tier may be older than it should be (P5). Nor is it filled later than what is
/// `applied` here, whatever it says: no forger makes what outlives the purges to come.
#[must_use]
pub fn of_shared(shared: &Shared, epoch: Epoch, applied: u64, generation: u64, settings: u64, slots: Slots) -> Option<Provenance> {
    let of_this = shared.epoch == epoch || makes(Mistake::SharedTierOfOtherEpoch);
    let filled_at = if makes(Mistake::SharedTierUnchecked) { u64::MAX } else { shared.filled_at.min(applied) };
    of_this.then_some(Provenance { filled_at, generation, settings, slots })
}

/// Decides whether an entry may be written to a shared tier that holds `known` (P5): never by a fenced node, and never
/// over what was filled later.
#[must_use]
pub fn may_share(standing: &Standing, known: Option<&Shared>, new: &Shared) -> bool {
    let holds = standing.holds() || makes(Mistake::SharedTierWhileFenced);
    let is_newer = known.is_none_or(|known| known.epoch != new.epoch || known.filled_at <= new.filled_at);
    holds && (is_newer || makes(Mistake::SharedTierWrittenBack))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use wire::{Mode, Owner, Scope, Subject, Tag};

    struct World {
        purges: PurgeTable,
        host: Host,
        target: Target,
    }

    impl World {
        fn new() -> Self {
            Self { purges: PurgeTable::new([7; 16]), host: "h".parse().unwrap(), target: "/a".parse().unwrap() }
        }

        /// What a fetch brought that started at `filled_at`.
        fn brought(&self, filled_at: u64) -> Provenance {
            let tags: [Tag; 1] = ["t".parse().unwrap()];
            let subject = Subject { owner: &Owner::default(), host: &self.host, sent: &self.target, keyed: None, tags: &tags };
            Provenance { filled_at, generation: 0, settings: 1, slots: self.purges.slots(&subject) }
        }

        fn purge(&self, seq: u64, tag: &str) {
            self.purges.apply(seq, &Owner::default(), Mode::Hard, &[Scope::Tag(tag.parse().unwrap())]);
        }

        fn may_take(&self, filled_at: u64, proof: Proof, had_started: bool, arrival: &Arrival) -> bool {
            let place = Place { host: &self.host, target: &self.target };
            let in_force = InForce { purges: &self.purges, generation: 0 };
            may_take(&self.brought(filled_at), proof, place, in_force, had_started, arrival)
        }
    }

    fn came_at(applied: u64) -> Arrival {
        Arrival { standing: Standing { applied, fenced_for: None }, generation: 0, asks_again: false, must_be_strong: false }
    }

    #[test]
    fn p4_who_came_after_a_fetch_had_started_takes_it_unless_a_purge_that_matches_came_since() {
        let world = World::new();
        world.purge(6, "other");
        assert!(world.may_take(5, Proof::Strong, true, &came_at(6)));
        world.purge(7, "t");
        assert!(!world.may_take(5, Proof::Strong, true, &came_at(7)));
        assert!(world.may_take(5, Proof::Strong, true, &came_at(5)), "it came before the purge did");
        assert!(world.may_take(5, Proof::Strong, false, &came_at(7)), "the fetch started after it came");
    }

    #[test]
    fn p4_who_may_rely_on_nothing_stored_takes_the_next_fetch_only_with_a_strong_proof() {
        let world = World::new();
        let fenced_for = Some(Duration::from_secs(1));
        let fenced = Arrival { standing: Standing { applied: 5, fenced_for }, must_be_strong: true, ..came_at(5) };
        let behind = Arrival { asks_again: true, must_be_strong: true, ..came_at(5) };
        for arrival in [fenced, behind] {
            assert!(!may_join(&arrival));
            assert!(world.may_take(5, Proof::Strong, false, &arrival));
            assert!(!world.may_take(5, Proof::Weak, false, &arrival));
        }
        assert!(world.may_take(5, Proof::Weak, false, &came_at(5)), "who may rely on what is stored takes it");
        assert_eq!((Proof::by_304(true), Proof::by_304(false)), (Proof::Strong, Proof::Weak));
    }

    #[test]
    fn p4_only_a_304_raises_a_position() {
        assert_eq!(renewed_at(Said::NotModified, 5, 9), 9);
        assert_eq!(renewed_at(Said::Head, 5, 9), 5);
    }

    #[test]
    fn p5_what_a_shared_tier_holds_is_filled_no_later_than_what_is_applied_here_whatever_it_says() {
        let (world, epoch) = (World::new(), Epoch::from_bytes([1; 8]));
        let slots = world.brought(0).slots;
        let of = |filled_at, applied| of_shared(&Shared { epoch, filled_at }, epoch, applied, 0, 1, slots.clone()).map(|of| of.filled_at);
        assert_eq!((of(7, 9), of(9, 9), of(12, 9), of(u64::MAX, 9)), (Some(7), Some(9), Some(9), Some(9)));
        assert!(of_shared(&Shared { epoch: Epoch::from_bytes([2; 8]), filled_at: 7 }, epoch, 9, 0, 1, slots).is_none());
    }
}
