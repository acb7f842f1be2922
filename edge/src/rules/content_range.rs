//! What a 206 says that it is, and whether that can be believed and put together with what is held
//! (RFC 9110, 14.4 and 15.3.7; RFC 9111, 3.3 and 3.4).

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG};

use super::conditional;
use super::ranges::ByteRange;
use super::terms::NotStored;

/// Which part of which whole the bytes of a 206 are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// These bytes.
    pub(crate) range: ByteRange,
    /// Of so many, where the upstream knows.
    pub(crate) complete: Option<u64>,
}

/// What a response's Content-Range says (RFC 9110, 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentRange {
    /// The content is this part, as in a 206.
    Part(Extent),
    /// There is nothing in the range that was asked for, but there are so many bytes, as in a 416.
    Unsatisfied(u64),
}

/// Why a 206 can't be stored: what it says of itself is not what it is, or not for us to take apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadPart {
    /// Several ranges in one body, which a cache need not take apart.
    Multipart,
    /// There is not exactly one Content-Range that says which bytes these are.
    ContentRange,
    /// The body is announced with another length than its range has.
    Length,
}

impl From<BadPart> for NotStored {
    fn from(_: BadPart) -> Self {
        Self::Range
    }
}

impl ContentRange {
    /// Reads the Content-Range of a response: nothing where there is none, or two, or one that is malformed.
    ///
    /// The grammar is taken strictly, and no position is beyond what can be counted: a guess would file bytes
    /// under the wrong place.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(CONTENT_RANGE).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return None;
        };
        Self::parse(line.as_bytes())
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let (unit, rest) = split(line, b' ')?;
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        let (range, complete) = split(rest, b'/')?;
        if range == b"*" {
            return number(complete).map(Self::Unsatisfied);
        }
        let (first, last) = split(range, b'-')?;
        let range = ByteRange { first: number(first)?, last: number(last)? };
        let complete = if complete == b"*" { None } else { Some(number(complete)?) };
        // A last byte below the greatest number leaves room for the end, one further.
        let is_valid = range.first <= range.last && range.last < complete.unwrap_or(u64::MAX);
        is_valid.then_some(Self::Part(Extent { range, complete }))
    }
}

/// Decides by its head whether a 206 may be stored, and says which part it is (RFC 9110, 15.3.7).
///
/// `length` is what the body is announced with. Where nothing announces it, the caller counts what comes.
pub(crate) fn check_206(headers: &HeaderMap, length: Option<u64>) -> Result<Extent, BadPart> {
    if is_multipart(headers) {
        return Err(BadPart::Multipart);
    }
    let Some(ContentRange::Part(extent)) = ContentRange::of(headers) else {
        return Err(BadPart::ContentRange);
    };
    if length.is_none_or(|length| length == extent.range.length()) { Ok(extent) } else { Err(BadPart::Length) }
}

/// Decides whether two responses are of the same representation, so that their parts may be combined: both
/// have the same strong ETag (RFC 9110, 15.3.7.3).
///
/// Some servers give a coded form the ETag of the plain one, so a coding that is named must be the stored one
/// too. It need not be named: an answer to If-Range leaves such fields out (15.3.7).
pub(crate) fn combine_allowed(stored: &HeaderMap, received: &HeaderMap) -> bool {
    let is_single = |headers: &HeaderMap| headers.get_all(ETAG).iter().count() == 1;
    let is_same_coding =
        !received.contains_key(CONTENT_ENCODING) || received.get_all(CONTENT_ENCODING).iter().eq(stored.get_all(CONTENT_ENCODING).iter());
    is_single(stored)
        && is_single(received)
        && conditional::has_strong_etag(stored)
        && stored.get(ETAG) == received.get(ETAG)
        && is_same_coding
}

fn is_multipart(headers: &HeaderMap) -> bool {
    let essence = |line: &[u8]| line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    headers.get_all(CONTENT_TYPE).iter().any(|line| essence(line.as_bytes()) == b"multipart/byteranges")
}

fn split(text: &[u8], mark: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == mark)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Digits only; what can't be counted is no number, since a position that saturates is another position.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;

    fn part(first: u64, last: u64, complete: Option<u64>) -> Extent {
        Extent { range: ByteRange { first, last }, complete }
    }

    type Lines<'a> = &'a [(&'a str, &'a str)];

    #[test]
    fn rule_19_content_range_is_read_strictly() {
        let max = u64::MAX;
        let cases = [
            ("bytes 0-0/1", Some(ContentRange::Part(part(0, 0, Some(1))))),
            ("bytes 5-9/10", Some(ContentRange::Part(part(5, 9, Some(10))))),
            ("BYTES 005-09/0010", Some(ContentRange::Part(part(5, 9, Some(10))))),
            ("bytes 5-9/*", Some(ContentRange::Part(part(5, 9, None)))),
            ("bytes */10", Some(ContentRange::Unsatisfied(10))),
            ("bytes */0", Some(ContentRange::Unsatisfied(0))),
            ("bytes 0-18446744073709551613/18446744073709551614", Some(ContentRange::Part(part(0, max - 2, Some(max - 1))))),
            ("bytes 0-18446744073709551614/*", Some(ContentRange::Part(part(0, max - 1, None)))),
        ];
        for (value, expected) in cases {
            assert_eq!(ContentRange::of(&headers(&[("content-range", value)])), expected, "{value}");
        }
    }

    #[test]
    fn rule_19_a_content_range_that_makes_no_sense_is_none() {
        for value in [
            "",
            "bytes",
            "bytes ",
            "bytes 0-4",
            "bytes 0-4/",
            "bytes /5",
            "bytes -4/5",
            "bytes 0-/5",
            "bytes 4/5",
            "bytes 4-2/5",
            "bytes 0-5/5",
            "bytes 0-4/4",
            "bytes 0-0/0",
            "bytes */*",
            "bytes */",
            "bytes *-4/5",
            "bytes=0-4/5",
            "bytes: 0-4/5",
            "bytes  0-4/5",
            "bytes\t0-4/5",
            "bytes 0 - 4/5",
            "bytes 0-4 /5",
            "bytes 0-4/5 ",
            "bytes 0-4/5/6",
            "bytes 0-4-5/6",
            "bytes +0-4/5",
            "bytes 0-4/5, bytes 0-4/5",
            "bytes 0-4/0x5",
            "items 0-4/5",
            "0-4/5",
            "bytes 0-18446744073709551615/*",
            "bytes 0-18446744073709551616/*",
            "bytes 0-4/18446744073709551616",
            "bytes 99999999999999999999999-99999999999999999999999/*",
        ] {
            assert_eq!(ContentRange::of(&headers(&[("content-range", value)])), None, "{value}");
        }
        assert_eq!(ContentRange::of(&headers(&[])), None);
        let twice = [("content-range", "bytes 0-4/5"), ("content-range", "bytes 0-4/5")];
        assert_eq!(ContentRange::of(&headers(&twice)), None);
    }

    #[test]
    fn rule_19_a_206_whose_length_contradicts_its_range_is_not_stored() {
        let of = ("content-range", "bytes 5-9/10");
        let cases: [(&[(&str, &str)], Option<u64>, Result<Extent, BadPart>); 12] = [
            (&[of], Some(5), Ok(part(5, 9, Some(10)))),
            (&[of], None, Ok(part(5, 9, Some(10)))),
            (&[of, ("content-type", "multipart/mixed")], Some(5), Ok(part(5, 9, Some(10)))),
            (&[of], Some(4), Err(BadPart::Length)),
            (&[of], Some(6), Err(BadPart::Length)),
            (&[of], Some(10), Err(BadPart::Length)),
            (&[of], Some(0), Err(BadPart::Length)),
            (&[], Some(5), Err(BadPart::ContentRange)),
            (&[("content-range", "bytes */10")], Some(5), Err(BadPart::ContentRange)),
            (&[of, of], Some(5), Err(BadPart::ContentRange)),
            (&[("content-type", "multipart/byteranges; boundary=x")], Some(5), Err(BadPart::Multipart)),
            (&[of, ("content-type", "Multipart/ByteRanges ;boundary=x")], Some(5), Err(BadPart::Multipart)),
        ];
        for (lines, length, expected) in cases {
            assert_eq!(check_206(&headers(lines), length), expected, "{lines:?} {length:?}");
        }
        assert_eq!(NotStored::from(BadPart::Length), NotStored::Range);
    }

    #[test]
    fn rule_20_only_parts_with_the_same_strong_etag_are_combined() {
        let (a, b, weak, gzip) = (("etag", "\"a\""), ("etag", "\"b\""), ("etag", "W/\"a\""), ("content-encoding", "gzip"));
        let cases: [(Lines<'_>, Lines<'_>, bool); 13] = [
            (&[a], &[a], true),
            (&[a, gzip], &[a, gzip], true),
            (&[a, gzip], &[a], true),
            (&[a], &[b], false),
            (&[weak], &[weak], false),
            (&[a], &[weak], false),
            (&[weak], &[a], false),
            (&[a], &[], false),
            (&[], &[a], false),
            (&[], &[], false),
            (&[a], &[a, b], false),
            (&[a], &[a, gzip], false),
            (&[("etag", "a")], &[("etag", "a")], false),
        ];
        for (stored, received, may) in cases {
            assert_eq!(combine_allowed(&headers(stored), &headers(received)), may, "{stored:?} {received:?}");
        }
        let dated = headers(&[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        assert!(!combine_allowed(&dated, &dated));
    }
}
