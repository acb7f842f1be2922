//! Many small blobs in one body: digest, length and bytes of each, one after another.

use bytes::{Buf, Bytes, BytesMut};

use crate::Digest;

/// The media type of a pack.
pub const PACK_TYPE: &str = "application/vnd.atoll.pack";

/// The largest blob that may travel in a pack; larger ones go by themselves.
pub const MAX_PACKED: usize = 1 << 20;

const HEAD: usize = 32 + 4;

/// Why a pack is refused.
#[derive(Debug, thiserror::Error)]
pub enum BadPack {
    /// An item that is larger than an item may be.
    #[error("blob {0} has {1} bytes, more than the {MAX_PACKED} that fit a pack")]
    TooLarge(Digest, usize),
    /// The bytes are not those that the digest names.
    #[error("the bytes sent for blob {named} have the digest {found}")]
    WrongDigest {
        /// What the sender said.
        named: Digest,
        /// What the bytes are.
        found: Digest,
    },
    /// The body ended within an item.
    #[error("the pack ends in the middle of a blob")]
    Cut,
}

/// Appends one blob to a pack.
pub fn pack(out: &mut Vec<u8>, digest: &Digest, bytes: &[u8]) {
    out.extend_from_slice(digest.as_bytes());
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Takes a pack apart while it streams in; holds at most one item and one chunk.
#[derive(Debug, Default)]
pub struct Unpacker {
    buffer: BytesMut,
}

impl Unpacker {
    /// Takes in the next bytes of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole blob, checked, or `None` until more bytes are there.
    ///
    /// # Errors
    /// See [`BadPack`].
    pub fn next_blob(&mut self) -> Result<Option<(Digest, Bytes)>, BadPack> {
        let Some((digest, rest)) = self.buffer.split_first_chunk::<32>() else { return Ok(None) };
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let named = Digest::from_bytes(*digest);
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_PACKED {
            return Err(BadPack::TooLarge(named, length));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        let bytes = self.buffer.split_to(length).freeze();
        let found = Digest::of(&bytes);
        if found != named {
            return Err(BadPack::WrongDigest { named, found });
        }
        Ok(Some((named, bytes)))
    }

    /// Checks that the body ended where a blob ended.
    ///
    /// # Errors
    /// [`BadPack::Cut`] where it did not.
    pub fn finish(&self) -> Result<(), BadPack> {
        if self.buffer.is_empty() { Ok(()) } else { Err(BadPack::Cut) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_comes_apart_however_it_is_cut_into_chunks() {
        let blobs: Vec<Vec<u8>> = vec![b"".to_vec(), b"abc".to_vec(), vec![7; 5000]];
        let mut packed = Vec::new();
        blobs.iter().for_each(|blob| pack(&mut packed, &Digest::of(blob), blob));
        for size in [1, 7, 36, 4096] {
            let (mut unpacker, mut found) = (Unpacker::default(), Vec::new());
            for chunk in packed.chunks(size) {
                unpacker.push(chunk);
                while let Some((_, bytes)) = unpacker.next_blob().unwrap() {
                    found.push(bytes.to_vec());
                }
            }
            unpacker.finish().unwrap();
            assert_eq!(found, blobs, "chunks of {size}");
        }
    }

    #[test]
    fn a_pack_that_lies_is_refused() {
        let mut packed = Vec::new();
        pack(&mut packed, &Digest::of(b"a"), b"b");
        let mut unpacker = Unpacker::default();
        unpacker.push(&packed);
        assert!(matches!(unpacker.next_blob(), Err(BadPack::WrongDigest { .. })));

        let mut unpacker = Unpacker::default();
        unpacker.push(&[0; 32]);
        unpacker.push(&u32::MAX.to_be_bytes());
        assert!(matches!(unpacker.next_blob(), Err(BadPack::TooLarge(..))));

        let mut unpacker = Unpacker::default();
        unpacker.push(&packed[..20]);
        assert!(unpacker.next_blob().unwrap().is_none() && unpacker.finish().is_err());
    }
}
