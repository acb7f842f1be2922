//! An entry outside of this process: one value that another edge, or the next life of this one, can read. It has no
//! times of day in it, but how old it was when it was written; whoever reads it adds how long ago that is.
//!
//! The bytes: `ATL`, the format's version, the length of the head, the head (postcard), the body, and the first half of
//! the SHA-256 over all of that. What does not fit its digest, or comes from another version, is no entry.

use std::time::Duration;

use bytes::Bytes;
use config::CookieName;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use wire::{Digest, Epoch, Owner, Tag, Target};

use crate::gateway::{CacheKey, Content, Entry, Head, Scheme};
use crate::rules::StoreTerms;
use crate::rules::vary::Selection;
use crate::validity::{Provenance, Shared};

/// What every value begins with.
const MAGIC: &[u8; 3] = b"ATL";

/// The version of the format. It is part of the keys too, so that two versions don't fight over one key.
pub(super) const VERSION: u8 = 1;

/// Bytes before the head: magic, version, and the head's length.
const BEFORE_HEAD: usize = 8;

/// Fields of a response: no head of an upstream has as many (`max_head`).
const FIELDS: usize = 8192;

/// Bytes of the digest at the end.
const DIGEST: usize = 16;

/// A response, and all that decides whether another edge may use it.
#[derive(Clone, Debug)]
pub(crate) struct Portable {
    pub(crate) key: CacheKey,
    /// The target as the client had sent it: a purge may name it.
    pub(crate) sent: Target,
    /// Whose route it came through.
    pub(crate) owner: Owner,
    pub(crate) shared: Shared,
    pub(crate) settings: u64,
    /// How long before it was written its fetch had started.
    pub(crate) started_ago: Duration,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) length: Option<u64>,
    pub(crate) selection: Selection,
    /// Its terms; its initial age is the one at which it was written.
    pub(crate) terms: StoreTerms,
    pub(crate) tags: Vec<Tag>,
    pub(crate) body: Bytes,
}

/// Why a value is of no use. The word is the metric's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It was not written by an Atoll.
    Foreign,
    /// It was written by another version.
    OtherVersion,
    /// Its end is missing.
    Truncated,
    /// Its bytes are not those that were written.
    Corrupt,
    /// Its bytes are those that were written, and mean nothing here.
    Malformed,
}

impl Unusable {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::OtherVersion => "version",
            Self::Truncated => "truncated",
            Self::Corrupt => "corrupt",
            Self::Malformed => "malformed",
        }
    }
}

/// The head as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Written<'a> {
    is_https: bool,
    host: &'a str,
    target: &'a str,
    sent: &'a str,
    owner: &'a str,
    epoch: [u8; 8],
    filled_at: u64,
    settings: u64,
    started_ago_ms: u64,
    age_ms: u64,
    lifetime_ms: u64,
    stale_while_revalidate_ms: u64,
    stale_if_error_ms: u64,
    disconnected_ms: u64,
    must_revalidate: bool,
    no_cache: bool,
    status: u16,
    length: Option<u64>,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a [u8])>,
    dropped_on_reuse: Vec<&'a str>,
    fields: Vec<(&'a str, Option<&'a [u8]>)>,
    cookies: Vec<(&'a str, Option<&'a [u8]>)>,
    tags: Vec<&'a str>,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Portable {
    /// Takes what there is to say of an entry at `boot` (CLOCK_BOOTTIME). Only whole ones travel.
    pub(crate) fn of(entry: &Entry, key: &CacheKey, sent: &Target, owner: &Owner, epoch: Epoch, boot: Duration) -> Option<Self> {
        let Content::Whole(body) = &entry.content else { return None };
        let head = &entry.head;
        Some(Self {
            key: key.clone(),
            sent: sent.clone(),
            owner: owner.clone(),
            shared: Shared { epoch, filled_at: head.provenance.filled_at },
            settings: head.provenance.settings,
            started_ago: boot.saturating_sub(head.started_boot),
            status: head.status,
            headers: reusable(head),
            length: head.length,
            selection: head.selection.clone(),
            terms: StoreTerms { initial_age: head.age(boot), dropped_on_reuse: Vec::new(), ..head.terms.clone() },
            tags: head.tags.to_vec(),
            body: body.clone(),
        })
    }

    /// Returns the entry at `boot`, when `since` has passed since it was written.
    pub(crate) fn entry(self, provenance: Provenance, boot: Duration, since: Duration) -> Entry {
        let started_boot = boot.saturating_sub(since).saturating_sub(self.started_ago);
        let initial_age = self.terms.initial_age.saturating_add(since);
        let head = Head {
            status: self.status,
            headers: self.headers,
            length: self.length,
            selection: self.selection,
            terms: StoreTerms { initial_age, ..self.terms },
            tags: self.tags.into(),
            provenance,
            received_boot: boot,
            started_boot,
        };
        Entry::whole(head, self.body)
    }

    /// Returns for how long it may still be of use: as long as it is fresh, or may be served stale in some case.
    pub(crate) fn ttl(&self) -> Duration {
        let terms = &self.terms;
        let windows = terms.stale_while_revalidate.max(terms.stale_if_error).max(terms.disconnected);
        terms.lifetime.saturating_add(windows).saturating_sub(terms.initial_age)
    }

    /// Writes it; nothing where it is too large to be written at all.
    pub(crate) fn encode(&self) -> Option<Bytes> {
        let head = postcard::to_allocvec(&self.written()).ok()?;
        let mut bytes = Vec::with_capacity(BEFORE_HEAD + head.len() + self.body.len() + DIGEST);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&u32::try_from(head.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&self.body);
        let digest = Digest::of(&bytes);
        bytes.extend(digest.as_bytes().iter().take(DIGEST));
        Some(bytes.into())
    }

    fn written(&self) -> Written<'_> {
        fn rows<N>(rows: &[(N, Option<Vec<u8>>)], name: impl Fn(&N) -> &str) -> Vec<(&str, Option<&[u8]>)> {
            rows.iter().map(|(field, value)| (name(field), value.as_deref())).collect()
        }
        let terms = &self.terms;
        Written {
            is_https: self.key.scheme == Scheme::Https,
            host: self.key.host.as_str(),
            target: self.key.target.as_str(),
            sent: self.sent.as_str(),
            owner: self.owner.as_str(),
            epoch: *self.shared.epoch.as_bytes(),
            filled_at: self.shared.filled_at,
            settings: self.settings,
            started_ago_ms: millis(self.started_ago).saturating_add(1),
            age_ms: millis(terms.initial_age),
            lifetime_ms: millis(terms.lifetime),
            stale_while_revalidate_ms: millis(terms.stale_while_revalidate),
            stale_if_error_ms: millis(terms.stale_if_error),
            disconnected_ms: millis(terms.disconnected),
            must_revalidate: terms.must_revalidate,
            no_cache: terms.no_cache,
            status: self.status.as_u16(),
            length: self.length,
            headers: self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
            dropped_on_reuse: terms.dropped_on_reuse.iter().map(HeaderName::as_str).collect(),
            fields: rows(&self.selection.fields, HeaderName::as_str),
            cookies: rows(&self.selection.cookies, CookieName::as_str),
            tags: self.tags.iter().map(Tag::as_str).collect(),
        }
    }

    /// Reads what [`Self::encode`] wrote.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, Unusable> {
        let Some(version) = bytes.strip_prefix(MAGIC.as_slice()).and_then(<[u8]>::first) else { return Err(Unusable::Foreign) };
        if *version != VERSION {
            return Err(Unusable::OtherVersion);
        }
        let Some((said, digest)) = bytes.len().checked_sub(DIGEST).and_then(|end| bytes.split_at_checked(end)) else {
            return Err(Unusable::Truncated);
        };
        if Digest::of(said).as_bytes().get(..DIGEST) != Some(digest) {
            return Err(Unusable::Corrupt);
        }
        let (before, rest) = said.split_at_checked(BEFORE_HEAD).ok_or(Unusable::Truncated)?;
        let head_length =
            before.last_chunk::<4>().map(|length| u32::from_be_bytes(*length)).and_then(|length| usize::try_from(length).ok());
        let (head, _) = head_length.and_then(|length| rest.split_at_checked(length)).ok_or(Unusable::Malformed)?;
        let (written, behind) = postcard::take_from_bytes::<Written<'_>>(head).map_err(|_| Unusable::Malformed)?;
        if !behind.is_empty() {
            return Err(Unusable::Malformed);
        }
        let body = bytes.slice(BEFORE_HEAD + head.len()..said.len());
        written.meant(body).ok_or(Unusable::Malformed)
    }
}

impl Written<'_> {
    fn meant(&self, body: Bytes) -> Option<Portable> {
        let name = |name: &&str| HeaderName::from_bytes(name.as_bytes()).ok();
        let mut headers = HeaderMap::new();
        for (field, value) in self.headers.get(..self.headers.len().min(FIELDS + 1))? {
            headers.try_append(name(field)?, HeaderValue::from_bytes(value).ok()?).ok()?;
        }
        if headers.len() > FIELDS {
            return None;
        }
        let fields = self.fields.iter().map(|(field, value)| Some((name(field)?, value.map(<[u8]>::to_vec)))).collect::<Option<_>>()?;
        let cookies =
            self.cookies.iter().map(|(name, value)| Some((name.parse().ok()?, value.map(<[u8]>::to_vec)))).collect::<Option<_>>()?;
        Some(Portable {
            key: CacheKey {
                scheme: if self.is_https { Scheme::Https } else { Scheme::Http },
                host: self.host.parse().ok()?,
                target: self.target.parse().ok()?,
            },
            sent: self.sent.parse().ok()?,
            owner: self.owner.parse().ok()?,
            shared: Shared { epoch: Epoch::from_bytes(self.epoch), filled_at: self.filled_at },
            settings: self.settings,
            started_ago: Duration::from_millis(self.started_ago_ms),
            status: StatusCode::from_u16(self.status).ok()?,
            headers,
            length: self.length,
            selection: Selection { fields, cookies },
            terms: StoreTerms {
                lifetime: Duration::from_millis(self.lifetime_ms),
                initial_age: Duration::from_millis(self.age_ms),
                must_revalidate: self.must_revalidate,
                stale_while_revalidate: Duration::from_millis(self.stale_while_revalidate_ms),
                stale_if_error: Duration::from_millis(self.stale_if_error_ms),
                disconnected: Duration::from_millis(self.disconnected_ms),
                no_cache: self.no_cache,
                dropped_on_reuse: self.dropped_on_reuse.iter().map(name).collect::<Option<_>>()?,
            },
            tags: self.tags.iter().map(|tag| tag.parse().ok()).collect::<Option<_>>()?,
            body,
        })
    }
}

/// Fields that only the first client gets are of no use to anybody else, and must not be stored for others (RFC 9111,
/// 5.2.2.4 and 5.2.2.7).
fn reusable(head: &Head) -> HeaderMap {
    let mut headers = head.headers.clone();
    for name in &head.terms.dropped_on_reuse {
        headers.remove(name);
    }
    headers
}

/// Whatever the bytes are, reading them ends, and what is read is written as it was.
#[cfg(any(test, fuzzing))]
pub(crate) fn reads_what_it_writes(bytes: &[u8]) {
    // Most inputs fail at the digest: the same bytes with a right one reach what is behind it.
    let mut signed = [MAGIC.as_slice(), &[VERSION], bytes].concat();
    let digest = Digest::of(&signed);
    signed.extend(digest.as_bytes().iter().take(DIGEST));
    for bytes in [Bytes::copy_from_slice(bytes), signed.into()] {
        if let Ok(portable) = Portable::decode(&bytes) {
            let again = portable.encode().and_then(|bytes| Portable::decode(&bytes).ok());
            assert!(again.is_some_and(|again| again.key == portable.key && again.body == portable.body && again.tags == portable.tags));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;
    use crate::rules::vary::selecting;
    use wire::{PurgeTable, Subject};

    const fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn key() -> CacheKey {
        CacheKey { scheme: Scheme::Https, host: "h.test".parse().unwrap(), target: "/a?b".parse().unwrap() }
    }

    fn provenance(filled_at: u64) -> Provenance {
        let key = key();
        let subject = Subject { owner: &Owner::default(), host: &key.host, sent: &key.target, keyed: None, tags: &[] };
        Provenance { filled_at, generation: 3, settings: 77, slots: PurgeTable::new([1; 16]).slots(&subject) }
    }

    fn entry() -> Entry {
        let names = [HeaderName::from_static("x"), HeaderName::from_static("y")];
        let terms = StoreTerms {
            lifetime: s(60),
            initial_age: s(5),
            must_revalidate: true,
            stale_while_revalidate: s(10),
            stale_if_error: s(20),
            disconnected: s(30),
            no_cache: false,
            dropped_on_reuse: vec![HeaderName::from_static("set-cookie")],
        };
        let head = Head {
            status: StatusCode::NOT_FOUND,
            headers: headers(&[("etag", "\"e\""), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-latin", "\u{fc}")]),
            length: Some(3),
            selection: selecting(&names, &["session".parse().unwrap()], &headers(&[("x", "1"), ("cookie", "session=7")])),
            terms,
            tags: vec!["t".parse().unwrap(), "u".parse().unwrap()].into(),
            provenance: provenance(9),
            received_boot: s(100),
            started_boot: s(98),
        };
        Entry::whole(head, Bytes::from_static(b"abc"))
    }

    fn portable() -> Portable {
        let epoch = Epoch::from_bytes([4; 8]);
        Portable::of(&entry(), &key(), &"/a?b&utm=1".parse().unwrap(), &"shop".parse().unwrap(), epoch, s(110)).unwrap()
    }

    #[test]
    fn an_entry_comes_back_as_it_went_and_older_by_the_time_that_passed() {
        let read = Portable::decode(&portable().encode().unwrap()).unwrap();
        assert_eq!((&read.key, read.sent.as_str(), read.owner.as_str()), (&key(), "/a?b&utm=1", "shop"));
        assert_eq!((read.shared, read.settings), (Shared { epoch: Epoch::from_bytes([4; 8]), filled_at: 9 }, 77));
        let back = read.entry(provenance(9), s(1000), s(7));
        let was = entry();
        assert_eq!((back.head.status, back.head.length), (was.head.status, was.head.length));
        let fields = headers(&[("etag", "\"e\""), ("x-latin", "\u{fc}")]);
        assert_eq!(back.head.headers, fields, "what only the first client gets does not travel");
        assert_eq!((&back.head.selection, &back.head.tags), (&was.head.selection, &was.head.tags));
        // It came at 100 with an age of 5, was written at 110 and lay there for 7.
        assert_eq!(back.head.age(s(1000)), s(22));
        let terms = StoreTerms { dropped_on_reuse: vec![], ..was.head.terms };
        assert_eq!(StoreTerms { initial_age: s(5), ..back.head.terms.clone() }, terms);
        assert_eq!(back.head.started_boot, s(1000 - 7 - 12) - Duration::from_millis(1), "never younger than it is");
        assert!(matches!(&back.content, Content::Whole(body) if body == "abc"));
    }

    #[test]
    fn it_is_of_use_as_long_as_it_is_fresh_or_may_be_served_stale() {
        assert_eq!(portable().ttl(), s(60 + 30 - 15));
        let mut old = portable();
        old.terms.initial_age = s(1000);
        assert_eq!(old.ttl(), s(0));
    }

    #[test]
    fn what_is_foreign_cut_spoilt_or_of_another_version_is_no_entry() {
        let good = portable().encode().unwrap();
        let why = |bytes: &[u8]| Portable::decode(&Bytes::copy_from_slice(bytes)).err();
        for end in 0..good.len() {
            let why = why(&good[..end]).unwrap();
            assert!(matches!(why, Unusable::Foreign | Unusable::Truncated | Unusable::Corrupt), "{end}: {why:?}");
        }
        for at in 0..good.len() {
            let mut spoilt = good.to_vec();
            spoilt[at] ^= 1;
            assert!(why(&spoilt).is_some(), "{at}");
        }
        assert_eq!(why(b"{\"json\":true}"), Some(Unusable::Foreign));
        let other: Vec<u8> = [b"ATL\x02".as_slice(), &good[4..]].concat();
        assert_eq!(why(&other), Some(Unusable::OtherVersion));
        assert_eq!(why(&[&good[..], b"x"].concat()), Some(Unusable::Corrupt));
    }

    #[test]
    fn bytes_of_all_kinds_are_read_to_an_end() {
        for seed in 0..2000u64 {
            let length = usize::try_from(seed % 200).unwrap();
            let bytes: Vec<u8> = Digest::of(&seed.to_be_bytes()).as_bytes().iter().copied().cycle().take(length).collect();
            reads_what_it_writes(&bytes);
        }
        reads_what_it_writes(&portable().encode().unwrap()[4..]);
    }

    #[test]
    fn parts_do_not_travel() {
        let parts = Entry { content: Content::Parts(crate::rules::parts::Parts::default()), ..entry() };
        let epoch = Epoch::from_bytes([4; 8]);
        assert!(Portable::of(&parts, &key(), &key().target, &Owner::default(), epoch, s(110)).is_none());
    }
}
