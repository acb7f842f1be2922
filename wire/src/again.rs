//! Purges that are done once more, a while after they were accepted: for upstreams whose replicas lag, and would fill a
//! cache with what was purged right after it was.
//!
//! What is to be repeated is part of the journal's fold, scopes and all, so that it outlives an origin and the cutting of
//! the journal. It is bounded in number and in bytes by whoever accepts purges: what was accepted is never dropped here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Fact, Mode, Owner, Scope, Timestamp};

/// The longest that a repeat may be put off.
pub const LONGEST_AGAIN: Duration = Duration::from_secs(3600);

/// How much room there is for repeats, and how much of it some of them take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// How many repeats.
    pub repeats: usize,
    /// About how many bytes their scopes take, in memory and in a snapshot.
    pub bytes: usize,
}

impl Room {
    /// What all that wait may take.
    pub const ALL: Self = Self { repeats: 10_000, bytes: 32 << 20 };

    /// Returns what the repeat of a purge of these scopes takes.
    #[must_use]
    pub fn of(scopes: &[Scope]) -> Self {
        Self { repeats: 1, bytes: bytes_of(scopes) }
    }

    /// Returns both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { repeats: self.repeats.saturating_add(other.repeats), bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// Returns what is left of it without the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self { repeats: self.repeats.saturating_sub(other.repeats), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    /// Returns half of it.
    #[must_use]
    pub fn half(self) -> Self {
        Self { repeats: self.repeats / 2, bytes: self.bytes / 2 }
    }

    /// Tells whether it lies within the other.
    #[must_use]
    pub fn is_within(self, other: Self) -> bool {
        self.repeats <= other.repeats && self.bytes <= other.bytes
    }

    /// Tells whether it is nothing.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// A purge that is to be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRepeat {
    /// The seq of the purge.
    pub seq: u64,
    /// When it is repeated.
    pub due: Timestamp,
    /// The owner within which tags and `all` are matched.
    pub owner: Owner,
    /// Gone, or stale.
    pub mode: Mode,
    /// What, with hosts and URLs resolved.
    pub scopes: Arc<[Scope]>,
}

/// The purges that are to be repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<PendingRepeat>", into = "Vec<PendingRepeat>")]
pub struct PendingRepeats {
    by_seq: BTreeMap<u64, PendingRepeat>,
    by_due: BTreeSet<(Timestamp, u64)>,
    /// What all take, and what each owner's do.
    taken: Room,
    taken_by: BTreeMap<Owner, Room>,
}

impl PendingRepeat {
    /// Returns the purge that repeats it.
    #[must_use]
    pub fn fact(&self) -> Fact {
        Fact::Purged {
            owner: self.owner.clone(),
            mode: self.mode,
            scopes: self.scopes.to_vec(),
            once: None,
            again_after_ms: None,
            repeats: Some(self.seq),
        }
    }

    /// Returns the stream that its repeat moves, and where it stands until then: of several origins one alone appends it.
    #[must_use]
    pub fn if_unchanged(&self) -> (String, u64) {
        (stream(self.seq), self.seq)
    }
}

/// Begins the streams of repeats, which are not kept among the others: [`PendingRepeats`] is their memory, and bounded.
const STREAM: &str = "again:";

/// Returns the stream that the repeat of the purge `seq` moves.
pub(crate) fn stream(seq: u64) -> String {
    format!("{STREAM}{seq}")
}

impl PendingRepeats {
    /// Returns the repeats, the one that is due first at the beginning.
    pub fn in_order(&self) -> impl DoubleEndedIterator<Item = &PendingRepeat> {
        self.by_due.iter().filter_map(|(_, seq)| self.by_seq.get(seq))
    }

    /// Returns how many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_seq.len()
    }

    /// Tells whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_seq.is_empty()
    }

    /// Returns the room that all that wait take.
    #[must_use]
    pub fn taken(&self) -> Room {
        self.taken
    }

    /// Returns the room that an owner's take.
    #[must_use]
    pub fn taken_by(&self, owner: &Owner) -> Room {
        self.taken_by.get(owner).copied().unwrap_or_default()
    }

    /// Returns the last seq of a stream of these, or `None` where it is no such stream: the purge's own as long as its
    /// repeat is to come, and 0 from then on.
    pub(crate) fn head_of(&self, stream: &str) -> Option<u64> {
        let seq = stream.strip_prefix(STREAM)?;
        Some(seq.parse().ok().filter(|seq| self.by_seq.contains_key(seq)).unwrap_or(0))
    }

    pub(crate) fn put_off(&mut self, repeat: PendingRepeat) {
        self.forget(repeat.seq);
        let room = Room::of(&repeat.scopes);
        self.taken = self.taken.and(room);
        let by_owner = self.taken_by.entry(repeat.owner.clone()).or_default();
        *by_owner = by_owner.and(room);
        self.by_due.insert((repeat.due, repeat.seq));
        self.by_seq.insert(repeat.seq, repeat);
    }

    pub(crate) fn forget(&mut self, seq: u64) {
        let Some(repeat) = self.by_seq.remove(&seq) else { return };
        let room = Room::of(&repeat.scopes);
        self.by_due.remove(&(repeat.due, seq));
        self.taken = self.taken.without(room);
        let left = self.taken_by(&repeat.owner).without(room);
        if left.is_none() {
            self.taken_by.remove(&repeat.owner);
        } else {
            self.taken_by.insert(repeat.owner, left);
        }
    }
}

/// About how many bytes scopes take, in memory and in a snapshot.
fn bytes_of(scopes: &[Scope]) -> usize {
    let text = |scope: &Scope| match scope {
        Scope::Url(url) => url.host.as_str().len() + url.target.as_str().len(),
        Scope::Tag(tag) => tag.as_str().len(),
        Scope::Prefix(prefix) => prefix.host.as_str().len() + prefix.path.as_str().len(),
        Scope::Host(host) => host.as_str().len(),
        Scope::All => 0,
        Scope::Unknown(value) => value.to_string().len(),
    };
    scopes.iter().map(|scope| 64 + text(scope)).sum()
}

impl From<Vec<PendingRepeat>> for PendingRepeats {
    fn from(repeats: Vec<PendingRepeat>) -> Self {
        let mut pending = Self::default();
        repeats.into_iter().for_each(|repeat| pending.put_off(repeat));
        pending
    }
}

impl From<PendingRepeats> for Vec<PendingRepeat> {
    fn from(pending: PendingRepeats) -> Self {
        pending.by_seq.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(tags: &[&str]) -> Arc<[Scope]> {
        tags.iter().map(|tag| Scope::Tag(tag.parse().unwrap())).collect()
    }

    fn repeat(seq: u64, due_ms: u64, tags: &[&str]) -> PendingRepeat {
        let (owner, mode) = (Owner::default(), Mode::Soft);
        PendingRepeat { seq, due: Timestamp::from_millis(due_ms), owner, mode, scopes: scopes(tags) }
    }

    #[test]
    fn repeats_come_in_the_order_in_which_they_are_due_and_only_once() {
        let mut pending = PendingRepeats::default();
        for (seq, due_ms) in [(1, 300), (2, 100), (3, 200), (4, 100)] {
            pending.put_off(repeat(seq, due_ms, &["t"]));
        }
        assert_eq!(pending.in_order().map(|repeat| repeat.seq).collect::<Vec<_>>(), [2, 4, 3, 1]);
        pending.forget(4);
        pending.forget(4);
        assert_eq!(pending.in_order().map(|repeat| repeat.seq).collect::<Vec<_>>(), [2, 3, 1]);
        assert_eq!((pending.head_of("again:2"), pending.head_of("again:4"), pending.head_of("again:x")), (Some(2), Some(0), Some(0)));
        assert_eq!(pending.head_of("tokens"), None);
    }

    #[test]
    fn a_repeat_says_what_it_repeats_and_is_not_repeated_itself() {
        let first = repeat(7, 0, &["a", "b"]);
        let Fact::Purged { mode, scopes, once, again_after_ms, repeats, .. } = first.fact() else { panic!("{first:?}") };
        assert_eq!((mode, scopes.as_slice(), once, again_after_ms, repeats), (Mode::Soft, &*first.scopes, None, None, Some(7)));
        assert_eq!(first.if_unchanged(), ("again:7".to_owned(), 7));
    }

    #[test]
    fn the_room_that_repeats_take_is_counted_for_each_owner_and_given_back() {
        let mut pending = PendingRepeats::default();
        let other: Owner = "other".parse().unwrap();
        pending.put_off(repeat(1, 1, &["a", "bc"]));
        pending.put_off(PendingRepeat { owner: other.clone(), ..repeat(2, 2, &["d"]) });
        pending.put_off(PendingRepeat { owner: other.clone(), ..repeat(3, 3, &["e"]) });
        let (own, theirs) = (Room { repeats: 1, bytes: 2 * 64 + 3 }, Room { repeats: 2, bytes: 2 * 65 });
        assert_eq!((pending.taken_by(&Owner::default()), pending.taken_by(&other), pending.taken()), (own, theirs, own.and(theirs)));
        pending.forget(1);
        pending.forget(1);
        assert_eq!((pending.taken_by(&Owner::default()), pending.taken()), (Room::default(), theirs));
        pending.forget(2);
        pending.forget(3);
        assert_eq!(pending, PendingRepeats::default());
    }

    #[test]
    fn room_has_two_measures_and_both_must_do() {
        let room = |repeats, bytes| Room { repeats, bytes };
        assert!(room(2, 10).is_within(room(2, 10)) && !room(3, 1).is_within(room(2, 10)) && !room(1, 11).is_within(room(2, 10)));
        assert_eq!((room(5, 11).half(), room(1, 9).without(room(2, 4))), (room(2, 5), room(0, 5)));
        assert!(room(0, 0).is_none() && !room(0, 1).is_none());
    }

    #[test]
    fn what_is_pending_survives_its_snapshot() {
        let mut pending = PendingRepeats::default();
        for seq in 1..=3 {
            pending.put_off(repeat(seq, 1000 - seq, &["a", "b"]));
        }
        let json = serde_json::to_string(&pending).unwrap();
        assert_eq!(serde_json::from_str::<PendingRepeats>(&json).unwrap(), pending);
    }
}
