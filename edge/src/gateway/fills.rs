//! Fills while they run: what those who wait for one learn of it, and the table that says who leads and who waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, StatusCode};
use tokio::sync::watch;

use super::entry::{Entry, Head};
use super::fill_table::{Begun, FillTable, Part};
use super::flow::Flow;
use super::key::CacheKey;
use crate::door::Exchange;
use crate::refuse::Refusal;
use crate::validity::Proof;

/// What those who wait for a fill learn of it.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    /// No head yet.
    Waiting,
    /// The response may be shared; its body flows.
    Shared(Arc<Head>, Arc<Flow>),
    /// A stored response was found to be right, or is complete, and what proves that.
    Entry(Arc<Entry>, Proof),
    /// The second tier had it: look again.
    Stored,
    /// The response is for who asked alone: fetch for yourself.
    NotShared,
    /// No response came.
    Failed(Refusal),
}

/// One fetch of one key.
#[derive(Debug)]
pub(crate) struct Fill {
    progress: watch::Sender<Progress>,
    done: watch::Sender<bool>,
    interim: Mutex<Interim>,
}

/// Interim responses that those who join a fill later still get.
const INTERIM_MOST: usize = 8;

/// What the upstream said before its answer, and who wants to hear it.
#[derive(Debug, Default)]
struct Interim {
    said: Vec<(StatusCode, HeaderMap)>,
    listeners: Vec<Arc<Exchange>>,
}

impl Fill {
    pub(crate) fn new() -> Self {
        Self { progress: watch::Sender::new(Progress::Waiting), done: watch::Sender::new(false), interim: Mutex::default() }
    }

    /// Tells a client what interim responses came, and those that will.
    pub(crate) fn informs(&self, client: &Arc<Exchange>) {
        let mut interim = self.interim.lock().unwrap_or_else(PoisonError::into_inner);
        interim.said.iter().for_each(|(status, headers)| client.inform(*status, headers));
        interim.listeners.push(Arc::clone(client));
    }

    /// An interim response came.
    pub(crate) fn inform(&self, status: StatusCode, headers: &HeaderMap) {
        let mut interim = self.interim.lock().unwrap_or_else(PoisonError::into_inner);
        interim.listeners.iter().for_each(|client| client.inform(status, headers));
        if interim.said.len() < INTERIM_MOST {
            interim.said.push((status, headers.clone()));
        }
    }

    /// Tells everybody who waits.
    pub(crate) fn say(&self, progress: Progress) {
        // Nothing comes before an answer that is there.
        self.interim.lock().unwrap_or_else(PoisonError::into_inner).listeners.clear();
        self.progress.send_replace(progress);
    }

    /// Returns what is known once something is.
    pub(crate) async fn outcome(&self) -> Progress {
        let mut progress = self.progress.subscribe();
        let known = progress.wait_for(|progress| !matches!(progress, Progress::Waiting)).await;
        known.map_or(Progress::Failed(Refusal::UpstreamFailed), |known| known.clone())
    }

    async fn done(&self) {
        let _ = self.done.subscribe().wait_for(|done| *done).await;
    }

    /// Returns what is known at the moment.
    pub(crate) fn now(&self) -> Progress {
        self.progress.borrow().clone()
    }
}

/// All running fills.
#[derive(Debug, Default)]
pub(crate) struct Fills(Mutex<FillTable<CacheKey, Fill>>);

impl Fills {
    fn lock(&self) -> MutexGuard<'_, FillTable<CacheKey, Fill>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a request's part; see [`FillTable::take_part`].
    pub(crate) fn take_part(&self, key: &CacheKey, tombstone: u64, may_join: bool) -> Part<Fill> {
        self.lock().take_part(key, tombstone, may_join, Fill::new)
    }

    /// Returns a fill to lead where none is running.
    pub(crate) fn lead_if_idle(&self, key: &CacheKey) -> Option<Arc<Fill>> {
        self.lock().lead_if_idle(key, Fill::new())
    }

    /// A fill starts its fetch.
    pub(crate) fn begin(&self, key: &CacheKey, fill: &Arc<Fill>, begun: Begun) {
        self.lock().begin(key, fill, begun);
    }

    /// Waits until the fill before has ended, so that at most one runs.
    pub(crate) async fn wait_for_turn(&self, before: Option<Arc<Fill>>) {
        if let Some(before) = before {
            before.done().await;
        }
    }

    /// A fill has ended, well or not: the next one runs.
    pub(crate) fn end(&self, key: &CacheKey, fill: &Arc<Fill>) {
        self.lock().end(key, fill);
        if matches!(fill.now(), Progress::Waiting) {
            fill.say(Progress::Failed(Refusal::UpstreamFailed));
        }
        fill.done.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fill_that_ends_without_a_word_has_failed() {
        let key = CacheKey { scheme: super::super::key::Scheme::Http, host: "h".parse().unwrap(), target: "/".parse().unwrap() };
        let fills = Fills::default();
        let Part::Lead(fill, None) = fills.take_part(&key, 0, true) else { panic!("nothing runs") };
        fills.end(&key, &fill);
        assert!(matches!(fill.outcome().await, Progress::Failed(_)));
    }
}
