//! Writes a snapshot now and then, behind which the shared journal is cut: by one origin at a time, and never an older one
//! over a newer one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::Trouble;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wire::State;

use super::super::shown::Shown;
use super::super::{KEPT, SNAPSHOT_EVERY};
use super::load;
use super::said::Word;
use super::shelf::Shelf;
use crate::clock::boottime;
use crate::sole::Sole;

/// The name of the work.
const WORK: &str = "snapshots";

/// How long it may take: somebody else does it after that.
const SPAN: Duration = Duration::from_secs(30);

/// After how long it is tried again, where somebody else is at it.
const RETRY: Duration = Duration::from_secs(5);

/// What an origin knows of snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    sole: Sole,
    /// Where the stored one ends.
    stored: Arc<AtomicU64>,
    writing: Option<JoinHandle<()>>,
    not_before: Instant,
}

impl Snapshots {
    pub(super) fn new(shelf: &Shelf, stored: u64) -> Self {
        let (sole, stored) = (Sole::shared(shelf.redis().clone(), shelf.network()), Arc::new(AtomicU64::new(stored)));
        Self { sole, stored, writing: None, not_before: Instant::now() }
    }

    /// Notes where the stored one ends.
    pub(super) fn learn(&mut self, stored: u64) {
        self.stored.fetch_max(stored, Ordering::Relaxed);
    }

    /// Another life may have begun earlier; whoever writes one of the life before notes that elsewhere.
    pub(super) fn forget(&mut self) {
        self.stored = Arc::default();
    }

    /// Begins to write one where it is time for it.
    pub(super) fn write_if_due(&mut self, shelf: &Arc<Shelf>, shown: &Shown) {
        let is_due =
            shown.head().seq.saturating_sub(self.stored.load(Ordering::Relaxed)) > SNAPSHOT_EVERY && Instant::now() >= self.not_before;
        if !is_due || self.writing.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        self.not_before = Instant::now() + RETRY;
        let (shelf, sole, run, state) = (Arc::clone(shelf), self.sole.clone(), shown.run(), shown.state().clone());
        let (stored, seq) = (Arc::clone(&self.stored), state.position.seq);
        self.writing = Some(tokio::spawn(async move {
            match write(&shelf, &sole, &run, state).await {
                Ok(true) => _ = stored.fetch_max(seq, Ordering::Relaxed),
                Ok(false) => {}
                Err(trouble) => tracing::warn!(%trouble, "failed to write a snapshot of the journal"),
            }
        }));
    }
}

/// Writes it, and tells whether it was taken.
async fn write(shelf: &Shelf, sole: &Sole, run: &str, state: State) -> Result<bool, Trouble> {
    let Some(held) = sole.take(WORK, SPAN).await? else { return Ok(false) };
    let position = state.position;
    let bytes = load::encode(state).await.map_err(Trouble::Away)?;
    let mut is_taken = false;
    // Redis refuses what comes too late by itself; this saves it the trouble.
    if held.is_held(boottime()) {
        let kept_from = position.seq.saturating_sub(KEPT);
        let said = shelf.snapshot(run, &position, held.fence(), kept_from, &bytes).await?;
        is_taken = said.word == Word::Done;
        tracing::debug!(%position, is_taken, "a snapshot of the journal; none is taken where there is a newer one, or another life");
    }
    sole.let_go(WORK).await?;
    Ok(is_taken)
}
