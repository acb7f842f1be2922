//! The journal: an append-only, totally ordered log of events, durable before anybody hears of them.
//!
//! One writer thread drains a bounded channel into one transaction (group commit), waits for the
//! disk, and only then folds the events into the state and tells the feeds. Appends may be
//! conditional on the last seq of their streams, so that two deciders can't both win.

mod fit;
mod longest;
mod recent;
mod store;
mod writer;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use wire::{Chain, Class, Epoch, Fact, Position, State};

pub use fit::{Fit, fit};
use recent::Recent;
use store::Store;

use crate::lease_book::Remembered;

/// Appends that wait for the writer. Beyond it callers wait for room.
const QUEUE: usize = 4096;

/// An event as the journal keeps it.
#[derive(Debug)]
pub(crate) struct StoredEvent {
    pub(crate) seq: u64,
    /// The chain behind this event.
    pub(crate) chain: Chain,
    pub(crate) class: Class,
    /// The event's exact JSON, which the chain is made of.
    pub(crate) json: Box<str>,
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
    recent: Mutex<Recent>,
    /// Who followed before this origin was started, until the lease book has them.
    followers: Mutex<Vec<Remembered>>,
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
        let followers = read_followers(&store, folder)?;
        let head = watch::Sender::new(state.position);
        let recent = Mutex::default();
        let shared = Arc::new(Shared { store, state: RwLock::new(state), recent, followers: Mutex::new(followers), head });
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

    /// Stores the longest lease that may still run, before it is granted (L6): beside the journal, and in it.
    pub(crate) async fn store_longest_lease(&self, lease: Duration) -> Result<(), AppendError> {
        self.ask(|reply| Job::LongestLease(lease, reply)).await
    }

    /// Stores who follows, before a lease is given to somebody new.
    pub(crate) async fn store_followers(&self, followers: &[Remembered]) -> Result<(), AppendError> {
        let json = serde_json::to_vec(followers).map_err(|error| AppendError::Storage(error.to_string()))?;
        self.ask(|reply| Job::Followers(json, reply)).await
    }

    /// Takes out who followed before this origin was started.
    pub(crate) fn take_followers(&self) -> Vec<Remembered> {
        std::mem::take(&mut *self.shared.followers.lock().unwrap_or_else(PoisonError::into_inner))
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

    /// Returns the longest lease that may run by what was stored; `None` where that is not known.
    pub(crate) fn longest_lease(&self) -> Option<Duration> {
        self.shared.store.longest_lease()
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
        let recent = self.recent().starting_at(seq, 1).first().map(|event| event.chain);
        if recent.is_some() {
            return recent;
        }
        self.shared.store.chain_at(seq).ok().flatten()
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns up to `most` events behind `seq`, in order and without gaps; fewer where they are large.
    ///
    /// # Errors
    /// Where the file can't be read.
    pub(crate) async fn read_after(&self, seq: u64, most: usize) -> Result<Vec<Arc<StoredEvent>>, AppendError> {
        let recent = self.recent().starting_at(seq + 1, most);
        if !recent.is_empty() || seq >= self.head().seq {
            return Ok(recent);
        }
        let shared = Arc::clone(&self.shared);
        let read = tokio::task::spawn_blocking(move || shared.store.read_after(seq, most)).await;
        read.map_err(|_| AppendError::Stopped)?.map_err(|error| AppendError::Storage(error.to_string()))
    }

    /// Returns when `seq` was appended, as far as this process knows (CLOCK_BOOTTIME).
    pub(crate) fn appended_at(&self, seq: u64) -> Option<Duration> {
        if seq > self.head().seq {
            return None;
        }
        self.recent().appended_at(seq)
    }
}

/// Reads who followed, row by row: a row that another version wrote must not make the others unknown. A list that can't be
/// read is no empty list, since receipts would not know of fenced edges that may go on serving (P7).
fn read_followers(store: &Store, folder: &Path) -> Result<Vec<Remembered>, OpenError> {
    let Some(json) = store.followers().map_err(|error| OpenError::of(folder, &error))? else { return Ok(Vec::new()) };
    let path = folder.display().to_string();
    let damaged = |error: serde_json::Error| OpenError::Corrupt { path, why: format!("its followers: {error}") };
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&json).map_err(damaged)?;
    let read = |row: serde_json::Value| match serde_json::from_value(row) {
        Ok(follower) => Some(follower),
        Err(error) => {
            tracing::error!(%error, "a follower in the journal's list is not understood: receipts don't know of it until it acknowledges");
            None
        }
    };
    Ok(rows.into_iter().filter_map(read).collect())
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

    #[tokio::test]
    async fn the_longest_lease_outlives_a_restored_journal_and_is_not_known_without_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (file, beside) = (folder.path().join("journal.redb"), folder.path().join("longest_lease_ms"));
        let [short, long] = [2, 5].map(Duration::from_secs);
        let journal = Journal::open(folder.path(), false).unwrap();
        assert_eq!(journal.longest_lease(), Some(Duration::ZERO), "nobody had a lease of a new journal");
        journal.store_longest_lease(short).await.unwrap();
        journal.close().await;
        let backup = std::fs::read(&file).unwrap();
        let journal = reopen(folder.path()).await;
        journal.store_longest_lease(long).await.unwrap();
        journal.close().await;

        std::fs::write(&file, &backup).unwrap();
        let journal = reopen(folder.path()).await;
        assert_eq!(journal.longest_lease(), Some(long));
        journal.close().await;

        for damage in [Some("soon"), None] {
            damage.map_or_else(|| std::fs::remove_file(&beside), |text| std::fs::write(&beside, text)).unwrap();
            let journal = reopen(folder.path()).await;
            assert_eq!(journal.longest_lease(), None);
            journal.close().await;
        }
    }

    #[tokio::test]
    async fn a_follower_that_is_not_understood_does_not_hide_the_others_and_a_damaged_list_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let rows = r#"[{"role":"edge","name":"b"},{"role":"edge","name":"a","region":"fra","applied":1}]"#;
        let store = async |journal: Journal, rows: &str| {
            journal.ask(|reply| Job::Followers(rows.as_bytes().to_vec(), reply)).await.unwrap();
            journal.close().await;
        };
        store(Journal::open(folder.path(), false).unwrap(), rows).await;
        let journal = reopen(folder.path()).await;
        assert_eq!((journal.take_followers().len(), journal.take_followers().len()), (1, 0));
        store(journal, "[{").await;
        assert!(matches!(Journal::open(folder.path(), false), Err(OpenError::Corrupt { .. })));
    }
}
