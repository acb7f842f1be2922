//! The purge table: what was purged up to which seq, in a fixed amount of memory.
//!
//! Two arrays hold the highest seq of a hard and of a soft purge per slot; a keyed hash of the scope
//! picks the slot. Two scopes that share a slot cost an extra miss, never a stale answer. Nothing is
//! scanned and nothing is evicted. Prefixes, which no hash can match, are a short list; beyond its
//! bound a prefix is widened to its host.
//!
//! What many entries have in common, such as their owner or host, has slots apart: a tag that shared one
//! with them would take all of their entries.

use std::hash::Hasher as _;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::mistake::{Mistake, makes};
use crate::{Class, Event, Fact, Host, Mode, Owner, PrefixScope, Scope, Tag, Target};

/// Slots of URLs and tags in each array: two arrays of 128 Ki seqs are two MiB.
const SLOTS: usize = 1 << 17;

/// Slots of owners and hosts.
const COARSE: usize = 1 << 12;

/// How slots are chosen. A table that was written by another rule is read as one that purged everything.
const LAYOUT: u32 = 2;

/// Prefix purges that are remembered as such.
const MAX_PREFIXES: usize = 256;

/// The longest path of a prefix that is remembered as such: no target that comes in is longer.
const MAX_PREFIX_BYTES: usize = 8 << 10;

/// The longest host there is.
const MAX_HOST_BYTES: usize = 255;

/// What an entry can be purged by.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Whose site or route it came through.
    pub owner: &'a Owner,
    /// The host of its URL.
    pub host: &'a Host,
    /// Path and query as they were sent.
    pub sent: &'a Target,
    /// Path and query after the route's key policy, where that differs.
    pub keyed: Option<&'a Target>,
    /// Its surrogate keys.
    pub tags: &'a [Tag],
}

/// The slots of one entry, computed once when it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots(Box<[u32]>);

/// Which purge an entry meets, and at which seq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched {
    /// No purge since the entry was filled.
    Nothing,
    /// A soft purge: the entry is stale.
    Soft(u64),
    /// A hard purge: the entry is gone.
    Hard(u64),
}

/// What one purge would take: the very slots and prefixes that it would mark in the table that this was made of, so
/// that whatever shares a slot with it counts too. It marks nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeProbe {
    /// In order.
    slots: Vec<u32>,
    prefixes: Vec<PrefixScope>,
}

impl Slots {
    /// Tells whether all of `others` are among these: whatever purges by one of those takes the entry with these, too.
    #[must_use]
    pub fn hold(&self, others: &Self) -> bool {
        others.0.iter().all(|slot| self.0.binary_search(slot).is_ok())
    }

    /// Tells whether there are none: no purge takes the entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PurgeProbe {
    /// Tells whether the purge would take the entry with these slots, host and target.
    #[must_use]
    pub fn takes(&self, slots: &Slots, host: &Host, sent: &Target) -> bool {
        let begins = |prefix: &PrefixScope| &prefix.host == host && sent.as_str().starts_with(prefix.path.as_str());
        slots.0.iter().any(|slot| self.slots.binary_search(slot).is_ok()) || self.prefixes.iter().any(begins)
    }
}

/// The highest purge seq per slot, for hard and for soft purges, and the recent prefixes.
#[derive(Debug)]
pub struct PurgeTable {
    key: [u8; 16],
    /// Slots of owners and hosts, behind the one of everything.
    coarse: usize,
    /// Slots of URLs and tags, behind those.
    fine: usize,
    hard: Box<[AtomicU64]>,
    soft: Box<[AtomicU64]>,
    newest: AtomicU64,
    prefix_count: AtomicUsize,
    prefixes: RwLock<Vec<PrefixPurge>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PrefixPurge {
    host: Host,
    path: Target,
    hard: u64,
    soft: u64,
}

/// The slot kinds, so that a tag never meets a host of the same letters on purpose.
#[derive(Clone, Copy)]
enum Kind {
    Everything,
    Owner,
    Host,
    Url,
    Tag,
}

impl PurgeTable {
    /// The memory that a table takes at the most, and so the snapshot that carries it before it is written as text: two
    /// arrays of seqs, and as many prefixes as are remembered, each with the longest host and path.
    pub const MOST_BYTES: u64 = {
        let arrays = 2 * (1 + COARSE + SLOTS) * size_of::<AtomicU64>();
        let prefixes = MAX_PREFIXES * (size_of::<PrefixPurge>() + MAX_HOST_BYTES + MAX_PREFIX_BYTES);
        (arrays + prefixes) as u64
    };

    /// Returns an empty table whose slots are chosen with `key`.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self::sized(key, SLOTS)
    }

    /// Returns the key by which scopes find their slots. Origins and edges know it, publishers and readers don't.
    #[must_use]
    pub fn key(&self) -> &[u8; 16] {
        &self.key
    }

    /// Returns an empty table with so many slots of URLs and tags in each array, at least one.
    #[must_use]
    pub fn sized(key: [u8; 16], slots: usize) -> Self {
        let fine = slots.clamp(1, SLOTS);
        let coarse = fine.min(COARSE);
        let empty = || (0..1 + coarse + fine).map(|_| AtomicU64::new(0)).collect();
        Self {
            key,
            coarse,
            fine,
            hard: empty(),
            soft: empty(),
            newest: AtomicU64::new(0),
            prefix_count: AtomicUsize::new(0),
            prefixes: RwLock::default(),
        }
    }

    fn slot(&self, kind: Kind, parts: &[&[u8]]) -> u32 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u8(kind as u8);
        for part in parts {
            hasher.write_u64(part.len() as u64);
            hasher.write(part);
        }
        let hash = hasher.finish();
        let slot = match kind {
            Kind::Everything => 0,
            Kind::Owner | Kind::Host => 1 + hash % self.coarse as u64,
            Kind::Url | Kind::Tag => 1 + self.coarse as u64 + hash % self.fine as u64,
        };
        u32::try_from(slot).unwrap_or(0)
    }

    /// Returns the slots that purge `subject`; they hold for this table and any with the same key.
    #[must_use]
    pub fn slots(&self, subject: &Subject<'_>) -> Slots {
        let owner = subject.owner.as_str().as_bytes();
        let host = subject.host.as_str().as_bytes();
        let mut slots = vec![
            self.slot(Kind::Everything, &[]),
            self.slot(Kind::Owner, &[owner]),
            self.slot(Kind::Host, &[host]),
            self.slot(Kind::Url, &[host, subject.sent.as_str().as_bytes()]),
        ];
        slots.extend(subject.keyed.map(|target| self.slot(Kind::Url, &[host, target.as_str().as_bytes()])));
        slots.extend(subject.tags.iter().map(|tag| self.slot(Kind::Tag, &[owner, tag.as_str().as_bytes()])));
        slots.sort_unstable();
        slots.dedup();
        Slots(slots.into_boxed_slice())
    }

    /// Takes in what an event purges: all of it where it is a purge that is not understood, nothing where it is none.
    pub fn hear(&self, event: &Event) {
        match &event.fact {
            Fact::Purged { owner, mode, scopes, .. } => self.apply(event.seq, owner, *mode, scopes),
            Fact::Unknown { class: Class::Purge, .. } if !makes(Mistake::UnknownPurgeSkipped) => {
                self.apply(event.seq, &Owner::default(), Mode::Hard, &[Scope::Unknown(serde_json::Value::Null)]);
            }
            _ => {}
        }
    }

    /// Takes in one purge. The seqs of successive calls rise.
    pub fn apply(&self, seq: u64, owner: &Owner, mode: Mode, scopes: &[Scope]) {
        for scope in scopes {
            self.apply_scope(seq, owner, mode, scope);
        }
        // Last, so that whoever sees the new seq here sees what it changed.
        self.newest.fetch_max(seq, Ordering::Release);
    }

    fn apply_scope(&self, seq: u64, owner: &Owner, mode: Mode, scope: &Scope) {
        if let Scope::Prefix(prefix) = scope
            && self.remember_prefix(seq, mode, &prefix.host, &prefix.path)
        {
            return;
        }
        let slot = self.slot_of(owner, scope);
        let array = match mode {
            Mode::Hard => &self.hard,
            Mode::Soft => &self.soft,
        };
        if let Some(cell) = array.get(slot as usize) {
            cell.fetch_max(seq, Ordering::Release);
        }
    }

    /// Returns the slot of a scope; for a prefix, which has none, that of its host.
    fn slot_of(&self, owner: &Owner, scope: &Scope) -> u32 {
        let owner = owner.as_str().as_bytes();
        match scope {
            Scope::Unknown(_) => self.slot(Kind::Everything, &[]),
            Scope::All => self.slot(Kind::Owner, &[owner]),
            Scope::Tag(tag) => self.slot(Kind::Tag, &[owner, tag.as_str().as_bytes()]),
            Scope::Url(url) => self.slot(Kind::Url, &[url.host.as_str().as_bytes(), url.target.as_str().as_bytes()]),
            Scope::Host(host) => self.slot(Kind::Host, &[host.as_str().as_bytes()]),
            Scope::Prefix(prefix) => self.slot(Kind::Host, &[prefix.host.as_str().as_bytes()]),
        }
    }

    /// Returns what a purge of these scopes would take if it came now, for entries to be held against.
    #[must_use]
    pub fn probe(&self, owner: &Owner, scopes: &[Scope]) -> PurgeProbe {
        let known = self.prefixes.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut room = MAX_PREFIXES.saturating_sub(known.len());
        let (mut slots, mut prefixes) = (Vec::with_capacity(scopes.len()), Vec::new());
        for scope in scopes {
            match scope {
                Scope::Prefix(prefix) if known.iter().any(|known| known.host == prefix.host && known.path == prefix.path) => {
                    prefixes.push(prefix.clone());
                }
                Scope::Prefix(prefix) if prefixes.contains(prefix) => {}
                Scope::Prefix(prefix) if room > 0 && is_short(&prefix.path) => {
                    room -= 1;
                    prefixes.push(prefix.clone());
                }
                scope => slots.push(self.slot_of(owner, scope)),
            }
        }
        slots.sort_unstable();
        PurgeProbe { slots, prefixes }
    }

    /// Tells whether there was room for it.
    fn remember_prefix(&self, seq: u64, mode: Mode, host: &Host, path: &Target) -> bool {
        let mut prefixes = self.prefixes.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let at = match prefixes.iter().position(|known| &known.host == host && &known.path == path) {
            Some(at) => at,
            None if prefixes.len() >= MAX_PREFIXES || !is_short(path) => return false,
            None => {
                prefixes.push(PrefixPurge { host: host.clone(), path: path.clone(), hard: 0, soft: 0 });
                prefixes.len() - 1
            }
        };
        match mode {
            Mode::Hard => prefixes[at].hard = seq,
            Mode::Soft => prefixes[at].soft = seq,
        }
        self.prefix_count.store(prefixes.len(), Ordering::Release);
        true
    }

    /// Returns the seq of the newest purge of all: an entry checked at it needs no other look.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Decides whether a purge above `filled_at` matches the entry with these slots, host and target.
    #[must_use]
    pub fn matched(&self, slots: &Slots, host: &Host, sent: &Target, filled_at: u64) -> Matched {
        if self.newest() <= filled_at {
            return Matched::Nothing;
        }
        let highest = |array: &[AtomicU64]| {
            slots.0.iter().filter_map(|&slot| array.get(slot as usize)).map(|cell| cell.load(Ordering::Acquire)).max()
        };
        let (prefix_hard, prefix_soft) = self.matched_prefixes(host, sent);
        let hard = highest(&self.hard).unwrap_or(0).max(prefix_hard);
        let soft = highest(&self.soft).unwrap_or(0).max(prefix_soft);
        decide(hard, soft, filled_at)
    }

    /// Tells whether a hard purge of this very tag came above `filled_at`.
    #[must_use]
    pub fn has_purged_tag(&self, owner: &Owner, tag: &Tag, filled_at: u64) -> bool {
        let slot = self.slot(Kind::Tag, &[owner.as_str().as_bytes(), tag.as_str().as_bytes()]) as usize;
        self.hard.get(slot).is_some_and(|cell| cell.load(Ordering::Acquire) > filled_at)
    }

    fn matched_prefixes(&self, host: &Host, sent: &Target) -> (u64, u64) {
        if self.prefix_count.load(Ordering::Acquire) == 0 {
            return (0, 0);
        }
        let prefixes = self.prefixes.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        prefixes
            .iter()
            .filter(|prefix| &prefix.host == host && sent.as_str().starts_with(prefix.path.as_str()))
            .fold((0, 0), |(hard, soft), prefix| (hard.max(prefix.hard), soft.max(prefix.soft)))
    }
}

/// Tells whether a prefix is remembered as such, where there is room; a longer one is widened to its host.
fn is_short(path: &Target) -> bool {
    path.as_str().len() <= MAX_PREFIX_BYTES
}

fn decide(hard: u64, soft: u64, filled_at: u64) -> Matched {
    if makes(Mistake::OneSeqForBoth) && soft > hard.max(filled_at) {
        return Matched::Soft(soft);
    }
    match (hard > filled_at, soft > filled_at) {
        (true, _) => Matched::Hard(hard),
        (false, true) => Matched::Soft(soft),
        (false, false) => Matched::Nothing,
    }
}

impl Clone for PurgeTable {
    fn clone(&self) -> Self {
        Self::from(Written::from(self))
    }
}

/// The table as a snapshot carries it: only the slots that were ever hit.
#[derive(Serialize, Deserialize)]
struct Written {
    key: String,
    #[serde(default)]
    layout: u32,
    #[serde(default = "usual_slots", skip_serializing_if = "is_usual")]
    slots: usize,
    newest: u64,
    hard: Vec<(u32, u64)>,
    soft: Vec<(u32, u64)>,
    prefixes: Vec<PrefixPurge>,
}

fn usual_slots() -> usize {
    SLOTS
}

fn is_usual(slots: &usize) -> bool {
    *slots == SLOTS
}

impl From<&PurgeTable> for Written {
    fn from(table: &PurgeTable) -> Self {
        let sparse = |array: &[AtomicU64]| {
            let seqs = (0u32..).zip(array).map(|(slot, cell)| (slot, cell.load(Ordering::Acquire)));
            seqs.filter(|(_, seq)| *seq > 0).collect()
        };
        Self {
            key: hex::encode(table.key),
            layout: LAYOUT,
            slots: table.fine,
            newest: table.newest(),
            hard: sparse(&table.hard),
            soft: sparse(&table.soft),
            prefixes: table.prefixes.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone(),
        }
    }
}

impl From<Written> for PurgeTable {
    fn from(written: Written) -> Self {
        let mut key = [0; 16];
        let is_read = hex::decode_to_slice(&written.key, &mut key).is_ok();
        let table = Self::sized(key, written.slots);
        if !is_read || written.layout != LAYOUT || table.fine != written.slots {
            // What its slots stand for is not known here: everything was purged.
            table.apply(written.newest, &Owner::default(), Mode::Hard, &[Scope::Unknown(serde_json::Value::Null)]);
            return table;
        }
        let fill = |array: &[AtomicU64], seqs: &[(u32, u64)]| {
            for (slot, seq) in seqs {
                if let Some(cell) = array.get(*slot as usize) {
                    cell.store(*seq, Ordering::Release);
                }
            }
        };
        fill(&table.hard, &written.hard);
        fill(&table.soft, &written.soft);
        table.newest.store(written.newest, Ordering::Release);
        table.prefix_count.store(written.prefixes.len(), Ordering::Release);
        *table.prefixes.write().unwrap_or_else(std::sync::PoisonError::into_inner) = written.prefixes;
        table
    }
}

impl Serialize for PurgeTable {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Written::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PurgeTable {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Written::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Page {
        owner: Owner,
        host: Host,
        sent: Target,
        tags: Vec<Tag>,
    }

    impl Page {
        fn new(host: &str, sent: &str, tags: &[&str]) -> Self {
            Self {
                owner: Owner::default(),
                host: host.parse().unwrap(),
                sent: sent.parse().unwrap(),
                tags: tags.iter().map(|t| t.parse().unwrap()).collect(),
            }
        }

        fn slots(&self, table: &PurgeTable) -> Slots {
            table.slots(&Subject { owner: &self.owner, host: &self.host, sent: &self.sent, keyed: None, tags: &self.tags })
        }

        fn matched(&self, table: &PurgeTable, filled_at: u64) -> Matched {
            table.matched(&self.slots(table), &self.host, &self.sent, filled_at)
        }
    }

    fn scope(json: &str) -> Scope {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn each_scope_takes_what_it_names_and_nothing_else() {
        let page = Page::new("h.example", "/a/b?c", &["red", "blue"]);
        let cases = [
            (r#"{"url":"h.example/a/b?c"}"#, true),
            (r#"{"url":"h.example/a/b"}"#, false),
            (r#"{"url":"other.example/a/b?c"}"#, false),
            (r#"{"tag":"blue"}"#, true),
            (r#"{"tag":"green"}"#, false),
            (r#"{"prefix":"h.example/a/"}"#, true),
            (r#"{"prefix":"h.example/b"}"#, false),
            (r#"{"prefix":"x.example/a/"}"#, false),
            (r#"{"host":"h.example"}"#, true),
            (r#"{"host":"example"}"#, false),
            (r#"{"all":true}"#, true),
            (r#"{"moon":"full"}"#, true),
        ];
        for (json, takes) in cases {
            let table = PurgeTable::new([3; 16]);
            table.apply(10, &Owner::default(), Mode::Hard, &[scope(json)]);
            assert_eq!(page.matched(&table, 9) == Matched::Hard(10), takes, "{json}");
            assert_eq!(page.matched(&table, 10), Matched::Nothing, "{json}");
        }
    }

    #[test]
    fn tags_and_all_stay_within_their_owner_but_an_unknown_scope_does_not() {
        let page = Page::new("h", "/", &["red"]);
        let other: Owner = "other".parse().unwrap();
        for (json, takes) in [(r#"{"tag":"red"}"#, false), (r#"{"all":true}"#, false), (r#"{"new":1}"#, true)] {
            let table = PurgeTable::new([0; 16]);
            table.apply(1, &other, Mode::Hard, &[scope(json)]);
            assert_eq!(page.matched(&table, 0) != Matched::Nothing, takes, "{json}");
        }
    }

    #[test]
    fn a_soft_purge_after_a_hard_one_does_not_hide_it() {
        let (table, page) = (PurgeTable::new([0; 16]), Page::new("h", "/", &["t"]));
        table.apply(5, &Owner::default(), Mode::Hard, &[scope(r#"{"tag":"t"}"#)]);
        table.apply(6, &Owner::default(), Mode::Soft, &[scope(r#"{"tag":"t"}"#)]);
        assert_eq!(page.matched(&table, 4), Matched::Hard(5));
        assert_eq!(page.matched(&table, 5), Matched::Soft(6));
        assert_eq!(page.matched(&table, 6), Matched::Nothing);
    }

    #[test]
    fn prefixes_beyond_the_bound_are_widened_to_their_host() {
        let (table, page) = (PurgeTable::new([0; 16]), Page::new("h", "/untouched", &[]));
        for n in 0..MAX_PREFIXES as u64 {
            table.apply(n + 1, &Owner::default(), Mode::Hard, &[scope(&format!(r#"{{"prefix":"h/p{n}/"}}"#))]);
        }
        assert_eq!(page.matched(&table, 0), Matched::Nothing);
        table.apply(1000, &Owner::default(), Mode::Hard, &[scope(r#"{"prefix":"h/one-more/"}"#)]);
        assert_eq!(page.matched(&table, 999), Matched::Hard(1000));
    }

    #[test]
    fn a_prefix_that_is_too_long_to_be_remembered_is_widened_to_its_host() {
        let page = Page::new("h", "/untouched", &[]);
        for (length, takes) in [(MAX_PREFIX_BYTES, false), (MAX_PREFIX_BYTES + 1, true)] {
            let table = PurgeTable::new([0; 16]);
            let long = scope(&format!(r#"{{"prefix":"h/{}"}}"#, "p".repeat(length - 1)));
            let probe = table.probe(&Owner::default(), std::slice::from_ref(&long));
            table.apply(1, &Owner::default(), Mode::Hard, &[long]);
            assert_eq!(page.matched(&table, 0) == Matched::Hard(1), takes, "{length}");
            assert_eq!(probe.takes(&page.slots(&table), &page.host, &page.sent), takes, "{length}");
        }
    }

    #[test]
    fn the_slot_of_a_scope_is_the_same_on_every_machine() {
        let table = PurgeTable::new([3; 16]);
        let slots: Vec<_> =
            [r#"{"all":true}"#, r#"{"tag":"t"}"#, r#"{"host":"h.example"}"#, r#"{"url":"h.example/a?b"}"#, r#"{"moon":"full"}"#]
                .iter()
                .map(|json| table.slot_of(&Owner::default(), &scope(json)))
                .collect();
        assert_eq!(slots, [2476, 39539, 1377, 22721, 0]);
    }

    #[test]
    fn slots_hold_those_of_whatever_the_entry_says_less_of() {
        let table = PurgeTable::new([3; 16]);
        let slots = |tags: &[&str]| Page::new("h", "/", tags).slots(&table);
        assert!(slots(&["a", "b"]).hold(&slots(&["b"])) && slots(&["a"]).hold(&slots(&[])));
        assert!(!slots(&["a"]).hold(&slots(&["a", "b"])));
        assert!(!slots(&[]).is_empty() && Slots(Box::default()).is_empty());
        assert!(!Slots(Box::default()).hold(&slots(&[])));
    }

    #[test]
    fn a_table_takes_no_more_than_it_says() {
        assert!((4 << 20..5 << 20).contains(&PurgeTable::MOST_BYTES), "{}", PurgeTable::MOST_BYTES);
    }

    #[test]
    fn a_probe_says_beforehand_what_a_purge_takes_shared_slots_included() {
        let pages = [
            Page::new("h.example", "/a/b?c", &["red", "blue"]),
            Page::new("h.example", "/a", &[]),
            Page::new("x.example", "/a/b", &["green"]),
            Page::new("y.example", "/", &["red"]),
        ];
        let scopes = [
            r#"{"url":"h.example/a/b?c"}"#,
            r#"{"tag":"red"}"#,
            r#"{"prefix":"h.example/a/"}"#,
            r#"{"prefix":"h.example/a"}"#,
            r#"{"host":"x.example"}"#,
            r#"{"all":true}"#,
            r#"{"moon":"full"}"#,
        ];
        // Of so few slots many are shared.
        for (json, slots) in scopes.iter().flat_map(|json| [1, 2, 5, 1 << 16].map(|slots| (json, slots))) {
            let table = PurgeTable::sized([3; 16], slots);
            let probe = table.probe(&Owner::default(), &[scope(json)]);
            let takes: Vec<_> = pages.iter().map(|page| probe.takes(&page.slots(&table), &page.host, &page.sent)).collect();
            assert!(pages.iter().all(|page| page.matched(&table, 0) == Matched::Nothing), "{json}: it marks nothing");
            table.apply(1, &Owner::default(), Mode::Hard, &[scope(json)]);
            let taken: Vec<_> = pages.iter().map(|page| page.matched(&table, 0) == Matched::Hard(1)).collect();
            assert_eq!(takes, taken, "{json} among {slots} slots");
        }
        let (table, other) = (PurgeTable::new([3; 16]), "other".parse::<Owner>().unwrap());
        let probe = table.probe(&other, &[scope(r#"{"tag":"red"}"#), scope(r#"{"all":true}"#)]);
        assert!(!pages.iter().any(|page| probe.takes(&page.slots(&table), &page.host, &page.sent)), "of another owner");
    }

    #[test]
    fn a_probe_widens_the_prefixes_for_which_there_is_no_room() {
        let (table, page) = (PurgeTable::new([0; 16]), Page::new("h", "/untouched", &[]));
        let takes = |scopes: &[Scope]| table.probe(&Owner::default(), scopes).takes(&page.slots(&table), &page.host, &page.sent);
        let prefix = |n: usize| scope(&format!(r#"{{"prefix":"h/p{n}/"}}"#));
        for n in 1..MAX_PREFIXES {
            table.apply(n as u64, &Owner::default(), Mode::Hard, &[prefix(n)]);
        }
        assert!(!takes(&[prefix(1), prefix(0), prefix(0)]), "there is room for one more");
        assert!(takes(&[prefix(0), prefix(MAX_PREFIXES)]), "the second has none");
        table.apply(1000, &Owner::default(), Mode::Hard, &[prefix(0)]);
        assert!(!takes(&[prefix(0), prefix(1)]) && takes(&[prefix(MAX_PREFIXES)]));
    }

    #[test]
    fn a_table_of_another_layout_has_purged_everything() {
        let (table, page) = (PurgeTable::new([9; 16]), Page::new("h", "/p/q", &["t"]));
        table.apply(7, &Owner::default(), Mode::Soft, &[scope(r#"{"tag":"other"}"#)]);
        let mut written = serde_json::to_value(&table).unwrap();
        for (member, value) in [("layout", 1.into()), ("key", "no key".into()), ("slots", 0.into())] {
            let mut other = written.clone();
            other[member] = value;
            let back: PurgeTable = serde_json::from_value(other).unwrap();
            assert_eq!(page.matched(&back, 6), Matched::Hard(7), "{member}");
            assert_eq!(page.matched(&back, 7), Matched::Nothing, "{member}");
        }
        written.as_object_mut().unwrap().remove("layout");
        let old: PurgeTable = serde_json::from_value(written).unwrap();
        assert_eq!(page.matched(&old, 6), Matched::Hard(7));
    }

    #[test]
    fn no_tag_takes_what_many_entries_have_in_common() {
        let (table, page) = (PurgeTable::sized([5; 16], 64), Page::new("h", "/", &[]));
        let shared = page.slots(&table);
        let coarse = u32::try_from(table.coarse).unwrap();
        assert_eq!(shared.0.iter().filter(|slot| **slot <= coarse).count(), 3, "everything, owner, host");
        for n in 0..2000 {
            let tag = table.slot_of(&Owner::default(), &scope(&format!(r#"{{"tag":"t{n}"}}"#)));
            assert!(tag > coarse, "t{n}");
        }
    }

    #[test]
    fn a_table_survives_its_snapshot() {
        let (table, page) = (PurgeTable::new([9; 16]), Page::new("h", "/p/q", &["t"]));
        table.apply(7, &Owner::default(), Mode::Soft, &[scope(r#"{"tag":"t"}"#), scope(r#"{"prefix":"h/p"}"#)]);
        let back: PurgeTable = serde_json::from_str(&serde_json::to_string(&table).unwrap()).unwrap();
        assert_eq!(page.matched(&back, 6), Matched::Soft(7));
        assert_eq!(back.newest(), 7);
        assert_eq!(page.slots(&back), page.slots(&table));
    }
}
