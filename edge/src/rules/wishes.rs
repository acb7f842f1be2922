//! What a client wishes of a cache (RFC 9111, 5.2.1), as far as the route lets strangers wish.

use std::time::Duration;

use http::HeaderMap;
use http::header::{CACHE_CONTROL, PRAGMA};

use super::directives::Directives;
use super::list;

/// A client's wishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// Nothing that is not stored.
    pub(crate) only_if_cached: bool,
    /// How stale an answer may be.
    pub(crate) max_stale: Option<Duration>,
    /// To ask the upstream, whatever is stored.
    pub(crate) no_cache: bool,
    /// How old an answer may be.
    pub(crate) max_age: Option<Duration>,
    /// For how long it must stay fresh.
    pub(crate) min_fresh: Duration,
}

impl Wishes {
    /// Reads the wishes of a request. With some of them strangers could drive load upstream: these count
    /// where the route is `honoured` only (http.md 22).
    pub(crate) fn of(request: &HeaderMap, honoured: bool) -> Self {
        let directives = Directives::of(request);
        let always = Self { only_if_cached: directives.only_if_cached, max_stale: directives.max_stale, ..Self::default() };
        if !honoured {
            return always;
        }
        // Pragma counts where there is no Cache-Control (RFC 9111, 5.4).
        let pragma = || {
            !request.contains_key(CACHE_CONTROL) && list::members_of(request, &PRAGMA).any(|word| word.eq_ignore_ascii_case(b"no-cache"))
        };
        Self {
            no_cache: directives.no_cache.is_some() || pragma(),
            max_age: directives.max_age,
            min_fresh: directives.min_fresh.unwrap_or_default(),
            ..always
        }
    }

    /// Tells whether a fresh answer of this age, fresh for so much longer, is not what the client wishes.
    pub(crate) fn refuse(&self, age: Duration, fresh_for: Duration) -> bool {
        self.no_cache || self.max_age.is_some_and(|most| age > most) || fresh_for < self.min_fresh
    }

    /// Tells whether the client takes an answer that has been stale for so long.
    pub(crate) fn take_stale(&self, stale_for: Duration) -> bool {
        self.max_stale.is_some_and(|most| stale_for <= most) && !self.no_cache && self.min_fresh.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn rule_22_what_drives_load_upstream_counts_where_the_route_says_so() {
        let request = headers(&[("cache-control", "no-cache, max-age=1, min-fresh=2, max-stale=3, only-if-cached")]);
        let plain = Wishes::of(&request, false);
        assert_eq!(plain, Wishes { only_if_cached: true, max_stale: Some(s(3)), ..Wishes::default() });
        let honoured = Wishes::of(&request, true);
        assert_eq!((honoured.no_cache, honoured.max_age, honoured.min_fresh), (true, Some(s(1)), s(2)));
        assert!(Wishes::of(&headers(&[("pragma", "x, No-Cache")]), true).no_cache);
        assert!(!Wishes::of(&headers(&[("pragma", "no-cache"), ("cache-control", "max-age=9")]), true).no_cache);
        assert!(!Wishes::of(&headers(&[("pragma", "no-cache")]), false).no_cache);
    }

    #[test]
    fn rule_22_wishes_are_compared_with_age_and_time_left() {
        let wishes = Wishes { max_age: Some(s(5)), min_fresh: s(2), ..Wishes::default() };
        assert!(!wishes.refuse(s(5), s(2)) && wishes.refuse(s(6), s(2)) && wishes.refuse(s(5), s(1)));
        let stale = Wishes { max_stale: Some(s(5)), ..Wishes::default() };
        assert!(stale.take_stale(s(5)) && !stale.take_stale(s(6)) && !Wishes::default().take_stale(s(0)));
        assert!(!Wishes { no_cache: true, ..stale }.take_stale(s(1)));
    }
}
