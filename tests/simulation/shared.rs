//! A region's shared tier: it may forget, and it may come back with what it held long ago. By its own clock it tells how long ago
//! something was written, and it has one edge fetch for all that wait.

use std::collections::BTreeMap;
use std::time::Duration;

use edge::cores::{Shared, may_share};
use follow::Standing;

use crate::chance::Chance;
use crate::clock::Clock;
use crate::plan::Time;
use crate::truth::Body;

/// An entry as the shared tier holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedEntry {
    pub(crate) shared: Shared,
    pub(crate) settings: u64,
    pub(crate) body: Body,
    /// What makes it one of a kind.
    pub(crate) id: u64,
    /// How long ago its fetch had started when it was written, by its writer's clocks.
    pub(crate) started_ago: Duration,
}

/// One look for a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// How often the key was invalidated when the look began, and the history that was followed then.
    pub(crate) tombstone: u64,
    pub(crate) generation: u64,
    /// By what name this edge would fetch it for all; nothing where it can't.
    pub(crate) claim: Option<u64>,
    /// The stamp of what was found already and is of no use.
    pub(crate) known: Duration,
    /// When it was asked, by the clock of who asks.
    pub(crate) asked: Duration,
    /// Until when it waits for who fetches.
    pub(crate) until: Time,
}

/// What a look finds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SharedFound {
    /// An entry, when it was written by the tier's clock, and how long ago that is.
    Value {
        entry: SharedEntry,
        stamp: Duration,
        since: Duration,
    },
    /// Whoever asks fetches it for all.
    Claimed,
    /// Another edge fetches it.
    Busy,
    Nothing,
}

/// A shared tier, and a copy of it from some time ago.
#[derive(Debug)]
pub(crate) struct SharedTier {
    clock: Clock,
    held: BTreeMap<usize, (SharedEntry, Duration)>,
    copy: BTreeMap<usize, (SharedEntry, Duration)>,
    /// Who fetches a key, and until when that is believed.
    claims: BTreeMap<usize, (u64, Time)>,
}

impl SharedTier {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, held: BTreeMap::new(), copy: BTreeMap::new(), claims: BTreeMap::new() }
    }

    /// Looks for a key; a claim that is given `lasts` so long.
    pub(crate) fn look(&mut self, key: usize, look: &Look, lasts: Time, now: Time) -> SharedFound {
        if let Some((entry, stamp)) = self.held.get(&key).copied().filter(|(_, stamp)| *stamp > look.known) {
            return SharedFound::Value { entry, stamp, since: self.clock.boot(now).saturating_sub(stamp) };
        }
        let Some(claim) = look.claim else { return SharedFound::Nothing };
        if self.claims.get(&key).is_some_and(|(_, until)| *until > now) {
            return SharedFound::Busy;
        }
        self.claims.insert(key, (claim, now + lasts));
        SharedFound::Claimed
    }

    /// Takes in by the rule an entry that was put together at `written`, and says what is wrong where it should not have.
    pub(crate) fn write(
        &mut self,
        (key, entry): (usize, SharedEntry),
        writer: &Standing,
        written: Time,
        claim: Option<u64>,
    ) -> Result<bool, String> {
        claim.into_iter().for_each(|claim| self.give_up(key, claim));
        let known = self.held.get(&key).map(|(known, _)| known.shared);
        if !may_share(writer, known.as_ref(), &entry.shared) {
            return Ok(false);
        }
        // A write that came late is no younger for that.
        self.held.insert(key, (entry, self.clock.boot(written)));
        if !writer.holds() {
            return Err("P5: a fenced edge wrote to the shared tier".to_owned());
        }
        match known {
            Some(known) if known.epoch == entry.shared.epoch && known.filled_at > entry.shared.filled_at => {
                Err("P5: a write to the shared tier replaced what was filled later".to_owned())
            }
            _ => Ok(true),
        }
    }

    /// Ends a claim, where it is that one.
    pub(crate) fn give_up(&mut self, key: usize, claim: u64) {
        if self.claims.get(&key).is_some_and(|(held, _)| *held == claim) {
            self.claims.remove(&key);
        }
    }

    pub(crate) fn remove(&mut self, key: usize) {
        self.held.remove(&key);
    }

    pub(crate) fn lose_some(&mut self, chance: &mut Chance) {
        self.held.retain(|_, _| chance.of_thousand(500));
    }

    pub(crate) fn back_up(&mut self) {
        self.copy = self.held.clone();
    }

    pub(crate) fn restore(&mut self) {
        self.held = self.copy.clone();
        self.claims.clear();
    }
}
