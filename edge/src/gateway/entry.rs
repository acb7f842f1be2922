//! A stored response, and the variants of one URL.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ETAG, LAST_MODIFIED};
use http::{HeaderMap, StatusCode};
use wire::Tag;

use super::codings::Codings;
use crate::rules::parts::Parts;
use crate::rules::ranges::ByteRange;
use crate::rules::vary::Selection;
use crate::rules::{StoreTerms, conditional};
use crate::validity::Provenance;

/// Variants of one URL; the least recently stored goes first.
const VARIANTS: usize = 16;

/// All that is known of a response but its body.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    /// As the upstream sent them, without what is about one connection.
    pub(crate) headers: HeaderMap,
    /// The length that the upstream announced.
    pub(crate) length: Option<u64>,
    /// Which requests it answers.
    pub(crate) selection: Selection,
    pub(crate) terms: StoreTerms,
    pub(crate) tags: Arc<[Tag]>,
    /// How it came to be, as far as purges are concerned.
    pub(crate) provenance: Provenance,
    /// When it came (CLOCK_BOOTTIME), for its age.
    pub(crate) received_boot: Duration,
    /// When the fetch of its body started, or the request that found it to be right (CLOCK_BOOTTIME).
    pub(crate) started_boot: Duration,
}

/// A response that may be served again.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) head: Head,
    pub(crate) content: Content,
    /// The whole body in other codings, made here.
    pub(crate) codings: Arc<Codings>,
}

/// The bytes of a stored response.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// All of them.
    Whole(Bytes),
    /// Some of them (RFC 9111, 3.3).
    Parts(Parts),
}

impl Head {
    /// Returns its age at `boot` (RFC 9111, 4.2.3).
    pub(crate) fn age(&self, boot: Duration) -> Duration {
        self.terms.initial_age + boot.saturating_sub(self.received_boot)
    }

    /// Tells whether it must not be replaced by `other`: it was filled later (P5), or at the same position by a fetch that
    /// started later (RFC 9111, 4).
    fn is_newer(&self, other: &Self) -> bool {
        let is_of_same =
            self.provenance.generation == other.provenance.generation && self.provenance.filled_at == other.provenance.filled_at;
        !other.provenance.may_replace(&self.provenance) || (is_of_same && self.started_boot > other.started_boot)
    }

    /// Returns its entity tag.
    pub(crate) fn etag(&self) -> Option<&str> {
        self.headers.get(ETAG)?.to_str().ok()
    }

    /// Tells whether its entity tag is strong: with no other may a fenced edge revalidate.
    pub(crate) fn has_strong_etag(&self) -> bool {
        conditional::has_strong_etag(&self.headers)
    }

    /// Tells whether it can be asked for conditionally.
    pub(crate) fn has_validator(&self) -> bool {
        self.headers.contains_key(ETAG) || self.headers.contains_key(LAST_MODIFIED)
    }
}

impl Entry {
    /// Returns an entry with all of its body.
    pub(crate) fn whole(head: Head, body: Bytes) -> Self {
        Self { head, content: Content::Whole(body), codings: Arc::default() }
    }

    /// Returns an entry with what is held of its body.
    pub(crate) fn of_parts(head: Head, parts: Parts) -> Self {
        let whole = parts.complete().filter(|_| parts.is_whole());
        match whole.and_then(|complete| parts.read(ByteRange { first: 0, last: complete.saturating_sub(1) })) {
            Some(chunks) => Self::whole(head, chunks.concat().into()),
            None => Self { head, content: Content::Parts(parts), codings: Arc::default() },
        }
    }

    /// Returns the same body under another head.
    pub(crate) fn with_head(&self, head: Head) -> Self {
        Self { head, content: self.content.clone(), codings: Arc::clone(&self.codings) }
    }

    /// Returns the length of its whole body, where that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match &self.content {
            Content::Whole(body) => Some(body.len() as u64),
            Content::Parts(parts) => parts.complete(),
        }
    }

    /// Returns the bytes that it takes.
    pub(crate) fn weight(&self) -> usize {
        let fields: usize = self.head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
        let tags: usize = self.head.tags.iter().map(|tag| tag.as_str().len() + 32).sum();
        let content = match &self.content {
            Content::Whole(body) => body.len(),
            Content::Parts(parts) => parts.weight(),
        };
        let selection: usize = self.head.selection.fields.iter().map(|(_, value)| value.as_ref().map_or(0, Vec::len) + 64).sum();
        content + self.codings.weight() + fields + tags + selection + 512
    }
}

/// The variants of one URL, the newest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    pub(crate) variants: Vec<Arc<Entry>>,
}

impl Stored {
    /// Returns the bytes that all variants take.
    pub(crate) fn weight(&self) -> usize {
        self.variants.iter().map(|entry| entry.weight()).sum()
    }

    /// Returns the variant for a request as it goes upstream.
    pub(crate) fn select(&self, request: &HeaderMap) -> Option<&Arc<Entry>> {
        self.variants.iter().find(|entry| entry.head.selection.matches(request))
    }

    /// Returns the same with `entry` in it: it replaces its like. Nothing where that was filled later (P5).
    pub(crate) fn with(mut self, entry: Arc<Entry>) -> Option<Self> {
        let like = self.variants.iter().position(|known| known.head.selection == entry.head.selection);
        if let Some(at) = like {
            if self.variants.get(at).is_some_and(|known| known.head.is_newer(&entry.head)) {
                return None;
            }
            self.variants.remove(at);
        }
        self.variants.insert(0, entry);
        self.variants.truncate(VARIANTS);
        Some(self)
    }
}
