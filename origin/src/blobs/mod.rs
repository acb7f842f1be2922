//! Immutable bytes named by their SHA-256: in a folder of this origin, or in a bucket that several origins share.
//!
//! Every blob is checked against its name while it streams in, and once more from where it is stored before
//! the first commit that needs it. Nothing is ever whole in memory but what fits a pack or a part.
//!
//! In a bucket others store and delete too. What this origin knows of it counts for one moment of the journal: a copy that
//! a listing showed, and that the journal did not condemn before the listing began, is there for whoever appends on the
//! condition that nothing was condemned since. Deleting a copy needs an event that condemned it, so it can't happen first.

mod names;
mod send;
mod carry;
mod bucket;
mod folder;
mod known;
#[cfg(test)]
pub(crate) mod suite;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path as Key;
use object_store::{GetResult, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutPayload};
use wire::{Digest, EngineStatus, Hasher, Timestamp};

pub(crate) use known::Known;
pub(crate) use names::{Mark, Name, Verdict};

use known::Memory;
use send::{Incoming, Upload};

/// Blobs written, looked for, checked or deleted side by side.
const SIDE_BY_SIDE: usize = 32;

/// How long a bucket may take to tell that it is well.
const ASKED_WITHIN: Duration = Duration::from_secs(2);

/// Why a blob was not taken, or can't be given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    #[error("the bytes sent for blob {named} have the digest {found}")]
    WrongDigest { named: Digest, found: Digest },
    #[error("blob {0} is larger than the {1} bytes that are allowed")]
    TooLarge(Digest, u64),
    #[error("the body of blob {0} ended early: {1}")]
    Cut(Digest, String),
    #[error("there is no blob {0}")]
    Missing(Digest),
    #[error("blob {0} could not be stored or read: {1}")]
    Storage(Digest, object_store::Error),
    #[error("the store of blobs did not store or give {0}: {1}")]
    Away(Digest, object_store::Error),
    #[error("the blobs could not be listed: {0}")]
    List(object_store::Error),
}

/// Where blobs are stored, and what differs by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A folder that nobody else writes to.
    Folder,
    /// A bucket, or a folder, that other origins write to.
    Shared,
}

impl Place {
    /// Returns the bytes of a part. In a folder they are gathered so that small chunks don't cost a write each; S3 takes
    /// 5 MiB at the least and 10,000 parts, some stores only parts of one size, and larger ones would take longer than a
    /// bucket may keep silent.
    fn part(self) -> usize {
        match self {
            Self::Folder => 1 << 20,
            Self::Shared => 5 << 20,
        }
    }
}

/// A stored copy, as a listing shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    pub(crate) name: Name,
    pub(crate) size: u64,
    pub(crate) stored_at: Timestamp,
}

/// The blobs.
pub(crate) struct Blobs {
    store: Arc<dyn ObjectStore>,
    place: Place,
    /// Where that is, for people.
    at: String,
    memory: Mutex<Memory>,
}

impl fmt::Debug for Blobs {
    /// Of a bucket's client nothing is shown: it holds the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Blobs {
    /// Opens a folder, sweeps what an interrupted upload left, and lists what is there.
    pub(crate) async fn open(folder: &Path) -> anyhow::Result<Self> {
        let blobs = Self::over(folder::open(folder)?, Place::Folder, "embedded".to_owned());
        blobs.learn(None).await?;
        Ok(blobs)
    }

    /// Opens a bucket; [`Self::learn`] lists what is there.
    pub(crate) async fn in_bucket(settings: &config::Bucket) -> anyhow::Result<Self> {
        Ok(Self::over(bucket::open(settings).await?, Place::Shared, settings.to_string()))
    }

    /// Opens a folder that other origins write to; [`Self::learn`] lists what is there.
    pub(crate) fn in_shared_folder(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self::over(folder::open_shared(folder)?, Place::Shared, format!("file://{}", folder.display())))
    }

    fn over(store: Arc<dyn ObjectStore>, place: Place, at: String) -> Self {
        Self { store, place, at, memory: Mutex::new(Memory::new(place)) }
    }

    /// Tells how it is: a bucket is asked for what is not there.
    pub(crate) async fn status(&self) -> EngineStatus {
        let (name, at) = ("blobs".to_owned(), self.at.clone());
        if self.place == Place::Folder {
            return EngineStatus { name, at, well: true, notes: Vec::new() };
        }
        let asked = tokio::time::timeout(ASKED_WITHIN, self.store.head(&Key::from("status"))).await;
        let trouble = match asked {
            Ok(Ok(_) | Err(object_store::Error::NotFound { .. })) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("it did not answer within {ASKED_WITHIN:?}")),
        };
        EngineStatus { name, at, well: trouble.is_none(), notes: trouble.into_iter().collect() }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether other origins store and delete here too.
    pub(crate) fn is_shared(&self) -> bool {
        self.place == Place::Shared
    }

    /// Remembers every blob that is there and that `verdict`, which is from before this, does not condemn.
    pub(crate) async fn learn(&self, verdict: Option<&Verdict>) -> Result<(), BlobError> {
        let mut listed = self.list(None);
        while let Some(stored) = listed.try_next().await.map_err(BlobError::List)? {
            self.memory().hear(&stored, verdict);
        }
        Ok(())
    }

    /// Returns every copy that is stored.
    pub(crate) async fn stored(&self) -> Result<Vec<Stored>, BlobError> {
        match self.place {
            Place::Folder => Ok(self.memory().all().into_iter().map(Stored::from).collect()),
            Place::Shared => self.list(None).try_collect().await.map_err(BlobError::List),
        }
    }

    fn list(&self, under: Option<&Key>) -> BoxStream<'static, object_store::Result<Stored>> {
        let is_shared = self.is_shared();
        let read = move |object: ObjectMeta| {
            let name = Name::of(&object.location).filter(|name| name.is_numbered() == is_shared)?;
            let stored_at = Timestamp::from_millis(u64::try_from(object.last_modified.timestamp_millis()).unwrap_or(0));
            Some(Stored { name, size: object.size, stored_at })
        };
        self.store.list(under).try_filter_map(move |object| std::future::ready(Ok(read(object)))).boxed()
    }

    /// Returns what is remembered of a blob.
    #[cfg(test)]
    pub(crate) fn get(&self, digest: &Digest) -> Option<Known> {
        self.memory().get(digest)
    }

    /// Returns what is known of a blob that can be read; where others store too, it is looked for.
    pub(crate) async fn find(&self, digest: Digest) -> Result<Option<Known>, BlobError> {
        let known = self.memory().get(&digest);
        if known.is_some() || self.place == Place::Folder {
            return Ok(known);
        }
        self.look_up(digest, None).await
    }

    /// Returns those of `digests` that have a copy to be relied on by whoever appends on the condition that nothing was
    /// condemned since `verdict`. In a bucket no such copy is condemned; in a folder it is for a commit to lift it.
    pub(crate) async fn live(&self, digests: HashSet<Digest>, verdict: &Verdict) -> Result<HashMap<Digest, Known>, BlobError> {
        let (mut live, mut unsure) = (HashMap::new(), Vec::new());
        {
            let memory = self.memory();
            for digest in digests {
                match memory.sure(&digest, Some(verdict.mark)) {
                    Some(known) => {
                        live.insert(digest, known);
                    }
                    None => unsure.push(digest),
                }
            }
        }
        if self.place == Place::Shared {
            let looked = stream::iter(unsure).map(|digest| self.look_up(digest, Some(verdict))).buffer_unordered(SIDE_BY_SIDE);
            let found: Vec<_> = looked.try_collect().await?;
            live.extend(found.into_iter().flatten().map(|known| (known.name.digest, known)));
        }
        Ok(live)
    }

    /// Lists the copies of a blob, and takes the newest: whoever sent it again had a reason.
    async fn look_up(&self, digest: Digest, verdict: Option<&Verdict>) -> Result<Option<Known>, BlobError> {
        let copies: Vec<Stored> =
            self.list(Some(&Name::shelf(&digest))).try_collect().await.map_err(|error| self.not_stored(digest, error))?;
        let mut memory = self.memory();
        let usable = copies.into_iter().filter(|copy| verdict.is_none_or(|verdict| !verdict.condemns(&copy.name)));
        let best = usable.filter(|copy| !memory.is_spoiled(&copy.name)).max_by_key(|copy| (copy.stored_at, copy.name));
        Ok(best.map(|copy| memory.note(&copy, verdict.map(|verdict| verdict.mark))))
    }

    /// Stores a blob that is in memory already, unless it is there at that moment of the journal.
    pub(crate) async fn put(&self, digest: Digest, bytes: Bytes, mark: Option<Mark>) -> Result<(), BlobError> {
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(BlobError::WrongDigest { named: digest, found });
        }
        if self.memory().sure(&digest, mark).is_some() {
            return Ok(());
        }
        self.put_new(digest, bytes, mark).await
    }

    async fn put_new(&self, digest: Digest, bytes: Bytes, mark: Option<Mark>) -> Result<(), BlobError> {
        let (name, size) = (self.new_name(digest)?, bytes.len() as u64);
        self.store.put(&name.key(), PutPayload::from_bytes(bytes)).await.map_err(|error| self.not_stored(digest, error))?;
        self.remember(name, size, mark);
        Ok(())
    }

    /// Stores several blobs that were checked when they were unpacked.
    pub(crate) async fn put_all(&self, blobs: Vec<(Digest, Bytes)>, mark: Option<Mark>) -> Result<(), BlobError> {
        stream::iter(blobs).map(|(digest, bytes)| self.put(digest, bytes, mark)).buffer_unordered(SIDE_BY_SIDE).try_collect().await
    }

    /// Stores a blob while it streams in. What does not fit its name, or exceeds `most` bytes, leaves nothing.
    pub(crate) async fn put_stream<E: fmt::Display>(
        &self,
        digest: Digest,
        most: u64,
        body: impl Stream<Item = Result<Bytes, E>>,
        mark: Option<Mark>,
    ) -> Result<(), BlobError> {
        let body = std::pin::pin!(body);
        let mut incoming = Incoming::new(digest, most, body);
        let first = incoming.next(self.place.part()).await?;
        if first.len() < self.place.part() {
            incoming.finish()?;
            return self.put_new(digest, first, mark).await;
        }
        let name = self.new_name(digest)?;
        let upload = self.store.put_multipart(&name.key()).await.map_err(|error| self.not_stored(digest, error))?;
        let mut upload = Upload::new(upload);
        match self.put_parts(&mut upload, first, &mut incoming).await {
            Ok(size) => {
                self.remember(name, size, mark);
                Ok(())
            }
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    async fn put_parts<B, E>(&self, upload: &mut Upload, first: Bytes, incoming: &mut Incoming<B>) -> Result<u64, BlobError>
    where
        B: Stream<Item = Result<Bytes, E>> + Unpin,
        E: fmt::Display,
    {
        let mut part = first;
        while !part.is_empty() {
            upload.put(part).await.map_err(|error| self.not_stored(incoming.digest(), error))?;
            part = incoming.next(self.place.part()).await?;
        }
        let size = incoming.finish()?;
        upload.complete().await.map_err(|error| self.not_stored(incoming.digest(), error))?;
        Ok(size)
    }

    fn new_name(&self, digest: Digest) -> Result<Name, BlobError> {
        if self.place == Place::Folder {
            return Ok(Name::only(digest));
        }
        let mut number = [0; 8];
        let no_number = |error: getrandom::Error| object_store::Error::Generic { store: "S3", source: error.to_string().into() };
        getrandom::fill(&mut number).map_err(|error| BlobError::Storage(digest, no_number(error)))?;
        Ok(Name::numbered(digest, u64::from_be_bytes(number)))
    }

    fn remember(&self, name: Name, size: u64, mark: Option<Mark>) {
        self.memory().note(&Stored { name, size, stored_at: Timestamp::now() }, mark);
    }

    /// Returns a blob's size, and its bytes as a stream.
    pub(crate) async fn read(&self, digest: Digest) -> Result<(u64, BoxStream<'static, object_store::Result<Bytes>>), BlobError> {
        let found = self.fetch(digest).await?;
        Ok((found.meta.size, found.into_stream()))
    }

    /// Returns a blob's bytes at once; for manifests and for what is compressed.
    pub(crate) async fn read_whole(&self, digest: Digest) -> Result<Bytes, BlobError> {
        self.fetch(digest).await?.bytes().await.map_err(|error| self.failed(digest, error))
    }

    /// What is known may have been deleted by another origin; then there may be another copy.
    async fn fetch(&self, digest: Digest) -> Result<GetResult, BlobError> {
        if self.place == Place::Folder {
            return self.fetch_copy(&Name::only(digest)).await;
        }
        let known = self.find(digest).await?.ok_or(BlobError::Missing(digest))?;
        match self.fetch_copy(&known.name).await {
            Err(BlobError::Missing(_)) => {
                self.memory().forget(&known.name);
                let other = self.look_up(digest, None).await?.ok_or(BlobError::Missing(digest))?;
                self.fetch_copy(&other.name).await
            }
            fetched => fetched,
        }
    }

    async fn fetch_copy(&self, name: &Name) -> Result<GetResult, BlobError> {
        self.store.get(&name.key()).await.map_err(|error| self.failed(name.digest, error))
    }

    /// Reads back what was not read back yet, and compares it with its name.
    pub(crate) async fn check(&self, copies: impl IntoIterator<Item = Known>) -> Result<(), BlobError> {
        let unchecked: Vec<_> = copies.into_iter().filter(|known| !known.checked).map(|known| known.name).collect();
        stream::iter(unchecked).map(|name| self.check_one(name)).buffer_unordered(SIDE_BY_SIDE).try_collect().await
    }

    /// What can't be read, or is not what it is called, counts as missing: its publisher sends it again.
    async fn check_one(&self, name: Name) -> Result<(), BlobError> {
        let checked = self.read_back(name).await;
        let mut memory = self.memory();
        match &checked {
            Ok(()) => memory.note_checked(&name),
            Err(BlobError::WrongDigest { .. }) => memory.note_spoiled(&name),
            // A bucket that is away for a moment has lost nothing.
            Err(BlobError::Away(..)) => {}
            Err(_) => memory.forget(&name),
        }
        checked
    }

    async fn read_back(&self, name: Name) -> Result<(), BlobError> {
        let mut body = self.fetch_copy(&name).await?.into_stream();
        let mut hasher = Hasher::new();
        while let Some(chunk) = body.next().await {
            hasher.update(&chunk.map_err(|error| self.failed(name.digest, error))?);
        }
        let found = hasher.finish();
        if found == name.digest { Ok(()) } else { Err(BlobError::WrongDigest { named: name.digest, found }) }
    }

    /// Deletes copies.
    pub(crate) async fn delete(&self, names: Vec<Name>) -> Result<(), BlobError> {
        stream::iter(names).map(|name| self.delete_one(name)).buffer_unordered(SIDE_BY_SIDE).try_collect().await
    }

    async fn delete_one(&self, name: Name) -> Result<(), BlobError> {
        self.memory().forget(&name);
        match self.store.delete(&name.key()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.not_stored(name.digest, error)),
        }
    }

    /// Forgets the copies that are condemned, and returns their blobs: whoever collects is another origin perhaps.
    pub(crate) fn forget_condemned(&self, verdict: &Verdict) -> Vec<Digest> {
        match self.place {
            Place::Folder => Vec::new(),
            Place::Shared => self.memory().forget_condemned(verdict),
        }
    }

    fn failed(&self, digest: Digest, error: object_store::Error) -> BlobError {
        match error {
            object_store::Error::NotFound { .. } => BlobError::Missing(digest),
            error => self.not_stored(digest, error),
        }
    }

    /// Where nothing is read, what is not found is the bucket itself.
    fn not_stored(&self, digest: Digest, error: object_store::Error) -> BlobError {
        match self.place {
            Place::Folder => BlobError::Storage(digest, error),
            Place::Shared => BlobError::Away(digest, error),
        }
    }
}

impl From<Known> for Stored {
    fn from(known: Known) -> Self {
        Self { name: known.name, size: known.size, stored_at: known.stored_at }
    }
}
