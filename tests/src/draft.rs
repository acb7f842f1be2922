//! A version of a site before it is published: its manifest and the bytes that this names.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use wire::{Digest, FileEntry, Manifest};

/// A version that nobody has seen yet.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its bytes.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
}

impl Draft {
    /// Drafts a version of these files.
    ///
    /// # Errors
    /// Where a path or the whole is not allowed.
    pub fn of<P: Into<String>, B: Into<Vec<u8>>>(files: impl IntoIterator<Item = (P, B)>) -> Result<Self> {
        let (mut entries, mut blobs) = (Vec::new(), BTreeMap::new());
        for (path, bytes) in files {
            let (path, bytes): (String, Vec<u8>) = (path.into(), bytes.into());
            let digest = Digest::of(&bytes);
            entries.push(FileEntry {
                path: path.parse()?,
                digest,
                size: bytes.len() as u64,
                media_type: media_type(&path).to_owned(),
                headers: BTreeMap::new(),
            });
            blobs.insert(digest, bytes);
        }
        Ok(Self { manifest: Manifest::new(entries)?, blobs })
    }

    /// Returns the version's name.
    #[must_use]
    pub fn version(&self) -> Digest {
        self.manifest.version()
    }

    /// Returns the digest of a file.
    ///
    /// # Errors
    /// Where there is no such file.
    pub fn digest(&self, path: &str) -> Result<Digest> {
        Ok(self.manifest.get(path).with_context(|| format!("there is no {path} in the draft"))?.digest)
    }

    /// Returns the bytes of a blob.
    ///
    /// # Errors
    /// Where no file has it.
    pub fn blob(&self, digest: &Digest) -> Result<&[u8]> {
        let bytes = self.blobs.get(digest).with_context(|| format!("there is no blob {digest} in the draft"))?;
        Ok(bytes)
    }
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("txt") => "text/plain; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    }
}
