//! The journal: an append-only, totally ordered log of events, durable before anybody hears of them.
//!
//! One writer drains a bounded channel into one batch (group commit), waits until the engine has it for good, and only then
//! folds the events into the state and tells the feeds. Appends may be conditional on the last seq of their streams, so that
//! two deciders can't both win. The engine is a file, or a Redis that any number of origins append to.

mod fit;
mod longest;
mod recent;
mod batch;
mod shown;
mod store;
mod writer;
mod shared;
mod transfer;
#[cfg(test)]
mod suite;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLockReadGuard};
use std::time::Duration;

use engine::Redis;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use wire::{Chain, Class, Epoch, Fact, Position, PurgeTable, State};

pub use fit::{Fit, fit};
pub(crate) use longest::LongestLease;
use shared::Shelf;
pub use shared::{Known, Step, Told, Word, judge};
use shown::Shown;
use store::Store;
pub(crate) use transfer::{export, import};

use crate::lease_book::Remembered;

/// Appends that wait for the writer. Beyond it callers wait for room.
const QUEUE: usize = 4096;

/// Events behind the snapshot after which the next one is written.
const SNAPSHOT_EVERY: u64 = 20_000;

/// Events before the snapshot that stay, for followers that were away a while and for the audit.
const KEPT: u64 = 100_000;

/// How long an append may take with a shared engine, all its attempts together: below what callers wait.
const PATIENCE: Duration = Duration::from_secs(8);

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

/// Why an append came to nothing. Unless it says otherwise, nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("`{stream}` was changed by somebody else in the meantime")]
    Conflict { stream: String },
    #[error("the journal could not be written: {0}")]
    Storage(String),
    #[error("the journal's engine can't be used now, and nothing was written: {0}")]
    Away(String),
    #[error("the journal's engine did not tell what became of it, so that it may have been appended: {0}")]
    Unknown(String),
    #[error("it was written, but not replicated in time: it comes into force once it is")]
    Unreplicated,
    #[error("the journal holds events already; an import goes into an empty one")]
    NotEmpty,
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
    #[error("failed to open the journal in {redis}: {why}")]
    Shared { redis: String, why: String },
    #[error("the journal in {redis} is damaged at event {seq}: {why}; {}", SHARED_WAY_OUT)]
    SharedDamaged { redis: String, seq: u64, why: String },
}

/// What helps when a journal is damaged.
const WAY_OUT: &str = "restore a backup of that file and start with --new-epoch, by which followers drop what they hold and load \
                       the journal as it was then (what was published, purged or applied since the backup must be done again)";

/// What helps when a journal in a Redis is damaged.
const SHARED_WAY_OUT: &str = "restore a backup of that Redis and start with --new-epoch, or delete the journal's keys there \
                              (`{NETWORK}:atoll-journal:1:*`) and import an export of it";

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

type Reply<T> = oneshot::Sender<Result<T, AppendError>>;

enum Job {
    Stop(Reply<()>),
    Append { append: Append, reply: Reply<Position>, until: Instant },
    Followers(Vec<u8>, Reply<()>),
    LongestLease(Duration, Reply<()>),
    NewEpoch { only_if: Epoch, reply: Reply<()> },
    Import(Box<State>, Reply<()>),
    CatchUp(Reply<()>),
}

/// Where old events are read.
#[derive(Clone, Debug)]
enum Engine {
    File(Arc<Store>),
    Shared(Arc<Shelf>),
}

/// A handle on the journal. Clones share it; the writer ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    jobs: mpsc::Sender<Job>,
    shown: Arc<Shown>,
    engine: Engine,
    /// Who followed before this origin was started, until the lease book has them.
    followers: Arc<Mutex<Vec<Remembered>>>,
}

impl Journal {
    /// Opens or founds the journal in `folder`, and starts its writer.
    ///
    /// # Errors
    /// Where the file can't be opened or its events don't fit their chain.
    pub(crate) fn open(folder: &Path, new_epoch: bool) -> Result<Self, OpenError> {
        let (store, mut state) = Store::open(&folder.join("journal.redb"))?;
        if new_epoch {
            state = next_life(state);
            store.begin_epoch(&state).map_err(|error| OpenError::of(folder, &error))?;
        }
        let followers = Arc::new(Mutex::new(read_followers(&store, folder)?));
        let (store, shown) = (Arc::new(store), Arc::new(Shown::new(state, String::new())));
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = writer::Writer::new(Arc::clone(&store), Arc::clone(&shown));
        let spawned = std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run(queue));
        spawned.map_err(|error| OpenError::Store { path: folder.display().to_string(), why: error.to_string() })?;
        Ok(Self { jobs, shown, engine: Engine::File(store), followers })
    }

    /// Opens or founds the journal of a network in a Redis, and starts its writer. The handle should be the journal's own: a
    /// WAIT holds up all that comes behind it on the same connection. `replicas`: how many of them must have each event
    /// before it is shown.
    ///
    /// # Errors
    /// Where Redis can't be reached, its events don't fit their chain, or replicas are missing.
    pub(crate) async fn open_shared(redis: Redis, network: &str, replicas: u64, new_epoch: bool) -> Result<Self, OpenError> {
        let shelf = Arc::new(Shelf::new(redis, network, replicas));
        let opened = shared::open(&shelf, new_epoch).await?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let shown = shared::start(Arc::clone(&shelf), opened, queue);
        Ok(Self { jobs, shown, engine: Engine::Shared(shelf), followers: Arc::default() })
    }

    /// Appends facts and returns the place of the last one once they are durable.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub(crate) async fn append(&self, append: Append) -> Result<Position, AppendError> {
        let until = Instant::now() + PATIENCE;
        self.ask(|reply| Job::Append { append, reply, until }).await
    }

    /// Tells whether there is somebody who writes it.
    pub(crate) fn is_written(&self) -> bool {
        !self.jobs.is_closed()
    }

    /// Waits until all is shown that the engine holds by now: what another origin appended before this was called.
    pub(crate) async fn catch_up(&self) -> Result<(), AppendError> {
        let late = |_| Err(AppendError::Away("it does not answer".to_owned()));
        tokio::time::timeout(PATIENCE, self.ask(Job::CatchUp)).await.unwrap_or_else(late)
    }

    /// Returns for how long nobody knows whether what is shown here is all that the engine holds; of a file it always is.
    pub(crate) fn unconfirmed_for(&self, now: Duration) -> Duration {
        self.shown.unconfirmed_for(now)
    }

    /// Stores the longest lease that may still run, before it is granted (L6): beside the journal, and in it. With a shared
    /// engine that is the shared lease book's.
    pub(crate) async fn store_longest_lease(&self, lease: Duration) -> Result<(), AppendError> {
        self.ask(|reply| Job::LongestLease(lease, reply)).await
    }

    /// Stores who follows, before a lease is given to somebody new. With a shared engine that is the shared lease book's.
    pub(crate) async fn store_followers(&self, followers: &[Remembered]) -> Result<(), AppendError> {
        let json = serde_json::to_vec(followers).map_err(|error| AppendError::Storage(error.to_string()))?;
        self.ask(|reply| Job::Followers(json, reply)).await
    }

    /// Takes out who followed before this origin was started.
    pub(crate) fn take_followers(&self) -> Vec<Remembered> {
        std::mem::take(&mut *self.followers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins a new life of the journal, unless somebody already ended the life `only_if`.
    pub(crate) async fn begin_epoch(&self, only_if: Epoch) -> Result<(), AppendError> {
        self.ask(|reply| Job::NewEpoch { only_if, reply }).await
    }

    /// Lets go of the engine: what is appended from now on is refused.
    pub(crate) async fn close(&self) {
        // A writer that is gone already has let go of it.
        let _ = self.ask(Job::Stop).await;
    }

    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, AppendError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(job(reply)).await.map_err(|_| AppendError::Stopped)?;
        answer.await.map_err(|_| AppendError::Stopped)?
    }

    /// Returns the fold of all durable events. Hold it briefly: the writer waits.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.shown.state()
    }

    /// Returns the place of the last durable event.
    pub(crate) fn head(&self) -> Position {
        self.shown.head()
    }

    /// Tells of each new head.
    pub(crate) fn watch_head(&self) -> watch::Receiver<Position> {
        self.shown.watch_head()
    }

    /// Tells each time that the shared engine may have lost what it knew (leases that were granted may be unknown there), and when
    /// that was found out.
    pub(crate) fn watch_runs(&self) -> watch::Receiver<u64> {
        self.shown.watch_runs()
    }

    /// Returns the life of the shared engine's process that is known to hold what is shown here: nothing while that is to be found
    /// out, since another process answers, which may have lost some of it.
    pub(crate) fn proven_run(&self) -> Option<String> {
        self.shown.proven_run()
    }

    /// Returns which life of the shared engine's process the journal believes in; nothing for a file.
    pub(crate) fn run(&self) -> String {
        self.shown.run()
    }

    /// Returns the longest lease that may run by what was stored; `None` where that is not known here.
    pub(crate) fn longest_lease(&self) -> Option<Duration> {
        match &self.engine {
            Engine::File(store) => store.longest_lease(),
            Engine::Shared(_) => None,
        }
    }

    /// Decides what becomes of a position that a follower or a client shows.
    ///
    /// # Errors
    /// Where it is so old that a shared engine must be asked, and that does not answer.
    pub(crate) async fn fit(&self, position: &Position) -> Result<Fit, AppendError> {
        let head = self.head();
        let is_older = position.epoch == head.epoch && position.seq < head.seq;
        let chain = if is_older { self.chain_at(head.epoch, position.seq).await? } else { None };
        Ok(fit(&head, position, |seq| if seq == head.seq { Some(head.chain) } else { chain }))
    }

    async fn chain_at(&self, epoch: Epoch, seq: u64) -> Result<Option<Chain>, AppendError> {
        let recent = self.shown.recent().chain_at(seq);
        match &self.engine {
            _ if recent.is_some() => Ok(recent),
            Engine::File(store) => Ok(store.chain_at(seq).ok().flatten()),
            Engine::Shared(shelf) => {
                let read = shelf.chain_at(&self.run(), epoch, seq).await;
                read.map_err(|trouble| AppendError::Away(trouble.to_string()))
            }
        }
    }

    /// Returns up to `most` events behind `seq`, in order and without gaps; fewer where they are large.
    ///
    /// # Errors
    /// Where the engine can't be read.
    pub(crate) async fn read_after(&self, seq: u64, most: usize) -> Result<Vec<Arc<StoredEvent>>, AppendError> {
        let head = self.head();
        let recent = self.shown.recent().starting_at(seq + 1, most);
        if !recent.is_empty() || seq >= head.seq {
            return Ok(recent);
        }
        match &self.engine {
            Engine::File(store) => {
                let store = Arc::clone(store);
                let read = tokio::task::spawn_blocking(move || store.read_after(seq, most)).await;
                read.map_err(|_| AppendError::Stopped)?.map_err(|error| AppendError::Storage(error.to_string()))
            }
            Engine::Shared(shelf) => {
                let read = shelf.read_after(&self.run(), seq, most, &head).await;
                read.map_err(|trouble| AppendError::Away(trouble.to_string()))
            }
        }
    }

    /// Returns the snapshot that the engine holds.
    async fn stored_snapshot(&self) -> Result<State, AppendError> {
        match &self.engine {
            Engine::File(store) => {
                let text = store.read_snapshot().map_err(|error| AppendError::Storage(error.to_string()))?.unwrap_or_default();
                serde_json::from_slice(&text).map_err(|error| AppendError::Storage(error.to_string()))
            }
            Engine::Shared(shelf) => shared::stored_snapshot(shelf).await.map_err(AppendError::Storage),
        }
    }

    /// Takes the state of another journal into this one, which must be empty; a new life begins.
    async fn import_state(&self, state: State) -> Result<(), AppendError> {
        if let Engine::File(_) = &self.engine {
            // Leases that the other engine granted may run still: nothing is complete until the longest that there may be ends.
            self.store_longest_lease(config::LONGEST_LEASE).await?;
        }
        self.ask(|reply| Job::Import(Box::new(state), reply)).await
    }

    /// Returns when `seq` was appended, as far as this process knows (CLOCK_BOOTTIME).
    pub(crate) fn appended_at(&self, seq: u64) -> Option<Duration> {
        if seq > self.head().seq {
            return None;
        }
        self.shown.recent().appended_at(seq)
    }
}

/// Returns the beginning of another life of a journal, at the same seq.
fn next_life(mut state: State) -> State {
    state.position.epoch = random_epoch();
    state.purges = PurgeTable::new(random());
    state
}

/// The class alone, without reading the rest of the event.
fn class_of(json: &str) -> Class {
    #[derive(serde::Deserialize)]
    struct Head {
        class: String,
    }
    serde_json::from_str::<Head>(json).map(|head| head.class).unwrap_or_default().into()
}

fn random_epoch() -> Epoch {
    Epoch::from_bytes(random())
}

/// Randomness of the system; where it has none, nothing here is safe to start.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::expect_used, reason = "a system without randomness can't run an origin")]
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
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
