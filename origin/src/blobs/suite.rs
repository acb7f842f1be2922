//! What holds wherever blobs are stored: one suite for the folder, the bucket and the shared folder, and what holds alone where origins share.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tempfile::TempDir;
use wire::Digest;

use super::{BlobError, Blobs, Place, Verdict, folder};

/// Where blobs are stored. Each origin that opens it has its own view of it.
pub(crate) struct Home {
    place: Place,
    store: Arc<dyn ObjectStore>,
    _folder: TempDir,
}

impl Home {
    fn new(place: Place) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn ObjectStore> = match place {
            Place::Folder => folder::open(folder.path()).unwrap(),
            Place::Shared => Arc::new(InMemory::new()),
        };
        Self { place, store, _folder: folder }
    }

    fn shared_folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { place: Place::Shared, store: folder::open_shared(folder.path()).unwrap(), _folder: folder }
    }

    fn each() -> [Self; 3] {
        [Self::new(Place::Folder), Self::new(Place::Shared), Self::shared_folder()]
    }

    pub(crate) fn bucket() -> Self {
        Self::new(Place::Shared)
    }

    pub(crate) async fn open(&self) -> Blobs {
        let blobs = Blobs::over(Arc::clone(&self.store), self.place, "here".to_owned());
        blobs.learn(Some(&Verdict::at(0, []))).await.unwrap();
        blobs
    }

    async fn files(&self) -> usize {
        self.store.list(None).count().await
    }

    /// Lets every file rot.
    async fn spoil(&self) {
        let files: Vec<_> = self.store.list(None).try_collect().await.unwrap();
        for file in files {
            self.store.put(&file.location, "rot".into()).await.unwrap();
        }
    }
}

fn chunks(parts: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes, std::io::Error>> + use<> {
    stream::iter(parts.iter().map(|part| Ok(Bytes::from_static(part))).collect::<Vec<_>>())
}

fn live_at(seq: u64) -> Verdict {
    Verdict::at(seq, [])
}

async fn is_live(blobs: &Blobs, digest: Digest, verdict: &Verdict) -> bool {
    blobs.live(HashSet::from([digest]), verdict).await.unwrap().contains_key(&digest)
}

async fn check(blobs: &Blobs, digest: Digest, verdict: &Verdict) -> Result<(), BlobError> {
    let live = blobs.live(HashSet::from([digest]), verdict).await?;
    blobs.check(live.into_values()).await
}

#[tokio::test]
async fn a_blob_streams_in_and_out_and_is_there_after_reopening() {
    for home in Home::each() {
        let blobs = home.open().await;
        let (digest, now) = (Digest::of(b"abc"), live_at(0));
        blobs.put_stream(digest, 3, chunks(&[b"a", b"bc"]), Some(now.mark)).await.unwrap();
        check(&blobs, digest, &now).await.unwrap();
        assert_eq!(blobs.read_whole(digest).await.unwrap(), "abc");
        let again = home.open().await;
        assert_eq!(again.get(&digest).unwrap().size, 3);
        let (size, body) = again.read(digest).await.unwrap();
        assert_eq!((size, body.try_collect::<Vec<_>>().await.unwrap().concat()), (3, b"abc".to_vec()));
    }
}

#[tokio::test]
async fn a_blob_of_several_parts_is_whole_and_one_that_ends_wrongly_leaves_nothing() {
    for home in Home::each() {
        let blobs = home.open().await;
        let part = blobs.place.part();
        for size in [0, part - 1, part, part + 1, 2 * part] {
            let bytes = Bytes::from(vec![7; size]);
            let (digest, most) = (Digest::of(&bytes), size as u64);
            let body = || stream::iter(bytes.chunks(99_991).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect::<Vec<_>>());
            let cut = body().chain(stream::iter([Err(std::io::Error::other("gone"))]));
            assert!(matches!(blobs.put_stream(digest, most, cut, None).await, Err(BlobError::Cut(..))));
            let longer = body().chain(chunks(&[b"x"]));
            assert!(blobs.put_stream(digest, most + 1, longer, None).await.is_err());
            assert!(blobs.find(digest).await.unwrap().is_none(), "{size}");
            blobs.put_stream(digest, most, body(), None).await.unwrap();
            assert_eq!(blobs.read_whole(digest).await.unwrap(), bytes);
        }
        assert_eq!(home.files().await, 5);
    }
}

#[tokio::test]
async fn what_does_not_fit_its_name_or_size_leaves_nothing() {
    for home in Home::each() {
        let blobs = home.open().await;
        let digest = Digest::of(b"abc");
        assert!(matches!(blobs.put_stream(digest, 9, chunks(&[b"abd"]), None).await, Err(BlobError::WrongDigest { .. })));
        assert!(matches!(blobs.put_stream(digest, 2, chunks(&[b"abc"]), None).await, Err(BlobError::TooLarge(..))));
        let cut = stream::iter([Ok(Bytes::from_static(b"ab")), Err(std::io::Error::other("gone"))]);
        assert!(matches!(blobs.put_stream(digest, 9, cut, None).await, Err(BlobError::Cut(..))));
        assert!(matches!(blobs.put(digest, Bytes::from_static(b"x"), None).await, Err(BlobError::WrongDigest { .. })));
        assert!(blobs.find(digest).await.unwrap().is_none());
        assert!(matches!(blobs.read_whole(digest).await, Err(BlobError::Missing(_))));
        assert_eq!(home.files().await, 0);
    }
}

#[tokio::test]
async fn a_blob_that_rotted_counts_as_missing_until_it_is_sent_again() {
    for home in Home::each() {
        let blobs = home.open().await;
        let (digest, now) = (Digest::of(b"abc"), live_at(0));
        blobs.put(digest, Bytes::from_static(b"abc"), Some(now.mark)).await.unwrap();
        home.spoil().await;
        assert!(matches!(check(&blobs, digest, &now).await, Err(BlobError::WrongDigest { .. })));
        assert!(!is_live(&blobs, digest, &now).await);
        blobs.put(digest, Bytes::from_static(b"abc"), Some(now.mark)).await.unwrap();
        check(&blobs, digest, &now).await.unwrap();
        assert_eq!(blobs.read_whole(digest).await.unwrap(), "abc");
    }
}

#[tokio::test]
async fn what_another_origin_stored_is_found_and_what_it_deleted_is_missed() {
    let home = Home::bucket();
    let (here, there) = (home.open().await, home.open().await);
    let (digest, now) = (Digest::of(b"abc"), live_at(0));
    there.put(digest, Bytes::from_static(b"abc"), Some(now.mark)).await.unwrap();

    assert!(is_live(&here, digest, &now).await);
    assert_eq!(here.read_whole(digest).await.unwrap(), "abc");
    there.delete(vec![there.get(&digest).unwrap().name]).await.unwrap();

    assert!(matches!(here.read_whole(digest).await, Err(BlobError::Missing(_))));
    assert!(!is_live(&here, digest, &now).await);
}

#[tokio::test]
async fn what_is_known_counts_only_as_long_as_nothing_was_condemned() {
    let home = Home::bucket();
    let (here, there) = (home.open().await, home.open().await);
    let digest = Digest::of(b"abc");
    here.put(digest, Bytes::from_static(b"abc"), Some(live_at(1).mark)).await.unwrap();
    let condemned = Verdict::at(2, [here.get(&digest).unwrap().name.id()]);
    there.find(digest).await.unwrap();

    assert!(is_live(&here, digest, &live_at(1)).await);
    assert!(!is_live(&here, digest, &condemned).await);
    assert_eq!(here.read_whole(digest).await.unwrap(), "abc", "it is there until the grace has passed");
    there.delete(vec![there.get(&digest).unwrap().name]).await.unwrap();
    // The event that says so takes it off the list of what is condemned.
    assert!(!is_live(&here, digest, &live_at(3)).await);
}

#[tokio::test]
async fn a_condemned_blob_that_is_sent_again_is_another_copy_which_a_late_delete_does_not_meet() {
    let home = Home::bucket();
    let (here, there) = (home.open().await, home.open().await);
    let digest = Digest::of(b"abc");
    here.put(digest, Bytes::from_static(b"abc"), Some(live_at(1).mark)).await.unwrap();
    let old = here.get(&digest).unwrap().name;
    let condemned = Verdict::at(2, [old.id()]);

    there.put(digest, Bytes::from_static(b"abc"), Some(condemned.mark)).await.unwrap();
    here.delete(vec![old]).await.unwrap();

    assert!(is_live(&here, digest, &condemned).await && is_live(&there, digest, &condemned).await);
    assert_eq!(here.forget_condemned(&condemned), []);
    assert_eq!(here.read_whole(digest).await.unwrap(), "abc");
    assert_eq!(home.files().await, 1);
}

#[tokio::test]
async fn a_blob_that_is_there_is_stored_once() {
    for home in Home::each() {
        let blobs = home.open().await;
        let digest = Digest::of(b"abc");
        for _ in 0..3 {
            blobs.put(digest, Bytes::from_static(b"abc"), Some(live_at(0).mark)).await.unwrap();
        }
        assert_eq!((home.files().await, blobs.stored().await.unwrap().len()), (1, 1));
    }
}
