//! What is sent as a blob: checked against its name while it streams in, and cut into parts.

use std::fmt::Display;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use object_store::{MultipartUpload, PutPayload, Result};
use tokio::runtime::Handle;
use wire::{Digest, Hasher};

use super::BlobError;

/// A blob that streams in.
pub(super) struct Incoming<B> {
    digest: Digest,
    /// The most bytes that it may have.
    most: u64,
    body: B,
    hasher: Hasher,
    size: u64,
    held: BytesMut,
}

impl<B, E> Incoming<B>
where
    B: Stream<Item = std::result::Result<Bytes, E>> + Unpin,
    E: Display,
{
    pub(super) fn new(digest: Digest, most: u64, body: B) -> Self {
        Self { digest, most, body, hasher: Hasher::new(), size: 0, held: BytesMut::new() }
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the next `length` bytes; fewer where it ends, and none behind its end.
    pub(super) async fn next(&mut self, length: usize) -> std::result::Result<Bytes, BlobError> {
        while self.held.len() < length
            && let Some(chunk) = self.body.next().await
        {
            let chunk = chunk.map_err(|error| BlobError::Cut(self.digest, error.to_string()))?;
            self.size += chunk.len() as u64;
            if self.size > self.most {
                return Err(BlobError::TooLarge(self.digest, self.most));
            }
            self.hasher.update(&chunk);
            self.held.extend_from_slice(&chunk);
        }
        let length = length.min(self.held.len());
        Ok(self.held.split_to(length).freeze())
    }

    /// Returns its size once it has ended, unless it is not what it is called.
    pub(super) fn finish(&mut self) -> std::result::Result<u64, BlobError> {
        let found = std::mem::take(&mut self.hasher).finish();
        if found == self.digest { Ok(self.size) } else { Err(BlobError::WrongDigest { named: self.digest, found }) }
    }
}

/// An upload in parts. Unless it is completed it leaves nothing: also where its sender vanishes, and with it the future
/// that holds this.
#[derive(Debug)]
pub(super) struct Upload(Option<Box<dyn MultipartUpload>>);

impl Upload {
    pub(super) fn new(upload: Box<dyn MultipartUpload>) -> Self {
        Self(Some(upload))
    }

    pub(super) async fn put(&mut self, part: Bytes) -> Result<()> {
        match &mut self.0 {
            Some(upload) => upload.put_part(PutPayload::from_bytes(part)).await,
            None => Ok(()),
        }
    }

    pub(super) async fn complete(&mut self) -> Result<()> {
        if let Some(upload) = &mut self.0 {
            upload.complete().await?;
        }
        self.0 = None;
        Ok(())
    }

    pub(super) async fn abort(mut self) {
        if let Some(mut upload) = self.0.take() {
            // Where even that fails: a folder is swept at the next start, and a bucket has a rule for it.
            let _ = upload.abort().await;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(mut upload), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            drop(runtime.spawn(async move { upload.abort().await }));
        }
    }
}
