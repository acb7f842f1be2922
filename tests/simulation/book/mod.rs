//! The lease book that many origins share, under chance: origins that read it late and stand still, edges that start anew and ask
//! several of them, a book that loses what it knew last, epochs that end, leases of other lengths, and clocks that differ. After
//! each step no edge relies on what is below what was made complete (P1), and once all is well everything is complete in time (P2).

mod history;

use history::World;
use wire::mistake::{Mistake, make};

const SEEDS: u64 = 1000;

/// Mistakes that only a book can make that several origins share.
pub(crate) const OF_SHARED_BOOKS: [Mistake; 2] = [Mistake::GrantUnchecked, Mistake::CompleteUnchecked];

/// Runs histories until one breaks a rule; returns what it was.
fn broken(mistake: Option<Mistake>) -> Option<String> {
    make(mistake);
    let broken = (0..SEEDS).find_map(|seed| {
        let mut world = World::new(seed);
        world.run().err().map(|wrong| format!("seed {seed}: {wrong}"))
    });
    make(None);
    broken
}

#[test]
fn no_history_breaks_a_rule() {
    assert_eq!(broken(None), None);
}

#[test]
fn every_mistake_is_found() {
    // Of the others the rules are those of any lease book; they hold for one that is shared too.
    let mistakes = OF_SHARED_BOOKS.into_iter().chain([Mistake::CompleteAfterRestart, Mistake::FormerLeaseForgotten]);
    let missed: Vec<_> = mistakes.filter(|mistake| broken(Some(*mistake)).is_none()).collect();
    assert!(missed.is_empty(), "these were not found: {missed:?}");
}

#[test]
fn what_may_happen_does() {
    let mut happened = std::collections::BTreeMap::<&str, u64>::new();
    for seed in 0..100 {
        let mut world = World::new(seed);
        world.run().unwrap();
        world.happened.iter().for_each(|(what, count)| *happened.entry(what).or_default() += count);
    }
    for what in ["granted", "refused", "completed", "completed over an ended lease", "completion refused", "lost", "an epoch", "reloaded"] {
        assert!(happened.get(what).is_some_and(|count| *count > 20), "{what} happened too rarely: {happened:?}");
    }
}
