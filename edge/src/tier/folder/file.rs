//! One file of the folder: a head with a digest of its own, and a value that has one too.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use wire::Digest;

const MAGIC: &[u8; 4] = b"ATF\x01";

/// Bytes before the head: magic, and the head's length.
const BEFORE: usize = 8;

/// Bytes of the head's digest, behind it.
const DIGEST: usize = 16;

/// The largest head of a file: the names of fields, of which an upstream sends 256 KiB at the most.
const MOST_HEAD: u32 = 300 << 10;

/// What a file says before its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileHead {
    pub(super) names: String,
    /// Whether the value is in this file, or in one per selection beside it.
    pub(super) has_value: bool,
    /// What variants of one URL have in common, until it is forgotten.
    pub(super) generation: u64,
    pub(super) epoch: [u8; 8],
    pub(super) filled_at: u64,
    /// When its age was taken, and when its fetch had started: CLOCK_BOOTTIME of this start of the system.
    pub(super) boot_id: String,
    pub(super) boot_ms: u64,
    pub(super) began_ms: u64,
}

impl FileHead {
    /// Tells whether this was filled later than another one that would take its place.
    pub(super) fn is_later(&self, other: &Self) -> bool {
        let began = |head: &Self| if self.boot_id == other.boot_id { head.began_ms } else { 0 };
        self.epoch == other.epoch && (self.filled_at, began(self)) > (other.filled_at, began(other))
    }
}

/// Writes a file, and returns its length.
pub(super) fn put(path: &Path, head: &FileHead, value: &[u8]) -> io::Result<u64> {
    let head = postcard::to_allocvec(head).map_err(io::Error::other)?;
    let length = u32::try_from(head.len()).ok().filter(|length| *length <= MOST_HEAD).ok_or(ErrorKind::InvalidInput)?;
    let mut file = File::create(path)?;
    for part in [MAGIC.as_slice(), &length.to_be_bytes(), &head, digest(&head, value).as_slice(), value] {
        file.write_all(part)?;
    }
    file.metadata().map(|metadata| metadata.len())
}

/// The head's digest goes over the end of its value too, which is that one's digest: no head goes with another's value.
fn digest(head: &[u8], value: &[u8]) -> Vec<u8> {
    let end = value.last_chunk::<DIGEST>().map_or(value, <[u8; DIGEST]>::as_slice);
    Digest::of(&[head, end].concat()).as_bytes().iter().copied().take(DIGEST).collect()
}

/// Reads a file, and its value where it is wanted and has no more than so many bytes; nothing where there is none, or where
/// it is not one of ours, whole.
pub(super) fn read(path: &Path, most: Option<u64>) -> io::Result<Option<(FileHead, Vec<u8>)>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut before = [0; BEFORE];
    if !read_all(&mut file, &mut before)? || !before.starts_with(MAGIC) {
        return Ok(None);
    }
    let length = before.last_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length));
    let mut head = vec![0; usize::try_from(length.min(MOST_HEAD)).unwrap_or(0)];
    let mut said = [0; DIGEST];
    if !read_all(&mut file, &mut head)? || !read_all(&mut file, &mut said)? {
        return Ok(None);
    }
    let Ok(read) = postcard::from_bytes::<FileHead>(&head) else { return Ok(None) };
    let Some(most) = most else { return Ok(Some((read, Vec::new()))) };
    let mut value = Vec::new();
    let end = file.take(most.saturating_add(1)).read_to_end(&mut value)?;
    let is_whole = u64::try_from(end).is_ok_and(|end| end <= most) && digest(&head, &value) == said;
    Ok(is_whole.then_some((read, value)))
}

fn read_all(file: &mut File, into: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
