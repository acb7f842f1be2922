//! The journal: an append-only, totally ordered log of events, durable before anybody hears of them.
//!
//! One writer thread drains a bounded channel into one transaction (group commit), waits for the
//! disk, and only then folds the events into the state and tells the feeds. Appends may be
//! conditional on the last seq of their streams, so that two deciders can't both win.

mod fit;
mod store;
mod writer;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use wire::{Chain, Class, Epoch, Fact, Position, State};

pub use fit::{Fit, fit};
use store::Store;

use crate::lease_book::Remembered;

/// Appends that wait for the writer. Beyond it callers wait for room.
const QUEUE: usize = 4096;

/// Events that are kept in memory for the feeds; older ones are read from the file.
const RECENT: usize = 16_384;

/// An event as the journal keeps it.
#[derive(Debug)]
pub(crate) struct StoredEvent {
    pub(crate) seq: u64,
    /// The chain behind this event.
    pub(crate) chain: Chain,
    pub(crate) class: Class,
    /// The event's exact JSON, which the chain is made of.
    pub(crate) json: Box<str>,
    /// When this origin appended it, or when it started and found it (CLOCK_BOOTTIME).
    pub(crate) appended_at: Duration,
}

/// What somebody wants to append.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) actor: String,
    pub(crate) facts: Vec<Fact>,
    /// Streams whose last seq must still be this one (0 for none).
    pub(crate) if_unchanged: Vec<(String, u64)>,
}

/// Why an append was refused; nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("`{stream}` was changed by somebody else in the meantime")]
    Conflict { stream: String },
    #[error("the journal could not be written: {0}")]
    Storage(String),
    #[error("the origin is stopping")]
    Stopped,
}

/// Why a journal can't be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("failed to open the journal {path}: another origin is running on it")]
    Busy { path: String },
    #[error("failed to open the journal {path}: {why}")]
    Store { path: String, why: String },
    #[error("the journal {path} is damaged: {why}; {}", WAY_OUT)]
    Corrupt { path: String, why: String },
    #[error("the journal is damaged at event {seq}: {why}; {}", WAY_OUT)]
    Damaged { seq: u64, why: String },
}

/// What helps when a journal is damaged.
const WAY_OUT: &str = "restore a backup of that file and start with --new-epoch, by which followers drop what they hold and load \
                       the journal as it was then (what was published, purged or applied since the backup must be done again)";

impl OpenError {
    /// Tells what redb's error means for whoever starts an origin.
    fn of(path: &Path, error: &redb::Error) -> Self {
        let (path, why) = (path.display().to_string(), error.to_string());
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::Busy { path },
            redb::Error::Corrupted(_) | redb::Error::RepairAborted => Self::Corrupt { path, why },
            redb::Error::Io(io) if matches!(io.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => Self::Corrupt { path, why },
            _ => Self::Store { path, why },
        }
    }
}

enum Job {
    Stop(oneshot::Sender<Result<(), AppendError>>),
    Append(Append, oneshot::Sender<Result<Position, AppendError>>),
    Followers(Vec<u8>, oneshot::Sender<Result<(), AppendError>>),
    LongestLease(Duration, oneshot::Sender<Result<(), AppendError>>),
    NewEpoch { only_if: Epoch, reply: oneshot::Sender<Result<(), AppendError>> },
}

/// A handle on the journal. Clones share it; the writer ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    state: RwLock<State>,
    recent: Mutex<VecDeque<Arc<StoredEvent>>>,
    head: watch::Sender<Position>,
}

impl Journal {
    /// Opens or founds the journal in `folder`, and starts its writer.
    ///
    /// # Errors
    /// Where the file can't be opened or its events don't fit their chain.
    pub(crate) fn open(folder: &Path, new_epoch: bool) -> Result<Self, OpenError> {
        let (store, mut state) = Store::open(&folder.join("journal.redb"))?;
        if new_epoch {
            store.begin_epoch(&mut state).map_err(|error| OpenError::of(folder, &error))?;
        }
        let head = watch::Sender::new(state.position);
        let shared = Arc::new(Shared { store, state: RwLock::new(state), recent: Mutex::default(), head });
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = writer::Writer::new(Arc::clone(&shared));
        let spawned = std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run(queue));
        spawned.map_err(|error| OpenError::Store { path: folder.display().to_string(), why: error.to_string() })?;
        Ok(Self { jobs, shared })
    }

    /// Appends facts and returns the place of the last one once they are on the disk.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing is kept then.
    pub(crate) async fn append(&self, append: Append) -> Result<Position, AppendError> {
        self.ask(|reply| Job::Append(append, reply)).await
    }

    /// Stores the longest lease that may still run, before it is granted (L6).
    pub(crate) async fn store_longest_lease(&self, lease: Duration) -> Result<(), AppendError> {
        self.ask(|reply| Job::LongestLease(lease, reply)).await
    }

    /// Stores who follows, before a lease is given to somebody new.
    pub(crate) async fn store_followers(&self, followers: &[Remembered]) -> Result<(), AppendError> {
        let json = serde_json::to_vec(followers).map_err(|error| AppendError::Storage(error.to_string()))?;
        self.ask(|reply| Job::Followers(json, reply)).await
    }

    /// Returns who followed before this origin was started.
    pub(crate) fn followers(&self) -> Vec<Remembered> {
        let json = self.shared.store.followers().ok().flatten();
        json.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
    }

    /// Begins a new life of the journal, unless somebody already ended the life `only_if`.
    pub(crate) async fn begin_epoch(&self, only_if: Epoch) -> Result<(), AppendError> {
        self.ask(|reply| Job::NewEpoch { only_if, reply }).await
    }

    /// Lets go of the file: what is appended from now on is refused.
    pub(crate) async fn close(&self) {
        // A writer that is gone already has let go of it.
        let _ = self.ask(Job::Stop).await;
    }

    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<Result<T, AppendError>>) -> Job) -> Result<T, AppendError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| AppendError::Stopped)?;
        answer.await.map_err(|_| AppendError::Stopped)?
    }

    /// Returns the fold of all durable events. Hold it briefly: the writer waits.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the place of the last durable event.
    pub(crate) fn head(&self) -> Position {
        *self.shared.head.borrow()
    }

    /// Tells of each new head.
    pub(crate) fn watch_head(&self) -> watch::Receiver<Position> {
        self.shared.head.subscribe()
    }

    /// Returns the longest lease that was ever stored; where it can't be read, the longest that there may be.
    pub(crate) fn longest_lease(&self) -> Duration {
        self.shared.store.longest_lease().unwrap_or(config::LONGEST_LEASE)
    }

    /// Decides what becomes of a position that a follower or a client shows.
    pub(crate) fn fit(&self, position: &Position) -> Fit {
        fit(&self.head(), position, |seq| self.chain_at(seq))
    }

    fn chain_at(&self, seq: u64) -> Option<Chain> {
        let head = self.head();
        if seq == head.seq {
            return Some(head.chain);
        }
        if let Some(event) = self.recent_from(seq, 1).first().filter(|event| event.seq == seq) {
            return Some(event.chain);
        }
        self.shared.store.chain_at(seq).ok().flatten()
    }

    fn recent_from(&self, seq: u64, most: usize) -> Vec<Arc<StoredEvent>> {
        let recent = self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let first = recent.front().map_or(u64::MAX, |event| event.seq);
        let skip = seq.checked_sub(first).and_then(|skip| usize::try_from(skip).ok());
        skip.map_or_else(Vec::new, |skip| recent.iter().skip(skip).take(most).cloned().collect())
    }

    /// Returns up to `most` events behind `seq`, in order and without gaps.
    ///
    /// # Errors
    /// Where the file can't be read.
    pub(crate) async fn read_after(&self, seq: u64, most: usize) -> Result<Vec<Arc<StoredEvent>>, AppendError> {
        let recent = self.recent_from(seq + 1, most);
        if !recent.is_empty() || seq >= self.head().seq {
            return Ok(recent);
        }
        let shared = Arc::clone(&self.shared);
        let read = tokio::task::spawn_blocking(move || shared.store.read_after(seq, most)).await;
        read.map_err(|_| AppendError::Stopped)?.map_err(|error| AppendError::Storage(error.to_string()))
    }

    /// Returns when `seq` was appended, as far as this process knows (CLOCK_BOOTTIME).
    pub(crate) fn appended_at(&self, seq: u64) -> Option<Duration> {
        self.recent_from(seq, 1).first().filter(|event| event.seq == seq).map(|event| event.appended_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Mode, Owner, Scope};

    fn purge(tag: &str) -> Append {
        let fact = Fact::purged(Owner::default(), Mode::Hard, vec![Scope::Tag(tag.parse().unwrap())]);
        Append { actor: "test".to_owned(), facts: vec![fact], if_unchanged: vec![] }
    }

    fn token(id: &str, tokens: u64) -> Append {
        let fact = Fact::TokenRevoked { id: id.to_owned() };
        Append { actor: "test".to_owned(), facts: vec![fact], if_unchanged: vec![("tokens".to_owned(), tokens)] }
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path(), false).unwrap();
        for n in 0..50 {
            journal.append(purge(&format!("t{n}"))).await.unwrap();
        }
        let head = journal.head();
        drop(journal);
        let journal = reopen(folder.path()).await;
        assert_eq!((journal.head(), journal.state().position, journal.state().purges.newest()), (head, head, 50));
        let events = journal.read_after(48, 10).await.unwrap();
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [49, 50]);
        assert_eq!(journal.fit(&head), Fit::Here);
    }

    /// The writer thread of the journal before lets go of the file a moment after the handle is dropped.
    async fn reopen(folder: &Path) -> Journal {
        loop {
            match Journal::open(folder, false) {
                Ok(journal) => return journal,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    #[tokio::test]
    async fn a_journal_that_is_open_and_one_that_is_damaged_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path(), false).unwrap();
        assert!(matches!(Journal::open(folder.path(), false), Err(OpenError::Busy { .. })));
        journal.close().await;
        std::fs::write(folder.path().join("journal.redb"), vec![7; 8192]).unwrap();
        let said = Journal::open(folder.path(), false).unwrap_err().to_string();
        assert!(said.contains("backup") && said.contains("--new-epoch") && !said.contains("another origin"), "{said}");
    }

    #[tokio::test]
    async fn of_two_appends_on_one_stream_only_one_wins_even_in_one_batch() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path(), false).unwrap();
        let (one, two) = tokio::join!(journal.append(token("a", 0)), journal.append(token("b", 0)));
        assert!(one.is_ok() != two.is_ok());
        assert!(matches!(journal.append(token("c", 0)).await, Err(AppendError::Conflict { .. })));
        journal.append(token("c", 1)).await.unwrap();
        assert_eq!(journal.head().seq, 2);
    }

    #[tokio::test]
    async fn a_position_of_another_history_does_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path(), false).unwrap();
        let first = journal.append(purge("a")).await.unwrap();
        journal.append(purge("b")).await.unwrap();
        assert_eq!(journal.fit(&first), Fit::Here);
        assert_eq!(journal.fit(&Position { chain: Chain::START, ..first }), Fit::Lost);
        assert_eq!(journal.fit(&Position { seq: 9, ..first }), Fit::Lost);
        journal.begin_epoch(first.epoch).await.unwrap();
        assert_eq!(journal.fit(&first), Fit::OtherEpoch);
        assert_eq!(journal.state().purges.newest(), 0, "followers drop all they hold, so nothing is left to purge");
        let after = journal.append(purge("c")).await.unwrap();
        assert_eq!(after.seq, 3);
    }

    #[tokio::test]
    async fn a_long_journal_is_cut_behind_its_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path(), false).unwrap();
        let start = journal.head();
        let first = journal.append(purge("a")).await.unwrap();
        let many = store::SNAPSHOT_EVERY + store::KEPT + 10;
        let facts = purge("b").facts;
        let facts = facts.iter().cycle().take(usize::try_from(many).unwrap()).cloned().collect();
        journal.append(Append { actor: "test".to_owned(), facts, if_unchanged: vec![] }).await.unwrap();
        journal.append(purge("c")).await.unwrap();
        assert_eq!((journal.fit(&first), journal.fit(&start)), (Fit::Cut, Fit::Cut));
        let head = journal.head();
        drop(journal);
        assert_eq!(reopen(folder.path()).await.state().position, head);
    }
}
