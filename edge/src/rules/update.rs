//! How a newer answer about a stored response changes it: a 304 brings its fields up to date; a 200 to HEAD
//! does so too, or shows that the content is another by now (RFC 9111, 3.2, 4.3.4 and 4.3.5).

use http::header::{ACCEPT_ENCODING, AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::vary::{self, Variance};
use super::{fields, list};

/// What describes the stored bytes, and not what an upstream would send now (RFC 9111, 3.2).
const OF_THE_BODY: [HeaderName; 3] = [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE];

/// Digests of the bytes as the upstream sent them, which are wrong beside bytes that the edge coded
/// (RFC 9530, 2 and 3; RFC 3230; RFC 1864).
pub(crate) const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// A stored answer to GET, as far as an answer to HEAD is compared with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredGet<'a> {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its fields.
    pub(crate) headers: &'a HeaderMap,
    /// The length of the whole body; nothing where only parts are held and the whole is of unknown length.
    pub(crate) length: Option<u64>,
}

/// What an answer to HEAD means for a stored answer to GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeadVerdict {
    /// It is the same content: these are its fields now.
    Update(HeaderMap),
    /// The content is another by now.
    Invalidate,
    /// The answer says nothing about it.
    Leave,
}

/// Returns the fields of a stored response after a 304 for it (RFC 9111, 3.2 and 4.3.4). A 206 that is
/// combined with it updates it the same way (3.4).
///
/// Every field that was received replaces its like, but for those about the stored bytes and those about one
/// connection; a field that was not received stays. Age alone does not stay: it told how long the answer before
/// was on its way, and this one came without. The caller dates a 304 that has no Date, as it does any response
/// (RFC 9110, 6.6.1): else it would be as old as the answer before.
pub(crate) fn by_304(stored: &HeaderMap, received: &HeaderMap) -> HeaderMap {
    let news = news(received);
    let mut updated = stored.clone();
    updated.remove(AGE);
    for name in news.keys() {
        updated.remove(name);
    }
    for (name, value) in &news {
        updated.append(name.clone(), value.clone());
    }
    updated
}

/// Decides what an answer to HEAD means for a stored answer to GET that the same request would pick (RFC 9111, 4.3.5).
///
/// Only a 200 says something. It is of the same content where none of ETag, Last-Modified and Content-Length
/// that came with it differs from what is stored; what did not come is not compared.
pub(crate) fn by_head(stored: &StoredGet<'_>, status: StatusCode, received: &HeaderMap) -> HeadVerdict {
    if status != StatusCode::OK {
        return HeadVerdict::Leave;
    }
    if is_of_same_content(stored, received) { HeadVerdict::Update(by_304(stored.headers, received)) } else { HeadVerdict::Invalidate }
}

/// Makes Vary say that there is a choice of codings, where it does not yet (RFC 9110, 12.5.5).
///
/// It becomes one line. `*`, and what can only be taken for it, stays as it is: it says more.
pub(crate) fn vary_by_coding(headers: &mut HeaderMap) {
    let Variance::Fields(names) = vary::of(headers) else {
        return;
    };
    if names.contains(&ACCEPT_ENCODING) {
        return;
    }
    let mut members: Vec<&[u8]> = headers.get_all(VARY).iter().flat_map(|line| list::tokens(line.as_bytes())).collect();
    members.push(b"Accept-Encoding");
    let merged = HeaderValue::from_bytes(&members.join(b", ".as_slice()));
    if let Ok(merged) = merged {
        headers.insert(VARY, merged);
    }
}

/// What of an answer's fields is news for the stored response.
fn news(received: &HeaderMap) -> HeaderMap {
    let mut news = received.clone();
    fields::drop_hop_by_hop(&mut news);
    for name in &OF_THE_BODY {
        news.remove(name);
    }
    news
}

/// The content of another status than 200 is that of another representation.
fn is_of_same_content(stored: &StoredGet<'_>, received: &HeaderMap) -> bool {
    let agrees = |name: &HeaderName, known: Option<&HeaderValue>| received.get_all(name).iter().all(|line| known == Some(line));
    stored.status == StatusCode::OK
        && agrees(&ETAG, stored.headers.get(ETAG))
        && agrees(&LAST_MODIFIED, stored.headers.get(LAST_MODIFIED))
        && agrees_on_length(stored.length, received)
}

/// A Content-Length that is no number agrees with none.
fn agrees_on_length(stored: Option<u64>, received: &HeaderMap) -> bool {
    let Some(stored) = stored else { return true };
    received.get_all(CONTENT_LENGTH).iter().all(|line| number(line.as_bytes()) == Some(stored))
}

/// Digits only, which `parse` alone does not ask for: it takes a sign.
fn number(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;

    /// All lines, sorted, since the order of different fields means nothing.
    fn lines(map: &HeaderMap) -> Vec<(String, String)> {
        let mut lines: Vec<_> = map.iter().map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned())).collect();
        lines.sort();
        lines
    }

    fn updated(stored: &[(&str, &str)], received: &[(&str, &str)]) -> Vec<(String, String)> {
        lines(&by_304(&headers(stored), &headers(received)))
    }

    fn head(stored: &[(&str, &str)], status: u16, received: &[(&str, &str)]) -> HeadVerdict {
        let (stored, received) = (headers(stored), headers(received));
        let stored = StoredGet { status: StatusCode::OK, headers: &stored, length: Some(10) };
        by_head(&stored, StatusCode::from_u16(status).unwrap(), &received)
    }

    #[test]
    fn rule_14_a_304_replaces_what_it_brings_and_leaves_what_it_does_not() {
        type Lines<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Lines<'_>, Lines<'_>, Lines<'_>); 8] = [
            (&[("a", "1"), ("b", "2")], &[("b", "3"), ("c", "4")], &[("a", "1"), ("b", "3"), ("c", "4")]),
            (&[("a", "1"), ("a", "2")], &[("a", "3")], &[("a", "3")]),
            (&[("a", "1")], &[("a", "2"), ("a", "3")], &[("a", "2"), ("a", "3")]),
            (&[("a", "1")], &[], &[("a", "1")]),
            (&[("etag", "\"a\""), ("vary", "x")], &[("etag", "W/\"a\""), ("vary", "y")], &[("etag", "W/\"a\""), ("vary", "y")]),
            (
                &[("content-type", "a/b")],
                &[("content-type", "c/d"), ("content-foo", "1")],
                &[("content-foo", "1"), ("content-type", "c/d")],
            ),
            (&[("cache-control", "max-age=1")], &[("cache-control", "max-age=2")], &[("cache-control", "max-age=2")]),
            (&[("set-cookie", "a=1")], &[("set-cookie", "b=2")], &[("set-cookie", "b=2")]),
        ];
        for (stored, received, expected) in cases {
            assert_eq!(updated(stored, received), lines(&headers(expected)), "{stored:?} {received:?}");
        }
    }

    #[test]
    fn rule_14_and_15_a_304_leaves_alone_what_describes_the_stored_bytes() {
        let stored = [("content-encoding", "gzip"), ("content-length", "10"), ("content-range", "bytes 0-9/20")];
        let received = [("content-encoding", "br"), ("content-length", "0"), ("content-range", "bytes 0-1/2")];
        assert_eq!(updated(&stored, &received), lines(&headers(&stored)));
        assert_eq!(updated(&[("a", "1")], &received), lines(&headers(&[("a", "1")])));
    }

    #[test]
    fn rule_8_and_14_what_is_about_one_connection_updates_nothing() {
        let received = [("connection", "close, x"), ("x", "2"), ("keep-alive", "timeout=5"), ("transfer-encoding", "chunked"), ("y", "3")];
        assert_eq!(updated(&[("x", "1"), ("y", "1")], &received), lines(&headers(&[("x", "1"), ("y", "3")])));
    }

    #[test]
    fn rule_14_the_age_of_the_answer_before_does_not_stay() {
        assert_eq!(updated(&[("age", "50")], &[("date", "d")]), lines(&headers(&[("date", "d")])));
        assert_eq!(updated(&[("age", "50")], &[("age", "3")]), lines(&headers(&[("age", "3")])));
    }

    #[test]
    fn rule_15_a_head_with_the_same_validators_and_length_updates() {
        let stored = [("etag", "\"a\""), ("last-modified", "d"), ("x", "1")];
        let cases: [&[(&str, &str)]; 7] = [
            &[("x", "2")],
            &[("x", "2"), ("etag", "\"a\"")],
            &[("x", "2"), ("last-modified", "d")],
            &[("x", "2"), ("content-length", "10")],
            &[("x", "2"), ("content-length", "010")],
            &[("x", "2"), ("etag", "\"a\""), ("last-modified", "d"), ("content-length", "10")],
            &[("x", "2"), ("content-length", "10"), ("content-length", "10")],
        ];
        for received in cases {
            let HeadVerdict::Update(map) = head(&stored, 200, received) else { panic!("{received:?}") };
            assert_eq!(lines(&map), lines(&headers(&[("etag", "\"a\""), ("last-modified", "d"), ("x", "2")])), "{received:?}");
        }
    }

    #[test]
    fn rule_15_a_head_that_differs_invalidates() {
        let stored = [("etag", "\"a\""), ("last-modified", "d")];
        let cases: [&[(&str, &str)]; 10] = [
            &[("etag", "\"b\"")],
            &[("etag", "W/\"a\"")],
            &[("etag", "\"a\""), ("etag", "\"b\"")],
            &[("last-modified", "e")],
            &[("etag", "\"a\""), ("last-modified", "e")],
            &[("etag", "\"a\""), ("content-length", "11")],
            &[("content-length", "10"), ("content-length", "11")],
            &[("content-length", "")],
            &[("content-length", "+10")],
            &[("content-length", "99999999999999999999999")],
        ];
        for received in cases {
            assert_eq!(head(&stored, 200, received), HeadVerdict::Invalidate, "{received:?}");
        }
        assert_eq!(head(&[], 200, &[("etag", "\"a\"")]), HeadVerdict::Invalidate, "what has an ETag now is not what had none");
    }

    #[test]
    fn rule_15_a_head_without_a_200_says_nothing() {
        for status in [204, 206, 301, 304, 403, 404, 410, 500, 503] {
            assert_eq!(head(&[("etag", "\"a\"")], status, &[("etag", "\"b\"")]), HeadVerdict::Leave, "{status}");
        }
    }

    #[test]
    fn rule_15_a_stored_error_is_not_what_a_200_describes() {
        let map = headers(&[]);
        let stored = |status, length| StoredGet { status, headers: &map, length };
        let received = headers(&[("content-length", "7")]);
        assert_eq!(by_head(&stored(StatusCode::NOT_FOUND, Some(7)), StatusCode::OK, &received), HeadVerdict::Invalidate);
        let of_parts = by_head(&stored(StatusCode::OK, None), StatusCode::OK, &received);
        assert_eq!(of_parts, HeadVerdict::Update(HeaderMap::new()), "nobody knows a length that could differ");
    }

    #[test]
    fn rule_11_vary_names_the_coding_once() {
        let cases: [(&[&str], &[&str]); 8] = [
            (&[], &["Accept-Encoding"]),
            (&["Cookie"], &["Cookie, Accept-Encoding"]),
            (&["a,, b ,", "c"], &["a, b, c, Accept-Encoding"]),
            (&["", ""], &["Accept-Encoding"]),
            (&["ACCEPT-encoding"], &["ACCEPT-encoding"]),
            (&["a", "accept-encoding"], &["a", "accept-encoding"]),
            (&["a, *"], &["a, *"]),
            (&["a b"], &["a b"]),
        ];
        for (before, after) in cases {
            let of = |values: &[&'static str]| headers(&values.iter().map(|value| ("vary", *value)).collect::<Vec<_>>());
            let mut map = of(before);
            vary_by_coding(&mut map);
            assert_eq!(map, of(after), "{before:?}");
        }
    }
}
