//! Doors for the fuzz targets in `fuzz/`: each takes bytes as a stranger could send them, to everything here that reads
//! such bytes, and asserts what must hold whatever they are.
//!
//! In tests the same doors see a few hundred inputs from a fixed seed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::header::{ACCEPT_ENCODING, ETAG, LAST_MODIFIED};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use wire::{Target, Timestamp};

use crate::gateway::Client;
use crate::normalise::{Normalised, normalise};
use crate::rules::conditional::{self, Validators, Voice};
use crate::rules::ranges::{ByteRange, Ranges};
use crate::rules::vary::Variance;
use crate::rules::{CacheStatus, Policy, RequestFacts};
use crate::rules::{date, dictionary, fields, invalidate, list, negotiate, ranges, storable, targeted, vary};

/// Saturday, 4 July 2026: any moment will do, as long as it is always the same.
const NOW: Timestamp = Timestamp::from_millis(1_783_166_400_000);

/// More fields than actix-http lets through.
const FIELDS: usize = 100;

/// Reads what comes in over a connection: heads and bodies.
pub fn connection(bytes: &[u8]) {
    crate::door::fuzzing::connection(bytes);
}

/// Reads what stands in a second tier.
pub fn portable(bytes: &[u8]) {
    crate::tier::portable::reads_what_it_writes(bytes);
}

/// Reads a request's head, `METHOD TARGET` and fields below, as a door hands it over.
pub fn request(bytes: &[u8]) {
    let (first, rest) = line(bytes);
    let first = String::from_utf8_lossy(first);
    let (method, target) = first.split_once(' ').unwrap_or(("GET", &*first));
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let headers = read_fields(rest);
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let _ = Client::of(peer, &headers, &[IpNet::from(IpAddr::from(Ipv4Addr::LOCALHOST))]);
    let Ok(Normalised::Ask(ask)) = normalise(&method, target, headers) else { return };
    let target = ask.target.as_str();
    assert!(target.parse::<Target>().is_ok_and(|again| again == ask.target), "{target} is not canonical");
    assert!(target.parse::<PathAndQuery>().is_ok_and(|sent| sent.as_str() == target), "{target} goes upstream otherwise");
}

/// Reads a request's fields and, behind an empty line, a response's, by every rule there is.
pub fn response(bytes: &[u8]) {
    let at = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap_or(bytes.len());
    let (request, response) = bytes.split_at(at);
    let (mut request, response) = (read_fields(request), read_fields(response));
    fields::drop_hop_by_hop(&mut request);
    stored(&request, &response);
    ranges_of(&request);
    conditions(&request, &response);
    invalidated(&response);
    let _ = negotiate::choose(&request, &["zstd", "br", "gzip"]);
    fields::drop_for_client(&mut fields::upstream_request(&request, &[], true), false);
}

/// Reads one field's value by every reader of bare bytes.
pub fn value(bytes: &[u8]) {
    let _ = (date::parse(bytes, NOW), dictionary::parse(bytes));
    for member in list::members(bytes).chain(list::entity_tags(bytes)).chain(list::tokens(bytes)) {
        let _ = (list::weighted(member), list::unquoted(member));
    }
    let detail = String::from_utf8_lossy(bytes).into_owned();
    let said = CacheStatus::hit().with_detail(detail).to_string();
    assert!(dictionary::parse(said.as_bytes()).is_some_and(|members| members.len() == 1), "{said} is no structured field");
}

fn stored(request: &HeaderMap, response: &HeaderMap) {
    let facts = RequestFacts {
        method: Method::GET,
        has_authorization: false,
        has_cookie: false,
        no_store: false,
        has_range: false,
        has_conditions: false,
        describes_target: false,
        sent_at: NOW,
    };
    let _ = (targeted::governing(response), fields::tags(response));
    for status in [StatusCode::OK, StatusCode::FOUND, StatusCode::BAD_GATEWAY] {
        if let Ok(terms) = storable::decide(&facts, status, response, &Policy::default(), NOW) {
            assert!(!terms.no_cache || !terms.is_fresh_on_arrival());
        }
    }
    if let Variance::Fields(mut names) = vary::of(response) {
        names.push(ACCEPT_ENCODING);
        assert!(vary::selecting(&names, &[], request).matches(request), "a request does not pick what was stored for it");
    }
}

fn ranges_of(request: &HeaderMap) {
    for complete in [0, 1, 1000, u64::MAX] {
        let is_sound = |range: &ByteRange| range.first <= range.last && range.last < complete;
        match ranges::parse(request, complete) {
            Ranges::Whole | Ranges::Unsatisfiable => {}
            Ranges::One(range) => assert!(is_sound(&range), "{range:?} of {complete}"),
            Ranges::Several(found) => assert!(found.len() <= 16 && found.iter().all(is_sound), "{found:?} of {complete}"),
        }
    }
}

fn conditions(request: &HeaderMap, response: &HeaderMap) {
    let etag = response.get(ETAG).and_then(|etag| etag.to_str().ok());
    let validators = Validators { etag, last_modified: date::field(response, &LAST_MODIFIED, NOW).time(), date: Some(NOW) };
    for voice in [Voice::Origin, Voice::Cache] {
        let _ = conditional::evaluate(request, &validators, voice, NOW);
    }
    let _ = conditional::range_applies(request, &validators, NOW);
}

fn invalidated(response: &HeaderMap) {
    let Ok(target) = "/a/b?c".parse::<Target>() else { return };
    let place = invalidate::Place { scheme: "http", authority: "h.test:80", target: &target };
    let found = invalidate::targets(&Method::POST, Some(StatusCode::OK), place, response);
    assert!(found.contains(&target), "an unsafe method leaves its own target");
}

/// Takes the first line off.
fn line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let at = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let (first, rest) = bytes.split_at(at);
    (first, rest.get(1..).unwrap_or_default())
}

/// Reads `name: value` lines; what no HTTP parser lets through is left out.
fn read_fields(bytes: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for text in bytes.split(|&byte| byte == b'\n').take(FIELDS) {
        let Some(at) = text.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) = text.split_at(at);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::test_runner::RngSeed;

    const PIECES: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: h\r\n",
        "POST /a HTTP/1.0\r\nHost: h\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
        "Content-Length: 3\r\n\r\nabc",
        "3;a=b\r\nabc\r\n",
        "0\r\n\r\n",
        "\r\n",
        "GET /",
        "POST http://h",
        "OPTIONS *",
        "%2e%2E/",
        "%4",
        "?a",
        "\n",
        "\n",
        "\n",
        "\n\n",
        "host: h",
        ":80",
        "[::1]",
        "cache-control:",
        "cdn-cache-control:",
        "surrogate-control:",
        "max-age=60",
        "s-maxage=5",
        "no-cache=\"a",
        "private",
        "expires:",
        "date:",
        "last-modified:",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "age: 7",
        "vary:",
        "*",
        "accept-encoding:",
        "gzip;q=0.5",
        "range: bytes=",
        "0-5",
        "-3",
        ",",
        "\"",
        "etag: W/\"a\"",
        "if-none-match: \"a\"",
        "if-range: \"a\"",
        "location: //h.test/",
        "content-location: ../x",
        "connection: a",
        "cache-tag: t",
        "x-forwarded-for: 1.2.3.4",
    ];

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let scrambled = vec(select(PIECES), 0..16).prop_map(|pieces| pieces.concat().into_bytes());
        prop_oneof![1 => vec(any::<u8>(), 0..64), 4 => scrambled]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 512, failure_persistence: None, rng_seed: RngSeed::Fixed(9112), ..ProptestConfig::default()
        })]

        #[test]
        fn no_bytes_of_a_stranger_make_the_edge_panic(bytes in bytes()) {
            super::connection(&bytes);
            super::request(&bytes);
            super::response(&bytes);
            super::value(&bytes);
        }
    }
}
