//! Keeps apart what the edge and the upstream call the same content, where the edge coded it: the coded form is
//! another representation, with an ETag of its own (RFC 9110, 8.8.3.3; interfaces.md).
//!
//! A client sees ours and the upstream sees its own, whichever way a message goes.

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue};
use wire::Digest;

use super::compress::Coding;
use crate::rules::list;
use crate::rules::update::{self, Coder};

/// What the edge made of a response that came uncoded, and what the upstream called that; stored beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Coded {
    /// The coding.
    pub(crate) coding: Coding,
    /// The digest of the coded bytes: they are sent under it.
    pub(crate) digest: Digest,
    /// The upstream's ETag of the uncoded bytes, by which it is asked.
    pub(crate) upstream_etag: Option<HeaderValue>,
    /// How long the uncoded bytes are, as an answer to HEAD tells it.
    pub(crate) plain_length: u64,
}

impl Coded {
    /// Notes what became of a response with these fields and this length.
    pub(crate) fn new(upstream: &HeaderMap, plain_length: u64, coding: Coding, digest: Digest) -> Self {
        Self { coding, digest, upstream_etag: upstream.get(ETAG).cloned(), plain_length }
    }

    /// Returns our strong ETag, quotes included.
    pub(crate) fn etag(&self) -> String {
        format!("\"{}\"", self.digest)
    }

    /// Returns by whom the stored body was coded, for whoever updates its fields.
    pub(crate) fn coder(&self) -> Coder<'_> {
        Coder::Edge(self.upstream_etag.as_ref())
    }

    /// Puts the upstream's ETag in the place of ours in a client's If-None-Match and If-Match on their way upstream.
    ///
    /// If-Range stays as it is: the client's range is of the coded bytes, so the upstream must not find that
    /// it fits (RFC 9110, 13.1.5).
    pub(crate) fn map_conditions(&self, request: &mut HeaderMap) {
        let Some(theirs) = &self.upstream_etag else {
            return;
        };
        let ours = self.etag();
        let is_ours = |tag: &[u8]| tag == ours.as_bytes();
        // Weakly compared, the weak form of ours is ours; strongly, it is nobody's (RFC 9110, 8.8.3.2).
        map_tags(request, &IF_NONE_MATCH, theirs, |tag| is_ours(tag.strip_prefix(b"W/").unwrap_or(tag)));
        map_tags(request, &IF_MATCH, theirs, is_ours);
    }

    /// Puts our ETag in the place of the upstream's in a 304 on its way to a client that showed ours.
    pub(crate) fn map_304(&self, answer: &mut HeaderMap) {
        if self.upstream_etag.is_none() || answer.get(ETAG) != self.upstream_etag.as_ref() {
            return;
        }
        set_etag(answer, self);
        update::vary_by_coding(answer);
    }
}

/// Returns the fields of the coded response: what the upstream said, but for what is about the bytes.
pub(crate) fn coded_headers(upstream: &HeaderMap, coded: &Coded) -> HeaderMap {
    let mut headers = upstream.clone();
    headers.remove(CONTENT_LENGTH);
    for name in update::DIGESTS {
        headers.remove(name);
    }
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coded.coding.as_str()));
    set_etag(&mut headers, coded);
    update::vary_by_coding(&mut headers);
    headers
}

/// Returns the ETag that the upstream knows a stored response by: its own, also where the edge coded it.
pub(crate) fn upstream_etag<'a>(stored: &'a HeaderMap, coded: Option<&'a Coded>) -> Option<&'a HeaderValue> {
    match coded {
        Some(coded) => coded.upstream_etag.as_ref(),
        None => stored.get(ETAG),
    }
}

/// Replaces those members of a list of entity tags that are ours; a list without them stays as the client wrote it.
fn map_tags(request: &mut HeaderMap, name: &HeaderName, theirs: &HeaderValue, is_ours: impl Fn(&[u8]) -> bool) {
    let tags: Vec<&[u8]> = request.get_all(name).iter().flat_map(|line| list::entity_tags(line.as_bytes())).collect();
    if !tags.iter().any(|tag| is_ours(tag)) {
        return;
    }
    let mapped: Vec<&[u8]> = tags.into_iter().map(|tag| if is_ours(tag) { theirs.as_bytes() } else { tag }).collect();
    let line = HeaderValue::from_bytes(&mapped.join(b", ".as_slice()));
    if let Ok(line) = line {
        request.insert(name, line);
    }
}

/// Without ours there is none: the upstream's is of other bytes.
fn set_etag(headers: &mut HeaderMap, coded: &Coded) {
    headers.remove(ETAG);
    if let Ok(etag) = HeaderValue::try_from(coded.etag()) {
        headers.insert(ETAG, etag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;

    fn coded(upstream_etag: Option<&'static str>) -> Coded {
        Coded {
            coding: Coding::Br,
            digest: Digest::of(b"coded"),
            upstream_etag: upstream_etag.map(HeaderValue::from_static),
            plain_length: 4000,
        }
    }

    #[test]
    fn part_4_a_coded_response_says_so_and_nothing_that_no_longer_holds() {
        let upstream = headers(&[
            ("content-type", "text/html"),
            ("content-length", "4000"),
            ("etag", "W/\"theirs\""),
            ("vary", "Accept-Language"),
            ("vary", "Cookie"),
            ("accept-ranges", "bytes"),
            ("content-md5", "x"),
            ("digest", "x"),
            ("content-digest", "x"),
            ("repr-digest", "x"),
            ("last-modified", "d"),
            ("x", "1"),
            ("x", "2"),
        ]);
        let coded = Coded::new(&upstream, 4000, Coding::Gzip, Digest::of(b"coded"));
        let ours = format!("\"{}\"", Digest::of(b"coded"));
        let expected = headers(&[
            ("content-type", "text/html"),
            ("content-encoding", "gzip"),
            ("etag", ours.as_str()),
            ("vary", "Accept-Language, Cookie, Accept-Encoding"),
            ("accept-ranges", "bytes"),
            ("last-modified", "d"),
            ("x", "1"),
            ("x", "2"),
        ]);
        assert_eq!(coded_headers(&upstream, &coded), expected);
        assert_eq!(coded.upstream_etag, Some(HeaderValue::from_static("W/\"theirs\"")));
        assert_eq!(upstream_etag(&expected, Some(&coded)), coded.upstream_etag.as_ref());
        assert_eq!(upstream_etag(&expected, None), expected.get(ETAG));
        assert!(matches!(coded.coder(), Coder::Edge(Some(etag)) if etag == "W/\"theirs\""));
    }

    #[test]
    fn part_4_vary_is_said_once_and_a_star_stays() {
        for (before, after) in [("accept-encoding", "accept-encoding"), ("*", "*"), ("a", "a, Accept-Encoding")] {
            let made = coded_headers(&headers(&[("vary", before)]), &coded(None));
            assert_eq!(made.get_all("vary").iter().collect::<Vec<_>>(), [after], "{before}");
        }
        assert_eq!(coded_headers(&HeaderMap::new(), &coded(None)).get("vary").unwrap(), "Accept-Encoding");
        assert_eq!(upstream_etag(&headers(&[("etag", "\"ours\"")]), Some(&coded(None))), None, "ours says nothing to the upstream");
    }

    #[test]
    fn part_4_a_client_that_shows_our_etag_is_understood_upstream() {
        let coded = coded(Some("\"theirs\""));
        let ours = coded.etag();
        let cases = [
            ("if-none-match", ours.clone(), "\"theirs\"".to_owned()),
            ("if-none-match", format!("W/{ours}"), "\"theirs\"".to_owned()),
            ("if-none-match", format!("\"a,b\",{ours} , W/\"c\""), "\"a,b\", \"theirs\", W/\"c\"".to_owned()),
            ("if-none-match", "\"a\" ,\"b\"".to_owned(), "\"a\" ,\"b\"".to_owned()),
            ("if-none-match", "*".to_owned(), "*".to_owned()),
            ("if-match", ours.clone(), "\"theirs\"".to_owned()),
            ("if-match", format!("W/{ours}"), format!("W/{ours}")),
            ("if-range", ours.clone(), ours.clone()),
        ];
        for (name, before, after) in cases {
            let mut request = headers(&[(name, before.as_str())]);
            coded.map_conditions(&mut request);
            assert_eq!(request, headers(&[(name, after.as_str())]), "{name}: {before}");
        }
        let mut lines = headers(&[("if-none-match", "\"a\""), ("if-none-match", ours.as_str())]);
        coded.map_conditions(&mut lines);
        assert_eq!(lines, headers(&[("if-none-match", "\"a\", \"theirs\"")]));
    }

    #[test]
    fn part_4_without_an_etag_upstream_nothing_is_mapped() {
        let coded = coded(None);
        let ours = coded.etag();
        let before = headers(&[("if-none-match", ours.as_str()), ("if-match", ours.as_str())]);
        let mut after = before.clone();
        coded.map_conditions(&mut after);
        assert_eq!(after, before);
        let mut answer = headers(&[("x", "1")]);
        coded.map_304(&mut answer);
        assert_eq!(answer, headers(&[("x", "1")]));
    }

    #[test]
    fn part_4_a_304_of_the_upstream_names_our_etag_to_the_client() {
        let coded = coded(Some("\"theirs\""));
        let ours = coded.etag();
        let cases: [(&[(&str, &str)], &[(&str, &str)]); 3] = [
            (&[("etag", "\"theirs\"")], &[("etag", ours.as_str()), ("vary", "Accept-Encoding")]),
            (&[("etag", "\"another\"")], &[("etag", "\"another\"")]),
            (&[("vary", "x")], &[("vary", "x")]),
        ];
        for (before, after) in cases {
            let mut answer = headers(before);
            coded.map_304(&mut answer);
            assert_eq!(answer, headers(after), "{before:?}");
        }
    }
}
