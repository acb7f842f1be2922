//! A body on its way from one fetch to many readers, each at its own pace.
//!
//! As long as the body may be stored, all of it is kept and any reader may join. Once it is too large
//! for that, what every reader has passed is let go, and the fetch waits for the slowest.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use tokio::sync::watch;

use crate::message::ByteStream;

/// Bytes that wait for the slowest reader of a body that is not kept.
const WINDOW: usize = 256 << 10;

/// How long others wait for a reader that is so far behind.
const LAGGARDS: Duration = Duration::from_secs(1);

/// Bytes in all flows together. Beyond it no large body is kept: slow readers of many large objects must not
/// take the memory that the cache was given (http.md 26).
#[derive(Debug)]
pub(crate) struct Budget {
    most: usize,
    taken: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, taken: AtomicUsize::new(0) }
    }

    /// Takes so many bytes, and tells whether all is still within the bound.
    fn take(&self, bytes: usize) -> bool {
        self.taken.fetch_add(bytes, Ordering::AcqRel) + bytes <= self.most
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// A body between its fetch and its readers.
#[derive(Debug)]
pub(crate) struct Flow {
    budget: Arc<Budget>,
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Inner {
    chunks: VecDeque<Bytes>,
    /// The number of the first chunk that is still here.
    first: usize,
    bytes: usize,
    kept: bool,
    most: usize,
    ended: Option<Result<(), ()>>,
    /// The next chunk of each reader.
    readers: BTreeMap<u64, usize>,
    next_reader: u64,
}

/// Nobody reads, and nothing is kept: the fetch may stop.
#[derive(Debug)]
pub(crate) struct NobodyReads;

impl Flow {
    /// Returns an empty flow that keeps up to `most` bytes, within the budget of all.
    pub(crate) fn new(most: usize, budget: &Arc<Budget>) -> Self {
        let inner =
            Inner { chunks: VecDeque::new(), first: 0, bytes: 0, kept: true, most, ended: None, readers: BTreeMap::new(), next_reader: 0 };
        Self { budget: Arc::clone(budget), inner: Mutex::new(inner), changed: watch::Sender::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the next bytes; waits for slow readers where they are not kept. `too_large` is called once,
    /// when the body turns out to be.
    pub(crate) async fn push(&self, chunk: Bytes, too_large: impl FnOnce()) -> Result<(), NobodyReads> {
        let mut changed = self.changed.subscribe();
        let outgrown = {
            let mut inner = self.lock();
            let fits = self.budget.take(chunk.len());
            inner.bytes += chunk.len();
            inner.chunks.push_back(chunk);
            let outgrown = inner.kept && (inner.bytes > inner.most || (inner.bytes > WINDOW && !fits));
            inner.kept &= !outgrown;
            self.budget.give_back(inner.trim());
            outgrown
        };
        if outgrown {
            too_large();
        }
        self.changed.send_replace(());
        loop {
            changed.mark_unchanged();
            {
                let inner = self.lock();
                if inner.kept || inner.bytes <= WINDOW {
                    return Ok(());
                }
                if inner.readers.is_empty() {
                    return Err(NobodyReads);
                }
            }
            match tokio::time::timeout(LAGGARDS, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(NobodyReads),
                Err(_) => self.let_laggards_go(),
            }
        }
    }

    /// Who stays behind while others wait for more is let go: slow readers must not slow the rest down.
    fn let_laggards_go(&self) {
        {
            let mut inner = self.lock();
            let end = inner.first + inner.chunks.len();
            let slowest = inner.readers.values().copied().min();
            if inner.readers.values().all(|&at| at < end) {
                return;
            }
            inner.readers.retain(|_, at| Some(*at) != slowest);
            self.budget.give_back(inner.trim());
        }
        self.changed.send_replace(());
    }

    /// Says that this was all, or that it broke off.
    pub(crate) fn finish(&self, whole: bool) {
        self.lock().ended = Some(if whole { Ok(()) } else { Err(()) });
        self.changed.send_replace(());
    }

    /// Returns the whole body with its `last` bytes, which nobody has yet; where it was kept.
    pub(crate) fn whole(&self, last: &Bytes) -> Option<Bytes> {
        let inner = self.lock();
        if !inner.kept || inner.bytes + last.len() > inner.most {
            return None;
        }
        // Also where there is one chunk alone: it is a slice of what was read from the connection, and would keep all of that.
        let mut whole = BytesMut::with_capacity(inner.bytes + last.len());
        inner.chunks.iter().chain([last]).for_each(|chunk| whole.extend_from_slice(chunk));
        Some(whole.freeze())
    }

    /// Begins to read, from the start; `None` where the start is gone.
    pub(crate) fn read(self: &Arc<Self>) -> Option<ByteStream> {
        let id = {
            let mut inner = self.lock();
            if inner.first > 0 {
                return None;
            }
            inner.next_reader += 1;
            let id = inner.next_reader;
            inner.readers.insert(id, 0);
            id
        };
        let reader = Reader { flow: Arc::clone(self), id, changed: self.changed.subscribe() };
        Some(Box::pin(stream::unfold(Some(reader), next)))
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let bytes = self.lock().bytes;
        self.budget.give_back(bytes);
    }
}

impl Inner {
    /// Lets go what every reader has passed, and returns how much that was.
    fn trim(&mut self) -> usize {
        if self.kept {
            return 0;
        }
        let before = self.bytes;
        let slowest = self.readers.values().copied().min().unwrap_or(self.first);
        while self.first < slowest
            && let Some(passed) = self.chunks.pop_front()
        {
            self.first += 1;
            self.bytes -= passed.len();
        }
        before - self.bytes
    }
}

struct Reader {
    flow: Arc<Flow>,
    id: u64,
    changed: watch::Receiver<()>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut inner = self.flow.lock();
        inner.readers.remove(&self.id);
        self.flow.budget.give_back(inner.trim());
        drop(inner);
        self.flow.changed.send_replace(());
    }
}

async fn next(reader: Option<Reader>) -> Option<(io::Result<Bytes>, Option<Reader>)> {
    let mut reader = reader?;
    loop {
        reader.changed.mark_unchanged();
        let (chunk, ended, trimmed) = {
            let mut inner = reader.flow.lock();
            let Some(at) = inner.readers.get(&reader.id).copied() else {
                return Some((Err(io::Error::new(io::ErrorKind::TimedOut, "too slow for the others who read it")), None));
            };
            let chunk = at.checked_sub(inner.first).and_then(|at| inner.chunks.get(at)).cloned();
            if chunk.is_some() {
                inner.readers.insert(reader.id, at + 1);
            }
            let trimmed = !inner.kept && chunk.is_some();
            reader.flow.budget.give_back(inner.trim());
            (chunk, inner.ended, trimmed)
        };
        if trimmed {
            reader.flow.changed.send_replace(());
        }
        match (chunk, ended) {
            (Some(chunk), _) => return Some((Ok(chunk), Some(reader))),
            (None, Some(Ok(()))) => return None,
            (None, Some(Err(()))) => return Some((Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the upstream broke off")), None)),
            (None, None) => {}
        }
        if reader.changed.changed().await.is_err() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt as _;

    fn ample() -> Arc<Budget> {
        Arc::new(Budget::new(usize::MAX))
    }

    fn text(chunk: Option<io::Result<Bytes>>) -> String {
        String::from_utf8(chunk.unwrap().unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn readers_get_bytes_as_they_arrive_and_late_ones_from_the_start() {
        let flow = Arc::new(Flow::new(100, &ample()));
        let mut early = flow.read().unwrap();
        flow.push("a".into(), || {}).await.unwrap();
        assert_eq!(text(early.next().await), "a");
        flow.push("b".into(), || {}).await.unwrap();
        let late = flow.read().unwrap();
        flow.finish(true);
        assert_eq!(text(early.next().await), "b");
        assert!(early.next().await.is_none());
        let all: Vec<_> = late.map(|chunk| chunk.unwrap()).collect().await;
        assert_eq!(all.concat(), b"ab");
        assert_eq!(flow.whole(&Bytes::new()).unwrap(), "ab");
        assert_eq!(flow.whole(&"c".into()).unwrap(), "abc");
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_to_keep_waits_for_its_slowest_reader() {
        let flow = Arc::new(Flow::new(10, &ample()));
        let mut reader = flow.read().unwrap();
        flow.push(Bytes::from(vec![1; WINDOW]), || {}).await.unwrap();
        assert!(flow.whole(&Bytes::new()).is_none());
        let pushing = tokio::spawn({
            let flow = Arc::clone(&flow);
            async move { flow.push(Bytes::from(vec![2; WINDOW]), || {}).await.is_ok() }
        });
        assert_eq!(reader.next().await.unwrap().unwrap().len(), WINDOW);
        assert!(pushing.await.unwrap());
        assert!(flow.read().is_none(), "the start is gone");
        drop(reader);
        assert!(flow.push(Bytes::from(vec![3; WINDOW]), || {}).await.is_err(), "nobody reads");
    }

    #[tokio::test]
    async fn rule_26_beyond_the_budget_of_all_no_large_body_is_kept() {
        let budget = Arc::new(Budget::new(WINDOW));
        let (first, second, small) =
            (Arc::new(Flow::new(2 * WINDOW, &budget)), Arc::new(Flow::new(2 * WINDOW, &budget)), Arc::new(Flow::new(2 * WINDOW, &budget)));
        let readers = (first.read().unwrap(), second.read().unwrap(), small.read().unwrap());
        first.push(Bytes::from(vec![1; WINDOW]), || {}).await.unwrap();
        small.push(Bytes::from(vec![1; 100]), || {}).await.unwrap();
        second.push(Bytes::from(vec![1; WINDOW]), || {}).await.unwrap();
        let mut told = false;
        let _ = tokio::time::timeout(std::time::Duration::ZERO, second.push(Bytes::from_static(b"1"), || told = true)).await;
        let is_kept = |flow: &Flow| flow.whole(&Bytes::new()).is_some();
        assert!(told && is_kept(&first) && is_kept(&small) && !is_kept(&second));
        drop((readers, first, second, small));
        assert_eq!(budget.taken.load(Ordering::Acquire), 0, "what is gone takes nothing");
    }

    #[tokio::test]
    async fn rule_26_who_stays_behind_is_let_go_when_others_wait() {
        let flow = Arc::new(Flow::new(10, &ample()));
        let (mut quick, mut slow) = (flow.read().unwrap(), flow.read().unwrap());
        flow.push(Bytes::from(vec![1; WINDOW]), || {}).await.unwrap();
        assert_eq!(quick.next().await.unwrap().unwrap().len(), WINDOW);
        let pushing = tokio::spawn({
            let flow = Arc::clone(&flow);
            async move { flow.push(Bytes::from_static(b"more"), || {}).await.is_ok() }
        });
        assert_eq!(text(quick.next().await), "more");
        assert!(pushing.await.unwrap() && slow.next().await.unwrap().is_err());
        flow.finish(true);
        assert!(quick.next().await.is_none());
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_ends_in_an_error() {
        let flow = Arc::new(Flow::new(100, &ample()));
        let mut reader = flow.read().unwrap();
        flow.push("a".into(), || {}).await.unwrap();
        flow.finish(false);
        assert_eq!(text(reader.next().await), "a");
        assert!(reader.next().await.unwrap().is_err());
        assert!(reader.next().await.is_none());
    }
}
