//! What a stored copy of a blob is called, in its place and in the journal.

use std::collections::BTreeMap;

use object_store::path::Path as Key;
use wire::{Digest, Epoch, State, Timestamp};

/// The stream of the journal that moves when blobs are condemned, lifted or deleted.
const STREAM: &str = "blobs";

/// One stored copy of a blob.
///
/// A folder has one copy, which is replaced in place. In a bucket every copy that is sent gets a number of its own, drawn
/// anew: what an origin decided to delete can then never be what another one has stored since, however long its call to
/// delete was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) digest: Digest,
    copy: Option<u64>,
}

impl Name {
    pub(super) fn only(digest: Digest) -> Self {
        Self { digest, copy: None }
    }

    pub(crate) fn numbered(digest: Digest, copy: u64) -> Self {
        Self { digest, copy: Some(copy) }
    }

    /// Returns what all copies of a blob in a bucket begin with.
    pub(super) fn shelf(digest: &Digest) -> Key {
        Self::only(*digest).key()
    }

    /// Returns where it is stored.
    pub(super) fn key(&self) -> Key {
        let name = self.digest.to_string();
        let shard = &name[..2];
        Key::from(match self.copy {
            None => format!("{shard}/{name}"),
            Some(copy) => format!("{shard}/{name}/{copy:016x}"),
        })
    }

    /// Returns the name of what is stored there, where it is a blob.
    pub(super) fn of(key: &Key) -> Option<Self> {
        let mut parts = key.as_ref().split('/').skip(1);
        let digest = parts.next()?.parse().ok()?;
        let copy = parts.next().map(|copy| u64::from_str_radix(copy, 16)).transpose().ok()?;
        Some(Self { digest, copy }).filter(|name| name.key() == *key)
    }

    pub(super) fn is_numbered(&self) -> bool {
        self.copy.is_some()
    }

    /// Returns what the journal calls this copy when it condemns it: where there is but one, the blob's own name.
    pub(crate) fn id(&self) -> Digest {
        match self.copy {
            None => self.digest,
            Some(_) => Digest::of(self.key().as_ref().as_bytes()),
        }
    }
}

/// A moment of the journal, as far as it tells of stored blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    epoch: Epoch,
    seq: u64,
}

impl Mark {
    pub(crate) fn of(state: &State) -> Self {
        Self { epoch: state.position.epoch, seq: state.control.as_ref().map_or(0, |control| control.head_of(STREAM)) }
    }

    /// Returns the condition of an append that nothing was condemned since.
    pub(crate) fn unmoved(&self) -> (String, u64) {
        (STREAM.to_owned(), self.seq)
    }
}

/// Which copies are condemned at a moment of the journal.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) mark: Mark,
    condemned: BTreeMap<Digest, Timestamp>,
}

impl Verdict {
    pub(crate) fn of(state: &State) -> Self {
        let condemned = state.control.as_ref().map(|control| control.condemned.clone()).unwrap_or_default();
        Self { mark: Mark::of(state), condemned }
    }

    /// Returns what the journal says once its event `seq` has condemned these.
    #[cfg(test)]
    pub(crate) fn at(seq: u64, condemned: impl IntoIterator<Item = Digest>) -> Self {
        let condemned = condemned.into_iter().map(|id| (id, Timestamp::from_millis(0))).collect();
        Self { mark: Mark { epoch: Epoch::from_bytes([1; 8]), seq }, condemned }
    }

    pub(crate) fn condemns(&self, name: &Name) -> bool {
        !self.condemned.is_empty() && self.condemned.contains_key(&name.id())
    }

    /// Returns the condemned copies as the journal calls them, each with the time since when it is.
    pub(crate) fn condemned(&self) -> &BTreeMap<Digest, Timestamp> {
        &self.condemned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_found_again_by_where_it_is_stored_and_anything_else_is_none() {
        let digest = Digest::of(b"abc");
        for name in [Name::only(digest), Name::numbered(digest, 0), Name::numbered(digest, u64::MAX)] {
            assert_eq!(Name::of(&name.key()), Some(name));
        }
        let shard = &digest.to_string()[..2];
        for strange in ["", "README", "ab", &format!("zz/{digest}"), &format!("{shard}/{digest}/7"), &format!("{shard}/{digest}/x/y")] {
            assert_eq!(Name::of(&Key::from(strange)), None, "{strange}");
        }
    }

    #[test]
    fn the_journal_tells_copies_apart_where_there_may_be_several() {
        let digest = Digest::of(b"abc");
        assert_eq!(Name::only(digest).id(), digest);
        assert_ne!(Name::numbered(digest, 1).id(), Name::numbered(digest, 2).id());
    }
}
