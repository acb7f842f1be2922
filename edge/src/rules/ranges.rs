//! Which bytes of a complete response a Range asks for, and how they are announced.

use bytes::Bytes;
use http::header::RANGE;
use http::{HeaderMap, HeaderValue};

use super::list;

/// More ranges than any reader needs are an attack on the server (RFC 9110, 17.15).
const MAX_RANGES: usize = 16;

/// Bytes from `first` to `last`, both included (RFC 9110, 14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteRange {
    /// The first byte.
    pub(crate) first: u64,
    /// The last byte, never before the first.
    pub(crate) last: u64,
}

impl ByteRange {
    /// Returns how many bytes there are.
    pub(crate) fn length(self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// Returns the Content-Range of a 206 with these bytes of `complete` (RFC 9110, 14.4).
    pub(crate) fn content_range(self, complete: u64) -> String {
        format!("bytes {}-{}/{complete}", self.first, self.last)
    }
}

/// Returns the Content-Range of a 416 (RFC 9110, 15.5.17).
pub(crate) fn unsatisfied(complete: u64) -> String {
    format!("bytes */{complete}")
}

/// What a Range comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ranges {
    /// A 200 with everything: no Range, or one that a server may and should ignore.
    Whole,
    /// A 206 with one range.
    One(ByteRange),
    /// A 206 of several parts, in the order in which they were asked for.
    Several(Vec<ByteRange>),
    /// A 416: nothing of what was asked for is there.
    Unsatisfiable,
}

/// Decides what a GET's Range asks for of `complete` bytes (RFC 9110, 14.2).
///
/// Ignored are: two lines, another unit, broken grammar, more than 16 ranges, and ranges that overlap, since
/// these serve to make a small request produce a large answer.
pub(crate) fn parse(request: &HeaderMap, complete: u64) -> Ranges {
    let mut lines = request.get_all(RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Ranges::Whole;
    };
    let Some(wanted) = specified(line.as_bytes()) else {
        return Ranges::Whole;
    };
    let found: Vec<_> = wanted.into_iter().filter_map(|one| one.within(complete)).collect();
    match found.as_slice() {
        [] => Ranges::Unsatisfiable,
        _ if complete == 0 || overlap(&found) => Ranges::Whole,
        [one] => Ranges::One(*one),
        _ => Ranges::Several(found),
    }
}

/// One range as it was asked for.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    From(u64),
    Between(u64, u64),
    Last(u64),
}

impl Wanted {
    /// Of nothing the last bytes are nothing, which no Content-Range can say: [`parse`] answers in full then.
    fn within(self, complete: u64) -> Option<ByteRange> {
        let end = complete.saturating_sub(1);
        match self {
            Self::From(first) | Self::Between(first, _) if first >= complete => None,
            Self::From(first) => Some(ByteRange { first, last: end }),
            Self::Between(first, last) => Some(ByteRange { first, last: last.min(end) }),
            Self::Last(0) => None,
            Self::Last(length) => Some(ByteRange { first: complete.saturating_sub(length), last: end }),
        }
    }
}

fn specified(line: &[u8]) -> Option<Vec<Wanted>> {
    let (unit, Some(set)) = list::pair(line) else {
        return None;
    };
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let wanted: Vec<_> = list::tokens(set).take(MAX_RANGES + 1).map(one).collect::<Option<_>>()?;
    (1..=MAX_RANGES).contains(&wanted.len()).then_some(wanted)
}

fn one(member: &[u8]) -> Option<Wanted> {
    let dash = member.iter().position(|&byte| byte == b'-')?;
    match (member.get(..dash)?, member.get(dash + 1..)?) {
        (b"", length) => Some(Wanted::Last(number(length)?)),
        (first, b"") => Some(Wanted::From(number(first)?)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Wanted::Between(first, last))
        }
    }
}

/// Digits only; what is beyond all lengths saturates.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |sum: u64, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

fn overlap(ranges: &[ByteRange]) -> bool {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    !sorted.is_sorted_by(|before, after| before.last < after.first)
}

/// The frame around the parts of a multipart/byteranges (RFC 9110, 14.6).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Multipart<'a> {
    /// A text that does not occur in the content; the caller makes it at random.
    pub(crate) boundary: &'a str,
    /// The media type of the whole, which each part repeats.
    pub(crate) content_type: Option<&'a HeaderValue>,
    /// The length of the whole.
    pub(crate) complete: u64,
}

impl Multipart<'_> {
    /// Returns the Content-Type of the 206.
    pub(crate) fn media_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// Returns what comes before the bytes of a part, its line end before it included.
    pub(crate) fn head(&self, range: ByteRange) -> Bytes {
        let mut head = format!("\r\n--{}\r\n", self.boundary).into_bytes();
        if let Some(content_type) = self.content_type {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(content_type.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(format!("Content-Range: {}\r\n\r\n", range.content_range(self.complete)).as_bytes());
        Bytes::from(head)
    }

    /// Returns what comes after the last part.
    pub(crate) fn tail(&self) -> Bytes {
        Bytes::from(format!("\r\n--{}--\r\n", self.boundary))
    }

    /// Returns the Content-Length of the 206.
    pub(crate) fn length(&self, ranges: &[ByteRange]) -> u64 {
        let parts = ranges.iter().map(|range| self.head(*range).len() as u64 + range.length());
        parts.sum::<u64>() + self.tail().len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;

    fn of(value: &str, complete: u64) -> Ranges {
        parse(&headers(&[("range", value)]), complete)
    }

    fn range(first: u64, last: u64) -> ByteRange {
        ByteRange { first, last }
    }

    #[test]
    fn one_range_is_cut_to_what_there_is() {
        let cases = [
            ("bytes=0-0", 0, 0),
            ("bytes=0-4", 0, 4),
            ("bytes=5-", 5, 9),
            ("bytes=5-99", 5, 9),
            ("bytes=5-99999999999999999999999", 5, 9),
            ("bytes=-3", 7, 9),
            ("bytes=-99", 0, 9),
            ("BYTES=0-9", 0, 9),
            ("bytes= 2-3 ,", 2, 3),
            ("bytes=2-3, 10-11", 2, 3),
        ];
        for (value, first, last) in cases {
            assert_eq!(of(value, 10), Ranges::One(range(first, last)), "{value}");
        }
    }

    #[test]
    fn what_lies_beyond_the_end_is_unsatisfiable() {
        for value in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=20-30, 40-", "bytes=99999999999999999999999-"] {
            assert_eq!(of(value, 10), Ranges::Unsatisfiable, "{value}");
        }
        assert_eq!(of("bytes=0-", 0), Ranges::Unsatisfiable);
        assert_eq!(of("bytes=-5", 0), Ranges::Whole);
        assert_eq!(unsatisfied(10), "bytes */10");
    }

    #[test]
    fn a_range_that_makes_no_sense_is_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "lines=0-1",
            "bytes=a-b",
            "bytes=1",
            "bytes=-",
            "bytes=2-1",
            "bytes=0-1;2-3",
            "bytes=+1-2",
            "bytes =0-1",
            "bytes=1 - 2",
            "bytes=0-1, x",
            "bytes=--1",
        ] {
            assert_eq!(of(value, 10), Ranges::Whole, "{value}");
        }
        assert_eq!(parse(&headers(&[]), 10), Ranges::Whole);
        assert_eq!(parse(&headers(&[("range", "bytes=0-1"), ("range", "bytes=2-3")]), 10), Ranges::Whole);
    }

    #[test]
    fn several_ranges_keep_their_order_and_must_not_overlap_nor_be_too_many() {
        assert_eq!(of("bytes=6-7,0-1", 10), Ranges::Several(vec![range(6, 7), range(0, 1)]));
        assert_eq!(of("bytes=0-4,5-9", 10), Ranges::Several(vec![range(0, 4), range(5, 9)]));
        for value in ["bytes=0-4,4-9", "bytes=0-,-1", "bytes=2-3,2-3", "bytes=5-6,0-9"] {
            assert_eq!(of(value, 10), Ranges::Whole, "{value}");
        }
        let many = |count: u64| (0..count).map(|n| format!("{}-{}", n * 2, n * 2)).collect::<Vec<_>>().join(",");
        assert!(matches!(of(&format!("bytes={}", many(16)), 100), Ranges::Several(parts) if parts.len() == 16));
        assert_eq!(of(&format!("bytes={}", many(17)), 100), Ranges::Whole);
    }

    #[test]
    fn the_parts_are_as_long_as_was_announced() {
        let content_type = HeaderValue::from_static("text/plain");
        let multipart = Multipart { boundary: "B", content_type: Some(&content_type), complete: 10 };
        let ranges = [range(0, 1), range(5, 9)];
        let mut sent = Vec::new();
        let at = |byte: u64| usize::try_from(byte).unwrap();
        for part in ranges {
            sent.extend_from_slice(&multipart.head(part));
            sent.extend_from_slice(b"0123456789".get(at(part.first)..=at(part.last)).unwrap());
        }
        sent.extend_from_slice(&multipart.tail());
        assert_eq!(sent.len() as u64, multipart.length(&ranges));
        let expected = concat!(
            "\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01",
            "\r\n--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 5-9/10\r\n\r\n56789",
            "\r\n--B--\r\n",
        );
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
        assert_eq!(multipart.media_type(), "multipart/byteranges; boundary=B");
    }
}
