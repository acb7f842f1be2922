//! What this origin remembers of stored blobs, so that most questions need no call to where they are stored.

use std::collections::{HashMap, HashSet};

use wire::{Digest, Timestamp};

use super::names::{Mark, Name, Verdict};
use super::{Place, Stored};

/// Blobs of a bucket that are remembered, of about 150 bytes each. What is beyond is asked for again.
const MOST: usize = 1_000_000;

/// Copies that are remembered for not being what they are called. Beyond it all are forgotten, and found again.
const SPOILED_MOST: usize = 10_000;

/// What is known of a blob that is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) name: Name,
    pub(crate) size: u64,
    pub(crate) stored_at: Timestamp,
    /// Whether its bytes were read back and fit its name.
    pub(super) checked: bool,
    /// The moment of the journal at which it was there and not condemned. In a folder nobody else deletes.
    pub(super) mark: Option<Mark>,
}

/// The memory itself.
#[derive(Debug)]
pub(super) struct Memory {
    place: Place,
    blobs: HashMap<Digest, Known>,
    spoiled: HashSet<Name>,
}

impl Memory {
    pub(super) fn new(place: Place) -> Self {
        Self { place, blobs: HashMap::new(), spoiled: HashSet::new() }
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<Known> {
        self.blobs.get(digest).copied()
    }

    /// Returns what may be relied on at a moment of the journal without looking.
    pub(super) fn sure(&self, digest: &Digest, mark: Option<Mark>) -> Option<Known> {
        self.get(digest).filter(|known| self.place == Place::Folder || (mark.is_some() && known.mark == mark))
    }

    pub(super) fn all(&self) -> Vec<Known> {
        self.blobs.values().copied().collect()
    }

    /// Notes a copy that is there; what was found out about the same copy before stays.
    pub(super) fn note(&mut self, stored: &Stored, mark: Option<Mark>) -> Known {
        let before = self.get(&stored.name.digest).filter(|before| before.name == stored.name && self.place == Place::Shared);
        let (checked, marked) = before.map_or((false, None), |before| (before.checked, before.mark));
        let known = Known { name: stored.name, size: stored.size, stored_at: stored.stored_at, checked, mark: mark.or(marked) };
        if self.place == Place::Shared
            && self.blobs.len() >= MOST
            && let Some(any) = self.blobs.keys().next().copied()
        {
            self.blobs.remove(&any);
        }
        self.blobs.insert(stored.name.digest, known);
        known
    }

    /// Notes what a listing showed, unless something was found out since it began.
    pub(super) fn hear(&mut self, stored: &Stored, verdict: Option<&Verdict>) {
        let is_gone = verdict.is_some_and(|verdict| verdict.condemns(&stored.name)) || self.is_spoiled(&stored.name);
        let has_room = self.place == Place::Folder || self.blobs.len() < MOST;
        if has_room && !is_gone && self.get(&stored.name.digest).is_none() {
            self.note(stored, verdict.map(|verdict| verdict.mark));
        }
    }

    pub(super) fn note_checked(&mut self, name: &Name) {
        if let Some(known) = self.blobs.get_mut(&name.digest).filter(|known| known.name == *name) {
            known.checked = true;
        }
    }

    pub(super) fn forget(&mut self, name: &Name) {
        if self.get(&name.digest).is_some_and(|known| known.name == *name) {
            self.blobs.remove(&name.digest);
        }
    }

    /// Notes that a copy is not what it is called: where there may be others it is not looked at again.
    pub(super) fn note_spoiled(&mut self, name: &Name) {
        self.forget(name);
        if self.spoiled.len() >= SPOILED_MOST {
            self.spoiled.clear();
        }
        if self.place == Place::Shared {
            self.spoiled.insert(*name);
        }
    }

    pub(super) fn is_spoiled(&self, name: &Name) -> bool {
        self.spoiled.contains(name)
    }

    /// Forgets the copies that are condemned, and returns their blobs.
    pub(super) fn forget_condemned(&mut self, verdict: &Verdict) -> Vec<Digest> {
        let gone: Vec<_> = self.blobs.values().map(|known| known.name).filter(|name| verdict.condemns(name)).collect();
        gone.iter().for_each(|name| self.forget(name));
        gone.into_iter().map(|name| name.digest).collect()
    }
}
