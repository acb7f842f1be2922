//! Doing a thing once however often it is asked for: the key that a sender gives to its request
//! (draft-ietf-httpapi-idempotency-key-header), and the memory of the keys that were used.
//!
//! The memory is part of the journal's fold, so that it outlives an origin and is the same at all of them. It is
//! bounded in number and in time; a key that was forgotten is as good as new.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Digest, Timestamp};

/// How long a key is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Keys that are remembered; beyond it the oldest is forgotten.
const MAX_KEYS: usize = 10_000;

/// What a sender calls its request, so that sending it again does nothing again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// Text that is no key.
#[derive(Debug, thiserror::Error)]
#[error("an idempotency key is 1 to 255 visible ASCII characters, bare or quoted as in a structured field, not `{0}`")]
pub struct BadKey(String);

/// Which key an event was sent under, and with what. Neither can be read back from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// The digest of who sent it and of the key: a key is its sender's own.
    pub key: Digest,
    /// The digest of what was asked for.
    pub request: Digest,
}

/// A key that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedKey {
    /// The key, and what was asked for under it.
    #[serde(flatten)]
    pub once: Once,
    /// The seq of the event that came of it.
    pub seq: u64,
    /// When that was.
    pub at: Timestamp,
}

/// The keys that were used, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<UsedKey>", into = "Vec<UsedKey>")]
pub struct UsedKeys {
    by_seq: BTreeMap<u64, UsedKey>,
    seqs: BTreeMap<Digest, u64>,
}

impl IdempotencyKey {
    /// Returns the key itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the key as a structured field's string (RFC 9651, 4.1.6).
    #[must_use]
    pub fn to_field(&self) -> String {
        format!("\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

impl FromStr for IdempotencyKey {
    type Err = BadKey;

    /// Reads a key as it stands, or in the quotes of a structured field's string.
    fn from_str(text: &str) -> Result<Self, BadKey> {
        let bad = || BadKey(text.chars().take(80).collect());
        let key = match text.strip_prefix('"') {
            Some(rest) => unquoted(rest).ok_or_else(bad)?,
            None => text.to_owned(),
        };
        let is_key = (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        if is_key { Ok(Self(key)) } else { Err(bad()) }
    }
}

/// Reads the rest of a string behind its first quote (RFC 9651, 4.2.5); nothing may stand behind it.
fn unquoted(rest: &str) -> Option<String> {
    let mut read = String::with_capacity(rest.len());
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(read),
            '\\' => read.push(characters.next().filter(|escaped| matches!(escaped, '"' | '\\'))?),
            character => read.push(character),
        }
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Once {
    /// Returns the stream whose last seq tells whether the key was used.
    #[must_use]
    pub fn stream(&self) -> String {
        stream_of(&self.key)
    }
}

/// Begins the streams of keys, which are not kept among the others: [`UsedKeys`] is their memory, and bounded.
const STREAM: &str = "once:";

fn stream_of(key: &Digest) -> String {
    format!("{STREAM}{key}")
}

impl UsedKey {
    /// Tells whether the key still stands for its event.
    #[must_use]
    pub fn is_remembered(&self, now: Timestamp) -> bool {
        now.since(self.at) < REMEMBERED_FOR
    }
}

impl UsedKeys {
    /// Returns what a key was used for. It may be older than a day: see [`UsedKey::is_remembered`].
    #[must_use]
    pub fn get(&self, key: &Digest) -> Option<&UsedKey> {
        self.by_seq.get(self.seqs.get(key)?)
    }

    /// Returns how many keys are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_seq.len()
    }

    /// Tells whether no key is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_seq.is_empty()
    }

    /// Returns the last seq of a stream of these, or `None` where it is no such stream.
    pub(crate) fn head_of(&self, stream: &str) -> Option<u64> {
        let key = stream.strip_prefix(STREAM)?;
        let used = key.parse::<Digest>().ok().and_then(|key| self.get(&key));
        Some(used.map_or(0, |used| used.seq))
    }

    /// Remembers a key, and forgets what is too old or too much.
    pub(crate) fn remember(&mut self, used: UsedKey) {
        if let Some(before) = self.seqs.insert(used.once.key, used.seq) {
            self.by_seq.remove(&before);
        }
        self.by_seq.insert(used.seq, used);
        while let Some((_, oldest)) = self.by_seq.first_key_value()
            && (self.by_seq.len() > MAX_KEYS || !oldest.is_remembered(used.at))
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, oldest)) = self.by_seq.pop_first() {
            self.seqs.remove(&oldest.once.key);
        }
    }
}

impl From<Vec<UsedKey>> for UsedKeys {
    fn from(keys: Vec<UsedKey>) -> Self {
        let seqs = keys.iter().map(|used| (used.once.key, used.seq)).collect();
        Self { by_seq: keys.into_iter().map(|used| (used.seq, used)).collect(), seqs }
    }
}

impl From<UsedKeys> for Vec<UsedKey> {
    fn from(keys: UsedKeys) -> Self {
        keys.by_seq.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_with_and_without_the_quotes_of_a_structured_field() {
        let longest = "k".repeat(255);
        for (text, key) in [
            ("ci-42", "ci-42"),
            ("\"ci-42\"", "ci-42"),
            ("\"a\\\"b\\\\c\"", "a\"b\\c"),
            ("a\"b", "a\"b"),
            (longest.as_str(), longest.as_str()),
        ] {
            let read: IdempotencyKey = text.parse().unwrap();
            assert_eq!(read.as_str(), key, "{text}");
            assert_eq!(read.to_field().parse::<IdempotencyKey>().unwrap(), read, "{text}");
        }
        let too_long = "k".repeat(256);
        for bad in ["", "a b", "caf\u{e9}", "a\tb", "\"\"", "\"a b\"", "\"a", "\"", "\"a\"b", "\"a\"; b", "\"a\\n\"", "\"a\\"] {
            assert!(bad.parse::<IdempotencyKey>().is_err(), "{bad}");
        }
        assert!(too_long.parse::<IdempotencyKey>().is_err());
    }

    fn used(key: u64, seq: u64, at_s: u64) -> UsedKey {
        let digest = |what: &str| Digest::of(format!("{what} {key}").as_bytes());
        UsedKey { once: Once { key: digest("key"), request: digest("request") }, seq, at: Timestamp::from_millis(at_s * 1000) }
    }

    #[test]
    fn a_key_is_remembered_for_a_day_and_then_as_good_as_new() {
        let day_s = 24 * 3600;
        let mut keys = UsedKeys::default();
        keys.remember(used(1, 1, 0));
        let first = *keys.get(&used(1, 1, 0).once.key).unwrap();
        let day = Timestamp::from_millis(day_s * 1000);
        assert!(first.is_remembered(Timestamp::from_millis(day_s * 1000 - 1)) && !first.is_remembered(day));
        keys.remember(used(2, 2, day_s));
        assert_eq!((keys.get(&first.once.key), keys.len()), (None, 1));
    }

    #[test]
    fn beyond_the_bound_the_oldest_key_is_forgotten() {
        let mut keys = UsedKeys::default();
        for n in 1..=MAX_KEYS as u64 + 2 {
            keys.remember(used(n, n, n / 1000));
        }
        let seq = |n: u64| keys.get(&used(n, n, 0).once.key).map(|used| used.seq);
        assert_eq!((seq(1), seq(2), seq(3), keys.len(), keys.seqs.len()), (None, None, Some(3), MAX_KEYS, MAX_KEYS));
    }

    #[test]
    fn a_key_that_is_used_again_after_its_day_stands_for_the_later_event() {
        let mut keys = UsedKeys::default();
        keys.remember(used(1, 1, 0));
        keys.remember(used(1, 7, 100_000));
        let (once, other) = (used(1, 1, 0).once, used(2, 2, 0).once);
        assert_eq!((keys.get(&once.key).map(|used| used.seq), keys.len()), (Some(7), 1));
        assert_eq!((keys.head_of(&once.stream()), keys.head_of(&other.stream()), keys.head_of("tokens")), (Some(7), Some(0), None));
    }

    #[test]
    fn keys_survive_their_snapshot() {
        let mut keys = UsedKeys::default();
        for n in 1..=3 {
            keys.remember(used(n, n * 10, n));
        }
        let json = serde_json::to_string(&keys).unwrap();
        assert_eq!(serde_json::from_str::<UsedKeys>(&json).unwrap(), keys);
    }
}
