//! What holds for every input, tried on a few hundred of them: readers never panic, normal forms are stable, and what
//! means the same gives the same.
//!
//! The seed is fixed, so that a failure comes back; proptest prints the smallest input that fails.

use std::time::Duration;

use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, HOST, RANGE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use wire::{Host, Target, Timestamp};

use super::directives::{self, Qualified};
use super::ranges::{self, ByteRange, Ranges};
use super::testing::{THEN, headers};
use super::{CacheStatus, Directives, Forward, Policy, RequestFacts, date, dictionary, list, storable, vary};
use crate::gateway::{CacheKey, Scheme};
use crate::normalise::{Ask, Normalised, normalise};

/// Enough to meet each branch, few enough to be done in a second.
fn few() -> ProptestConfig {
    ProptestConfig { cases: 256, failure_persistence: None, rng_seed: RngSeed::Fixed(9110), ..ProptestConfig::default() }
}

/// Any bytes, or pieces of what a reader expects in an order that it does not.
fn soup(pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let scrambled = vec(select(pieces), 0..12).prop_map(|pieces| pieces.concat().into_bytes());
    prop_oneof![1 => vec(any::<u8>(), 0..48), 4 => scrambled]
}

/// The same as a field's value; what no value may hold becomes a question mark.
fn value(pieces: &'static [&'static str]) -> impl Strategy<Value = HeaderValue> {
    soup(pieces).prop_map(|mut bytes| {
        bytes.iter_mut().filter(|byte| byte.is_ascii_control()).for_each(|byte| *byte = b'?');
        HeaderValue::from_bytes(&bytes).unwrap()
    })
}

/// One line of each value, all under one name.
fn lines(name: &HeaderName, values: &[HeaderValue]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for value in values {
        map.append(name.clone(), value.clone());
    }
    map
}

const LISTS: &[&str] = &[
    "a", "max-age", "=", "60", ",", ", ", "\"", "\\", ";", "q=0.5", ";q=", "W/", "*", " ", "\t", "(", ")", ":", "?1", "-", ".", "é",
    "private",
];
const DATES: &[&str] = &[
    "Sun", "Sunday", ", ", ",", " ", "06", "6", "00", "31", "-", "Nov", "Feb", "1994", "0000", "9999", "94", "08:49:37", "24:60:60",
    " GMT", "gmt",
];

proptest! {
    #![proptest_config(few())]

    #[test]
    fn no_bytes_make_a_reader_of_lists_panic(bytes in soup(LISTS)) {
        for members in [list::members(&bytes), list::entity_tags(&bytes), list::tokens(&bytes)] {
            for member in members {
                prop_assert!(!member.is_empty() && member.trim_ascii() == member);
                let (_, value) = list::pair(member);
                let _ = (list::weighted(member), list::unquoted(value.unwrap_or(member)));
            }
        }
        let _ = (directives::delta_seconds(&bytes), dictionary::parse(&bytes));
    }

    #[test]
    fn no_bytes_make_the_reader_of_dates_panic(bytes in soup(DATES), now in any::<u64>()) {
        let _ = date::parse(&bytes, Timestamp::from_millis(now));
    }

    #[test]
    fn every_second_up_to_the_year_9999_survives_its_writing(second in 0..253_402_300_800_u64, now in any::<u64>()) {
        let time = Timestamp::from_millis(second * 1000);
        let written = date::imf(time);
        prop_assert_eq!(date::parse(written.as_bytes(), Timestamp::from_millis(now)), Some(time), "{}", written);
    }
}

/// Directives that are well formed each, valid or not.
const DIRECTIVES: &[&str] = &[
    "max-age=60",
    "max-age=5",
    "MAX-AGE=x",
    "max-age",
    "s-maxage=7",
    "s-maxage=\"9\"",
    "no-store",
    "no-cache",
    "no-cache=\"a, b\"",
    "no-cache=c",
    "private",
    "Private=\"a\"",
    "private=\"a b\"",
    "public",
    "must-revalidate",
    "proxy-revalidate",
    "must-understand",
    "immutable",
    "stale-while-revalidate=3",
    "stale-while-revalidate=1",
    "stale-if-error=9",
    "max-stale",
    "max-stale=2",
    "min-fresh=3",
    "min-fresh=8",
    "only-if-cached",
    "ext=\"max-age=1, no-store\"",
];

/// The order in which fields are named says nothing.
fn in_order(mut directives: Directives) -> Directives {
    for qualified in [&mut directives.no_cache, &mut directives.private] {
        if let Some(Qualified::Fields(fields)) = qualified {
            fields.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        }
    }
    directives
}

fn shuffled<T: Clone + std::fmt::Debug>(whole: impl Strategy<Value = Vec<T>>) -> impl Strategy<Value = (Vec<T>, Vec<T>)> {
    whole.prop_flat_map(|whole| (Just(whole.clone()), Just(whole).prop_shuffle()))
}

fn of_line(text: &str) -> Directives {
    Directives::of(&headers(&[("cache-control", text)]))
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn the_order_of_directives_and_their_lines_say_nothing((given, other) in shuffled(vec(select(DIRECTIVES), 0..8))) {
        let known = in_order(of_line(&given.join(", ")));
        prop_assert_eq!(&known, &in_order(of_line(&other.join(" ,,"))), "{:?} and {:?}", given, other);
        let apart: Vec<_> = other.iter().map(|&directive| HeaderValue::from_static(directive)).collect();
        prop_assert_eq!(&known, &in_order(Directives::of(&lines(&CACHE_CONTROL, &apart))), "{:?}", other);
    }

    #[test]
    fn a_directive_more_never_makes_a_response_fresher(given in vec(select(DIRECTIVES), 0..6), more in select(DIRECTIVES)) {
        // s-maxage beats max-age, and must-understand opens what no-store had shut.
        prop_assume!(!more.starts_with("s-maxage") && more != "must-understand");
        let text = ["max-age=60", &given.join(",")].join(",");
        let before = fresh_for(200, &[("cache-control", text.as_str())], THEN);
        let after = fresh_for(200, &[("cache-control", [text.as_str(), more].join(",").as_str())], THEN);
        prop_assert!(after <= before, "{} with {}: {:?} after {:?}", text, more, after, before);
    }
}

/// How long a response stays fresh that comes at `now`, if it is stored.
fn fresh_for(status: u16, response: &[(&str, &str)], now: Timestamp) -> Duration {
    let request = RequestFacts {
        method: Method::GET,
        has_authorization: false,
        has_cookie: false,
        no_store: false,
        has_range: false,
        has_conditions: false,
        describes_target: false,
        sent_at: now,
    };
    match storable::decide(&request, StatusCode::from_u16(status).unwrap(), &headers(response), &Policy::default(), now) {
        Ok(terms) if !terms.no_cache => terms.lifetime.saturating_sub(terms.initial_age),
        _ => Duration::ZERO,
    }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn a_dated_response_is_never_fresher_for_being_older(
        directives in vec(select(DIRECTIVES), 0..4),
        status in select(vec![200_u16, 299, 301, 404, 503]),
        (expires, modified) in (0..200_u64, 0..2000_u64),
        (age, older) in (0..100_u64, 0..100_u64),
        (delay, later) in (0..100_u64, 0..100_u64),
    ) {
        let at = |second: u64| Timestamp::from_millis(THEN.as_millis() - 1_000_000 + second * 1000);
        let text = directives.join(", ");
        let (date, expires, modified) = (date::imf(at(1000)), date::imf(at(950 + expires)), date::imf(at(1000).min(at(modified))));
        let left = |age: u64, delay: u64| {
            let age = age.to_string();
            let dated = [("date", date.as_str()), ("expires", expires.as_str()), ("last-modified", modified.as_str()), ("age", age.as_str())];
            fresh_for(status, &[dated.as_slice(), &[("cache-control", text.as_str())]].concat(), at(1000 + delay))
        };
        let young = left(age, delay);
        prop_assert!(left(age + older, delay) <= young, "a greater Age");
        prop_assert!(left(age, delay + later) <= young, "a later receipt");
        // Once stale, always stale.
        prop_assert!(!young.is_zero() || left(age + older, delay + later).is_zero());
    }
}

const CODINGS: &[&str] = &["gzip", "GZIP", "br", "zstd", "identity", "*", "x-gzip", "deflate"];
const WEIGHTS: &[&str] = &["", ";q=1", ";q=0", " ; q=0.5", ";Q=0.50", ";q=0.001", "; q=1.000", ";q=0.999"];

/// The normal form of these lines of Accept-Encoding, by which a variant is picked.
fn normal(values: &[HeaderValue]) -> vary::Selection {
    vary::selecting(&[ACCEPT_ENCODING], &[], &lines(&ACCEPT_ENCODING, values))
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn the_order_of_codings_and_their_lines_say_nothing(
        (given, other) in shuffled(vec((select(CODINGS), select(WEIGHTS)).prop_map(|(name, weight)| format!("{name}{weight}")), 0..6))
    ) {
        let joined = |members: &[String]| HeaderValue::try_from(members.join(" , ")).unwrap();
        let apart: Vec<_> = other.iter().map(|member| HeaderValue::try_from(member.as_str()).unwrap()).collect();
        prop_assert_eq!(normal(&[joined(&given)]), normal(&[joined(&other)]));
        if !apart.is_empty() {
            prop_assert_eq!(normal(&[joined(&given)]), normal(&apart));
            prop_assert!(normal(&[joined(&given)]).matches(&lines(&ACCEPT_ENCODING, &apart)));
        }
    }

    #[test]
    fn a_normal_form_is_its_own_normal_form(values in vec(value(LISTS), 1..3)) {
        let once = normal(&values);
        let [(_, Some(spelled))] = once.fields.as_slice() else { panic!("one field was asked for: {once:?}") };
        let spelled = HeaderValue::from_bytes(spelled).unwrap();
        prop_assert_eq!(normal(&[spelled]), once);
    }

    #[test]
    fn a_request_picks_what_was_stored_for_it(values in vec(value(LISTS), 0..3), names in vec(value(LISTS), 0..3)) {
        let request = lines(&ACCEPT_ENCODING, &values);
        if let vary::Variance::Fields(mut fields) = vary::of(&lines(&http::header::VARY, &names)) {
            fields.push(ACCEPT_ENCODING);
            prop_assert!(vary::selecting(&fields, &[], &request).matches(&request));
        }
    }
}

const RANGES: &[&str] =
    &["bytes", "bytes=", "=", "0", "1", "9", "99", "18446744073709551616", "-", ",", ", ", "0-", "-1", "2-3", "5-9", "7-7"];

/// Within the length, not empty, and none twice.
fn are_sound(found: &[ByteRange], complete: u64) -> bool {
    let are_within = found.iter().all(|range| range.first <= range.last && range.last < complete);
    let total = found.iter().map(|range| range.length()).sum::<u64>();
    are_within && total <= complete && found.len() <= 16
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn a_range_never_leaves_the_content(value in value(RANGES), complete in prop_oneof![0..20_u64, any::<u64>()]) {
        match ranges::parse(&lines(&RANGE, std::slice::from_ref(&value)), complete) {
            Ranges::Whole | Ranges::Unsatisfiable => {}
            Ranges::One(range) => prop_assert!(are_sound(&[range], complete), "{:?} of {}: {:?}", value, complete, range),
            Ranges::Several(found) => {
                prop_assert!(found.len() > 1 && are_sound(&found, complete), "{:?} of {}: {:?}", value, complete, found);
            }
        }
    }

    #[test]
    fn what_the_cache_says_of_itself_is_a_structured_field(
        detail in prop::option::of(".{0,12}"),
        (ttl, status) in (prop::option::of(any::<i64>()), prop::option::of(100..1000_u16)),
        (is_hit, is_stored, is_collapsed) in any::<(bool, bool, bool)>(),
        forward in select(vec![Forward::Method, Forward::UriMiss, Forward::VaryMiss, Forward::Stale]),
    ) {
        let mut said = if is_hit { CacheStatus::hit() } else { CacheStatus::forwarded(forward) };
        said = said.with_stored(is_stored).with_collapsed(is_collapsed);
        if let Some(status) = status {
            said = said.with_status(StatusCode::from_u16(status).unwrap());
        }
        if let Some(ttl) = ttl {
            said = said.with_ttl(ttl);
        }
        if let Some(detail) = detail {
            said = said.with_detail(detail);
        }
        let text = said.to_string();
        prop_assert_eq!(said.value(), text.as_str());
        // A list of tokens with parameters reads as a dictionary too, and other caches append theirs.
        prop_assert_eq!(dictionary::parse(text.as_bytes()).map(|members| members.len()), Some(1), "{}", text);
        prop_assert_eq!(dictionary::parse(format!("{text}, other; hit").as_bytes()).map(|members| members.len()), Some(2), "{}", text);
        prop_assert_eq!(list::members(text.as_bytes()).count(), 1, "{}", text);
    }
}

const TARGETS: &[&str] = &[
    "/", "/", "a", "B", "%41", "%7e", "~", "%2f", "%2F", ".", "..", "%2e", "%2E%2e", "/../", "/./", "//", "?", "&", "=", "%25", "%252e",
    "%c3%a9", ";", "[", "]", "\"", "{", "|", "^", "`", "'", "*", "%00", "%", "#", "\\", " ",
];
const HOSTS: &[&str] =
    &["a", "B", "9", ".", "-", "_", "xn--", ":", "80", ":0", ":65536", "[", "]", "[::1]", "[::G]", "*", "%41", "@", " ", "/"];

/// What a canonical target may be made of.
fn is_canonical(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte)
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn a_canonical_target_stays_as_it_is(bytes in soup(TARGETS)) {
        let Ok(target) = format!("/{}", String::from_utf8_lossy(&bytes)).parse::<Target>() else { return Ok(()) };
        prop_assert_eq!(&target.as_str().parse::<Target>().unwrap(), &target);
        prop_assert!(target.as_str().bytes().all(is_canonical), "{}", target);
        let has_dots = target.path().split('/').any(|segment| matches!(segment, "." | ".."));
        prop_assert!(target.path().starts_with('/') && !has_dots, "{}", target);
        // Every percent sign begins an escape of something that needs one.
        for escape in target.as_str().split('%').skip(1) {
            let byte = u8::from_str_radix(&escape[..2], 16).unwrap();
            prop_assert!(byte != 0 && !byte.is_ascii_alphanumeric() && !b"-._~".contains(&byte), "{}", target);
            prop_assert!(!escape[..2].bytes().any(|digit| digit.is_ascii_lowercase()), "{}", target);
        }
    }

    #[test]
    fn a_host_stays_as_it_is(bytes in soup(HOSTS)) {
        let Ok(host) = Host::of_authority(&String::from_utf8_lossy(&bytes)) else { return Ok(()) };
        prop_assert_eq!(&host.as_str().parse::<Host>().unwrap(), &host);
        prop_assert_eq!(&Host::of_authority(&format!("{host}:8081")).unwrap(), &host);
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.[]:".contains(&byte);
        prop_assert!(host.as_str().bytes().all(is_allowed) && !host.as_str().ends_with('.'), "{}", host);
    }
}

fn ask(target: &str, host: &str) -> Option<Ask> {
    let headers = [(HOST, HeaderValue::try_from(host).ok()?)].into_iter().collect();
    match normalise(&Method::GET, target, headers) {
        Ok(Normalised::Ask(ask)) => Some(ask),
        Ok(Normalised::OptionsOfServer) | Err(_) => None,
    }
}

fn key(ask: &Ask) -> CacheKey {
    CacheKey { scheme: Scheme::Http, host: ask.host.clone(), target: ask.target.clone() }
}

/// The request line's target, as hyper writes it for an upstream.
fn sent(ask: &Ask) -> String {
    ask.target.as_str().parse::<PathAndQuery>().unwrap().as_str().to_owned()
}

/// Letters that need no escape, each in one of its spellings, with segments between that lead nowhere.
fn respelled(letters: &[(char, u8)]) -> String {
    let spelled = letters.iter().map(|(letter, spelling)| match (letter, spelling) {
        ('/', 1) => "/./".to_owned(),
        ('/', 2) => "/x/../".to_owned(),
        ('/', 3) => "/x/%2e%2E/".to_owned(),
        ('/', _) | (_, 0) => letter.to_string(),
        (_, 1) => format!("%{:02x}", u32::from(*letter)),
        _ => format!("%{:02X}", u32::from(*letter)),
    });
    format!("/{}", spelled.collect::<String>())
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn requests_for_the_same_have_equal_keys_and_go_upstream_as_the_same_bytes(
        letters in vec((select(vec!['a', 'Z', '0', '-', '.', '.', '_', '~', '/', '/']), 0..4_u8), 0..16),
        query in prop::option::of("[a-z0-9=&/?.]{0,8}"),
    ) {
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        let plain: String = std::iter::once('/').chain(letters.iter().map(|(letter, _)| *letter)).collect();
        let one = ask(&format!("{plain}{query}"), "h.test").unwrap();
        let other = ask(&format!("http://H.Test:80{}{query}", respelled(&letters)), "ignored.test").unwrap();
        prop_assert_eq!(key(&one), key(&other), "{} and {}", plain, respelled(&letters));
        prop_assert_eq!(sent(&one), sent(&other));
    }

    #[test]
    fn requests_with_equal_keys_go_upstream_as_the_same_bytes(one in soup(TARGETS), other in soup(TARGETS)) {
        let asked = |bytes: &[u8]| ask(&format!("/{}", String::from_utf8_lossy(bytes)), "h.test");
        let (Some(one), Some(other)) = (asked(&one), asked(&other)) else { return Ok(()) };
        prop_assert_eq!(key(&one) == key(&other), sent(&one) == sent(&other), "{} and {}", one.target, other.target);
        // What is sent is the canonical form itself, byte for byte.
        prop_assert_eq!(sent(&one), one.target.as_str());
    }
}
