//! Sends the blobs of a folder that the origin lacks: small ones together, large ones alone, several bodies at a time.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::ProgressBar;
use reqwest::{Body, Method};
use wire::{Digest, MAX_PACKED, PACK_TYPE, pack};

use crate::control::Control;
use crate::exit::Failure;
use crate::scan::{Scanned, digest_of};

/// Bodies under way at a time.
const SIDE_BY_SIDE: usize = 4;

/// Bytes of small files in one body.
const PACK: u64 = 4 << 20;

/// How often a body is sent before we give up.
const TRIES: usize = 3;

/// One body on its way: many small files, or one large one.
#[derive(Clone, Debug)]
enum Parcel {
    Pack(Vec<(Digest, PathBuf)>),
    Single(Digest, PathBuf),
}

/// Sends what is missing; `progress` counts bytes.
pub(crate) async fn missing(control: &Control, scanned: &Scanned, missing: &[Digest], progress: &ProgressBar) -> Result<(), Failure> {
    let parcels = parcels(scanned, missing)?;
    let sent = stream::iter(parcels.into_iter().map(Ok)).try_for_each_concurrent(SIDE_BY_SIDE, |(parcel, size)| {
        let progress = progress.clone();
        async move {
            send(control, parcel).await?;
            progress.inc(size);
            Ok::<_, Failure>(())
        }
    });
    sent.await
}

fn parcels(scanned: &Scanned, missing: &[Digest]) -> Result<Vec<(Parcel, u64)>, Failure> {
    let (mut parcels, mut small, mut small_bytes) = (Vec::new(), Vec::new(), 0);
    for digest in missing {
        let source = scanned
            .sources
            .get(digest)
            .ok_or_else(|| Failure::failed(format!("the origin asks for a blob {digest} that is not in the folder")))?;
        let size = source.metadata().map_err(|error| unread(source, error))?.len();
        if size > MAX_PACKED as u64 {
            parcels.push((Parcel::Single(*digest, source.clone()), size));
            continue;
        }
        small.push((*digest, source.clone()));
        small_bytes += size;
        if small_bytes >= PACK {
            parcels.push((Parcel::Pack(std::mem::take(&mut small)), std::mem::take(&mut small_bytes)));
        }
    }
    if !small.is_empty() {
        parcels.push((Parcel::Pack(small), small_bytes));
    }
    Ok(parcels)
}

async fn send(control: &Control, parcel: Parcel) -> Result<(), Failure> {
    match parcel {
        Parcel::Pack(files) => {
            let body = read_pack(files).await?;
            insist(async || control.upload(Method::POST, "/v1/blobs", PACK_TYPE, || Body::from(body.clone())).await).await
        }
        Parcel::Single(digest, source) => {
            let path = format!("/v1/blobs/{digest}");
            let make = || Body::wrap_stream(read_file(source.clone()));
            let sent = insist(async || control.upload(Method::PUT, &path, "application/octet-stream", make).await).await;
            // Then the file is why, whatever the origin or the connection said.
            if sent.is_err() && has_changed(digest, source.clone()).await { Err(changed(&source)) } else { sent }
        }
    }
}

/// Sends a body again where it failed for no fault of its own.
async fn insist(send: impl AsyncFn() -> Result<(), Failure>) -> Result<(), Failure> {
    let mut tries = 0;
    loop {
        tries += 1;
        match send().await {
            Err(Failure::Failed(error)) if tries < TRIES => tracing::warn!("sending failed, trying again: {error:#}"),
            sent => return sent,
        }
    }
}

async fn read_pack(files: Vec<(Digest, PathBuf)>) -> Result<bytes::Bytes, Failure> {
    let read = tokio::task::spawn_blocking(move || -> Result<bytes::Bytes, Failure> {
        let mut body = Vec::new();
        for (digest, source) in &files {
            let bytes = std::fs::read(source).map_err(|error| unread(source, error))?;
            if Digest::of(&bytes) != *digest {
                return Err(changed(source));
            }
            pack(&mut body, digest, &bytes);
        }
        Ok(body.into())
    });
    read.await.map_err(Failure::failed)?
}

fn read_file(path: PathBuf) -> impl futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static {
    stream::once(tokio::fs::File::open(path)).flat_map(|opened| match opened {
        Ok(file) => tokio_util::io::ReaderStream::with_capacity(file, 256 << 10).left_stream(),
        Err(error) => stream::once(async { Err(error) }).right_stream(),
    })
}

/// Tells whether a file is not any more what its digest was taken of.
async fn has_changed(digest: Digest, source: PathBuf) -> bool {
    let read = tokio::task::spawn_blocking(move || digest_of(&source, &ProgressBar::hidden())).await;
    read.is_ok_and(|read| read.map_or_else(|error| error.kind() == ErrorKind::NotFound, |(now, _)| now != digest))
}

fn changed(source: &Path) -> Failure {
    Failure::failed(format!("{} changed while it was being published; run it again", source.display()))
}

/// A file that was there a moment ago was taken away meanwhile.
fn unread(source: &Path, error: std::io::Error) -> Failure {
    if error.kind() == ErrorKind::NotFound {
        return changed(source);
    }
    Failure::Failed(anyhow::Error::new(error).context(format!("failed to read {}", source.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_changed_since_it_was_hashed_is_named_and_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let [same, other, gone] = ["same", "other", "gone"].map(|name| folder.path().join(name));
        std::fs::write(&same, "a").unwrap();
        std::fs::write(&other, "b").unwrap();
        let digest = Digest::of(b"a");

        assert!(read_pack(vec![(digest, same.clone())]).await.is_ok());
        for changed in [&other, &gone] {
            let Failure::Failed(said) = read_pack(vec![(digest, same.clone()), (digest, changed.clone())]).await.unwrap_err() else {
                panic!("nobody typed anything wrong")
            };
            assert!(said.to_string().starts_with(&format!("{} changed while", changed.display())), "{said}");
            assert!(has_changed(digest, changed.clone()).await);
        }
        assert!(!has_changed(digest, same).await);
    }
}
