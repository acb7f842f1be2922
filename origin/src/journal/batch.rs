//! Decides a batch of appends: which of them hold their conditions, and what their events are. Pure, and nothing of what
//! was asked is used up, so that the same appends can be decided again on a longer history.

use std::collections::HashMap;

use wire::{Chain, Event, Position, State, Timestamp};

use super::{Append, AppendError};

/// One event on its way into the journal.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) event: Event,
    pub(super) json: String,
    pub(super) chain: Chain,
}

/// The end of the history that a batch is decided on.
#[derive(Debug)]
pub(super) struct Base {
    position: Position,
    /// The streams that were moved behind the state.
    streams: HashMap<String, u64>,
}

/// What was decided.
#[derive(Debug)]
pub(super) struct Batch {
    /// The place of the last event.
    pub(super) position: Position,
    pub(super) rows: Vec<Row>,
    /// What becomes of each append once the rows are written, in order: as many as the batch took.
    pub(super) verdicts: Vec<Result<Position, AppendError>>,
    /// Of the rows' JSON.
    bytes: usize,
    streams: HashMap<String, u64>,
}

impl Base {
    /// The history ends with the state.
    pub(super) fn of(state: &State) -> Self {
        Self { position: state.position, streams: HashMap::new() }
    }

    /// The history goes on behind the state, with events that may not be shown yet.
    pub(super) fn behind<'a>(position: Position, rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let mut streams = HashMap::new();
        for row in rows {
            note(&mut streams, row);
        }
        Self { position, streams }
    }
}

fn note(streams: &mut HashMap<String, u64>, row: &Row) {
    streams.extend(row.event.fact.streams().into_iter().map(|stream| (stream, row.event.seq)));
}

impl Batch {
    /// Decides which appends hold their conditions, in order, and numbers their events. What is beyond `most_bytes` is left
    /// for the next batch.
    pub(super) fn decide<'a>(
        state: &State,
        base: Base,
        appends: impl IntoIterator<Item = &'a Append>,
        most_bytes: usize,
        now: Timestamp,
    ) -> Self {
        let mut batch = Self { position: base.position, rows: Vec::new(), verdicts: Vec::new(), bytes: 0, streams: base.streams };
        for append in appends {
            if batch.bytes >= most_bytes {
                break;
            }
            let verdict = batch.judge(state, append, now);
            batch.verdicts.push(verdict);
        }
        batch
    }

    fn judge(&mut self, state: &State, append: &Append, now: Timestamp) -> Result<Position, AppendError> {
        let moved = append.if_unchanged.iter().find(|(stream, seq)| self.stream_head(state, stream) != *seq);
        match moved {
            Some((stream, _)) => Err(AppendError::Conflict { stream: stream.clone() }),
            None => self.number(append, now),
        }
    }

    fn stream_head(&self, state: &State, stream: &str) -> u64 {
        let durable = || state.control.as_ref().map_or(0, |control| control.head_of(stream));
        self.streams.get(stream).copied().unwrap_or_else(durable)
    }

    fn number(&mut self, append: &Append, now: Timestamp) -> Result<Position, AppendError> {
        let mut position = self.position;
        let mut rows = Vec::with_capacity(append.facts.len());
        for fact in &append.facts {
            let event = Event { seq: position.seq + 1, at: now, actor: append.actor.clone(), fact: fact.clone() };
            let json = serde_json::to_string(&event).map_err(|error| AppendError::Storage(error.to_string()))?;
            position = Position { seq: event.seq, chain: position.chain.then(json.as_bytes()), ..position };
            rows.push(Row { event, json, chain: position.chain });
        }
        for row in &rows {
            note(&mut self.streams, row);
        }
        self.position = position;
        self.bytes += rows.iter().map(|row| row.json.len()).sum::<usize>();
        self.rows.append(&mut rows);
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Epoch, Fact};

    fn append(id: &str, if_unchanged: &[(&str, u64)]) -> Append {
        let if_unchanged = if_unchanged.iter().map(|(stream, seq)| ((*stream).to_owned(), *seq)).collect();
        Append { actor: "test".to_owned(), facts: vec![Fact::TokenRevoked { id: id.to_owned() }], if_unchanged }
    }

    fn empty() -> State {
        State::new(Epoch::from_bytes([1; 8]), [2; 16])
    }

    #[test]
    fn a_batch_takes_appends_until_it_has_its_bytes_and_leaves_the_rest_for_the_next() {
        let (state, most) = (empty(), 1 << 20);
        let appends: Vec<_> = (0..3).map(|_| append(&"x".repeat(most / 2), &[])).collect();
        let mut left = appends.as_slice();
        let mut decide = || {
            let batch = Batch::decide(&state, Base::of(&state), left, most, Timestamp::from_millis(0));
            left = &left[batch.verdicts.len()..];
            batch.verdicts.len()
        };
        assert_eq!([decide(), decide(), decide()], [2, 1, 0]);
    }

    #[test]
    fn what_was_decided_is_decided_again_on_a_longer_history() {
        let state = empty();
        let appends = [append("a", &[("tokens", 0)]), append("b", &[])];
        let now = Timestamp::from_millis(0);
        let first = Batch::decide(&state, Base::of(&state), &appends, 1 << 20, now);
        assert_eq!((first.rows.len(), first.verdicts.iter().filter(|verdict| verdict.is_ok()).count()), (2, 2));
        let others = &first.rows[..1];
        let position = Position { seq: 1, chain: others[0].chain, ..state.position };
        let again = Batch::decide(&state, Base::behind(position, others), &appends, 1 << 20, now);
        assert!(matches!(again.verdicts[0], Err(AppendError::Conflict { .. })), "its stream was moved by what came first");
        assert_eq!((again.rows.len(), again.rows[0].event.seq, again.position.seq), (1, 2, 2));
    }
}
