//! A gateway rule: which requests it is for, what is asked of the upstream, and what is kept of the answers.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;
use wire::{Digest, HostPattern, Owner, RouteName, Target, UpstreamName};

use crate::choice::Choice;
use crate::network::{HOSTS, read_owner, read_when_fenced};
use crate::request_headers::RequestHeaders;
use crate::section::Section;
use crate::{ByteSize, CookieName, CookiePolicy, QueryPolicy, StatusLifetimes, Tree, Upstream, WhenFenced};

/// A gateway rule.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name.
    pub name: RouteName,
    /// Whose it is.
    pub owner: Owner,
    /// The hosts that it is for.
    pub hosts: Vec<HostPattern>,
    /// `/*`, `/api/*` or an exact path.
    pub path: String,
    /// Where its requests go.
    pub upstream: UpstreamName,
    /// What a fenced edge does.
    pub when_fenced: WhenFenced,
    /// The largest response that is stored.
    pub max_object: ByteSize,
    /// The largest body that a request may have.
    pub max_request_body: ByteSize,
    /// The lifetime of responses that name none.
    pub default_lifetime: Option<Duration>,
    /// The longest lifetime, whether the response names it, it is guessed or is the default.
    pub max_lifetime: Option<Duration>,
    /// The lifetimes of statuses, where the response names none; they come before the default.
    pub status_lifetimes: StatusLifetimes,
    /// The window of stale-while-revalidate where the response names none (RFC 5861, 3).
    pub stale_while_revalidate: Option<Duration>,
    /// The window of stale-if-error where the response names none (RFC 5861, 4).
    pub stale_if_error: Option<Duration>,
    /// What becomes of responses with Set-Cookie.
    pub set_cookie: SetCookie,
    /// Whether errors that one unusual request may have provoked are stored where they say so.
    pub cache_request_errors: bool,
    /// Whether clients see the upstream's tag fields.
    pub keep_tags: bool,
    /// Which part of the query counts, for the key and for the upstream.
    pub query: QueryPolicy,
    /// Fields of requests that do not go upstream.
    pub strip_request_headers: Vec<HeaderName>,
    /// Fields of requests that go upstream although a stranger could change answers by them, past the key.
    pub pass_request_headers: Vec<HeaderName>,
    /// Fields of requests that tell variants apart, as if every response named them in Vary.
    pub key_headers: Vec<HeaderName>,
    /// Which cookies go upstream.
    pub cookies: CookiePolicy,
    /// Cookies whose values tell variants apart.
    pub key_cookies: Vec<CookieName>,
    /// Whether `no-cache`, `max-age`, `min-fresh` and Pragma of requests are heeded, with which strangers can
    /// drive load upstream (RFC 9111, 5.2.1).
    pub honour_request_directives: bool,
    /// Where a POST, PUT, PATCH, DELETE or unknown method invalidates what it changed.
    pub unsafe_invalidates: UnsafeInvalidates,
    /// Whether the edge compresses answers that came without a coding.
    pub compress: bool,
    /// The size of the pieces in which large responses are fetched, in bytes.
    pub slice: ByteSize,
    /// Whether large responses are fetched in slices even when the client wants all of it.
    pub always_slice: bool,
    /// How often an idempotent request without a body is sent again whose connection failed before an answer
    /// came (RFC 9110, 9.2.2).
    pub retry: u64,
    /// Whether connections may become tunnels of another protocol, as for WebSocket (RFC 9110, 7.8).
    pub upgrade: bool,
    /// Whether readers may name a position of the journal that the answer is not to be older than, and are told the
    /// edge's own.
    pub min_position: bool,
    /// A digest of all settings of the route and its upstream: entries of other settings are not valid.
    pub settings: u64,
}

/// What becomes of responses with Set-Cookie. The RFC lets them be stored; users get hurt when they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetCookie {
    /// Stored where the response says that shared caches may: public, s-maxage or a targeted field.
    #[default]
    Shared,
    /// Stored like any other, which is what the RFC says.
    Store,
    /// Stored without it.
    Strip,
    /// Not stored.
    Refuse,
}

/// Where an unsafe method invalidates what it changed (RFC 9111, 4.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnsafeInvalidates {
    /// At the edge that it passed before its answer goes out, and through the journal at all others.
    #[default]
    Everywhere,
    /// At the edge that it passed.
    Edge,
}

/// The sizes that a slice may have: smaller ones cost a request each, larger ones a lot for one byte.
const SLICES: RangeInclusive<ByteSize> = ByteSize(64 << 10)..=ByteSize(64 << 20);

impl Route {
    /// Returns the target that counts for the key and for the upstream: as the policy leaves the query.
    #[must_use]
    pub fn keyed(&self, sent: &Target) -> Target {
        let Some(query) = sent.query() else { return sent.clone() };
        let counts = self.query.apply(query);
        if counts.as_deref() == Some(query) {
            return sent.clone();
        }
        // A part of a canonical target is one.
        sent.with_query(counts.as_deref()).unwrap_or_else(|| sent.clone())
    }

    pub(crate) fn read(name: &RouteName, section: &Section<'_>, upstreams: &BTreeMap<UpstreamName, Upstream>, tree: &Tree) -> Option<Self> {
        let upstream = section.required::<UpstreamName>("upstream", "the name of an upstream");
        if let Some(upstream) = upstream.as_ref().filter(|upstream| !upstreams.contains_key(*upstream)) {
            section.complain_unknown("upstream", upstream.as_str(), "upstream", upstreams.keys().map(UpstreamName::as_str));
        }
        let path = section.parsed_or("path", "`/*`, `/api/*` or a path such as `/health`", RoutePath("/*".to_owned())).0;
        let headers = RequestHeaders::read(section);
        let cookies = CookiePolicy::read(section);
        Some(Self {
            name: name.clone(),
            owner: read_owner(section),
            hosts: section.required_list("hosts", HOSTS),
            path,
            settings: settings_digest(tree, name, upstream.as_ref()),
            when_fenced: read_when_fenced(section, WhenFenced::Revalidate, "\"revalidate\""),
            max_object: section.bytes_or("max_object", ByteSize(16 << 20)),
            max_request_body: section.bytes_or("max_request_body", ByteSize(64 << 20)),
            default_lifetime: section.duration("default_lifetime"),
            max_lifetime: section.duration("max_lifetime"),
            status_lifetimes: StatusLifetimes::read(section),
            stale_while_revalidate: section.duration("stale_while_revalidate"),
            stale_if_error: section.duration("stale_if_error"),
            set_cookie: read_set_cookie(section),
            cache_request_errors: section.bool_or("cache_request_errors", true),
            keep_tags: section.bool_or("keep_tags", false),
            query: QueryPolicy::read(section),
            strip_request_headers: headers.strip,
            pass_request_headers: headers.pass,
            key_headers: headers.key,
            key_cookies: cookies.read_keys(section),
            cookies,
            honour_request_directives: section.bool_or("honour_request_directives", false),
            unsafe_invalidates: read_unsafe_invalidates(section),
            compress: section.bool_or("compress", true),
            slice: section.bytes_within("slice", ByteSize(1 << 20), &SLICES),
            always_slice: section.bool_or("always_slice", false),
            retry: section.count_within("retry", 0, &(0..=3)),
            upgrade: section.bool_or("upgrade", false),
            min_position: section.bool_or("min_position", false),
            // Last, so that all its keys were asked for.
            upstream: upstream?,
        })
    }
}

fn read_set_cookie(section: &Section<'_>) -> SetCookie {
    section.either("set_cookie", "\"shared\", \"store\", \"strip\" or \"refuse\"", SetCookie::Shared, "\"shared\"", |choice| match choice {
        Choice::Word("shared") => Some(SetCookie::Shared),
        Choice::Word("store") => Some(SetCookie::Store),
        Choice::Word("strip") => Some(SetCookie::Strip),
        Choice::Word("refuse") => Some(SetCookie::Refuse),
        _ => None,
    })
}

fn read_unsafe_invalidates(section: &Section<'_>) -> UnsafeInvalidates {
    let default = UnsafeInvalidates::Everywhere;
    section.either("unsafe_invalidates", "\"everywhere\" or \"edge\"", default, "\"everywhere\"", |choice| match choice {
        Choice::Word("everywhere") => Some(UnsafeInvalidates::Everywhere),
        Choice::Word("edge") => Some(UnsafeInvalidates::Edge),
        _ => None,
    })
}

/// A canonical path that may end in `/*`.
struct RoutePath(String);

impl std::str::FromStr for RoutePath {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let stem = text.strip_suffix('*').unwrap_or(text);
        let starred = stem.len() < text.len();
        let target: Target = stem.parse().map_err(|_| ())?;
        let valid = !stem.contains('*') && target.as_str() == stem && target.query().is_none() && (!starred || stem.ends_with('/'));
        if valid { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

impl std::fmt::Display for RoutePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that was written about a route and its upstream decides how its entries came to be.
fn settings_digest(tree: &Tree, name: &RouteName, upstream: Option<&UpstreamName>) -> u64 {
    let json = tree.network_json();
    let part = |section: &str, name: &str| json.get(section).and_then(|s| s.get(name)).map(ToString::to_string).unwrap_or_default();
    let upstream = upstream.map(|upstream| part("upstreams", upstream.as_str())).unwrap_or_default();
    let digest = Digest::of(format!("{}\n{upstream}", part("routes", name.as_str())).as_bytes());
    let (first, _) = digest.as_bytes().split_at(8);
    first.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Network;

    fn route(policy: &Value) -> Route {
        let mut route = json!({ "hosts": ["*"], "upstream": "u" });
        for (key, value) in policy.as_object().unwrap() {
            route[key] = value.clone();
        }
        let network = json!({ "upstreams": { "u": { "servers": ["http://127.0.0.1:1"] } }, "routes": { "r": route } });
        Network::from_json(&network).unwrap().routes.into_values().next().unwrap()
    }

    #[test]
    fn a_route_without_a_policy_keeps_to_http_and_changes_nothing() {
        let route = route(&json!({}));
        assert_eq!((route.max_lifetime, route.stale_while_revalidate, route.stale_if_error), (None, None, None));
        assert_eq!(route.status_lifetimes, StatusLifetimes::default());
        assert_eq!((route.query, route.cookies), (QueryPolicy::default(), CookiePolicy::Pass));
        assert!(route.strip_request_headers.is_empty() && route.pass_request_headers.is_empty());
        assert!(route.key_headers.is_empty() && route.key_cookies.is_empty());
        assert_eq!(route.unsafe_invalidates, UnsafeInvalidates::Everywhere);
        assert_eq!((route.slice, route.retry), (ByteSize(1 << 20), 0));
        assert!(route.compress && !route.honour_request_directives && !route.always_slice && !route.upgrade);
        assert!(!route.min_position, "strangers could drive load upstream");
    }

    #[test]
    fn a_policy_means_what_it_says() {
        let route = route(&json!({
            "max_lifetime": "1d",
            "status_lifetimes": { "404": "10s", "5xx": "1s" },
            "query": { "drop": "utm_*" },
            "sort_query": true,
            "strip_request_headers": ["X-Debug"],
            "pass_request_headers": "x-http-method-override",
            "key_headers": ["x-tenant"],
            "cookies": { "keep": ["session", "country"] },
            "key_cookies": ["country"],
            "unsafe_invalidates": "edge",
            "retry": 3,
            "min_position": true,
        }));
        assert_eq!(route.max_lifetime, Some(Duration::from_secs(86_400)));
        assert_eq!(route.status_lifetimes.get(502), Some(Duration::from_secs(1)));
        assert_eq!(route.query.apply("b=1&utm_id=2&a=3").as_deref(), Some("a=3&b=1"));
        assert_eq!(route.strip_request_headers, ["x-debug"]);
        assert_eq!(route.pass_request_headers, ["x-http-method-override"]);
        assert_eq!(route.key_headers, ["x-tenant"]);
        assert!(route.cookies.passes("session") && !route.cookies.passes("other"));
        assert_eq!(route.key_cookies.iter().map(CookieName::as_str).collect::<Vec<_>>(), ["country"]);
        assert_eq!((route.unsafe_invalidates, route.retry, route.min_position), (UnsafeInvalidates::Edge, 3, true));
    }

    #[test]
    fn entries_of_another_policy_are_not_valid() {
        let policies = [
            json!({}),
            json!({ "max_lifetime": "1d" }),
            json!({ "max_lifetime": "2d" }),
            json!({ "status_lifetimes": { "404": "10s" } }),
            json!({ "query": "none" }),
            json!({ "query": { "keep": ["a"] } }),
            json!({ "query": { "drop": ["a"] } }),
            json!({ "sort_query": true }),
            json!({ "strip_request_headers": ["a"] }),
            json!({ "pass_request_headers": ["a"] }),
            json!({ "key_headers": ["a"] }),
            json!({ "cookies": "strip" }),
            json!({ "key_cookies": ["a"] }),
            json!({ "compress": false }),
            json!({ "slice": "64 KiB" }),
        ];
        let digests: std::collections::BTreeSet<_> = policies.iter().map(|policy| route(policy).settings).collect();
        assert_eq!(digests.len(), policies.len());
    }
}
