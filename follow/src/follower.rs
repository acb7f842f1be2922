//! What a follower does with what it hears: a pure fold of feed lines, one life at a time.

use wire::{Class, Event, Fact, FeedLine, LiveEdge, Position, State};

/// A follower's copy of the journal's fold, and how far it has come.
#[derive(Clone, Debug)]
pub struct Follower {
    state: State,
}

/// Why a line or a snapshot is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The line does not begin where this follower stands: ask again behind its position.
    #[error("the line begins at event {from}, but {at} is the last one here")]
    Gap {
        /// Where the line begins.
        from: u64,
        /// Where the follower stands.
        at: u64,
    },
    /// The journal began another life: drop everything and load the snapshot.
    #[error("the journal is of another history")]
    OtherHistory,
    /// The snapshot is older than what is here: its origin is behind.
    #[error("the snapshot ends at event {0}, before what is here")]
    Behind(u64),
}

impl Follower {
    /// Begins with a snapshot, or with a fold that was kept.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self { state }
    }

    /// Returns the fold.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns where it stands.
    #[must_use]
    pub fn position(&self) -> Position {
        self.state.position
    }

    /// Tells whether a line follows from where this follower stands.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn fits(&self, line: &FeedLine) -> Result<(), Refusal> {
        let at = self.state.position;
        if line.epoch != at.epoch {
            return Err(Refusal::OtherHistory);
        }
        if line.from != at.seq || line.to < line.from {
            return Err(Refusal::Gap { from: line.from, at: at.seq });
        }
        Ok(())
    }

    /// Takes in a line: folds its events and moves to its end.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing is changed then.
    pub fn take(&mut self, line: &FeedLine) -> Result<(), Refusal> {
        self.fits(line)?;
        for event in &line.events {
            let here = self.state.position;
            self.state.apply(event, Position { seq: event.seq, ..here });
        }
        // The line moves also over events that this role does not get.
        self.state.position = Position { epoch: line.epoch, seq: line.to, chain: line.chain };
        Ok(())
    }
}

/// Tells whether a snapshot may replace what was in force at `here`: a newer one of this history, or any
/// of another.
///
/// # Errors
/// [`Refusal::Behind`] where it would lead back.
pub(crate) fn may_load(here: &Position, snapshot: &State) -> Result<(), Refusal> {
    let there = snapshot.position;
    if here.epoch == there.epoch && there.seq < here.seq {
        return Err(Refusal::Behind(there.seq));
    }
    Ok(())
}

/// Tells whether an event changes the configuration in a way that this program does not know: it must
/// not be acknowledged, so that the node gets fenced rather than wrong.
pub(crate) fn is_unknown_config(event: &Event) -> bool {
    matches!(&event.fact, Fact::Unknown { class: Class::Config, .. })
}

/// Takes the live set out of a line.
pub(crate) fn live_of(line: &FeedLine) -> Option<&[LiveEdge]> {
    line.live.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Chain, Epoch, Mode, Owner, Scope, Timestamp};

    fn state(seq: u64) -> State {
        let mut state = State::new(Epoch::from_bytes([1; 8]), [0; 16]);
        state.position.seq = seq;
        state
    }

    fn purge(seq: u64) -> Event {
        let fact = Fact::Purged { owner: Owner::default(), mode: Mode::Hard, scopes: vec![Scope::All] };
        Event { seq, at: Timestamp::from_millis(0), actor: "test".to_owned(), fact }
    }

    fn line(epoch: u8, from: u64, to: u64, events: Vec<Event>) -> FeedLine {
        FeedLine { epoch: Epoch::from_bytes([epoch; 8]), from, to, chain: Chain::START.then(b"x"), head: to, events, live: None }
    }

    #[test]
    fn a_line_moves_over_events_that_the_role_does_not_get() {
        let mut follower = Follower::new(state(0));
        follower.take(&line(1, 0, 5, vec![purge(2)])).unwrap();
        assert_eq!((follower.position().seq, follower.state().purges.newest()), (5, 2));
        assert_eq!(follower.position().chain, Chain::START.then(b"x"));
    }

    #[test]
    fn a_line_that_does_not_follow_is_refused_and_changes_nothing() {
        let mut follower = Follower::new(state(3));
        assert_eq!(follower.take(&line(1, 4, 5, vec![purge(5)])), Err(Refusal::Gap { from: 4, at: 3 }));
        assert_eq!(follower.take(&line(1, 2, 5, vec![purge(5)])), Err(Refusal::Gap { from: 2, at: 3 }));
        assert_eq!(follower.take(&line(2, 3, 4, vec![purge(4)])), Err(Refusal::OtherHistory));
        assert_eq!((follower.position().seq, follower.state().purges.newest()), (3, 0));
    }

    #[test]
    fn a_snapshot_of_an_origin_that_is_behind_is_not_loaded() {
        let here = state(9).position;
        assert_eq!(may_load(&here, &state(8)), Err(Refusal::Behind(8)));
        assert_eq!(may_load(&here, &state(9)), Ok(()));
        let mut other = state(1);
        other.position.epoch = Epoch::from_bytes([2; 8]);
        assert_eq!(may_load(&here, &other), Ok(()));
    }
}
