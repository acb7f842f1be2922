//! The table of running fills: at most one runs and one waits per key (P4, http.md 25).
//!
//! Who may not join the running fill, since it must not rely on what was fetched before it came,
//! collapses into the next one, which starts after its arrival.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use http::{HeaderMap, StatusCode};
use tokio::sync::watch;

use super::entry::{Entry, Head};
use super::flow::Flow;
use super::key::CacheKey;
use crate::door::Exchange;
use crate::refuse::Refusal;

/// What those who wait for a fill learn of it.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    /// No head yet.
    Waiting,
    /// The response may be shared; its body flows.
    Shared(Arc<Head>, Arc<Flow>),
    /// A stored response was found to be right, or is complete.
    Entry(Arc<Entry>),
    /// The response is for who asked alone: fetch for yourself.
    NotShared,
    /// No response came.
    Failed(Refusal),
}

/// What was true when a fetch started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// The seq that its edge had applied (P4).
    pub(crate) filled_at: u64,
    /// The generation of its key (P8).
    pub(crate) tombstone: u64,
}

/// One fetch of one key.
#[derive(Debug)]
pub(crate) struct Fill {
    /// What was true when the fetch started; set when it starts.
    pub(crate) begun: OnceLock<Begun>,
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
        Self {
            begun: OnceLock::new(),
            progress: watch::Sender::new(Progress::Waiting),
            done: watch::Sender::new(false),
            interim: Mutex::default(),
        }
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

/// What a request has to do with a key's fills.
#[derive(Debug)]
pub(crate) enum Part {
    /// Run this fill. Where there is one before it, wait for its end first.
    Lead(Arc<Fill>, Option<Arc<Fill>>),
    /// Wait for this one, which had started.
    Join(Arc<Fill>),
    /// Wait for this one, which had not: whatever it brings was fetched after this request came.
    Await(Arc<Fill>),
}

#[derive(Debug)]
struct Slot {
    running: Arc<Fill>,
    next: Option<Arc<Fill>>,
}

/// All running fills.
#[derive(Debug, Default)]
pub(crate) struct Fills(Mutex<HashMap<CacheKey, Slot>>);

impl Fills {
    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a request's part. `may_join` decides whether it may rely on a fetch that has started; one whose key
    /// was made invalid since, so that its `tombstone` is another, is for nobody who comes: they don't wait for it.
    pub(crate) fn take_part(&self, key: &CacheKey, tombstone: u64, may_join: impl FnOnce(&Begun) -> bool) -> Part {
        let mut slots = self.lock();
        let Some(slot) = slots.get_mut(key) else {
            let running = Arc::new(Fill::new());
            slots.insert(key.clone(), Slot { running: Arc::clone(&running), next: None });
            return Part::Lead(running, None);
        };
        let running = Arc::clone(&slot.running);
        match running.begun.get() {
            None => return Part::Await(running),
            Some(begun) if begun.tombstone != tombstone => {
                let anew = Arc::new(Fill::new());
                *slot = Slot { running: Arc::clone(&anew), next: None };
                return Part::Lead(anew, None);
            }
            Some(begun) if may_join(begun) => return Part::Join(running),
            Some(_) => {}
        }
        if let Some(next) = &slot.next {
            return Part::Await(Arc::clone(next));
        }
        let next = Arc::new(Fill::new());
        slot.next = Some(Arc::clone(&next));
        Part::Lead(next, Some(Arc::clone(&slot.running)))
    }

    /// Returns a fill to lead where none is running; a refresh in the background has no need to wait.
    pub(crate) fn lead_if_idle(&self, key: &CacheKey) -> Option<Arc<Fill>> {
        let mut slots = self.lock();
        if slots.contains_key(key) {
            return None;
        }
        let running = Arc::new(Fill::new());
        slots.insert(key.clone(), Slot { running: Arc::clone(&running), next: None });
        Some(running)
    }

    /// Waits until the fill before has ended, so that at most one runs.
    pub(crate) async fn wait_for_turn(&self, before: Option<Arc<Fill>>) {
        if let Some(before) = before {
            before.done().await;
        }
    }

    /// A fill has ended, well or not: the next one runs.
    pub(crate) fn end(&self, key: &CacheKey, fill: &Arc<Fill>) {
        {
            let mut slots = self.lock();
            if let Some(slot) = slots.get_mut(key)
                && Arc::ptr_eq(&slot.running, fill)
            {
                match slot.next.take() {
                    Some(next) => slot.running = next,
                    None => {
                        slots.remove(key);
                    }
                }
            }
        }
        if matches!(fill.now(), Progress::Waiting) {
            fill.say(Progress::Failed(Refusal::UpstreamFailed));
        }
        fill.done.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> CacheKey {
        CacheKey { scheme: super::super::key::Scheme::Http, host: "h".parse().unwrap(), target: "/".parse().unwrap() }
    }

    fn lead(part: Part) -> (Arc<Fill>, Option<Arc<Fill>>) {
        match part {
            Part::Lead(fill, before) => (fill, before),
            Part::Join(_) | Part::Await(_) => panic!("expected to lead"),
        }
    }

    fn join(part: Part) -> Arc<Fill> {
        match part {
            Part::Join(fill) => fill,
            other => panic!("expected to join: {other:?}"),
        }
    }

    fn wait(part: Part) -> Arc<Fill> {
        match part {
            Part::Await(fill) => fill,
            other => panic!("expected to wait: {other:?}"),
        }
    }

    #[test]
    fn p4_who_may_not_join_collapses_into_the_next_fetch() {
        let fills = Fills::default();
        let (running, none) = lead(fills.take_part(&key(), 0, |_| true));
        assert!(none.is_none());
        assert!(Arc::ptr_eq(&wait(fills.take_part(&key(), 0, |_| false)), &running), "it has not started");
        running.begun.set(Begun { filled_at: 7, tombstone: 0 }).unwrap();
        assert!(Arc::ptr_eq(&join(fills.take_part(&key(), 0, |begun| begun.filled_at == 7)), &running));
        let (next, before) = lead(fills.take_part(&key(), 0, |_| false));
        assert!(Arc::ptr_eq(&before.unwrap(), &running));
        assert!(Arc::ptr_eq(&wait(fills.take_part(&key(), 0, |_| false)), &next), "at most one waits");
        fills.end(&key(), &running);
        assert!(Arc::ptr_eq(&wait(fills.take_part(&key(), 0, |_| true)), &next), "the next one has its turn now");
        fills.end(&key(), &next);
        lead(fills.take_part(&key(), 0, |_| true));
    }

    #[test]
    fn p8_nobody_waits_for_a_fetch_of_what_was_made_invalid() {
        let fills = Fills::default();
        let (old, _) = lead(fills.take_part(&key(), 0, |_| true));
        old.begun.set(Begun { filled_at: 7, tombstone: 0 }).unwrap();
        let (anew, before) = lead(fills.take_part(&key(), 1, |_| true));
        assert!(before.is_none());
        fills.end(&key(), &old);
        assert!(Arc::ptr_eq(&wait(fills.take_part(&key(), 1, |_| true)), &anew), "the end of the old one changes nothing");
    }

    #[tokio::test]
    async fn a_fill_that_ends_without_a_word_has_failed() {
        let fills = Fills::default();
        let (fill, _) = lead(fills.take_part(&key(), 0, |_| true));
        fills.end(&key(), &fill);
        assert!(matches!(fill.outcome().await, Progress::Failed(_)));
    }
}
