//! Seeded mistakes: each breaks one rule of leases or purges on purpose, so that the simulation can prove that it
//! would notice. Without the feature `mistakes`, which the simulation's package alone asks for, none can be made and
//! nothing of them is compiled in.

/// A rule that is broken on purpose. The letters are those of the rules in ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mistake {
    /// L1: a follower counts its lease from the answer.
    LeaseFromAnswer,
    /// L1: a jump of the wall clock does not end a lease.
    ClockJumpIgnored,
    /// L1: the lease is checked with a time that was read before a pause.
    CachedClock,
    /// L2: a follower below what is complete gets a lease.
    LeaseBelowComplete,
    /// L2: a book that origins share gives a lease without looking at what is complete in the same step.
    GrantUnchecked,
    /// L3: a follower that leaves an event unapplied keeps its lease.
    LeaseToLaggard,
    /// L4: an ack of a former life speaks for the present one.
    AckOfFormerLife,
    /// L4: the lease of a former life is forgotten when the next one begins.
    FormerLeaseForgotten,
    /// L5: an origin reports complete right after its restart.
    CompleteAfterRestart,
    /// L5: an origin forgets what was complete before its restart.
    CompleteForgotten,
    /// L5: a book that origins share takes an origin's word that leases have ended, whatever was granted since.
    CompleteUnchecked,
    /// L5: another process keeps the book that origins share, and nobody waits for the leases that it may have lost.
    RunUnheeded,
    /// L6: the wait after a restart is as long as today's lease, not as the longest that may run.
    NewLeaseLength,
    /// P1: an edge acknowledges what it has folded and not yet put in force.
    AckBeforeApplying,
    /// P1: a fenced edge goes on as if its lease held.
    ServeWhileFenced,
    /// P1: entries of other settings stay valid.
    OldSettings,
    /// P1: the purge table has one seq for hard and for soft purges.
    OneSeqForBoth,
    /// P1: an edge that starts again has forgotten its purge table.
    TableForgotten,
    /// P1: a soft purge leaves entries fresh.
    SoftPurgeIgnored,
    /// P3: an event is appended to a shared journal whatever stands at its end by now.
    AppendUnchecked,
    /// P3: what a shared journal lost is put back behind events of another fork.
    HealedFromAnotherFork,
    /// P3: a snapshot of an origin that is behind replaces the newer one in a shared journal.
    SnapshotFromBehind,
    /// P4: the position of a fill is read when it has ended.
    FilledAtEnd,
    /// P4: any running fill is joined, and what it brings is taken.
    JoinAnyFill,
    /// P4: who joined compares the table's highest seq with the position at which it came.
    CompareHighestSeq,
    /// P4: a 304 renews an entry that was purged meanwhile.
    RenewPurged,
    /// P4: an answer to HEAD raises the position.
    HeadRaises,
    /// P4: what is of another history is valid in this one.
    OtherHistoryValid,
    /// P5: what the shared tier holds is not compared with the purge table.
    SharedTierUnchecked,
    /// P5: a shared tier's entry of another epoch is taken.
    SharedTierOfOtherEpoch,
    /// P5: a write to the shared tier replaces what was filled later.
    SharedTierWrittenBack,
    /// P5: a fenced edge writes to the shared tier.
    SharedTierWhileFenced,
    /// P6: a snapshot of an origin that is behind is loaded.
    OlderSnapshot,
    /// P7: an edge that may go on serving while fenced counts as one that does not.
    PartialIsComplete,
    /// P8: an invalidation drops what is stored and leaves what is being fetched.
    NoTombstone,
    /// P8: an invalidation is not told to the journal.
    NotAnnounced,
    /// A position is believed by its epoch and seq, without its chain.
    PositionWithoutChain,
    /// A purge of a newer version purges nothing.
    UnknownPurgeSkipped,
    /// A configuration of a newer version is acknowledged.
    UnknownConfigAcknowledged,
}

#[cfg(feature = "mistakes")]
mod made {
    use std::cell::Cell;

    use super::Mistake;

    thread_local! {
        static MADE: Cell<Option<Mistake>> = const { Cell::new(None) };
    }

    /// Makes a mistake on this thread, or none, from now on.
    pub fn make(mistake: Option<Mistake>) {
        MADE.set(mistake);
    }

    /// Tells whether this mistake is made on this thread.
    #[must_use]
    pub fn makes(mistake: Mistake) -> bool {
        MADE.get() == Some(mistake)
    }

    impl Mistake {
        /// All of them.
        pub const ALL: [Self; 39] = [
            Self::LeaseFromAnswer,
            Self::ClockJumpIgnored,
            Self::CachedClock,
            Self::LeaseBelowComplete,
            Self::GrantUnchecked,
            Self::LeaseToLaggard,
            Self::AckOfFormerLife,
            Self::FormerLeaseForgotten,
            Self::CompleteAfterRestart,
            Self::CompleteForgotten,
            Self::CompleteUnchecked,
            Self::RunUnheeded,
            Self::NewLeaseLength,
            Self::AckBeforeApplying,
            Self::ServeWhileFenced,
            Self::OldSettings,
            Self::OneSeqForBoth,
            Self::TableForgotten,
            Self::SoftPurgeIgnored,
            Self::AppendUnchecked,
            Self::HealedFromAnotherFork,
            Self::SnapshotFromBehind,
            Self::FilledAtEnd,
            Self::JoinAnyFill,
            Self::CompareHighestSeq,
            Self::RenewPurged,
            Self::HeadRaises,
            Self::OtherHistoryValid,
            Self::SharedTierUnchecked,
            Self::SharedTierOfOtherEpoch,
            Self::SharedTierWrittenBack,
            Self::SharedTierWhileFenced,
            Self::OlderSnapshot,
            Self::PartialIsComplete,
            Self::NoTombstone,
            Self::NotAnnounced,
            Self::PositionWithoutChain,
            Self::UnknownPurgeSkipped,
            Self::UnknownConfigAcknowledged,
        ];
    }
}

#[cfg(feature = "mistakes")]
pub use made::{make, makes};

/// Tells whether this mistake is made: never, outside of the simulation.
#[cfg(not(feature = "mistakes"))]
#[must_use]
pub const fn makes(_: Mistake) -> bool {
    false
}
