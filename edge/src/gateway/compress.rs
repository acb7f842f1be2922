//! Codes an upstream's uncoded text, once per coding (RFC 9110, 8.4 and 12.5.3).
//!
//! Never per hit: what is made is stored beside the body, in [`super::codings`].

use std::io::{self, Write as _};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};

use crate::rules::negotiate::{self, Choice};
use crate::rules::{Directives, targeted};

/// Below it little is saved, and what an upstream answers goes through as it is.
const LEAST: u64 = 1 << 10;

/// Above it a blocking thread would be held for too long, with plain and coded bytes in memory at once.
const MOST: u64 = 16 << 20;

/// Types that are text under another name, or are as compressible, beside `text/*`, `+json` and `+xml`.
const TYPES: [&str; 29] = [
    "application/json",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/xml",
    "application/wasm",
    "application/x-ndjson",
    "application/ndjson",
    "application/json-seq",
    "application/graphql",
    "application/yaml",
    "application/x-yaml",
    "application/toml",
    "application/sql",
    "application/rtf",
    "application/x-sh",
    "application/x-www-form-urlencoded",
    "application/openmetrics-text",
    "application/vnd.apple.mpegurl",
    "application/x-mpegurl",
    "application/vnd.ms-fontobject",
    "application/x-font-ttf",
    "font/ttf",
    "font/otf",
    "font/collection",
    "font/sfnt",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
];

/// Suffixes of types that are text (RFC 6839; RFC 9512 for `+yaml`).
const SUFFIXES: [&str; 3] = ["+json", "+xml", "+yaml"];

/// Events are there to be read as they come; a coder holds them back.
const EVENTS: &str = "text/event-stream";

/// A content coding that the edge makes (RFC 9110, 8.4.1; zstd: RFC 8878).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Coding {
    /// Zstandard.
    Zstd,
    /// Brotli.
    Br,
    /// gzip.
    Gzip,
}

impl Coding {
    /// The best liked first: zstd is the quickest to make and to read, br the smallest.
    const ALL: [Self; 3] = [Self::Zstd, Self::Br, Self::Gzip];

    /// The same by name, as negotiation wants them.
    const NAMES: [&'static str; 3] = [Self::Zstd.as_str(), Self::Br.as_str(), Self::Gzip.as_str()];

    /// Returns the name that HTTP knows it by.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }

    /// The levels are for somebody who waits; at zstd's the window stays far below the 8 MiB that every
    /// reader must have (RFC 9659).
    fn encode(self, plain: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd => zstd::bulk::compress(plain, 3),
            Self::Br => {
                let (mut rest, mut coded) = (plain, Vec::new());
                let parameters = brotli::enc::BrotliEncoderParams { quality: 5, size_hint: plain.len(), ..Default::default() };
                brotli::BrotliCompress(&mut rest, &mut coded, &parameters)?;
                Ok(coded)
            }
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
                encoder.write_all(plain)?;
                encoder.finish()
            }
        }
    }
}

/// Decides by its head whether a response may be coded.
///
/// A `length` that nobody announced is for [`compress`] to look at. `no-transform` is heeded wherever it
/// stands: it is about the content, and not about which cache may do what (RFC 9111, 5.2.2.6).
pub(crate) fn may_compress(status: StatusCode, headers: &HeaderMap, length: Option<u64>, route_compress: bool) -> bool {
    route_compress
        && has_whole_content(status)
        && length.is_none_or(is_worth_trying)
        && !headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(CONTENT_RANGE)
        && is_compressible(headers)
        && !Directives::of(headers).no_transform
        && !targeted::governing(headers).0.no_transform
}

/// Returns the coding that a client gets, zstd before br before gzip among equals; nothing where it wants the
/// content as it is, `no-transform` included (RFC 9110, 12.5.3; RFC 9111, 5.2.1.6).
///
/// A client that takes nothing on offer gets the content as it is all the same.
pub(crate) fn coding_for(request: &HeaderMap) -> Option<Coding> {
    if Directives::of(request).no_transform {
        return None;
    }
    match negotiate::choose(request, &Coding::NAMES) {
        Choice::Coding(name) => Coding::ALL.into_iter().find(|coding| coding.as_str() == name),
        Choice::Identity | Choice::NotAcceptable => None,
    }
}

/// Returns the coded bytes; nothing where these are not clearly fewer.
///
/// It takes as long as it takes: the caller runs it on a blocking thread and bounds how many there are.
pub(crate) fn compress(coding: Coding, plain: &Bytes) -> Option<Bytes> {
    if !is_worth_trying(plain.len() as u64) {
        return None;
    }
    let failed = |error: &io::Error| tracing::warn!(%error, coding = coding.as_str(), "failed to compress a response");
    let coded = coding.encode(plain).inspect_err(failed).ok()?;
    // Shrunk to what it holds: it stays in memory.
    is_worth_keeping(plain.len(), coded.len()).then(|| Bytes::from(coded.into_boxed_slice()))
}

/// A 206 has a part of it, and the others have nothing (RFC 9110, 15).
fn has_whole_content(status: StatusCode) -> bool {
    let has_none = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    !status.is_informational() && !has_none && status != StatusCode::PARTIAL_CONTENT
}

fn is_worth_trying(length: u64) -> bool {
    (LEAST..=MOST).contains(&length)
}

/// It must save a twentieth: less is not worth another variant in the cache.
fn is_worth_keeping(plain: usize, coded: usize) -> bool {
    coded < plain - plain / 20
}

/// One Content-Type, and of a kind that gets smaller.
fn is_compressible(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return false;
    };
    let Ok(text) = line.to_str() else {
        return false;
    };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_text = essence.starts_with("text/") || SUFFIXES.iter().any(|suffix| essence.ends_with(*suffix));
    essence != EVENTS && (is_text || TYPES.contains(&essence.as_str()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::rules::testing::headers;

    fn text(length: usize) -> Bytes {
        "all the islets of the ring ".bytes().cycle().take(length).collect()
    }

    /// Bytes that no coding makes smaller.
    fn noise(length: usize) -> Bytes {
        let mut noise = vec![0; length];
        getrandom::fill(&mut noise).unwrap();
        noise.into()
    }

    fn decoded(coding: Coding, coded: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match coding {
            Coding::Zstd => plain = zstd::decode_all(coded).unwrap(),
            Coding::Br => {
                let mut rest = coded;
                brotli::BrotliDecompress(&mut rest, &mut plain).unwrap();
            }
            Coding::Gzip => {
                flate2::read::GzDecoder::new(coded).read_to_end(&mut plain).unwrap();
            }
        }
        plain
    }

    #[test]
    fn text_is_compressed_and_what_is_compressed_already_is_not() {
        let cases = [
            ("text/html; charset=utf-8", true),
            ("TEXT/CSS", true),
            ("text/plain ;x=y", true),
            ("application/json", true),
            ("application/problem+json", true),
            ("application/manifest+json", true),
            ("application/xhtml+xml", true),
            ("application/vnd.oai.openapi+yaml", true),
            ("image/svg+xml", true),
            ("application/javascript", true),
            ("application/wasm", true),
            ("application/x-ndjson", true),
            ("font/ttf", true),
            ("font/otf", true),
            ("text/event-stream", false),
            ("Text/Event-Stream; charset=utf-8", false),
            ("font/woff2", false),
            ("image/png", false),
            ("video/mp4", false),
            ("application/zip", false),
            ("application/octet-stream", false),
            ("application/jsonish", false),
            ("multipart/form-data; boundary=text/html", false),
            ("text", false),
            ("", false),
        ];
        for (media_type, expected) in cases {
            let headers = headers(&[("content-type", media_type)]);
            assert_eq!(may_compress(StatusCode::OK, &headers, Some(4096), true), expected, "{media_type}");
        }
        assert!(!may_compress(StatusCode::OK, &HeaderMap::new(), Some(4096), true), "an unknown type stays as it is");
        let twice = headers(&[("content-type", "text/html"), ("content-type", "text/html")]);
        assert!(!may_compress(StatusCode::OK, &twice, Some(4096), true));
    }

    #[test]
    fn each_reason_against_it_is_enough() {
        let cases: [(&str, &str); 9] = [
            ("content-encoding", "gzip"),
            ("content-encoding", "identity"),
            ("content-encoding", ""),
            ("content-range", "bytes 0-4095/8192"),
            ("cache-control", "no-transform"),
            ("cache-control", "max-age=60, No-Transform"),
            ("cdn-cache-control", "max-age=60, no-transform"),
            ("surrogate-control", "no-transform"),
            ("content-type", "text/plain"),
        ];
        for (name, value) in cases {
            let headers = headers(&[("content-type", "text/html"), (name, value)]);
            assert!(!may_compress(StatusCode::OK, &headers, Some(4096), true), "{name}: {value}");
        }
        let hidden = headers(&[("content-type", "text/html"), ("cache-control", "no-transform"), ("cdn-cache-control", "max-age=60")]);
        assert!(!may_compress(StatusCode::OK, &hidden, Some(4096), true), "a targeted field is not about the content");
        let quoted = headers(&[("content-type", "text/html"), ("cache-control", "x=\"a, no-transform\"")]);
        assert!(may_compress(StatusCode::OK, &quoted, Some(4096), true));
        assert!(!may_compress(StatusCode::OK, &headers(&[("content-type", "text/html")]), Some(4096), false), "the route's choice");
    }

    #[test]
    fn small_and_huge_bodies_stay_as_they_are() {
        let html = headers(&[("content-type", "text/html")]);
        let cases = [
            (Some(0), false),
            (Some(1023), false),
            (Some(1024), true),
            (Some(16 << 20), true),
            (Some((16 << 20) + 1), false),
            (None, true),
        ];
        for (length, expected) in cases {
            assert_eq!(may_compress(StatusCode::OK, &html, length, true), expected, "{length:?}");
        }
        for coding in Coding::ALL {
            assert_eq!(compress(coding, &text(1023)), None);
            assert!(compress(coding, &text(1024)).is_some());
        }
    }

    #[test]
    fn statuses_without_whole_content_are_left_alone() {
        let html = headers(&[("content-type", "text/html")]);
        let cases = [(200, true), (203, true), (404, true), (500, true), (301, true), (103, false), (204, false), (205, false)];
        for (status, expected) in cases.into_iter().chain([(206, false), (304, false)]) {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(may_compress(status, &html, Some(4096), true), expected, "{status}");
        }
    }

    #[test]
    fn the_client_chooses_by_weight_and_we_among_equals() {
        let cases = [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip, br", Some(Coding::Br)),
            ("gzip;q=1.0, br;q=0.9", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("zstd;q=0, *", Some(Coding::Br)),
            ("X-GZIP", Some(Coding::Gzip)),
            ("deflate", None),
            ("identity, gzip;q=0.5", None),
            ("*;q=0", None),
            ("", None),
        ];
        for (value, expected) in cases {
            assert_eq!(coding_for(&headers(&[("accept-encoding", value)])), expected, "{value}");
        }
        assert_eq!(coding_for(&HeaderMap::new()), None);
        assert_eq!(coding_for(&headers(&[("accept-encoding", "br"), ("cache-control", "no-transform")])), None);
    }

    #[test]
    fn every_coding_can_be_undone_and_what_does_not_shrink_is_not_kept() {
        let plain = text(100_000);
        for coding in Coding::ALL {
            let coded = compress(coding, &plain).unwrap();
            assert!(coded.len() < plain.len() / 10, "{coding:?} {}", coded.len());
            assert_eq!(decoded(coding, &coded), plain, "{coding:?}");
            assert_eq!(compress(coding, &plain), Some(coded), "the same bytes have the same ETag at every edge");
            assert_eq!(compress(coding, &noise(4096)), None, "{coding:?}");
        }
        for (plain, coded, is_kept) in [(1000, 949, true), (1000, 950, false), (1000, 1000, false), (1000, 1100, false)] {
            assert_eq!(is_worth_keeping(plain, coded), is_kept, "{plain} {coded}");
        }
    }
}
