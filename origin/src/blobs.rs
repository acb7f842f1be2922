//! Immutable bytes named by their SHA-256, on a local folder that is synced before anybody is told.
//!
//! Every blob is checked against its name while it streams in, and once more from the disk before
//! the first commit that needs it. Nothing is ever whole in memory but what fits a pack.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use wire::{Digest, Hasher, Timestamp};

/// Bytes gathered before they are written, so that small chunks don't cost a write each.
const PART: usize = 1 << 20;

/// Blobs of a pack written, or checked, side by side.
const SIDE_BY_SIDE: usize = 32;

/// Why a blob was not taken, or can't be given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    #[error("the bytes sent for blob {named} have the digest {found}")]
    WrongDigest { named: Digest, found: Digest },
    #[error("blob {0} is larger than the {1} bytes that are allowed")]
    TooLarge(Digest, u64),
    #[error("the body of blob {0} ended early: {1}")]
    Cut(Digest, String),
    #[error("blob {0} could not be stored or read: {1}")]
    Storage(Digest, object_store::Error),
}

/// What is known of a blob that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) size: u64,
    pub(crate) stored_at: Timestamp,
    /// Whether its bytes were read back from the disk and fit its name.
    checked: bool,
}

/// The folder of blobs, and what is in it.
#[derive(Debug)]
pub(crate) struct Blobs {
    store: LocalFileSystem,
    known: Mutex<HashMap<Digest, Known>>,
}

fn key(digest: &Digest) -> Key {
    let name = digest.to_string();
    Key::from(format!("{}/{name}", &name[..2]))
}

impl Blobs {
    /// Opens the folder, sweeps what an interrupted upload left, and lists what is there.
    pub(crate) async fn open(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        sweep_staging(folder)?;
        let store = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
        let mut known = HashMap::new();
        let mut listed = store.list(None);
        while let Some(object) = listed.try_next().await? {
            if let Some(digest) = object.location.filename().and_then(|name| name.parse::<Digest>().ok()) {
                let stored_at = Timestamp::from_millis(u64::try_from(object.last_modified.timestamp_millis()).unwrap_or(0));
                known.insert(digest, Known { size: object.size, stored_at, checked: false });
            }
        }
        drop(listed);
        Ok(Self { store, known: Mutex::new(known) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what is known of a blob, where it is there.
    pub(crate) fn get(&self, digest: &Digest) -> Option<Known> {
        self.lock().get(digest).copied()
    }

    /// Returns those of `digests` that are not there.
    pub(crate) fn missing(&self, digests: impl IntoIterator<Item = Digest>) -> Vec<Digest> {
        let known = self.lock();
        digests.into_iter().filter(|digest| !known.contains_key(digest)).collect()
    }

    /// Returns every blob that is there.
    pub(crate) fn all(&self) -> Vec<(Digest, Known)> {
        self.lock().iter().map(|(digest, known)| (*digest, *known)).collect()
    }

    fn remember(&self, digest: Digest, size: u64, checked: bool) {
        self.lock().insert(digest, Known { size, stored_at: Timestamp::now(), checked });
    }

    /// Stores a blob that is in memory already.
    pub(crate) async fn put(&self, digest: Digest, bytes: Bytes) -> Result<(), BlobError> {
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(BlobError::WrongDigest { named: digest, found });
        }
        if self.get(&digest).is_none() {
            let size = bytes.len() as u64;
            self.store.put(&key(&digest), PutPayload::from_bytes(bytes)).await.map_err(|error| BlobError::Storage(digest, error))?;
            self.remember(digest, size, false);
        }
        Ok(())
    }

    /// Stores several blobs that were checked when they were unpacked.
    pub(crate) async fn put_all(&self, blobs: Vec<(Digest, Bytes)>) -> Result<(), BlobError> {
        stream::iter(blobs).map(|(digest, bytes)| self.put(digest, bytes)).buffer_unordered(SIDE_BY_SIDE).try_collect().await
    }

    /// Stores a blob while it streams in. What does not fit its name, or exceeds `most` bytes, leaves nothing.
    pub(crate) async fn put_stream<E: std::fmt::Display>(
        &self,
        digest: Digest,
        most: u64,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(), BlobError> {
        let failed = |error| BlobError::Storage(digest, error);
        let mut upload = self.store.put_multipart(&key(&digest)).await.map_err(failed)?;
        match write_parts(&mut *upload, digest, most, body).await {
            Ok(size) => {
                upload.complete().await.map_err(failed)?;
                self.remember(digest, size, false);
                Ok(())
            }
            Err(error) => {
                // Where even that fails, the next start sweeps it.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    /// Returns a blob's bytes as a stream.
    pub(crate) async fn read(&self, digest: Digest) -> Result<impl Stream<Item = object_store::Result<Bytes>> + use<>, BlobError> {
        let found = self.store.get(&key(&digest)).await.map_err(|error| BlobError::Storage(digest, error))?;
        Ok(found.into_stream())
    }

    /// Returns a blob's bytes at once; for manifests and for what is compressed.
    pub(crate) async fn read_whole(&self, digest: Digest) -> Result<Bytes, BlobError> {
        let failed = |error| BlobError::Storage(digest, error);
        self.store.get(&key(&digest)).await.map_err(failed)?.bytes().await.map_err(failed)
    }

    /// Reads back what was not read back yet, and compares it with its name.
    pub(crate) async fn check(&self, digests: HashSet<Digest>) -> Result<(), BlobError> {
        let unchecked: Vec<_> = {
            let known = self.lock();
            digests.into_iter().filter(|digest| known.get(digest).is_none_or(|known| !known.checked)).collect()
        };
        stream::iter(unchecked).map(|digest| self.check_one(digest)).buffer_unordered(SIDE_BY_SIDE).try_collect().await
    }

    /// What can't be read, or is not what it is called, counts as missing: its publisher sends it again.
    async fn check_one(&self, digest: Digest) -> Result<(), BlobError> {
        let checked = self.read_back(digest).await;
        let mut known = self.lock();
        match (&checked, known.get_mut(&digest)) {
            (Ok(()), Some(known)) => known.checked = true,
            (Ok(()), None) => {}
            (Err(_), _) => {
                known.remove(&digest);
            }
        }
        checked
    }

    async fn read_back(&self, digest: Digest) -> Result<(), BlobError> {
        let mut body = std::pin::pin!(self.read(digest).await?);
        let mut hasher = Hasher::new();
        while let Some(chunk) = body.next().await {
            hasher.update(&chunk.map_err(|error| BlobError::Storage(digest, error))?);
        }
        let found = hasher.finish();
        if found == digest { Ok(()) } else { Err(BlobError::WrongDigest { named: digest, found }) }
    }

    /// Deletes a blob.
    pub(crate) async fn delete(&self, digest: Digest) -> Result<(), BlobError> {
        self.lock().remove(&digest);
        match self.store.delete(&key(&digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(BlobError::Storage(digest, error)),
        }
    }
}

async fn write_parts<E: std::fmt::Display>(
    upload: &mut dyn MultipartUpload,
    digest: Digest,
    most: u64,
    body: impl Stream<Item = Result<Bytes, E>>,
) -> Result<u64, BlobError> {
    let (mut hasher, mut size, mut part) = (Hasher::new(), 0, Vec::with_capacity(PART));
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| BlobError::Cut(digest, error.to_string()))?;
        size += chunk.len() as u64;
        if size > most {
            return Err(BlobError::TooLarge(digest, most));
        }
        hasher.update(&chunk);
        part.extend_from_slice(&chunk);
        if part.len() >= PART {
            upload.put_part(std::mem::take(&mut part).into()).await.map_err(|error| BlobError::Storage(digest, error))?;
        }
    }
    let found = hasher.finish();
    if found != digest {
        return Err(BlobError::WrongDigest { named: digest, found });
    }
    upload.put_part(part.into()).await.map_err(|error| BlobError::Storage(digest, error))?;
    Ok(size)
}

/// object_store writes to `name#N` first and does not list those; after a kill they would stay for ever.
fn sweep_staging(folder: &Path) -> std::io::Result<()> {
    for shard in std::fs::read_dir(folder)? {
        let shard = shard?;
        if !shard.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(shard.path())? {
            let file = file?;
            if file.file_name().to_string_lossy().contains('#') {
                std::fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(parts: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes, std::io::Error>> + use<> {
        stream::iter(parts.iter().map(|part| Ok(Bytes::from_static(part))).collect::<Vec<_>>())
    }

    async fn files(folder: &Path) -> usize {
        Blobs::open(folder).await.unwrap().all().len()
    }

    #[tokio::test]
    async fn a_blob_streams_in_and_out_and_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).await.unwrap();
        let digest = Digest::of(b"abc");
        blobs.put_stream(digest, 3, chunks(&[b"a", b"bc"])).await.unwrap();
        blobs.check(HashSet::from([digest])).await.unwrap();
        assert_eq!(blobs.read_whole(digest).await.unwrap(), "abc");
        let again = Blobs::open(folder.path()).await.unwrap();
        assert_eq!(again.get(&digest).unwrap().size, 3);
    }

    #[tokio::test]
    async fn what_does_not_fit_its_name_or_size_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).await.unwrap();
        let digest = Digest::of(b"abc");
        assert!(matches!(blobs.put_stream(digest, 9, chunks(&[b"abd"])).await, Err(BlobError::WrongDigest { .. })));
        assert!(matches!(blobs.put_stream(digest, 2, chunks(&[b"abc"])).await, Err(BlobError::TooLarge(..))));
        let cut = stream::iter([Ok(Bytes::from_static(b"ab")), Err(std::io::Error::other("gone"))]);
        assert!(matches!(blobs.put_stream(digest, 9, cut).await, Err(BlobError::Cut(..))));
        assert!(matches!(blobs.put(digest, Bytes::from_static(b"x")).await, Err(BlobError::WrongDigest { .. })));
        assert!(blobs.get(&digest).is_none());
        assert_eq!(files(folder.path()).await, 0);
    }

    #[tokio::test]
    async fn a_blob_that_rotted_on_the_disk_counts_as_missing() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(folder.path()).await.unwrap();
        let digest = Digest::of(b"abc");
        blobs.put(digest, Bytes::from_static(b"abc")).await.unwrap();
        std::fs::write(folder.path().join(key(&digest).as_ref()), b"abd").unwrap();
        assert!(blobs.check(HashSet::from([digest])).await.is_err());
        assert_eq!(blobs.missing([digest]), [digest]);
        blobs.put(digest, Bytes::from_static(b"abc")).await.unwrap();
        blobs.check(HashSet::from([digest])).await.unwrap();
    }
}
