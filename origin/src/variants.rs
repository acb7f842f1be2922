//! Compressed forms of blobs, made once by a bounded pool, the most requested blob first.
//!
//! Publishing does not wait for them: until the best form is made, whoever asks gets a quick one.

use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use bytes::Bytes;
use wire::Digest;

use crate::blobs::Blobs;

/// The largest blob that is compressed: it is whole in memory meanwhile.
const LARGEST: u64 = 32 << 20;

/// Blobs that wait to be compressed. Beyond it the least requested are compressed when next asked for.
const WAITING: usize = 100_000;

/// A content coding (RFC 9110, 8.4.1; zstd: RFC 8878).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Coding {
    /// Zstandard.
    Zstd,
    /// Brotli.
    Br,
    /// gzip.
    Gzip,
}

impl Coding {
    const ALL: [Self; 3] = [Self::Zstd, Self::Br, Self::Gzip];

    /// Returns the coding of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|coding| coding.name() == name)
    }

    /// Returns the name that HTTP knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }

    /// Compresses. `quick` is for somebody who waits, otherwise it is done once for many readers.
    fn encode(self, bytes: &[u8], quick: bool) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Zstd => zstd::encode_all(bytes, if quick { 3 } else { 19 }),
            Self::Gzip => {
                let level = if quick { 4 } else { 9 };
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Self::Br => {
                let mut out = Vec::new();
                let parameters = brotli::enc::BrotliEncoderParams { quality: if quick { 4 } else { 11 }, ..Default::default() };
                brotli::BrotliCompress(&mut &bytes[..], &mut out, &parameters)?;
                Ok(out)
            }
        }
    }
}

/// A compressed form of a blob.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    /// Its own bytes' digest.
    pub(crate) digest: Digest,
    /// Its bytes.
    pub(crate) bytes: Bytes,
    /// Whether it is the best that there will be.
    pub(crate) best: bool,
}

/// Makes and keeps the variants. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Variants(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Requests per blob that waits.
    wanted: HashMap<Digest, u64>,
    /// The same by count: the last is the most requested.
    order: BTreeSet<(u64, Digest)>,
    /// Blobs that don't get smaller, so that nobody tries twice.
    useless: BTreeSet<(Digest, Coding)>,
    stopped: bool,
}

impl Variants {
    /// Opens the folder.
    pub(crate) fn open(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self(Arc::new(Inner { folder: folder.to_owned(), queue: Mutex::default(), wake: Condvar::new() })))
    }

    /// Starts the workers. They end when [`Self::stop`] was called.
    pub(crate) fn start(&self, blobs: &Arc<Blobs>, runtime: &tokio::runtime::Handle) -> std::io::Result<()> {
        let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        for n in 0..workers {
            let (this, blobs, runtime) = (self.clone(), Arc::clone(blobs), runtime.clone());
            std::thread::Builder::new().name(format!("variants-{n}")).spawn(move || this.work(&blobs, &runtime))?;
        }
        Ok(())
    }

    /// Lets the workers end.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.0.wake.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for all variants of a blob; asking again makes it more urgent.
    pub(crate) fn want(&self, digest: Digest, size: u64) {
        if size > LARGEST {
            return;
        }
        let mut queue = self.lock();
        let count = queue.wanted.get(&digest).copied();
        if count.is_none() && queue.wanted.len() >= WAITING {
            return;
        }
        let count = count.inspect(|count| {
            queue.order.remove(&(*count, digest));
        });
        let count = count.unwrap_or(0) + 1;
        queue.wanted.insert(digest, count);
        queue.order.insert((count, digest));
        drop(queue);
        self.0.wake.notify_one();
    }

    fn work(&self, blobs: &Blobs, runtime: &tokio::runtime::Handle) {
        while let Some(digest) = self.next() {
            if Coding::ALL.iter().all(|coding| self.path(&digest, *coding).exists() || self.is_useless(&digest, *coding)) {
                continue;
            }
            match runtime.block_on(blobs.read_whole(digest)) {
                Ok(bytes) => Coding::ALL.into_iter().for_each(|coding| self.make(&digest, coding, &bytes)),
                Err(error) => tracing::warn!(%error, "failed to read a blob to compress it"),
            }
        }
    }

    fn next(&self) -> Option<Digest> {
        let mut queue = self.lock();
        loop {
            if queue.stopped {
                return None;
            }
            if let Some((_, digest)) = queue.order.pop_last() {
                queue.wanted.remove(&digest);
                return Some(digest);
            }
            queue = self.0.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn make(&self, digest: &Digest, coding: Coding, bytes: &[u8]) {
        let path = self.path(digest, coding);
        if path.exists() || self.is_useless(digest, coding) {
            return;
        }
        let made = coding.encode(bytes, false).and_then(|coded| {
            if worth_it(bytes.len(), coded.len()) {
                // Whole or not at all. It is not synced: what is lost is made again.
                let staged = path.with_extension(format!("{}.new", coding.name()));
                std::fs::write(&staged, coded)?;
                std::fs::rename(staged, &path)?;
            } else {
                self.lock().useless.insert((*digest, coding));
            }
            Ok(())
        });
        if let Err(error) = made {
            tracing::warn!(%error, %digest, coding = coding.name(), "failed to make a variant");
        }
    }

    fn is_useless(&self, digest: &Digest, coding: Coding) -> bool {
        self.lock().useless.contains(&(*digest, coding))
    }

    fn path(&self, digest: &Digest, coding: Coding) -> PathBuf {
        self.0.folder.join(format!("{digest}.{}", coding.name()))
    }

    /// Returns the variant of a blob: the best where it is made, a quick one otherwise, and `None`
    /// where the blob itself is the best there is.
    pub(crate) async fn get(&self, blobs: &Blobs, digest: Digest, size: u64, coding: Coding) -> Option<Variant> {
        if size > LARGEST || self.is_useless(&digest, coding) {
            return None;
        }
        if let Ok(bytes) = tokio::fs::read(self.path(&digest, coding)).await {
            return Some(Variant { digest: Digest::of(&bytes), bytes: bytes.into(), best: true });
        }
        self.want(digest, size);
        let plain = blobs.read_whole(digest).await.ok()?;
        let coded = tokio::task::spawn_blocking(move || coding.encode(&plain, true).map(|coded| (plain.len(), coded))).await.ok()?.ok()?;
        let (plain_len, coded) = coded;
        worth_it(plain_len, coded.len()).then(|| Variant { digest: Digest::of(&coded), bytes: coded.into(), best: false })
    }

    /// Forgets the variants of a blob that was deleted.
    pub(crate) fn delete(&self, digest: &Digest) {
        for coding in Coding::ALL {
            let _ = std::fs::remove_file(self.path(digest, coding));
        }
    }
}

/// A variant must save a twentieth: less is not worth a second copy in every cache.
fn worth_it(plain: usize, coded: usize) -> bool {
    coded < plain - plain / 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_asks_first_gets_a_quick_form_and_later_the_best() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Arc::new(Blobs::open(&folder.path().join("blobs")).await.unwrap());
        let variants = Variants::open(&folder.path().join("variants")).unwrap();
        let text = Bytes::from("all the islets of the ring ".repeat(500));
        let (digest, size) = (Digest::of(&text), text.len() as u64);
        blobs.put(digest, text.clone(), None).await.unwrap();
        let quick = variants.get(&blobs, digest, size, Coding::Gzip).await.unwrap();
        assert!(!quick.best && quick.bytes.len() < text.len() / 4);
        variants.make(&digest, Coding::Gzip, &text);
        let best = variants.get(&blobs, digest, size, Coding::Gzip).await.unwrap();
        assert!(best.best && best.bytes.len() <= quick.bytes.len());
        assert_eq!(best.digest, Digest::of(&best.bytes));
    }

    #[tokio::test]
    async fn what_does_not_get_smaller_has_no_variant() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&folder.path().join("blobs")).await.unwrap();
        let variants = Variants::open(&folder.path().join("variants")).unwrap();
        let mut noise = vec![0; 4096];
        getrandom::fill(&mut noise).unwrap();
        let digest = Digest::of(&noise);
        blobs.put(digest, noise.clone().into(), None).await.unwrap();
        assert!(variants.get(&blobs, digest, 4096, Coding::Zstd).await.is_none());
    }

    #[test]
    fn the_most_requested_blob_is_next() {
        let folder = tempfile::tempdir().unwrap();
        let variants = Variants::open(folder.path()).unwrap();
        let (rare, hot) = (Digest::of(b"rare"), Digest::of(b"hot"));
        variants.want(hot, 1000);
        variants.want(rare, 1000);
        variants.want(hot, 1000);
        assert_eq!((variants.next(), variants.next()), (Some(hot), Some(rare)));
    }
}
