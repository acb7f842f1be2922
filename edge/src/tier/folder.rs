//! The folder of an edge without a Redis: a file per URL, or per variant where a URL has several.
//!
//! Nothing of it is kept in memory but how many bytes it takes. A file is written under another name and renamed, so a
//! kill leaves a file that is whole or none; it is not synced, as what a power cut spoils is found by its digest.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use engine::Breaker;
use follow::boottime;
use serde::{Deserialize, Serialize};

use super::{Failed, Held, Look, Rank, Stamp, UrlName, Variant, Write, Written};

/// How long a look may take: a disk that hangs must not hold up who could ask the upstream.
const PATIENCE: Duration = Duration::from_millis(50);

/// Folders that the files are spread over.
const SHARDS: u64 = 256;

/// What a file takes of a disk at the least.
const BLOCK: u64 = 4 << 10;

/// The largest head of a file: an address and the names of fields, of which an upstream sends 256 KiB at the most.
const MOST_HEAD: u32 = 300 << 10;

const MAGIC: &[u8; 4] = b"ATF\x01";

/// Responses in a folder.
#[derive(Debug)]
pub(crate) struct Folder {
    inner: Arc<Inner>,
    breaker: Mutex<Breaker>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    most: u64,
    bytes: AtomicU64,
    /// The shard that makes room next.
    next: AtomicU64,
    /// The system's id of its present start.
    boot_id: String,
    closed: AtomicBool,
}

/// What a file says before its value.
#[derive(Debug, Serialize, Deserialize)]
struct FileHead {
    names: String,
    /// Whether the value is in this file, or in one per selection beside it.
    has_value: bool,
    epoch: [u8; 8],
    filled_at: u64,
    /// When its age was taken: by this start of the system, and by the time of day for the next ones.
    boot_id: String,
    boot_ms: u64,
    wall_ms: u64,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What a file of so many bytes takes of a disk.
fn on_disk(length: u64) -> u64 {
    length.div_ceil(BLOCK).max(1).saturating_mul(BLOCK)
}

impl Folder {
    /// Opens the folder, which may take `most` bytes. What it holds is counted in the background, from a thread of its own.
    pub(crate) fn open(root: &Path, most: u64) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let inner = Inner {
            root: root.to_owned(),
            most,
            bytes: AtomicU64::new(0),
            next: AtomicU64::new(0),
            boot_id,
            closed: AtomicBool::new(false),
        };
        let inner = Arc::new(inner);
        let counting = Arc::clone(&inner);
        std::thread::Builder::new().name("l2-folder".to_owned()).spawn(move || counting.count())?;
        Ok(Self { inner, breaker: Mutex::default() })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.inner.bytes.load(Ordering::Relaxed)
    }

    pub(super) async fn look(&self, look: Look<'_>) -> Result<Held, Failed> {
        let (url, variant, known) = (*look.url, look.variant.clone(), look.known);
        if !self.breaker().may_call(boottime()) {
            return Err(Failed::LeftAlone);
        }
        let inner = Arc::clone(&self.inner);
        let looked = tokio::task::spawn_blocking(move || inner.look(&url, &variant, known));
        let looked = match tokio::time::timeout(PATIENCE, looked).await {
            Ok(looked) => looked.unwrap_or_else(|_| Err(io::Error::other("a panic"))).map_err(|_| Failed::As("broken")),
            Err(_) => Err(Failed::As("slow")),
        };
        self.tell(looked.is_ok());
        looked
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, is_well: bool) {
        let mut breaker = self.breaker();
        if is_well {
            breaker.succeeded();
        } else if breaker.failed(boottime()) {
            tracing::warn!(folder = %self.inner.root.display(), "the folder of responses can't be read; going on without it, and trying it now and then");
        }
    }

    pub(super) async fn write(&self, write: Write) -> Result<Written, Failed> {
        let inner = Arc::clone(&self.inner);
        let written = tokio::task::spawn_blocking(move || inner.write(&write)).await;
        written.unwrap_or_else(|_| Err(io::Error::other("a panic"))).map_err(|error| {
            tracing::debug!(%error, "a response was not written to its folder");
            Failed::As(if error.kind() == ErrorKind::StorageFull { "full" } else { "broken" })
        })
    }

    pub(super) async fn remove(&self, url: UrlName) -> Result<(), Failed> {
        let inner = Arc::clone(&self.inner);
        let removed = tokio::task::spawn_blocking(move || inner.remove(&inner.path(&url))).await;
        removed.unwrap_or_else(|_| Err(io::Error::other("a panic"))).map_err(|_| Failed::As("broken"))
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
        let Some((head, value)) = read(&path, true)? else { return Ok(Held::Nothing) };
        if head.names != variant.names {
            return Ok(Held::Varies(head.names));
        }
        let (path, head, value) = if head.has_value {
            (path, head, value)
        } else {
            let path = self.variant_path(url, variant);
            let Some((head, value)) = read(&path, true)? else { return Ok(Held::Nothing) };
            if head.names != variant.names {
                return Ok(Held::Nothing);
            }
            (path, head, value)
        };
        let now = boottime();
        let Some(since) = self.since(&head, now) else { return Ok(Held::Nothing) };
        let stamp = Stamp(millis(now.saturating_sub(since)).max(1));
        if known.is_some_and(|known| stamp <= known) {
            return Ok(Held::Nothing);
        }
        // Who was used last goes last. Where that can't be noted, it goes earlier.
        let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Ok(Held::Value { bytes: value.into(), since, stamp })
    }

    /// How long ago a file was written; nothing where the clock says that it will be.
    fn since(&self, head: &FileHead, now: Duration) -> Option<Duration> {
        if head.boot_id == self.boot_id && !head.boot_id.is_empty() {
            return now.checked_sub(Duration::from_millis(head.boot_ms));
        }
        wall().checked_sub(Duration::from_millis(head.wall_ms))
    }

    fn write(&self, write: &Write) -> io::Result<Written> {
        let length = write.bytes.len() as u64;
        if length.saturating_mul(8) > self.most {
            return Ok(Written::TooLarge);
        }
        let path = self.path(&write.url);
        let known = read(&path, false)?.map(|(head, _)| head);
        let is_alone = write.variant.names.is_empty();
        let target = if is_alone { path.clone() } else { self.variant_path(&write.url, &write.variant) };
        let like = if is_alone { known.as_ref().map(FileHead::rank) } else { read(&target, false)?.map(|(head, _)| head.rank()) };
        let is_another_kind = known.as_ref().is_some_and(|known| known.names != write.variant.names);
        let other = known.as_ref().filter(|_| is_another_kind).map(FileHead::rank);
        if like.into_iter().chain(other).any(|rank| !write.rank.may_replace(&rank)) {
            return Ok(Written::Older);
        }
        let age = boottime().saturating_sub(write.as_of);
        let head = FileHead {
            names: write.variant.names.clone(),
            has_value: true,
            epoch: write.rank.epoch,
            filled_at: write.rank.filled_at,
            boot_id: self.boot_id.clone(),
            boot_ms: millis(write.as_of),
            wall_ms: millis(wall().saturating_sub(age)),
        };
        self.put(&target, &head, &write.bytes)?;
        if !is_alone && (known.is_none() || is_another_kind) {
            self.put(&path, &FileHead { has_value: false, ..head }, &Bytes::new())?;
        }
        self.make_room();
        Ok(Written::Stored)
    }

    fn put(&self, path: &Path, head: &FileHead, value: &Bytes) -> io::Result<()> {
        let head = postcard::to_allocvec(head).map_err(io::Error::other)?;
        let head_length = u32::try_from(head.len()).ok().filter(|length| *length <= MOST_HEAD).ok_or(ErrorKind::InvalidInput)?;
        let fresh = path.with_extension("new");
        let written = || -> io::Result<u64> {
            let mut file = create(&fresh)?;
            for part in [MAGIC.as_slice(), &head_length.to_be_bytes(), &head, value] {
                file.write_all(part)?;
            }
            file.metadata().map(|metadata| metadata.len())
        };
        let length = written().inspect_err(|_| {
            let _ = fs::remove_file(&fresh);
        })?;
        let before = fs::metadata(path).map_or(0, |metadata| on_disk(metadata.len()));
        fs::rename(&fresh, path)?;
        self.bytes.fetch_add(on_disk(length), Ordering::Relaxed);
        self.take_off(before);
        Ok(())
    }

    fn take_off(&self, bytes: u64) {
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| Some(all.saturating_sub(bytes)));
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let length = match fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match fs::remove_file(path) {
            Ok(()) => self.take_off(on_disk(length)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Counts what is there, and takes away what a kill left.
    fn count(&self) {
        for number in 0..SHARDS {
            for (path, length, _) in self.files(number) {
                if self.closed.load(Ordering::Relaxed) {
                    return;
                }
                self.bytes.fetch_add(on_disk(length), Ordering::Relaxed);
                // What is being written at the moment is not taken away: it is young.
                if is_left_over(&path) {
                    let _ = self.remove(&path);
                }
            }
        }
        self.make_room();
    }

    fn files(&self, shard: u64) -> Vec<(PathBuf, u64, SystemTime)> {
        let Ok(entries) = fs::read_dir(self.shard(shard)) else { return Vec::new() };
        let read = |entry: fs::DirEntry| {
            let metadata = entry.metadata().ok()?;
            Some((entry.path(), metadata.len(), metadata.modified().unwrap_or(UNIX_EPOCH)))
        };
        entries.flatten().filter_map(read).collect()
    }

    /// Deletes what was used least recently, shard by shard, a quarter of each.
    fn make_room(&self) {
        for _ in 0..SHARDS {
            if self.bytes.load(Ordering::Relaxed) <= self.most {
                return;
            }
            let mut files = self.files(self.next.fetch_add(1, Ordering::Relaxed));
            files.sort_unstable_by_key(|(_, _, used)| *used);
            let quarter = files.len().div_ceil(4);
            for (path, _, _) in files.into_iter().take(quarter) {
                let _ = self.remove(&path);
            }
        }
    }
}

impl FileHead {
    fn rank(&self) -> Rank {
        Rank { epoch: self.epoch, filled_at: self.filled_at }
    }
}

fn create(path: &Path) -> io::Result<File> {
    match File::create(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            File::create(path)
        }
        created => created,
    }
}

/// A file that was being written when its process was killed.
fn is_left_over(path: &Path) -> bool {
    let is_old = || {
        path.metadata().and_then(|metadata| metadata.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|age| age > Duration::from_secs(60)))
    };
    path.extension().is_some_and(|ending| ending == "new") && is_old()
}

/// Reads a file; nothing where there is none, or where it is not one of ours.
fn read(path: &Path, with_value: bool) -> io::Result<Option<(FileHead, Vec<u8>)>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut before = [0; 8];
    if !read_all(&mut file, &mut before)? || !before.starts_with(MAGIC) {
        return Ok(None);
    }
    let length = before.last_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length));
    let mut head = vec![0; usize::try_from(length.min(MOST_HEAD)).unwrap_or(0)];
    if !read_all(&mut file, &mut head)? {
        return Ok(None);
    }
    let Ok(head) = postcard::from_bytes::<FileHead>(&head) else { return Ok(None) };
    let mut value = Vec::new();
    if with_value {
        file.read_to_end(&mut value)?;
    }
    Ok(Some((head, value)))
}

fn read_all(file: &mut File, into: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
