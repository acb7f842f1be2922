//! What the journal shows: the fold of all durable events, the newest of them, and the head. Whatever the engine, these
//! change together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::watch;
use wire::{Position, State};

use super::StoredEvent;
use super::batch::Row;
use super::recent::Recent;

/// What the journal shows.
#[derive(Debug)]
pub(super) struct Shown {
    state: RwLock<State>,
    recent: Mutex<Recent>,
    head: watch::Sender<Position>,
    /// Which life of the engine's process this journal believes in; nothing for a file.
    run: Mutex<Run>,
    /// How often the engine may have lost what it knew, and how often that was found out.
    runs: watch::Sender<u64>,
    /// When this was all that the engine held (CLOCK_BOOTTIME); of a file it always is.
    confirmed: Mutex<Option<Duration>>,
}

#[derive(Clone, Debug)]
struct Run {
    name: String,
    /// What is shown was found there again, since that process or this one began.
    is_proven: bool,
}

impl Shown {
    pub(super) fn new(state: State, run: String) -> Self {
        let head = watch::Sender::new(state.position);
        Self {
            state: RwLock::new(state),
            recent: Mutex::default(),
            head,
            run: Mutex::new(Run { name: run, is_proven: true }),
            runs: watch::Sender::new(0),
            confirmed: Mutex::new(None),
        }
    }

    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn head(&self) -> Position {
        *self.head.borrow()
    }

    pub(super) fn watch_head(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    fn lock_run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn run(&self) -> String {
        self.lock_run().name.clone()
    }

    /// Returns the life of the engine's process that holds what is shown, once that is sure.
    pub(super) fn proven_run(&self) -> Option<String> {
        let run = self.lock_run();
        run.is_proven.then(|| run.name.clone())
    }

    /// The engine's process holds all that is shown.
    pub(super) fn prove(&self) {
        if !std::mem::replace(&mut self.lock_run().is_proven, true) {
            self.runs.send_modify(|runs| *runs += 1);
        }
    }

    pub(super) fn watch_runs(&self) -> watch::Receiver<u64> {
        self.runs.subscribe()
    }

    /// At `at` the engine held no more than this.
    pub(super) fn confirm(&self, at: Duration) {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// Returns for how long nobody knows whether this is all that the engine holds.
    pub(super) fn unconfirmed_for(&self, now: Duration) -> Duration {
        let confirmed = *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.map_or(Duration::ZERO, |at| now.saturating_sub(at))
    }

    /// The engine may have lost what it knew, leases for example.
    pub(super) fn distrust(&self, run: &str) {
        *self.lock_run() = Run { name: run.to_owned(), is_proven: false };
        self.runs.send_modify(|runs| *runs += 1);
    }

    /// Folds what is durable now, then tells everybody.
    pub(super) fn publish(&self, rows: Vec<Row>, at: Duration) {
        if rows.is_empty() {
            return;
        }
        let mut stored = Vec::with_capacity(rows.len());
        // State, recent events and head change together: who saw one of them without the others would know
        // more than the journal says that it holds.
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut recent = self.recent();
        for row in rows {
            let position = Position { seq: row.event.seq, chain: row.chain, ..state.position };
            state.apply(&row.event, position);
            let class = row.event.fact.class();
            stored.push(Arc::new(StoredEvent { seq: row.event.seq, chain: row.chain, class, json: row.json.into() }));
        }
        recent.extend(stored, at);
        self.head.send_replace(state.position);
    }

    /// Another life of the journal begins, or this one was read anew.
    pub(super) fn replace(&self, next: State) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        *state = next;
        self.recent().clear();
        self.head.send_replace(state.position);
    }
}
