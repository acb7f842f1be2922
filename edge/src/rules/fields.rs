//! Which header fields pass: what ends at each hop, what a stranger may not tell an upstream, and what only a cache reads.

use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, RANGE, TRANSFER_ENCODING, VARY};
use http::{HeaderMap, HeaderName};
use wire::Tag;

use super::list;

/// Fields that are about one connection only (RFC 9110, 7.6.1; RFC 9111, 3.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
];

/// Fields by which a stranger changes an upstream's answer without changing the key. Some are replaced by our own.
const STRIPPED: [&str; 29] = [
    "forwarded",
    "x-forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-server",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-protocol",
    "x-forwarded-scheme",
    "x-forwarded-ssl",
    "x-forwarded-prefix",
    "x-forwarded-path",
    "x-forwarded-uri",
    "x-original-url",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-rewrite-url",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "front-end-https",
    // Becomes HTTP_PROXY in CGI, and so the proxy of whatever the script calls (httpoxy).
    "proxy",
];

/// Conditions and ranges of one client, which must not shape a response that others share.
const OWN_CONDITIONS: [&str; 5] = ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"];

/// The fields that carry tags apart by spaces.
const SPACED_TAGS: [&str; 2] = ["surrogate-key", "xkey"];

/// The fields that carry tags apart by commas.
const COMMA_TAGS: [&str; 2] = ["cache-tag", "edge-cache-tag"];

const MAX_TAGS: usize = 256;
const MAX_TAG_BYTES: usize = 16 * 1024;

/// Why the tags of a response can't be kept: it is not stored then, for it could not be purged by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadTags {
    /// More than 256.
    TooMany,
    /// More than 16 KiB in all.
    TooLong,
    /// One is longer than 1024 bytes or is not visible ASCII.
    Invalid,
}

/// The position of the journal that a reader is told of: the edge's own to say, and nobody else's.
const POSITION: &str = "atoll-position";

/// Returns the fields of an interim response that go on to the client (RFC 9110, 7.6.1 and 15.2).
pub(crate) fn interim(headers: &HeaderMap) -> HeaderMap {
    let mut passed = headers.clone();
    drop_hop_by_hop(&mut passed);
    for name in ["content-length", "trailer", POSITION] {
        passed.remove(name);
    }
    passed
}

/// Tells whether a response's body ends where everybody would say that it ends (RFC 9112, 6.1 and 6.3).
pub(crate) fn is_framed_soundly(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked") && !headers.contains_key(CONTENT_LENGTH),
        (Some(_), Some(_)) => false,
    }
}

/// Drops what is about one connection: Connection, all that it lists, and the fields that it should have
/// listed (RFC 9110, 7.6.1).
///
/// For a response this comes before storing (RFC 9111, 3.1). For a request it comes before the key and Vary
/// are read: else `Connection: accept-encoding` makes the upstream answer something else than we file it under.
pub(crate) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let lines = headers.get_all(CONNECTION);
    let listed: Vec<_> =
        lines.iter().flat_map(|line| list::tokens(line.as_bytes())).filter_map(|name| HeaderName::from_bytes(name).ok()).collect();
    // These decide about storing: nobody takes them away by listing them.
    for name in listed.iter().filter(|name| **name != CACHE_CONTROL && **name != VARY) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Drops what strangers must not tell an upstream, except what the route allows.
pub(crate) fn drop_strangers_claims(headers: &mut HeaderMap, allowed: &[HeaderName]) {
    for name in STRIPPED.into_iter().filter(|name| allowed.iter().all(|allowed| allowed != name)) {
        headers.remove(name);
    }
    let disguised: Vec<_> = headers.keys().filter(|name| is_disguised(name)).cloned().collect();
    for name in disguised.iter().filter(|name| !allowed.contains(name)) {
        headers.remove(name);
    }
}

/// Many upstreams read `_` in a name as `-` (CGI's variables have no other): such a name is another way to say
/// what strangers must not, or to frame a message anew.
fn is_disguised(name: &HeaderName) -> bool {
    const OF_THE_MESSAGE: [&str; 3] = ["host", "content-length", "content-type"];
    if !name.as_str().contains('_') {
        return false;
    }
    let plain = name.as_str().replace('_', "-");
    [STRIPPED.as_slice(), HOP_BY_HOP.as_slice(), OF_THE_MESSAGE.as_slice()].iter().any(|names| names.contains(&plain.as_str()))
}

/// Drops the client's own conditions and range from a request whose answer others may share; the edge puts
/// its own in their place (RFC 9111, 4.3.1).
pub(crate) fn drop_own_conditions(headers: &mut HeaderMap) {
    for name in OWN_CONDITIONS {
        headers.remove(name);
    }
    headers.remove(RANGE);
}

/// Returns the fields of a client's request that go upstream; Via, Forwarded and the like are added by the caller.
pub(crate) fn upstream_request(client: &HeaderMap, allowed: &[HeaderName], is_shared: bool) -> HeaderMap {
    let mut headers = client.clone();
    drop_hop_by_hop(&mut headers);
    drop_strangers_claims(&mut headers, allowed);
    if is_shared {
        drop_own_conditions(&mut headers);
    }
    headers
}

/// Drops from an answer what is meant for caches such as this one: Surrogate-Control, our own targeted field
/// and, unless the route keeps them, the tags; and what an upstream says of positions, which are none of its. CDN-Cache-Control stays: a CDN before us may read it (RFC 9213, 2.2).
pub(crate) fn drop_for_client(headers: &mut HeaderMap, keeps_tags: bool) {
    headers.remove("surrogate-control");
    headers.remove("atoll-cdn-cache-control");
    headers.remove(POSITION);
    if !keeps_tags {
        for name in SPACED_TAGS.into_iter().chain(COMMA_TAGS) {
            headers.remove(name);
        }
    }
}

/// Reads a response's tags from Surrogate-Key, xkey, Cache-Tag and Edge-Cache-Tag, each one once.
pub(crate) fn tags(headers: &HeaderMap) -> Result<Vec<Tag>, BadTags> {
    let mut tags = Vec::new();
    let mut bytes = 0;
    for (text, separator) in tag_lines(headers) {
        let text = std::str::from_utf8(text).map_err(|_| BadTags::Invalid)?;
        bytes += text.len();
        if bytes > MAX_TAG_BYTES {
            return Err(BadTags::TooLong);
        }
        for tag in text.split(separator).map(str::trim_ascii).filter(|tag| !tag.is_empty()) {
            keep(&mut tags, tag)?;
        }
    }
    Ok(tags)
}

fn tag_lines(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], fn(char) -> bool)> {
    let of = move |name: &'static str| headers.get_all(name).iter().map(|line| line.as_bytes());
    let spaced = SPACED_TAGS.into_iter().flat_map(of).map(|line| (line, is_space as fn(char) -> bool));
    spaced.chain(COMMA_TAGS.into_iter().flat_map(of).map(|line| (line, is_comma as fn(char) -> bool)))
}

fn is_space(letter: char) -> bool {
    letter == ' ' || letter == '\t'
}

fn is_comma(letter: char) -> bool {
    letter == ','
}

fn keep(tags: &mut Vec<Tag>, text: &str) -> Result<(), BadTags> {
    if tags.iter().any(|known| known.as_str() == text) {
        return Ok(());
    }
    if tags.len() == MAX_TAGS {
        return Err(BadTags::TooMany);
    }
    tags.push(text.parse().map_err(|_| BadTags::Invalid)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn connection_goes_with_all_that_it_lists() {
        let mut map =
            headers(&[("connection", "A, close"), ("connection", ",b,"), ("a", "1"), ("b", "2"), ("c", "3"), ("set-cookie", "d")]);
        for name in HOP_BY_HOP {
            map.append(name, http::HeaderValue::from_static("c"));
        }
        map.remove("c");
        map.append("d", http::HeaderValue::from_static("4"));
        drop_hop_by_hop(&mut map);
        assert_eq!(names(&map), ["d", "set-cookie"]);
    }

    #[test]
    fn a_strangers_claims_do_not_go_upstream_unless_the_route_allows_them() {
        let client = headers(&[
            ("x-original-url", "/admin"),
            ("x-forwarded-host", "evil"),
            ("accept", "*/*"),
            ("if-none-match", "\"a\""),
            ("range", "bytes=0-"),
        ]);
        assert_eq!(names(&upstream_request(&client, &[], true)), ["accept"]);
        assert_eq!(names(&upstream_request(&client, &[], false)).len(), 3);
        let allowed = [HeaderName::from_static("x-original-url")];
        assert!(upstream_request(&client, &allowed, true).contains_key("x-original-url"));
    }

    #[test]
    fn a_client_sees_no_field_that_was_meant_for_us() {
        let sent = [
            ("surrogate-control", "max-age=1"),
            ("surrogate-key", "a"),
            ("xkey", "b"),
            ("cdn-cache-control", "max-age=1"),
            ("atoll-position", "0101010101010101.7.00000000000000000000000000000000"),
            ("etag", "\"e\""),
        ];
        let mut map = headers(&sent);
        drop_for_client(&mut map, true);
        assert_eq!(map.len(), 4);
        drop_for_client(&mut map, false);
        assert_eq!(map.len(), 2);
        let hint = headers(&[("link", "</a>"), ("atoll-position", "x"), ("trailer", "x")]);
        assert_eq!(names(&interim(&hint)), ["link"]);
    }

    #[test]
    fn tags_come_from_every_field_that_carries_them() {
        let map = headers(&[
            ("surrogate-key", "a b\tc"),
            ("xkey", " d  a "),
            ("cache-tag", "e , f,,"),
            ("edge-cache-tag", "g,a"),
            ("surrogate-key", "h"),
        ]);
        let found: Vec<_> = tags(&map).unwrap().iter().map(|tag| tag.as_str().to_owned()).collect();
        assert_eq!(found, ["a", "b", "c", "h", "d", "e", "f", "g"]);
        assert_eq!(tags(&headers(&[])), Ok(Vec::new()));
    }

    #[test]
    fn tags_that_cannot_be_kept_are_an_error_and_never_left_out() {
        let many = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>().join(" ");
        assert_eq!(tags(&headers(&[("xkey", many(256).as_str())])).unwrap().len(), 256);
        assert_eq!(tags(&headers(&[("xkey", many(257).as_str())])), Err(BadTags::TooMany));
        assert_eq!(tags(&headers(&[("xkey", "t".repeat(1025).as_str())])), Err(BadTags::Invalid));
        assert_eq!(tags(&headers(&[("cache-tag", "a b")])), Err(BadTags::Invalid));
        assert_eq!(tags(&headers(&[("cache-tag", "ü")])), Err(BadTags::Invalid));
        let long = vec!["t".repeat(1000); 17].join(" ");
        assert_eq!(tags(&headers(&[("xkey", long.as_str())])), Err(BadTags::TooLong));
    }
}
