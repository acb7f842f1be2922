//! What a follower does with what it hears: a pure fold of feed lines, one life at a time.

use std::cmp::Ordering;

use wire::mistake::{Mistake, makes};
use wire::{Class, Event, Fact, FeedLine, LiveEdge, Position, State};

/// A follower's copy of the journal's fold, and how far it has come: what it has folded, and what of that is in force.
#[derive(Clone, Debug)]
pub struct Follower {
    state: State,
    /// Up to where all is in force here; nothing beyond it may be acknowledged.
    in_force: Option<Position>,
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
    /// An event changes the configuration in a way that this program does not know: it must not be acknowledged, so
    /// that the node gets fenced rather than wrong.
    #[error("event {0} changes the configuration in a way that is not known here; a newer version of atoll is needed here")]
    UnknownConfig(u64),
    /// The snapshot is older than what is here: its origin is behind.
    #[error("the snapshot ends at event {0}, before what is here")]
    Behind(u64),
}

impl Follower {
    /// Begins with a snapshot, or with a fold that was kept. Nothing of it is in force yet.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self { state, in_force: None }
    }

    /// Returns the fold.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns how far the fold has come: the feed goes on behind it.
    #[must_use]
    pub fn folded(&self) -> Position {
        self.state.position
    }

    /// All that was folded is in force: called after it is, never before.
    pub fn set_in_force(&mut self) {
        self.in_force = Some(self.state.position);
    }

    /// Returns up to where all is in force here, which is what an ack says.
    #[must_use]
    pub fn in_force(&self) -> Option<Position> {
        if makes(Mistake::AckBeforeApplying) { Some(self.state.position) } else { self.in_force }
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
        if let Some(event) = line.events.iter().find(|event| is_unknown_config(event))
            && !makes(Mistake::UnknownConfigAcknowledged)
        {
            return Err(Refusal::UnknownConfig(event.seq));
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
/// [`Refusal::Behind`] where it would lead back, [`Refusal::OtherHistory`] where it is of another one under the same
/// epoch: an origin hears of that by an ack, and begins a new one.
pub fn may_load(here: &Position, snapshot: &State) -> Result<(), Refusal> {
    let there = snapshot.position;
    if here.epoch != there.epoch || makes(Mistake::OlderSnapshot) {
        return Ok(());
    }
    match there.seq.cmp(&here.seq) {
        Ordering::Less => Err(Refusal::Behind(there.seq)),
        Ordering::Equal if there.chain != here.chain => Err(Refusal::OtherHistory),
        Ordering::Equal | Ordering::Greater => Ok(()),
    }
}

/// Tells whether nothing that was held at `here` may be used again once a snapshot is loaded. The epoch alone does not
/// prove that it is of this history: a journal that was restored has another fork under the same epoch until an origin
/// hears of it. Only the very same position proves it. Who held nothing has nothing to drop.
#[must_use]
pub fn drops_all(here: Option<&Position>, snapshot: &State) -> bool {
    here.is_some_and(|here| *here != snapshot.position)
}

fn is_unknown_config(event: &Event) -> bool {
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
        let fact = Fact::purged(Owner::default(), Mode::Hard, vec![Scope::All]);
        Event { seq, at: Timestamp::from_millis(0), actor: "test".to_owned(), fact }
    }

    fn line(epoch: u8, from: u64, to: u64, events: Vec<Event>) -> FeedLine {
        let (epoch, chain) = (Epoch::from_bytes([epoch; 8]), Chain::START.then(b"x"));
        FeedLine { epoch, from, to, chain, head: to, events, live: None, questions: vec![] }
    }

    #[test]
    fn a_line_moves_over_events_that_the_role_does_not_get() {
        let mut follower = Follower::new(state(0));
        follower.take(&line(1, 0, 5, vec![purge(2)])).unwrap();
        assert_eq!((follower.folded().seq, follower.state().purges.newest()), (5, 2));
        assert_eq!(follower.folded().chain, Chain::START.then(b"x"));
    }

    #[test]
    fn a_line_that_does_not_follow_is_refused_and_changes_nothing() {
        let mut follower = Follower::new(state(3));
        assert_eq!(follower.take(&line(1, 4, 5, vec![purge(5)])), Err(Refusal::Gap { from: 4, at: 3 }));
        assert_eq!(follower.take(&line(1, 2, 5, vec![purge(5)])), Err(Refusal::Gap { from: 2, at: 3 }));
        assert_eq!(follower.take(&line(2, 3, 4, vec![purge(4)])), Err(Refusal::OtherHistory));
        assert_eq!((follower.folded().seq, follower.state().purges.newest()), (3, 0));
    }

    #[test]
    fn what_is_folded_is_not_in_force_until_it_is_said_to_be() {
        let mut follower = Follower::new(state(0));
        assert_eq!(follower.in_force(), None);
        follower.set_in_force();
        follower.take(&line(1, 0, 5, vec![purge(2)])).unwrap();
        assert_eq!(follower.in_force().map(|position| position.seq), Some(0));
        follower.set_in_force();
        assert_eq!(follower.in_force(), Some(follower.folded()));
    }

    #[test]
    fn an_unknown_configuration_is_not_taken_and_an_unknown_purge_is() {
        let unknown = |class| {
            let fact = Fact::Unknown { kind: "New".to_owned(), class, v: 2, rest: serde_json::Map::new() };
            Event { seq: 1, at: Timestamp::from_millis(0), actor: "test".to_owned(), fact }
        };
        let mut follower = Follower::new(state(0));
        assert_eq!(follower.take(&line(1, 0, 1, vec![unknown(Class::Config)])), Err(Refusal::UnknownConfig(1)));
        follower.take(&line(1, 0, 1, vec![unknown(Class::Purge)])).unwrap();
        assert_eq!(follower.state().purges.newest(), 1);
    }

    #[test]
    fn a_snapshot_of_an_origin_that_is_behind_is_not_loaded() {
        let here = state(9).position;
        assert_eq!(may_load(&here, &state(8)), Err(Refusal::Behind(8)));
        assert_eq!(may_load(&here, &state(9)), Ok(()));
        assert_eq!(may_load(&Position { chain: Chain::START.then(b"x"), ..here }, &state(9)), Err(Refusal::OtherHistory));
        let mut other = state(1);
        other.position.epoch = Epoch::from_bytes([2; 8]);
        assert_eq!(may_load(&here, &other), Ok(()));
    }

    #[test]
    fn what_is_held_outlives_a_snapshot_only_of_the_very_same_position() {
        let here = state(9).position;
        let fork = Position { chain: Chain::START.then(b"x"), ..here };
        let mut other = state(9);
        other.position.epoch = Epoch::from_bytes([2; 8]);
        assert!(!drops_all(Some(&here), &state(9)));
        assert!(drops_all(Some(&here), &state(10)), "it may be of another fork");
        assert!(drops_all(Some(&fork), &state(9)));
        assert!(drops_all(Some(&here), &other));
        assert!(!drops_all(None, &other), "nothing was held");
    }
}
