//! Decides what becomes of a position that a follower or a client shows: pure, with the journal's head and chains as
//! arguments.

use wire::mistake::{Mistake, makes};
use wire::{Chain, Position};

/// What happens to a position that somebody shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is of this history, and all after it can be read.
    Here,
    /// It is of this history, but events after it were cut: a snapshot is needed.
    Cut,
    /// It is of another epoch.
    OtherEpoch,
    /// It says that this journal had events that it does not have: the journal lost its end.
    Lost,
}

/// Decides what becomes of a position beside a journal's `head`. `chain_at` finds the chain behind an event, where it
/// has not been cut. Epoch and seq alone would let a restored backup pass for the journal that it is a copy of.
pub fn fit(head: &Position, shown: &Position, chain_at: impl FnOnce(u64) -> Option<Chain>) -> Fit {
    if shown.epoch != head.epoch {
        return Fit::OtherEpoch;
    }
    if shown.seq > head.seq {
        return Fit::Lost;
    }
    match chain_at(shown.seq) {
        _ if makes(Mistake::PositionWithoutChain) => Fit::Here,
        Some(chain) if chain == shown.chain => Fit::Here,
        Some(_) => Fit::Lost,
        None => Fit::Cut,
    }
}
