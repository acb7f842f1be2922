//! Where the bytes of an asset come from: memory, the folder, the origin. Bytes reach a reader only
//! once their digest was found right, or, for large files, as they come with the end held back.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use follow::{OriginsError, Trouble, boottime, causes};
use futures_util::stream;
use reqwest::Response;
use tokio::sync::watch;
use tracing::Instrument as _;
use wire::{Digest, Hasher};

use super::folder::{AssetFile, AssetKey, Folder};
use crate::memory::{AssetBytes, Held, HeldKey, Memory};
use crate::message::ByteStream;

/// Assets up to this size are held in memory and sent whole.
const SMALL: u64 = 1 << 20;

/// What is read from a file at once.
const CHUNK: u64 = 256 << 10;

/// A quick form is asked for again after this.
const QUICK_FOR: Duration = Duration::from_secs(60);

/// How long the origin may take for the head of a blob, or stand still within one.
const PATIENCE: Duration = Duration::from_secs(30);

/// The bytes of an asset, and what to say of them.
#[derive(Clone, Debug)]
pub(crate) struct Asset {
    /// The digest of these very bytes: the strong ETag.
    pub(crate) digest: Digest,
    pub(crate) length: u64,
    pub(crate) coding: Option<&'static str>,
    pub(crate) source: Source,
    /// Which tier they come from.
    pub(crate) tier: &'static str,
}

/// Where bytes are read from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// All of them are here.
    Memory(Bytes),
    /// A file; `growing` while it is still being fetched.
    File { file: Arc<File>, growing: Option<watch::Receiver<Progress>> },
}

/// How far a file has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// So many bytes are there.
    Bytes(u64),
    /// All of them, and they are right.
    Whole,
    /// The fetch broke off, or the bytes are wrong.
    Failed,
}

/// Why bytes can't be had.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the origin: {0}")]
    Unreachable(String),
    #[error("the origin: {0}")]
    Origin(String),
    #[error("the origin sent bytes of another digest for {0}")]
    WrongDigest(Digest),
    #[error("the folder: {0}")]
    Disk(String),
}

type Outcome = Result<Asset, FetchError>;

/// All assets of all sites.
#[derive(Debug)]
pub(crate) struct Assets {
    memory: Arc<Memory>,
    folder: Arc<Folder>,
    origins: Arc<follow::Origins>,
    running: Mutex<HashMap<AssetKey, watch::Receiver<Option<Outcome>>>>,
    /// While no origin answers, every miss fails: that is told once, not each time.
    away: Mutex<Trouble>,
    runtime: tokio::runtime::Handle,
}

impl Assets {
    pub(crate) fn new(memory: Arc<Memory>, folder: Arc<Folder>, origins: Arc<follow::Origins>) -> Self {
        let runtime = tokio::runtime::Handle::current();
        Self { memory, folder, origins, running: Mutex::default(), away: Mutex::default(), runtime }
    }

    /// Tells whether a form of a blob is here, or is known not to exist: nobody waits for the origin then.
    pub(crate) fn holds(&self, key: &AssetKey) -> bool {
        matches!(self.memory.get(&HeldKey::Asset(*key)), Some(Held::Asset(_) | Held::NoVariant)) || self.folder.holds(key)
    }

    /// Returns a blob, in `coding` where it has such a form, else as it is. Where the coded form can't be
    /// had at the moment, the blob itself may still be here.
    pub(crate) async fn get(self: &Arc<Self>, digest: Digest, coding: Option<&'static str>) -> Outcome {
        match self.get_form(digest, coding).await {
            Err(_) if coding.is_some() => self.get_form(digest, None).await,
            outcome => outcome,
        }
    }

    async fn get_form(self: &Arc<Self>, digest: Digest, coding: Option<&'static str>) -> Outcome {
        let mut key = (digest, coding);
        match self.memory.get(&HeldKey::Asset(key)) {
            Some(Held::Asset(asset)) => {
                if asset.quick_since.is_some_and(|since| since.elapsed() > QUICK_FOR) {
                    self.fetch(key);
                }
                return Ok(Asset {
                    digest: asset.digest,
                    length: asset.bytes.len() as u64,
                    coding,
                    source: Source::Memory(asset.bytes.clone()),
                    tier: "l1",
                });
            }
            Some(Held::NoVariant) => {
                key = (digest, None);
                if let Some(Held::Asset(asset)) = self.memory.get(&HeldKey::Asset(key)) {
                    return Ok(Asset {
                        digest,
                        length: asset.bytes.len() as u64,
                        coding: None,
                        source: Source::Memory(asset.bytes.clone()),
                        tier: "l1",
                    });
                }
            }
            _ => {}
        }
        if let Some(file) = self.folder.get(key).await
            && let Ok(asset) = self.open(key, file).await
        {
            return Ok(asset);
        }
        let mut outcome = self.fetch(key);
        let done = outcome.wait_for(Option::is_some).await.map_err(|_| FetchError::Origin("the fetch was given up".to_owned()))?;
        done.clone().unwrap_or_else(|| Err(FetchError::Origin("the fetch was given up".to_owned())))
    }

    /// Returns all bytes of a blob; for manifests.
    pub(crate) async fn read_whole(self: &Arc<Self>, digest: Digest) -> Result<Bytes, FetchError> {
        use futures_util::TryStreamExt as _;
        let asset = self.get(digest, None).await?;
        let body = asset.source.read(0..asset.length);
        let whole: BytesMut = body.try_collect().await.map_err(|error: io::Error| FetchError::Disk(error.to_string()))?;
        Ok(whole.freeze())
    }

    async fn open(&self, key: AssetKey, file: AssetFile) -> Result<Asset, FetchError> {
        let small = file.length <= SMALL;
        let path = Arc::clone(&file.path);
        let opened = tokio::task::spawn_blocking(move || -> io::Result<Source> {
            if small {
                Ok(Source::Memory(std::fs::read(path)?.into()))
            } else {
                Ok(Source::File { file: Arc::new(File::open(path)?), growing: None })
            }
        });
        let source =
            opened.await.map_err(|error| FetchError::Disk(error.to_string()))?.map_err(|error| FetchError::Disk(error.to_string()))?;
        if let Source::Memory(bytes) = &source {
            self.hold(key, file.digest, bytes.clone(), false);
        }
        Ok(Asset { digest: file.digest, length: file.length, coding: key.1, source, tier: "l2" })
    }

    fn hold(&self, key: AssetKey, digest: Digest, bytes: Bytes, quick: bool) {
        let asset = AssetBytes { digest, bytes, quick_since: quick.then(Instant::now) };
        self.memory.insert(HeldKey::Asset(key), Held::Asset(Arc::new(asset)));
    }

    /// Fetches from the origin, once for all who ask meanwhile. It goes on when they leave.
    fn fetch(self: &Arc<Self>, key: AssetKey) -> watch::Receiver<Option<Outcome>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = running.get(&key) {
            return outcome.clone();
        }
        let (sender, outcome) = watch::channel(None);
        running.insert(key, outcome.clone());
        let this = Arc::clone(self);
        let fetching = async move {
            let fetched = this.fetch_from_origin(key, &sender).await;
            this.tell(&key.0, fetched.as_ref().err());
            if let Err(error) = fetched {
                sender.send_replace(Some(Err(error)));
            }
            this.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        };
        self.runtime.spawn(fetching.instrument(trace::stage!("fetch", otel.kind = "client", peer.service = "origin")));
        outcome
    }

    fn tell(&self, digest: &Digest, failed: Option<&FetchError>) {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        match failed {
            Some(error @ FetchError::Unreachable(_)) => {
                if away.failed(boottime()) {
                    tracing::warn!(%digest, "failed to fetch an asset: {error}");
                }
            }
            Some(error) => tracing::warn!(%digest, "failed to fetch an asset: {error}"),
            None => {
                if let Some(lasted) = away.over(boottime()) {
                    tracing::info!(seconds = lasted.as_secs(), "fetching assets again after {} s", lasted.as_secs());
                }
            }
        }
    }

    async fn fetch_from_origin(&self, key: AssetKey, outcome: &watch::Sender<Option<Outcome>>) -> Result<(), FetchError> {
        let (digest, coding) = key;
        let asked = self.origins.send(|client, url| {
            let request = client.get(format!("{url}/v1/blobs/{digest}"));
            coding.map_or_else(|| client.get(format!("{url}/v1/blobs/{digest}")), |coding| request.header("accept-encoding", coding))
        });
        let response = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| FetchError::Unreachable("it took too long".to_owned()))?;
        let response = response.map_err(|error| match error {
            OriginsError::Unreachable { .. } => FetchError::Unreachable(error.to_string()),
            _ => FetchError::Origin(error.to_string()),
        })?;
        let coded = coding.is_some() && response.headers().contains_key("content-encoding");
        if coding.is_some() && !coded {
            self.memory.insert(HeldKey::Asset(key), Held::NoVariant);
        }
        let key = if coded { key } else { (digest, None) };
        let expected = if coded { content_digest(&response).ok_or(FetchError::WrongDigest(digest))? } else { digest };
        let length = response.content_length().ok_or_else(|| FetchError::Origin("it did not say the length".to_owned()))?;
        if length <= SMALL {
            let quick = response.headers().contains_key("atoll-variant");
            self.fetch_small(key, response, expected, length, quick, outcome).await
        } else {
            self.fetch_large(key, response, expected, length, outcome).await
        }
    }

    async fn fetch_small(
        &self,
        key: AssetKey,
        response: Response,
        expected: Digest,
        length: u64,
        quick: bool,
        outcome: &watch::Sender<Option<Outcome>>,
    ) -> Result<(), FetchError> {
        let bytes =
            tokio::time::timeout(PATIENCE, response.bytes()).await.map_err(|_| FetchError::Origin("it took too long".to_owned()))?;
        let bytes = bytes.map_err(|error| FetchError::Origin(causes(&error.without_url())))?;
        if Digest::of(&bytes) != expected {
            return Err(FetchError::WrongDigest(key.0));
        }
        self.hold(key, expected, bytes.clone(), quick);
        outcome.send_replace(Some(Ok(Asset {
            digest: expected,
            length,
            coding: key.1,
            source: Source::Memory(bytes.clone()),
            tier: "origin",
        })));
        if !quick {
            // Behind the answer. A folder that can't be written costs later misses, nothing else.
            let staged = self.folder.staging(key);
            let kept = write_file(staged.clone(), bytes).await.and_then(|()| self.folder.add(key, &staged, expected, length));
            if let Err(error) = kept {
                tracing::warn!(%error, "failed to keep an asset in the folder");
                let _ = std::fs::remove_file(staged);
            }
        }
        Ok(())
    }

    async fn fetch_large(
        &self,
        key: AssetKey,
        mut response: Response,
        expected: Digest,
        length: u64,
        outcome: &watch::Sender<Option<Outcome>>,
    ) -> Result<(), FetchError> {
        let disk = |error: io::Error| FetchError::Disk(error.to_string());
        let staged = self.folder.staging(key);
        // A disk that is full or read-only costs later misses, never this answer.
        let (file, on_disk) = match with_room(&staged, length) {
            Ok(file) => (Arc::new(file), true),
            Err(error) => {
                tracing::warn!(%error, "failed to keep an asset in the folder; serving it from memory");
                let _ = std::fs::remove_file(&staged);
                (Arc::new(in_memory(length).map_err(disk)?), false)
            }
        };
        let (progress, growing) = watch::channel(Progress::Bytes(0));
        let source = Source::File { file: Arc::clone(&file), growing: Some(growing) };
        outcome.send_replace(Some(Ok(Asset { digest: expected, length, coding: key.1, source, tier: "origin" })));
        let (mut hasher, mut at) = (Hasher::new(), 0);
        let fetched = loop {
            match tokio::time::timeout(PATIENCE, response.chunk()).await {
                Err(_) => break Err(FetchError::Origin("it stood still".to_owned())),
                Ok(Err(error)) => break Err(FetchError::Origin(causes(&error.without_url()))),
                Ok(Ok(None)) => break Ok(()),
                Ok(Ok(Some(chunk))) => {
                    hasher.update(&chunk);
                    let (file, size) = (Arc::clone(&file), chunk.len() as u64);
                    let written = tokio::task::spawn_blocking(move || file.write_all_at(&chunk, at)).await;
                    if let Err(error) = written.map_err(io::Error::other).and_then(|written| written) {
                        break Err(disk(error));
                    }
                    at += size;
                    // The last bytes wait until the digest was found right.
                    progress.send_replace(Progress::Bytes(at.min(length.saturating_sub(1))));
                }
            }
        };
        let checked =
            fetched.and_then(|()| if at == length && hasher.finish() == expected { Ok(()) } else { Err(FetchError::WrongDigest(key.0)) });
        match checked {
            Ok(()) => {
                progress.send_replace(Progress::Whole);
                if on_disk && let Err(error) = self.folder.add(key, &staged, expected, length) {
                    tracing::warn!(%error, "failed to keep an asset in the folder");
                    let _ = std::fs::remove_file(&staged);
                }
                Ok(())
            }
            Err(error) => {
                progress.send_replace(Progress::Failed);
                let _ = std::fs::remove_file(&staged);
                // Readers that are under way were told; who comes now asks again.
                tracing::warn!(digest = %key.0, "failed to fetch an asset: {error}");
                Ok(())
            }
        }
    }
}

/// Creates a file and takes its room on the disk at once, so that a full disk is noticed before the first byte.
fn with_room(path: &std::path::Path, length: u64) -> io::Result<File> {
    let file = File::options().create_new(true).read(true).write(true).open(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length)?;
    Ok(file)
}

/// Creates a file without a disk, for as long as somebody reads it.
fn in_memory(length: u64) -> io::Result<File> {
    let file = File::from(rustix::fs::memfd_create("asset", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.set_len(length)?;
    Ok(file)
}

async fn write_file(path: PathBuf, bytes: Bytes) -> io::Result<()> {
    tokio::task::spawn_blocking(move || std::fs::write(path, bytes)).await.map_err(io::Error::other)?
}

/// Reads `Content-Digest: sha-256=:...:` (RFC 9530).
fn content_digest(response: &Response) -> Option<Digest> {
    use base64::Engine as _;
    let text = response.headers().get("content-digest")?.to_str().ok()?;
    let inner = text.strip_prefix("sha-256=:")?.strip_suffix(':')?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(inner).ok()?;
    Some(Digest::from_bytes(bytes.try_into().ok()?))
}

impl Source {
    /// Returns the bytes of `range`, which lies within the asset.
    pub(crate) fn read(&self, range: Range<u64>) -> ByteStream {
        match self {
            Self::Memory(bytes) => {
                let bytes = slice(bytes, &range);
                Box::pin(stream::once(async move { Ok(bytes) }))
            }
            Self::File { file, growing } => Box::pin(stream::unfold((Arc::clone(file), growing.clone(), range), next_chunk)),
        }
    }
}

/// Returns the part of `bytes` that `range` names.
pub(crate) fn slice(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    let at = |offset: u64| usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
    bytes.slice(at(range.start)..at(range.end).max(at(range.start)))
}

type Reading = (Arc<File>, Option<watch::Receiver<Progress>>, Range<u64>);

async fn next_chunk((file, mut growing, range): Reading) -> Option<(io::Result<Bytes>, Reading)> {
    if range.is_empty() {
        return None;
    }
    let there = match &mut growing {
        None => Ok(range.end),
        Some(progress) => wait_past(progress, range.start, range.end).await,
    };
    let end = match there {
        Ok(there) => there.min(range.end).min(range.start + CHUNK),
        Err(error) => return Some((Err(error), (file, growing, 0..0))),
    };
    let (start, reader) = (range.start, Arc::clone(&file));
    let read = tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; usize::try_from(end - start).unwrap_or(0)];
        reader.read_exact_at(&mut buffer, start).map(|()| Bytes::from(buffer))
    });
    match read.await.map_err(io::Error::other).and_then(|read| read) {
        Ok(bytes) => Some((Ok(bytes), (file, growing, end..range.end))),
        Err(error) => Some((Err(error), (file, growing, 0..0))),
    }
}

/// Waits until bytes behind `start` are there, and returns how far they go.
async fn wait_past(progress: &mut watch::Receiver<Progress>, start: u64, end: u64) -> io::Result<u64> {
    let broke_off = || io::Error::new(io::ErrorKind::UnexpectedEof, "the fetch broke off");
    let now = *progress.wait_for(|now| !matches!(now, Progress::Bytes(there) if *there <= start)).await.map_err(|_| broke_off())?;
    match now {
        Progress::Bytes(there) => Ok(there),
        Progress::Whole => Ok(end),
        Progress::Failed => Err(broke_off()),
    }
}
