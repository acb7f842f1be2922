//! The one writer of the embedded engine: drains what waits into one transaction, and answers all of it once the disk has
//! it.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;
use wire::{Epoch, State, Timestamp};

use super::batch::{Base, Batch};
use super::shown::Shown;
use super::store::Store;
use super::{Append, AppendError, Job, Reply, SNAPSHOT_EVERY, next_life};
use crate::clock::boottime;

/// Appends in one transaction.
const BATCH: usize = 1024;

/// Bytes of JSON after which a transaction takes no further append.
const BATCH_BYTES: usize = 32 << 20;

type Waiting = VecDeque<(Append, Reply<wire::Position>)>;

pub(super) struct Writer {
    store: Arc<Store>,
    shown: Arc<Shown>,
    since_snapshot: u64,
}

impl Writer {
    pub(super) fn new(store: Arc<Store>, shown: Arc<Shown>) -> Self {
        Self { store, shown, since_snapshot: 0 }
    }

    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = VecDeque::new();
        while let Some(job) = jobs.pop_front().or_else(|| queue.blocking_recv()) {
            match job {
                Job::Append { append, reply, .. } => {
                    let mut appends = VecDeque::from([(append, reply)]);
                    while appends.len() < BATCH
                        && let Ok(job) = queue.try_recv()
                    {
                        match job {
                            Job::Append { append, reply, .. } => appends.push_back((append, reply)),
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
                    self.store.close();
                    let _ = reply.send(Ok(()));
                    return;
                }
                other => self.do_other(other),
            }
        }
    }

    fn do_other(&self, job: Job) {
        let kept = |stored: Result<(), redb::Error>| stored.map_err(|error| AppendError::Storage(error.to_string()));
        let (done, reply) = match job {
            Job::LongestLease(lease, reply) => (kept(self.store.store_longest_lease(lease)), reply),
            Job::Followers(json, reply) => (kept(self.store.store_followers(&json)), reply),
            Job::NewEpoch { only_if, reply } => (self.begin_epoch(only_if), reply),
            Job::Import(state, reply) => (self.import(*state), reply),
            // What a file holds is shown.
            Job::CatchUp(reply) => (Ok(()), reply),
            Job::Append { .. } | Job::Stop(_) => return,
        };
        let _ = reply.send(done);
    }

    /// Appends the first of what waits, as much as one transaction takes.
    fn append(&mut self, appends: &mut Waiting) {
        let mut batch = {
            let state = self.shown.state();
            Batch::decide(&state, Base::of(&state), appends.iter().map(|(append, _)| append), BATCH_BYTES, Timestamp::now())
        };
        let asked: Vec<_> = appends.drain(..batch.verdicts.len()).map(|(_, reply)| reply).collect();
        let written = if batch.rows.is_empty() { Ok(()) } else { self.write(&mut batch) };
        for (reply, verdict) in asked.into_iter().zip(batch.verdicts) {
            let answer = match (&written, verdict) {
                (Err(error), Ok(_)) => Err(AppendError::Storage(error.clone())),
                (_, verdict) => verdict,
            };
            let _ = reply.send(answer);
        }
    }

    fn write(&mut self, batch: &mut Batch) -> Result<(), String> {
        self.since_snapshot += batch.rows.len() as u64;
        // The snapshot is of the state before this batch, so that it never holds what is not durable.
        let snapshot = (self.since_snapshot > SNAPSHOT_EVERY).then(|| self.shown.state().clone());
        if let Err(error) = self.store.append(&batch.rows, snapshot.as_ref()) {
            tracing::error!(%error, events = batch.rows.len(), "failed to append to the journal; nothing of it was kept");
            return Err(error.to_string());
        }
        if snapshot.is_some() {
            self.since_snapshot = batch.rows.len() as u64;
        }
        self.shown.publish(std::mem::take(&mut batch.rows), boottime());
        Ok(())
    }

    fn begin_epoch(&self, only_if: Epoch) -> Result<(), AppendError> {
        if self.shown.head().epoch != only_if {
            return Ok(());
        }
        let state = self.shown.state().clone();
        self.begin(state)
    }

    fn import(&self, state: State) -> Result<(), AppendError> {
        if self.shown.head().seq > 0 {
            return Err(AppendError::NotEmpty);
        }
        self.begin(state)
    }

    fn begin(&self, state: State) -> Result<(), AppendError> {
        let next = next_life(state);
        self.store.begin_epoch(&next).map_err(|error| AppendError::Storage(error.to_string()))?;
        tracing::warn!(position = %next.position, "the journal began a new epoch; followers load the snapshot");
        self.shown.replace(next);
        Ok(())
    }
}
