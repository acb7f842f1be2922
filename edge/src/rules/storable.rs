//! Whether a response may be stored: by its request, its status, its directives, and what the route says.

use std::time::Duration;

use http::header::{ETAG, LAST_MODIFIED, SET_COOKIE};
use http::{HeaderMap, Method, StatusCode};
use wire::Timestamp;

use super::age;
use super::directives::Directives;
use super::freshness::{self, Lifetime};
use super::targeted::{self, Source};
use super::terms::{NotStored, StoreTerms};
use super::vary::{self, Variance};
use config::{Route, SetCookie};

/// How long after its lifetime a response that names no window stands in for an upstream that can't be
/// reached: the RFC sets no bound (RFC 9111, 4.2.4), and a day outlasts most outages.
const DISCONNECTED: Duration = Duration::from_secs(24 * 3600);

/// What matters of the request that a response answers.
#[derive(Clone, Debug)]
pub(crate) struct RequestFacts {
    /// Its method.
    pub(crate) method: Method,
    /// It had Authorization (RFC 9111, 3.5).
    pub(crate) has_authorization: bool,
    /// It had Cookie.
    pub(crate) has_cookie: bool,
    /// It said `no-store` (RFC 9111, 5.2.1.5).
    pub(crate) no_store: bool,
    /// It went upstream with Range.
    pub(crate) has_range: bool,
    /// It went upstream with If-Match or If-Unmodified-Since.
    pub(crate) has_conditions: bool,
    /// For a POST: the answer's Content-Location is the target, so it may answer a GET
    /// (RFC 9110, 9.3.3).
    pub(crate) describes_target: bool,
    /// When it went upstream (RFC 9111, 4.2.3).
    pub(crate) sent_at: Timestamp,
}

/// What a route says about storing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// The lifetime of responses that name none, in place of the guess from Last-Modified.
    pub(crate) default_lifetime: Option<Duration>,
    /// The same for this very status.
    pub(crate) status_lifetime: Option<Duration>,
    /// No lifetime is longer.
    pub(crate) max_lifetime: Option<Duration>,
    /// The windows of responses that name none.
    pub(crate) stale_while_revalidate: Option<Duration>,
    pub(crate) stale_if_error: Option<Duration>,
    /// What becomes of responses with Set-Cookie.
    pub(crate) set_cookie: SetCookie,
    /// Whether errors that one unusual request may have provoked are stored where they say so.
    pub(crate) cache_request_errors: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            default_lifetime: None,
            status_lifetime: None,
            max_lifetime: None,
            stale_while_revalidate: None,
            stale_if_error: None,
            set_cookie: SetCookie::Shared,
            cache_request_errors: true,
        }
    }
}

impl Policy {
    /// Returns what a route says about responses of this status.
    pub(crate) fn of(route: &Route, status: StatusCode) -> Self {
        Self {
            default_lifetime: route.default_lifetime,
            status_lifetime: route.status_lifetimes.get(status.as_u16()),
            max_lifetime: route.max_lifetime,
            stale_while_revalidate: route.stale_while_revalidate,
            stale_if_error: route.stale_if_error,
            set_cookie: route.set_cookie,
            cache_request_errors: route.cache_request_errors,
        }
    }
}

/// Decides whether the response whose head came at `now` may be stored by this shared cache (RFC 9111, 3).
///
/// Its tags are read by [`super::fields::tags`], whose error is a [`NotStored`] too.
pub(crate) fn decide(
    request: &RequestFacts,
    status: StatusCode,
    headers: &HeaderMap,
    policy: &Policy,
    now: Timestamp,
) -> Result<StoreTerms, NotStored> {
    let (directives, source) = targeted::governing(headers);
    check_request(request)?;
    check_status(request, status, &directives, policy)?;
    check_directives(status, &directives)?;
    check_sharing(request, &directives)?;
    check_set_cookie(headers, &directives, source, policy)?;
    if vary::of(headers) == Variance::Star {
        return Err(NotStored::VaryStar);
    }
    let lifetime = freshness::lifetime(status, headers, (&directives, source), now, (policy.status_lifetime, policy.default_lifetime));
    let lifetime = allowed(lifetime, request, status, &directives)?.min(policy.max_lifetime.unwrap_or(Duration::MAX));
    let terms = terms(lifetime, age::initial(headers, request.sent_at, now), &directives, policy);
    if is_of_use(&terms, headers) { Ok(terms) } else { Err(NotStored::AlreadyStale) }
}

fn check_request(request: &RequestFacts) -> Result<(), NotStored> {
    let is_storable = request.method == Method::GET || (request.method == Method::POST && request.describes_target);
    match (is_storable, request.no_store) {
        (false, _) => Err(NotStored::Method),
        (true, true) => Err(NotStored::RequestNoStore),
        (true, false) => Ok(()),
    }
}

fn check_status(request: &RequestFacts, status: StatusCode, directives: &Directives, policy: &Policy) -> Result<(), NotStored> {
    match status.as_u16() {
        100..=199 => Err(NotStored::NotFinal),
        304 => Err(NotStored::NotModified),
        // Of a part that was asked for, whoever takes it says which it is (`content_range`).
        206 if !request.has_range => Err(NotStored::Range),
        416 if request.has_range => Err(NotStored::Range),
        412 if request.has_conditions => Err(NotStored::Conditional),
        400 | 405 | 413 | 414 | 431 | 501 if !policy.cache_request_errors => Err(NotStored::RequestError),
        status if directives.must_understand && !is_understood(status) => Err(NotStored::UnknownStatus),
        _ => Ok(()),
    }
}

/// The final statuses that are registered and that ask nothing of a cache beyond what is done here.
fn is_understood(status: u16) -> bool {
    matches!(status, 200..=208 | 226 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421..=426)
        || matches!(status, 428 | 429 | 431 | 451 | 500..=508 | 510 | 511)
}

/// A status that is understood puts `no-store` out of force where the response says `must-understand` (RFC 9111, 5.2.2.3).
fn check_directives(status: StatusCode, directives: &Directives) -> Result<(), NotStored> {
    let is_overridden = directives.must_understand && is_understood(status.as_u16());
    if directives.no_store && !is_overridden {
        return Err(NotStored::NoStore);
    }
    if directives.is_private() { Err(NotStored::Private) } else { Ok(()) }
}

fn check_sharing(request: &RequestFacts, directives: &Directives) -> Result<(), NotStored> {
    let is_shared = directives.public || directives.must_revalidate || directives.s_maxage.is_some();
    if request.has_authorization && !is_shared { Err(NotStored::Authorization) } else { Ok(()) }
}

/// The RFC lets Set-Cookie be stored; users get hurt when it is.
fn check_set_cookie(headers: &HeaderMap, directives: &Directives, source: Source, policy: &Policy) -> Result<(), NotStored> {
    let is_kept_back = || directives.qualified_fields().contains(&SET_COOKIE);
    let is_shared = directives.public || directives.s_maxage.is_some() || source.is_targeted();
    let may_be_stored = match policy.set_cookie {
        SetCookie::Store | SetCookie::Strip => true,
        SetCookie::Shared => is_shared || is_kept_back(),
        SetCookie::Refuse => false,
    };
    if may_be_stored || !headers.contains_key(SET_COOKIE) { Ok(()) } else { Err(NotStored::SetCookie) }
}

/// A guess is not good enough where the request said who asked (RFC 9111, 4.2.2).
fn allowed(lifetime: Lifetime, request: &RequestFacts, status: StatusCode, directives: &Directives) -> Result<Duration, NotStored> {
    // It is never used without asking again, so it needs no lifetime.
    let needs_none = directives.is_no_cache() && freshness::may_be_guessed(status, directives);
    match lifetime {
        Lifetime::Explicit(lifetime) => Ok(lifetime),
        Lifetime::Heuristic(_) | Lifetime::None if request.method != Method::GET => Err(NotStored::Method),
        Lifetime::Heuristic(_) | Lifetime::None if needs_none => Ok(Duration::ZERO),
        Lifetime::Heuristic(_) if request.has_authorization => Err(NotStored::Authorization),
        Lifetime::Heuristic(_) if request.has_cookie => Err(NotStored::Cookie),
        Lifetime::Heuristic(lifetime) => Ok(lifetime),
        Lifetime::None => Err(NotStored::NoFreshness),
    }
}

/// What s-maxage implies gives way to an explicit stale-*; must-revalidate, proxy-revalidate and no-cache
/// never do (RFC 5861, 3 and 4; RFC 9111, 4.2.4).
fn terms(lifetime: Duration, initial_age: Duration, directives: &Directives, policy: &Policy) -> StoreTerms {
    let is_forbidden = directives.must_revalidate || directives.proxy_revalidate || directives.is_no_cache();
    let window = |named: Option<Duration>| if is_forbidden { Duration::ZERO } else { named.unwrap_or_default() };
    let if_error = directives.stale_if_error.or(policy.stale_if_error);
    // A named window also bounds what may be done without a connection.
    let unnamed = if directives.s_maxage.is_some() || lifetime.is_zero() { None } else { Some(DISCONNECTED) };
    let mut dropped_on_reuse = directives.qualified_fields();
    if policy.set_cookie == SetCookie::Strip && !dropped_on_reuse.contains(&SET_COOKIE) {
        dropped_on_reuse.push(SET_COOKIE);
    }
    StoreTerms {
        lifetime,
        initial_age,
        must_revalidate: is_forbidden || directives.s_maxage.is_some(),
        stale_while_revalidate: window(directives.stale_while_revalidate.or(policy.stale_while_revalidate)),
        stale_if_error: window(if_error),
        disconnected: window(if_error.or(unnamed)),
        no_cache: directives.is_no_cache(),
        dropped_on_reuse,
    }
}

/// A response that came stale may still be served to who takes it stale (max-stale, no connection), unless a
/// directive forbids it or it was never meant to be fresh.
fn is_of_use(terms: &StoreTerms, headers: &HeaderMap) -> bool {
    let may_be_stale = !terms.must_revalidate && !terms.lifetime.is_zero();
    let has_window = !terms.stale_while_revalidate.is_zero() || !terms.stale_if_error.is_zero();
    terms.is_fresh_on_arrival() || may_be_stale || has_window || headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{THEN, after, headers};

    const CC: &str = "cache-control";
    const TAGGED: (&str, &str) = ("etag", "\"a\"");
    const MINUTE: (&str, &str) = (CC, "max-age=60");
    const COOKIE: (&str, &str) = ("set-cookie", "a=b");
    const MODIFIED: (&str, &str) = ("last-modified", "Sun, 06 Nov 1994 05:49:37 GMT");

    fn get() -> RequestFacts {
        RequestFacts {
            method: Method::GET,
            has_authorization: false,
            has_cookie: false,
            no_store: false,
            has_range: false,
            has_conditions: false,
            describes_target: false,
            sent_at: THEN,
        }
    }

    fn decided(request: &RequestFacts, status: u16, lines: &[(&str, &str)], policy: &Policy) -> Result<StoreTerms, NotStored> {
        decide(request, StatusCode::from_u16(status).unwrap(), &headers(lines), policy, THEN)
    }

    fn refused(request: &RequestFacts, status: u16, lines: &[(&str, &str)]) -> Option<&'static str> {
        decided(request, status, lines, &Policy::default()).err().map(NotStored::as_str)
    }

    #[test]
    fn every_final_status_with_explicit_freshness_is_stored() {
        for status in [200, 203, 204, 299, 300, 301, 303, 400, 404, 416, 499, 500, 503, 599] {
            assert_eq!(refused(&get(), status, &[MINUTE]), None, "{status}");
        }
        for (status, reason) in [(100, "not-final"), (103, "not-final"), (206, "range"), (304, "not-modified")] {
            assert_eq!(refused(&get(), status, &[MINUTE]), Some(reason), "{status}");
        }
    }

    #[test]
    fn each_directive_that_forbids_storing_does_so_in_any_case() {
        let cases: [(&[(&str, &str)], Option<&str>); 12] = [
            (&[(CC, "No-StorE, max-age=60")], Some("no-store")),
            (&[(CC, "PRIVATE, max-age=60")], Some("private")),
            (&[(CC, "private=\"a\", max-age=60")], None),
            (&[(CC, "max-age=60"), ("cdn-cache-control", "no-store")], Some("no-store")),
            (&[(CC, "no-store, private"), ("cdn-cache-control", "max-age=60")], None),
            (&[MINUTE, ("vary", "a, *")], Some("vary-star")),
            (&[MINUTE, ("vary", "a")], None),
            (&[], Some("no-freshness")),
            (&[TAGGED], Some("no-freshness")),
            (&[(CC, "max-age=0")], Some("already-stale")),
            (&[MINUTE, ("age", "60")], None),
            (&[(CC, "s-maxage=60"), ("age", "60")], Some("already-stale")),
        ];
        for (lines, reason) in cases {
            assert_eq!(refused(&get(), 200, lines), reason, "{lines:?}");
        }
    }

    #[test]
    fn must_understand_overrides_no_store_for_a_known_status_only() {
        let lines = [(CC, "max-age=60, no-store, must-understand")];
        assert_eq!(refused(&get(), 200, &lines), None);
        assert_eq!(refused(&get(), 599, &lines), Some("unknown-status"));
        assert_eq!(refused(&get(), 299, &[(CC, "max-age=60, must-understand")]), Some("unknown-status"));
    }

    #[test]
    fn a_request_with_authorization_needs_leave_to_be_shared() {
        let request = RequestFacts { has_authorization: true, ..get() };
        for directives in ["max-age=60", "max-age=60, proxy-revalidate", "max-age=60, immutable"] {
            assert_eq!(refused(&request, 200, &[(CC, directives)]), Some("authorization"), "{directives}");
        }
        for directives in ["max-age=60, public", "max-age=60, must-revalidate", "s-maxage=60"] {
            assert_eq!(refused(&request, 200, &[(CC, directives)]), None, "{directives}");
        }
        assert_eq!(refused(&request, 200, &[(CC, "public"), MODIFIED]), Some("authorization"));
    }

    #[test]
    fn a_request_with_cookie_needs_explicit_freshness() {
        let request = RequestFacts { has_cookie: true, ..get() };
        assert_eq!(refused(&request, 200, &[MODIFIED]), Some("cookie"));
        assert_eq!(refused(&request, 200, &[MINUTE, MODIFIED]), None);
        assert_eq!(refused(&get(), 200, &[MODIFIED]), None);
    }

    #[test]
    fn what_is_no_plain_get_is_stored_in_one_case_only() {
        for method in [Method::HEAD, Method::POST, Method::PUT, Method::OPTIONS] {
            assert_eq!(refused(&RequestFacts { method, ..get() }, 200, &[MINUTE]), Some("method"));
        }
        let post = RequestFacts { method: Method::POST, describes_target: true, ..get() };
        assert_eq!(refused(&post, 200, &[MINUTE]), None);
        assert_eq!(refused(&post, 200, &[MODIFIED]), Some("method"));
        assert_eq!(refused(&RequestFacts { no_store: true, ..get() }, 200, &[MINUTE]), Some("request-no-store"));
        let range = RequestFacts { has_range: true, ..get() };
        assert_eq!(refused(&range, 416, &[MINUTE]), Some("range"));
        assert_eq!(refused(&range, 200, &[MINUTE]), None);
    }

    #[test]
    fn set_cookie_is_treated_as_the_route_says() {
        let cases: [(SetCookie, &str, bool); 8] = [
            (SetCookie::Shared, "max-age=60", false),
            (SetCookie::Shared, "max-age=60, public", true),
            (SetCookie::Shared, "s-maxage=60", true),
            (SetCookie::Shared, "max-age=60, no-cache=\"Set-Cookie\"", true),
            (SetCookie::Store, "max-age=60", true),
            (SetCookie::Strip, "max-age=60", true),
            (SetCookie::Refuse, "max-age=60, public", false),
            (SetCookie::Refuse, "s-maxage=60", false),
        ];
        for (set_cookie, directives, is_stored) in cases {
            let policy = Policy { set_cookie, ..Policy::default() };
            let decision = decided(&get(), 200, &[(CC, directives), COOKIE], &policy);
            assert_eq!(decision.is_ok(), is_stored, "{set_cookie:?} {directives}");
            assert_eq!(
                decision.is_ok_and(|terms| terms.dropped_on_reuse == [SET_COOKIE]),
                set_cookie == SetCookie::Strip || directives.contains("no-cache")
            );
        }
        assert_eq!(refused(&get(), 200, &[("cdn-cache-control", "max-age=60"), COOKIE]), None);
    }

    #[test]
    fn a_route_may_refuse_errors_that_a_request_provoked() {
        let policy = Policy { cache_request_errors: false, ..Policy::default() };
        for status in [400, 405, 413, 414, 431, 501] {
            assert_eq!(decided(&get(), status, &[MINUTE], &policy), Err(NotStored::RequestError), "{status}");
        }
        for status in [200, 404, 403, 500] {
            assert!(decided(&get(), status, &[MINUTE], &policy).is_ok(), "{status}");
        }
    }

    #[test]
    fn no_cache_is_stored_to_be_asked_for_again() {
        let terms = decided(&get(), 200, &[(CC, "No-Cache, stale-if-error=9"), TAGGED], &Policy::default()).unwrap();
        assert!(terms.no_cache && terms.must_revalidate && !terms.is_fresh_on_arrival());
        assert_eq!((terms.lifetime, terms.stale_if_error), (Duration::ZERO, Duration::ZERO));
        assert_eq!(refused(&get(), 200, &[(CC, "no-cache, max-age=60")]), Some("already-stale"));
        assert_eq!(refused(&get(), 500, &[(CC, "no-cache"), TAGGED]), Some("no-freshness"));
    }

    #[test]
    fn stale_windows_give_way_to_explicit_prohibitions_only() {
        let cases = [
            ("max-age=1, stale-if-error=5", false, 5),
            ("s-maxage=1, stale-if-error=5", true, 5),
            ("max-age=1, must-revalidate, stale-if-error=5", true, 0),
            ("max-age=1, proxy-revalidate, stale-if-error=5", true, 0),
            ("max-age=1, no-cache=\"x\", stale-if-error=5", false, 5),
            ("max-age=1", false, 0),
        ];
        for (directives, must_revalidate, window) in cases {
            let terms = decided(&get(), 200, &[(CC, directives)], &Policy::default()).unwrap();
            assert_eq!((terms.must_revalidate, terms.stale_if_error.as_secs()), (must_revalidate, window), "{directives}");
        }
    }

    #[test]
    fn the_delay_of_the_answer_counts_as_age() {
        let ten_later = decide(&get(), StatusCode::OK, &headers(&[MINUTE, ("age", "5")]), &Policy::default(), after(10)).unwrap();
        assert_eq!(ten_later.initial_age, Duration::from_secs(15));
        assert_eq!(ten_later.lifetime, Duration::from_secs(60));
    }

    #[test]
    fn a_default_lifetime_serves_responses_that_name_none() {
        let policy = Policy { default_lifetime: Some(Duration::from_secs(30)), ..Policy::default() };
        assert_eq!(decided(&get(), 200, &[], &policy).unwrap().lifetime, Duration::from_secs(30));
        let with_cookie = RequestFacts { has_cookie: true, ..get() };
        assert_eq!(decided(&with_cookie, 200, &[], &policy), Err(NotStored::Cookie));
    }
}
