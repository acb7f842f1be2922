//! Decides what an origin does about what the shared journal holds, beside what it knows itself. Pure.

use std::fmt;

use wire::mistake::{Mistake, makes};
use wire::{Chain, Position};

use super::said::{Said, Word};

/// What the engine says of an origin's position.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// How that position stands beside what the engine holds.
    pub word: Word,
    /// Whether this life of the journal was begun under the process that answers.
    pub is_begun_here: bool,
    /// Where the journal ends there.
    pub head: Option<&'a Position>,
}

impl Said {
    pub(super) fn told(&self) -> Told<'_> {
        Told { word: self.word, is_begun_here: self.begun == self.actual, head: self.head.as_ref() }
    }
}

/// What an origin does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The history goes on from what is known here: take what is new.
    Follow,
    /// The process is another one: agree on it, distrust what it knows, look again.
    Meet,
    /// Somebody began another life, or cut what was not heard of here: read all anew.
    Reload,
    /// The journal lost its end, which is known here event by event: put it back.
    Heal,
    /// The journal lost what only this origin's state still holds: begin another life with that.
    BeginWithOwn,
    /// The journal went another way: begin another life with what it holds.
    BeginWithTheirs,
}

/// What an origin knows.
pub struct Known<'a> {
    /// Whether the process changed, and this history was not found again since.
    pub is_unproven: bool,
    /// The chain behind an event, where it is remembered.
    pub chain_at: &'a dyn Fn(u64) -> Option<Chain>,
    /// Whether all events behind this one are remembered.
    pub has_all_behind: &'a dyn Fn(u64) -> bool,
}

impl fmt::Debug for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("is_unproven", &self.is_unproven).finish_non_exhaustive()
    }
}

/// Decides what to do about what was said of this origin's own position.
#[must_use]
pub fn judge(told: &Told<'_>, known: &Known<'_>) -> Step {
    match told.word {
        Word::Run => Step::Meet,
        Word::Here | Word::Done => Step::Follow,
        Word::Empty => Step::BeginWithOwn,
        // Behind a restored backup even the life may be one from before. Only what was begun in this process is newer for sure.
        Word::Epoch if known.is_unproven && !told.is_begun_here => Step::BeginWithTheirs,
        Word::Epoch | Word::Moved => Step::Reload,
        Word::Cut if known.is_unproven => Step::BeginWithTheirs,
        Word::Cut => Step::Reload,
        Word::Other => Step::BeginWithTheirs,
        Word::Behind => told.head.map_or(Step::BeginWithOwn, |head| judge_shorter(head, known)),
    }
}

/// A journal that ends earlier is either a beginning of the one that is known here, or another one.
fn judge_shorter(head: &Position, known: &Known<'_>) -> Step {
    match (known.chain_at)(head.seq) {
        Some(chain) if chain != head.chain && !makes(Mistake::HealedFromAnotherFork) => Step::BeginWithTheirs,
        Some(_) if (known.has_all_behind)(head.seq) => Step::Heal,
        Some(_) => Step::BeginWithOwn,
        // It may be either, and others see what it holds.
        None => Step::BeginWithTheirs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Epoch;

    fn said(word: Word, seq: u64, chain: u8, begun: &str) -> Said {
        let head = Position { epoch: Epoch::from_bytes([1; 8]), seq, chain: Chain::from_bytes([chain; 16]) };
        Said {
            word,
            actual: "two".to_owned(),
            run: "two".to_owned(),
            begun: begun.to_owned(),
            head: Some(head),
            durable: 0,
            turn: "1".to_owned(),
            snapshot: 0,
            entries: Vec::new(),
            state: Vec::new(),
        }
    }

    #[test]
    fn a_shorter_journal_is_healed_where_all_is_known_and_else_begins_another_life() {
        // Chains are known from event 5 on, events from 8 on.
        let chain_at = |seq: u64| (seq >= 5).then(|| Chain::from_bytes([7; 16]));
        let has_all_behind = |seq: u64| seq >= 8;
        let known = Known { is_unproven: true, chain_at: &chain_at, has_all_behind: &has_all_behind };
        for (seq, chain, step) in [
            (9, 7, Step::Heal),
            (8, 7, Step::Heal),
            (6, 7, Step::BeginWithOwn),
            (6, 8, Step::BeginWithTheirs),
            (9, 8, Step::BeginWithTheirs),
            (4, 7, Step::BeginWithTheirs),
        ] {
            assert_eq!(judge(&said(Word::Behind, seq, chain, "one").told(), &known), step, "{seq} {chain}");
        }
    }

    #[test]
    fn another_life_is_followed_unless_it_may_be_one_from_a_backup() {
        let known = |is_unproven| Known { is_unproven, chain_at: &|_| None, has_all_behind: &|_| false };
        let decide = |word, begun, is_unproven| judge(&said(word, 1, 1, begun).told(), &known(is_unproven));
        assert_eq!(decide(Word::Epoch, "one", false), Step::Reload);
        assert_eq!(decide(Word::Epoch, "two", true), Step::Reload);
        assert_eq!(decide(Word::Epoch, "one", true), Step::BeginWithTheirs);
        assert_eq!((decide(Word::Cut, "one", false), decide(Word::Cut, "one", true)), (Step::Reload, Step::BeginWithTheirs));
        assert_eq!((decide(Word::Here, "one", true), decide(Word::Run, "one", true)), (Step::Follow, Step::Meet));
        assert_eq!((decide(Word::Empty, "one", true), decide(Word::Other, "one", false)), (Step::BeginWithOwn, Step::BeginWithTheirs));
    }
}
