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

/// Repeats that may wait.
const MAX_REPEATS: usize = 10_000;

/// About how many bytes the scopes of all that wait may take.
const MAX_BYTES: usize = 32 << 20;

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
    bytes: usize,
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
    pub fn in_order(&self) -> impl Iterator<Item = &PendingRepeat> {
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

    /// Tells whether one more, of these scopes, may be accepted.
    #[must_use]
    pub fn has_room_for(&self, scopes: &[Scope]) -> bool {
        self.is_empty() || (self.len() < MAX_REPEATS && self.bytes + bytes_of(scopes) <= MAX_BYTES)
    }

    /// Returns the last seq of a stream of these, or `None` where it is no such stream: the purge's own as long as its
    /// repeat is to come, and 0 from then on.
    pub(crate) fn head_of(&self, stream: &str) -> Option<u64> {
        let seq = stream.strip_prefix(STREAM)?;
        Some(seq.parse().ok().filter(|seq| self.by_seq.contains_key(seq)).unwrap_or(0))
    }

    pub(crate) fn put_off(&mut self, repeat: PendingRepeat) {
        self.forget(repeat.seq);
        self.bytes += bytes_of(&repeat.scopes);
        self.by_due.insert((repeat.due, repeat.seq));
        self.by_seq.insert(repeat.seq, repeat);
    }

    pub(crate) fn forget(&mut self, seq: u64) {
        if let Some(repeat) = self.by_seq.remove(&seq) {
            self.by_due.remove(&(repeat.due, seq));
            self.bytes = self.bytes.saturating_sub(bytes_of(&repeat.scopes));
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
    fn there_is_room_up_to_the_bounds_and_again_when_repeats_are_done() {
        let (mut pending, one) = (PendingRepeats::default(), scopes(&["t"]));
        for seq in 1..=MAX_REPEATS as u64 {
            assert!(pending.has_room_for(&one), "{seq}");
            pending.put_off(repeat(seq, seq, &["t"]));
        }
        assert!(!pending.has_room_for(&one));
        pending.forget(1);
        assert!(pending.has_room_for(&one));

        let (mut pending, long) = (PendingRepeats::default(), "t".repeat(1024));
        let many = vec![long.as_str(); 1000];
        let mut seq = 0;
        while pending.has_room_for(&scopes(&many)) {
            seq += 1;
            pending.put_off(repeat(seq, seq, &many));
        }
        assert!((20..40).contains(&seq), "{seq} of about a MiB each");
        pending.forget(1);
        assert!(pending.has_room_for(&scopes(&many)));
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
