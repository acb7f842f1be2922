//! The simulation: the pure parts of origin, follower and edge in a world of lost, late and doubled messages, kills,
//! pauses, cut cables, old backups and clocks that differ, one seed a world. It must find no broken rule in any of
//! them, and it must find each mistake that is made on purpose.
//!
//! `ATOLL_SEEDS=1000000 cargo test --release -p atoll-tests --test simulation` runs more of them;
//! `ATOLL_SEED=42 cargo test -p atoll-tests --test simulation one_seed -- --nocapture` tells one's history.

mod book;
mod chance;
mod clock;
mod edge;
mod engines;
mod origin;
mod origins;
mod plan;
mod serving;
mod shared;
mod truth;
mod upstream;
mod world;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use wire::mistake::{Mistake, make};
use world::World;

/// Seeds that are run where `ATOLL_SEEDS` says nothing.
const SEEDS: u64 = 10_000;

/// A broken rule, and the seed of its world.
type Broken = (u64, String);

/// Reads a name that is written here.
#[expect(clippy::expect_used, reason = "it is written here")]
fn named<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect("the simulation's names are right")
}

fn seeds() -> u64 {
    std::env::var("ATOLL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

/// Runs worlds until one breaks a rule, on all processors. Returns the first that did, and how often what happened.
fn run(seeds: u64, mistake: Option<Mistake>) -> (Option<Broken>, BTreeMap<&'static str, u64>) {
    let (next, is_found) = (AtomicU64::new(0), AtomicBool::new(false));
    let all: Mutex<(Option<Broken>, BTreeMap<&'static str, u64>)> = Mutex::default();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                make(mistake);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || is_found.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut world = World::new(seed, false);
                    world.run();
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    for (what, count) in &world.counts {
                        *all.1.entry(what).or_default() += count;
                    }
                    if let Some(wrong) = world.broken {
                        is_found.store(true, Ordering::Relaxed);
                        if all.0.as_ref().is_none_or(|(known, _)| seed < *known) {
                            all.0 = Some((seed, wrong));
                        }
                    }
                }
            });
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Tells a world's history.
fn history(seed: u64, mistake: Option<Mistake>) -> String {
    make(mistake);
    let mut world = World::new(seed, true);
    world.run();
    make(None);
    let told = world.history();
    let last = told.len().saturating_sub(2000);
    format!("{:#?}\n{}", world.plan, told.get(last..).unwrap_or_default().join("\n"))
}

#[test]
fn no_world_breaks_a_rule() {
    let (broken, counts) = run(seeds(), None);
    println!("{counts:#?}");
    if let Some((seed, wrong)) = broken {
        panic!("seed {seed}: {wrong}\n{}", history(seed, None));
    }
    // A world in which nothing happens keeps every rule.
    for what in [
        "a hit",
        "a stale hit",
        "a fetch",
        "joined a fetch",
        "waited for a fetch",
        "not for who joined",
        "a hit in the shared tier",
        "a write to the shared tier",
        "a purge that is complete",
        "a hit in place of an error",
        "a stale hit in place of an error",
        "a restored journal",
        "a new epoch by a follower's position",
        "waited for another edge's fetch",
        "a purge that is complete by a shared book",
        "a completion that the book refused",
        "a move to another origin",
        "an engine that lost events",
        "met another process",
        "put back what was lost",
        "a new epoch of a shared journal",
        "a snapshot of a shared journal",
        "a snapshot that came too late",
    ] {
        assert!(counts.get(what).is_some_and(|count| *count > 100), "{what} happened too rarely: {counts:#?}");
    }
}

#[test]
fn every_mistake_is_found() {
    let mut missed = Vec::new();
    for mistake in Mistake::ALL {
        match run(seeds(), Some(mistake)).0 {
            Some((seed, wrong)) => println!("{mistake:?}: seed {seed}: {wrong}"),
            None => missed.push(mistake),
        }
    }
    assert!(missed.is_empty(), "these were not found in {} seeds: {missed:?}", seeds());
}

#[test]
fn one_seed() {
    if let Some(seed) = std::env::var("ATOLL_SEED").ok().and_then(|seed| seed.parse().ok()) {
        let named = std::env::var("ATOLL_MISTAKE").unwrap_or_default();
        let mistake = Mistake::ALL.into_iter().find(|mistake| format!("{mistake:?}") == named);
        println!("{}", history(seed, mistake));
    }
}
