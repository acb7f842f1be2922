//! What a decision about storing comes to: the terms of later use, or the name of the reason against it.

use std::time::Duration;

use http::HeaderName;

use super::fields::BadTags;

/// On which terms a response is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreTerms {
    /// How long it is fresh, counted from when it was made.
    pub(crate) lifetime: Duration,
    /// How old it was when it came (RFC 9111, 4.2.3).
    pub(crate) initial_age: Duration,
    /// It is never served stale, but within the two windows below; where a directive forbids these too they are zero.
    pub(crate) must_revalidate: bool,
    /// How long after its lifetime it is served while a fresh one is fetched (RFC 5861, 3).
    pub(crate) stale_while_revalidate: Duration,
    /// How long after its lifetime it stands in for an error (RFC 5861, 4).
    pub(crate) stale_if_error: Duration,
    /// How long after its lifetime it stands in for an upstream that can't be reached (RFC 9111, 4.2.4).
    pub(crate) disconnected: Duration,
    /// It is asked for again on each use (RFC 9111, 5.2.2.4).
    pub(crate) no_cache: bool,
    /// Fields that only the first client gets: those of `no-cache="…"` and `private="…"`, and a stripped Set-Cookie.
    pub(crate) dropped_on_reuse: Vec<HeaderName>,
}

impl StoreTerms {
    /// Tells whether the response is fresh when it comes, so that whoever waits for it may have it too.
    ///
    /// One that is stored only to be asked for again (no-cache, max-age=0) may be somebody's own until the
    /// upstream has said for each request that it fits.
    pub(crate) fn is_fresh_on_arrival(&self) -> bool {
        !self.no_cache && self.lifetime > self.initial_age
    }
}

/// Why a response is not stored. The word is the same in Cache-Status, the log, the metric and `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NotStored {
    /// The method's answers are not stored.
    Method,
    /// The request said `no-store`.
    RequestNoStore,
    /// An interim status (RFC 9110, 15.2).
    NotFinal,
    /// A 304, which is about another response.
    NotModified,
    /// A part of the content, or a complaint about a range.
    Range,
    /// `must-understand`, and the status is not known here (RFC 9111, 5.2.2.3).
    UnknownStatus,
    /// An error that the request may have provoked, on a route that does not store these.
    RequestError,
    /// `no-store` (RFC 9111, 5.2.2.5).
    NoStore,
    /// `private` (RFC 9111, 5.2.2.7).
    Private,
    /// The request had Authorization, and nothing says that the answer may be shared (RFC 9111, 3.5).
    Authorization,
    /// The request had Cookie, and the response names no lifetime.
    Cookie,
    /// The response has Set-Cookie, and the route does not store these.
    SetCookie,
    /// Vary has `*`, so that no request will ever match.
    VaryStar,
    /// Nothing names a lifetime and nothing allows a guess (RFC 9111, 3).
    NoFreshness,
    /// Neither fresh, nor to be served stale, nor with a validator to ask again by: of no use to anyone.
    AlreadyStale,
    /// Its tags can't all be kept, so that it could not be purged by them.
    Tags,
    /// Where its body ends can be read in two ways (RFC 9112, 6.3).
    Framing,
    /// It is larger than the route stores.
    TooLarge,
    /// It answers conditions that the request alone had (RFC 9110, 13.1.1 and 13.1.4).
    Conditional,
}

impl NotStored {
    /// Returns the reason's name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::RequestNoStore => "request-no-store",
            Self::NotFinal => "not-final",
            Self::NotModified => "not-modified",
            Self::Range => "range",
            Self::UnknownStatus => "unknown-status",
            Self::RequestError => "request-error",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::Cookie => "cookie",
            Self::SetCookie => "set-cookie",
            Self::VaryStar => "vary-star",
            Self::NoFreshness => "no-freshness",
            Self::AlreadyStale => "already-stale",
            Self::Tags => "tags",
            Self::Framing => "framing",
            Self::TooLarge => "too-large",
            Self::Conditional => "conditional",
        }
    }
}

impl NotStored {
    /// Tells whether the response itself is the reason, so that others who ask will meet the same.
    pub(crate) const fn is_of_response(self) -> bool {
        !matches!(
            self,
            Self::Method | Self::RequestNoStore | Self::NotModified | Self::Range | Self::Authorization | Self::Cookie | Self::Conditional
        )
    }
}

impl From<BadTags> for NotStored {
    fn from(_: BadTags) -> Self {
        Self::Tags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_response_that_is_fresh_when_it_comes_goes_to_those_who_wait_for_it() {
        let terms = |lifetime: u64, age: u64, no_cache: bool| StoreTerms {
            lifetime: Duration::from_secs(lifetime),
            initial_age: Duration::from_secs(age),
            must_revalidate: no_cache,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            disconnected: Duration::ZERO,
            no_cache,
            dropped_on_reuse: Vec::new(),
        };
        for (lifetime, age, no_cache, is_fresh) in
            [(60, 0, false, true), (60, 60, false, false), (60, 0, true, false), (0, 0, false, false)]
        {
            assert_eq!(terms(lifetime, age, no_cache).is_fresh_on_arrival(), is_fresh, "{lifetime} {age} {no_cache}");
        }
    }

    #[test]
    fn tags_that_cannot_be_kept_are_a_reason_too() {
        assert_eq!(NotStored::from(BadTags::TooMany).as_str(), "tags");
    }
}
