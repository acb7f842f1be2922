//! The folder of an edge without a Redis: a file per URL, or per variant where a URL has several.
//!
//! Nothing of it is kept in memory but how many bytes it takes. A file is written under another name and renamed, so a
//! kill leaves a file that is whole or none; it is not synced, as what a power cut spoils is found by its digests. What
//! was written before the system was started anew has an age that nobody knows, and is no use.

mod file;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::Breaker;
use follow::boottime;
use tokio::sync::Semaphore;

use super::{Failed, Held, Look, Stamp, UrlName, Variant, Write, Written};
use file::{FileHead, put, read};

/// How long a call may take: a disk that hangs must not hold up who could ask the upstream.
pub(crate) const FOLDER_PATIENCE: Duration = Duration::from_millis(50);

/// The same for a call that nobody waits for.
const PATIENCE_BEHIND: Duration = Duration::from_secs(5);

/// Calls at a time; others wait for their turn. Those that hang keep their threads, and each thread has memory of its own.
const AT_ONCE: usize = 8;

/// Folders that the files are spread over.
const SHARDS: u64 = 256;

/// What a file takes of a disk at the least.
const BLOCK: u64 = 4 << 10;

/// The largest part of the folder that one response may take.
const SHARE: u64 = 8;

/// Responses in a folder.
#[derive(Debug)]
pub(crate) struct Folder {
    inner: Arc<Inner>,
    /// How long a call may take that somebody waits for.
    patience: Duration,
    breaker: Mutex<Breaker>,
    calls: Arc<Semaphore>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    most: u64,
    bytes: AtomicU64,
    /// The system's id of its present start.
    boot_id: String,
    /// Held while files come and go, so that they are counted once.
    changing: Mutex<Changing>,
    /// The number of the next file that is written.
    fresh: AtomicU64,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Changing {
    /// The shard that makes room next.
    next: u64,
    /// How many shards have been counted since the start.
    counted: u64,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What a file of so many bytes takes of a disk.
fn on_disk(length: u64) -> u64 {
    length.div_ceil(BLOCK).max(1).saturating_mul(BLOCK)
}

impl Folder {
    /// Opens the folder, which may take `most` bytes, and whose calls may take so long. What it holds is counted in the background, from a thread of its own.
    pub(crate) fn open(root: &Path, most: u64, patience: Duration) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let (bytes, fresh) = (AtomicU64::new(0), AtomicU64::new(0));
        let (changing, closed) = (Mutex::default(), AtomicBool::new(false));
        let inner = Arc::new(Inner { root: root.to_owned(), most, bytes, boot_id, changing, fresh, closed });
        let counting = Arc::clone(&inner);
        std::thread::Builder::new().name("l2-folder".to_owned()).spawn(move || counting.count())?;
        Ok(Self { inner, patience, breaker: Mutex::default(), calls: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.inner.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn most_bytes(&self) -> u64 {
        self.inner.most / SHARE
    }

    pub(super) fn is_up(&self) -> bool {
        !self.breaker().is_open()
    }

    pub(super) async fn look(&self, look: Look<'_>) -> Result<Held, Failed> {
        let (url, variant, known) = (*look.url, look.variant.clone(), look.known);
        self.within(self.patience, move |inner| inner.look(&url, &variant, known)).await
    }

    pub(super) async fn write(&self, write: Write) -> Result<Written, Failed> {
        if write.bytes.len() as u64 > self.most_bytes() {
            return Ok(Written::TooLarge);
        }
        self.within(PATIENCE_BEHIND, move |inner| inner.write(&write)).await
    }

    pub(super) async fn remove(&self, url: &UrlName) -> Result<(), Failed> {
        let url = *url;
        self.within(self.patience, move |inner| inner.forget(&url)).await
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn within<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failed> {
        if !self.breaker().may_call(boottime()) {
            return Err(Failed::LeftAlone);
        }
        let (calls, inner) = (Arc::clone(&self.calls), Arc::clone(&self.inner));
        let working = async move {
            // It is never closed.
            let permit = calls.acquire_owned().await;
            let working = move || {
                let _permit = permit;
                work(&inner)
            };
            tokio::task::spawn_blocking(working).await
        };
        let done = match tokio::time::timeout(patience, working).await {
            Ok(Ok(Err(error))) if error.kind() == ErrorKind::StorageFull => Err(Failed::As("full")),
            Ok(done) => done.unwrap_or_else(|_| Err(io::Error::other("a panic"))).map_err(|_| Failed::As("broken")),
            Err(_) => Err(Failed::As("slow")),
        };
        // A disk that is full is read as ever.
        self.tell(!matches!(done, Err(Failed::As("slow" | "broken"))));
        done
    }

    fn tell(&self, is_well: bool) {
        let (mut breaker, folder) = (self.breaker(), self.inner.root.display());
        if is_well && breaker.succeeded() {
            tracing::info!(%folder, "the folder of responses is in use again");
        }
        if !is_well && breaker.failed(boottime()) {
            tracing::warn!(%folder, "the folder of responses does not work; going on without it, and trying it now and then");
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.inner.closed.store(true, Ordering::Relaxed);
    }
}

impl Inner {
    fn shard(&self, number: u64) -> PathBuf {
        self.root.join(format!("{:02x}", number % SHARDS))
    }

    fn path(&self, url: &UrlName) -> PathBuf {
        let name = url.to_string();
        self.root.join(name.get(..2).unwrap_or_default()).join(name)
    }

    fn variant_path(&self, url: &UrlName, variant: &Variant) -> PathBuf {
        let mut path = self.path(url).into_os_string();
        path.push(format!(".{}", variant.selection_hex()));
        path.into()
    }

    fn look(&self, url: &UrlName, variant: &Variant, known: Option<Stamp>) -> io::Result<Held> {
        let path = self.path(url);
        let Some((head, value)) = read(&path, Some(self.most))? else { return Ok(Held::Nothing) };
        if head.names != variant.names {
            return Ok(Held::Varies(head.names));
        }
        let (path, head, value) = if head.has_value {
            (path, head, value)
        } else {
            let (path, generation) = (self.variant_path(url, variant), head.generation);
            let Some((head, value)) = read(&path, Some(self.most))? else { return Ok(Held::Nothing) };
            // What was written before its URL was forgotten, or had other variants, is none of it.
            if head.names != variant.names || head.generation != generation {
                return Ok(Held::Nothing);
            }
            (path, head, value)
        };
        let now = boottime();
        let stamp = Stamp(head.boot_ms);
        if head.boot_id != self.boot_id || Duration::from_millis(head.boot_ms) > now || known.is_some_and(|known| stamp <= known) {
            return Ok(Held::Nothing);
        }
        // Who was used last goes last. Where that can't be noted, it goes earlier.
        let _ = fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Ok(Held::Value { bytes: value.into(), since: now.saturating_sub(Duration::from_millis(head.boot_ms)), as_of: now, stamp })
    }

    fn write(&self, write: &Write) -> io::Result<Written> {
        let mut changing = self.changing();
        let path = self.path(&write.url);
        let known = read(&path, None)?.map(|(head, _)| head);
        let is_alone = write.variant.names.is_empty();
        let like = known.as_ref().filter(|known| known.names == write.variant.names);
        let target = if is_alone { path.clone() } else { self.variant_path(&write.url, &write.variant) };
        let own = match like {
            // A variant of a URL that was forgotten since stands in nobody's way.
            Some(marker) if !is_alone => read(&target, None)?.map(|(head, _)| head).filter(|head| head.generation == marker.generation),
            _ => None,
        };
        let mut head = FileHead {
            names: write.variant.names.clone(),
            has_value: true,
            generation: like.map_or_else(random, |marker| marker.generation),
            epoch: write.rank.epoch,
            filled_at: write.rank.filled_at,
            boot_id: self.boot_id.clone(),
            boot_ms: millis(write.as_of),
            began_ms: millis(write.as_of.saturating_sub(write.started_ago)),
        };
        let held = if like.is_some() && !is_alone { own.as_ref() } else { known.as_ref() };
        if held.is_some_and(|held| held.is_later(&head)) {
            return Ok(Written::Older);
        }
        self.keep(&target, &head, &write.bytes, &mut changing)?;
        if !is_alone && like.is_none() {
            head.has_value = false;
            self.keep(&path, &head, &[], &mut changing)?;
        }
        self.make_room(self.most, &mut changing);
        Ok(Written::Stored)
    }

    fn keep(&self, path: &Path, head: &FileHead, value: &[u8], changing: &mut Changing) -> io::Result<()> {
        // Two that are written at a time never share a name, nor with one that a kill left.
        let fresh = self.root.join(format!("{}-{}.new", std::process::id(), self.fresh.fetch_add(1, Ordering::Relaxed)));
        let written = put(&fresh, head, value).inspect_err(|error| {
            let _ = fs::remove_file(&fresh);
            if error.kind() == ErrorKind::StorageFull {
                // Others have filled the disk: there is less room than was thought.
                let half = self.bytes.load(Ordering::Relaxed) / 2;
                self.make_room(half, changing);
            }
        })?;
        let before = fs::metadata(path).map_or(0, |metadata| on_disk(metadata.len()));
        rename(&fresh, path)?;
        if changing.counts(path) {
            self.bytes.fetch_add(on_disk(written), Ordering::Relaxed);
            self.take_off(before);
        }
        Ok(())
    }

    fn take_off(&self, bytes: u64) {
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| Some(all.saturating_sub(bytes)));
    }

    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a URL: its variants belong to it no longer, and go when room is made.
    fn forget(&self, url: &UrlName) -> io::Result<()> {
        self.remove(&self.path(url), &self.changing())
    }

    fn remove(&self, path: &Path, changing: &Changing) -> io::Result<()> {
        let length = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        fs::remove_file(path)?;
        if changing.counts(path) {
            self.take_off(on_disk(length));
        }
        Ok(())
    }

    /// Counts what is there, and takes away what a kill left.
    fn count(&self) {
        for left in files(&self.root).into_iter().filter(|file| file.path.extension().is_some_and(|ending| ending == "new")) {
            let own = format!("{}-", std::process::id());
            if !left.path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&own)) {
                let _ = fs::remove_file(left.path);
            }
        }
        for number in 0..SHARDS {
            if self.closed.load(Ordering::Relaxed) {
                return;
            }
            // Until its shard is counted, nothing that comes or goes there is.
            let mut changing = self.changing();
            let bytes: u64 = files(&self.shard(number)).iter().map(|file| on_disk(file.length)).sum();
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            changing.counted = number + 1;
        }
        self.make_room(self.most, &mut self.changing());
    }

    /// Deletes what was used least recently, shard by shard, a quarter of each.
    fn make_room(&self, most: u64, changing: &mut Changing) {
        for _ in 0..SHARDS {
            if self.bytes.load(Ordering::Relaxed) <= most {
                return;
            }
            let mut files = files(&self.shard(changing.next));
            changing.next = changing.next.wrapping_add(1);
            files.sort_unstable_by_key(|file| file.used);
            let quarter = files.len().div_ceil(4);
            for file in files.into_iter().take(quarter) {
                let _ = self.remove(&file.path, changing);
            }
        }
    }
}

impl Changing {
    /// Tells whether a file counts by now: its shard has been counted.
    fn counts(&self, path: &Path) -> bool {
        let shard = path.parent().and_then(Path::file_name).and_then(|name| u64::from_str_radix(name.to_str()?, 16).ok());
        shard.is_some_and(|shard| shard < self.counted)
    }
}

/// A file as its folder lists it.
struct Listed {
    path: PathBuf,
    length: u64,
    used: SystemTime,
}

fn files(folder: &Path) -> Vec<Listed> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let read = |entry: fs::DirEntry| {
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some(Listed { path: entry.path(), length: metadata.len(), used: metadata.modified().unwrap_or(UNIX_EPOCH) })
    };
    entries.flatten().filter_map(read).collect()
}

/// Gives a file its name, in a folder that may not be there yet.
fn rename(fresh: &Path, path: &Path) -> io::Result<()> {
    match fs::rename(fresh, path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            fs::rename(fresh, path)
        }
        renamed => renamed,
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness the clock tells two generations apart.
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_be_bytes(bytes),
        Err(_) => u64::try_from(boottime().as_nanos()).unwrap_or(0),
    }
}
