//! The one writer: drains what waits into one transaction, and answers all of it once the disk has it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};

use tokio::sync::{mpsc, oneshot};
use wire::{Event, Position, State, Timestamp};

use super::store::{Row, SNAPSHOT_EVERY};
use super::{Append, AppendError, Job, Shared, StoredEvent};
use crate::clock::boottime;

/// Appends in one transaction.
const BATCH: usize = 1024;

/// Bytes of JSON after which a transaction takes no further append.
const BATCH_BYTES: usize = 32 << 20;

pub(super) struct Writer {
    shared: Arc<Shared>,
    since_snapshot: u64,
}

type Reply<T> = oneshot::Sender<Result<T, AppendError>>;

/// A batch while it is decided: rows to write, and the heads of the streams they move.
struct Batch {
    position: Position,
    rows: Vec<Row>,
    /// Of the rows' JSON.
    bytes: usize,
    streams: HashMap<String, u64>,
    winners: Vec<(Position, Reply<Position>)>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, since_snapshot: 0 }
    }

    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = VecDeque::new();
        while let Some(job) = jobs.pop_front().or_else(|| queue.blocking_recv()) {
            match job {
                Job::Append(append, reply) => {
                    let mut appends = VecDeque::from([(append, reply)]);
                    while appends.len() < BATCH
                        && let Ok(job) = queue.try_recv()
                    {
                        match job {
                            Job::Append(append, reply) => appends.push_back((append, reply)),
                            other => {
                                jobs.push_back(other);
                                break;
                            }
                        }
                    }
                    while !appends.is_empty() {
                        self.append(&mut appends);
                    }
                }
                Job::Stop(reply) => {
                    self.shared.store.close();
                    let _ = reply.send(Ok(()));
                    return;
                }
                Job::LongestLease(lease, reply) => {
                    let stored = self.shared.store.store_longest_lease(lease);
                    let _ = reply.send(stored.map_err(|error| AppendError::Storage(error.to_string())));
                }
                Job::Followers(json, reply) => {
                    let stored = self.shared.store.store_followers(&json);
                    let _ = reply.send(stored.map_err(|error| AppendError::Storage(error.to_string())));
                }
                Job::NewEpoch { only_if, reply } => {
                    let _ = reply.send(self.begin_epoch(only_if));
                }
            }
        }
    }

    /// Appends the first of what waits, as much as one transaction takes.
    fn append(&mut self, appends: &mut VecDeque<(Append, Reply<Position>)>) {
        let now = Timestamp::now();
        let batch = {
            let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
            Batch::decide(&state, appends, now)
        };
        if batch.rows.is_empty() {
            return;
        }
        self.since_snapshot += batch.rows.len() as u64;
        // The snapshot is of the state before this batch, so that it never holds what is not durable.
        let snapshot =
            (self.since_snapshot > SNAPSHOT_EVERY).then(|| self.shared.state.read().unwrap_or_else(PoisonError::into_inner).clone());
        if let Err(error) = self.shared.store.append(&batch.rows, snapshot.as_ref()) {
            tracing::error!(%error, events = batch.rows.len(), "failed to append to the journal; nothing of it was kept");
            for (_, reply) in batch.winners {
                let _ = reply.send(Err(AppendError::Storage(error.to_string())));
            }
            return;
        }
        if snapshot.is_some() {
            self.since_snapshot = batch.rows.len() as u64;
        }
        self.publish(batch);
    }

    /// Folds what is durable now, then tells everybody.
    fn publish(&self, batch: Batch) {
        let at = boottime();
        let mut stored = Vec::with_capacity(batch.rows.len());
        // State, recent events and head change together: who saw one of them without the others would know
        // more than the journal says that it holds.
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut recent = self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner);
        {
            for row in batch.rows {
                let position = Position { seq: row.event.seq, chain: row.chain, ..state.position };
                state.apply(&row.event, position);
                let class = row.event.fact.class();
                stored.push(Arc::new(StoredEvent { seq: row.event.seq, chain: row.chain, class, json: row.json.into() }));
            }
        }
        recent.extend(stored, at);
        self.shared.head.send_replace(batch.position);
        drop(recent);
        drop(state);
        for (position, reply) in batch.winners {
            let _ = reply.send(Ok(position));
        }
    }

    fn begin_epoch(&self, only_if: wire::Epoch) -> Result<(), AppendError> {
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.position.epoch != only_if {
            return Ok(());
        }
        self.shared.store.begin_epoch(&mut state).map_err(|error| AppendError::Storage(error.to_string()))?;
        self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner).clear();
        tracing::warn!(position = %state.position, "the journal began a new epoch; followers load the snapshot");
        self.shared.head.send_replace(state.position);
        Ok(())
    }
}

impl Batch {
    /// Decides which appends hold their conditions, in order, and numbers their events. The others
    /// are answered at once. What is beyond the bytes of a batch is left for the next one.
    fn decide(state: &State, appends: &mut VecDeque<(Append, Reply<Position>)>, now: Timestamp) -> Self {
        let mut batch = Self { position: state.position, rows: Vec::new(), bytes: 0, streams: HashMap::new(), winners: Vec::new() };
        while batch.bytes < BATCH_BYTES
            && let Some((append, reply)) = appends.pop_front()
        {
            let moved = append.if_unchanged.iter().find(|(stream, seq)| batch.stream_head(state, stream) != *seq);
            if let Some((stream, _)) = moved {
                let _ = reply.send(Err(AppendError::Conflict { stream: stream.clone() }));
                continue;
            }
            match batch.number(append, now) {
                Ok(()) => batch.winners.push((batch.position, reply)),
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            }
        }
        batch
    }

    fn stream_head(&self, state: &State, stream: &str) -> u64 {
        let durable = || state.control.as_ref().map_or(0, |control| control.head_of(stream));
        self.streams.get(stream).copied().unwrap_or_else(durable)
    }

    fn number(&mut self, append: Append, now: Timestamp) -> Result<(), AppendError> {
        let mut position = self.position;
        let mut rows = Vec::with_capacity(append.facts.len());
        for fact in append.facts {
            let event = Event { seq: position.seq + 1, at: now, actor: append.actor.clone(), fact };
            let json = serde_json::to_string(&event).map_err(|error| AppendError::Storage(error.to_string()))?;
            position = Position { seq: event.seq, chain: position.chain.then(json.as_bytes()), ..position };
            rows.push(Row { event, json, chain: position.chain });
        }
        for row in &rows {
            self.streams.extend(row.event.fact.streams().into_iter().map(|stream| (stream, row.event.seq)));
        }
        self.position = position;
        self.bytes += rows.iter().map(|row| row.json.len()).sum::<usize>();
        self.rows.append(&mut rows);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Epoch, Fact};

    #[test]
    fn a_batch_takes_appends_until_it_has_its_bytes_and_leaves_the_rest_for_the_next() {
        let state = State::new(Epoch::from_bytes([1; 8]), [2; 16]);
        let append = |_| {
            let facts = vec![Fact::TokenRevoked { id: "x".repeat(BATCH_BYTES / 2) }];
            (Append { actor: "test".to_owned(), facts, if_unchanged: Vec::new() }, oneshot::channel().0)
        };
        let mut appends: VecDeque<_> = (0..3).map(append).collect();
        let mut decide = || Batch::decide(&state, &mut appends, Timestamp::from_millis(0)).winners.len();
        assert_eq!([decide(), decide(), decide()], [2, 1, 0]);
    }
}
