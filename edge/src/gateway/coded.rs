//! Keeps apart what the edge and the upstream call the same content, where the edge coded it: the coded form is
//! another representation, with an ETag of its own (RFC 9110, 8.8.3.3; interfaces.md).

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::codings::CodedBody;
use super::entry::Entry;
use crate::rules::list;
use crate::rules::update;

/// Returns the fields of the coded response: what the upstream said, but for what is about the bytes.
pub(crate) fn headers(upstream: &HeaderMap, coded: &CodedBody) -> HeaderMap {
    let mut headers = upstream.clone();
    headers.remove(CONTENT_LENGTH);
    for name in update::DIGESTS {
        headers.remove(name);
    }
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coded.coding.as_str()));
    headers.remove(ETAG);
    if let Ok(etag) = HeaderValue::try_from(etag(coded)) {
        headers.insert(ETAG, etag);
    }
    update::vary_by_coding(&mut headers);
    headers
}

fn etag(coded: &CodedBody) -> String {
    format!("\"{}\"", coded.digest)
}

/// Puts the upstream's ETag in the place of ours in a client's If-None-Match and If-Match on their way upstream.
///
/// If-Range stays as it is: the client's range is of the coded bytes, so the upstream must not find that
/// it fits (RFC 9110, 13.1.5).
pub(crate) fn map_conditions(entry: &Entry, request: &mut HeaderMap) {
    let Some(theirs) = entry.head.headers.get(ETAG) else { return };
    for coded in entry.codings.made() {
        let ours = etag(coded);
        let is_ours = |tag: &[u8]| tag == ours.as_bytes();
        // Weakly compared, the weak form of ours is ours; strongly, it is nobody's (RFC 9110, 8.8.3.2).
        map_tags(request, &IF_NONE_MATCH, theirs, |tag| is_ours(tag.strip_prefix(b"W/").unwrap_or(tag)));
        map_tags(request, &IF_MATCH, theirs, is_ours);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::compress::Coding;
    use crate::rules::testing::headers as fields;
    use bytes::Bytes;
    use wire::Digest;

    fn coded() -> CodedBody {
        CodedBody { coding: Coding::Gzip, digest: Digest::of(b"coded"), bytes: Bytes::from_static(b"coded") }
    }

    #[test]
    fn rule_12_a_coded_response_says_so_and_nothing_that_no_longer_holds() {
        let upstream = fields(&[
            ("content-type", "text/html"),
            ("content-length", "4000"),
            ("etag", "W/\"theirs\""),
            ("vary", "Accept-Language"),
            ("vary", "Cookie"),
            ("accept-ranges", "bytes"),
            ("content-md5", "x"),
            ("repr-digest", "x"),
            ("last-modified", "d"),
            ("x", "1"),
            ("x", "2"),
        ]);
        let ours = format!("\"{}\"", Digest::of(b"coded"));
        let expected = fields(&[
            ("content-type", "text/html"),
            ("content-encoding", "gzip"),
            ("etag", ours.as_str()),
            ("vary", "Accept-Language, Cookie, Accept-Encoding"),
            ("accept-ranges", "bytes"),
            ("last-modified", "d"),
            ("x", "1"),
            ("x", "2"),
        ]);
        assert_eq!(headers(&upstream, &coded()), expected);
    }

    #[test]
    fn rule_11_vary_is_said_once_and_a_star_stays() {
        for (before, after) in [("accept-encoding", "accept-encoding"), ("*", "*"), ("a", "a, Accept-Encoding")] {
            let made = headers(&fields(&[("vary", before)]), &coded());
            assert_eq!(made.get_all("vary").iter().collect::<Vec<_>>(), [after], "{before}");
        }
        assert_eq!(headers(&HeaderMap::new(), &coded()).get("vary").unwrap(), "Accept-Encoding");
    }

    #[test]
    fn rule_12_a_client_that_shows_our_etag_is_understood_upstream() {
        let ours = format!("\"{}\"", Digest::of(b"coded"));
        let theirs = HeaderValue::from_static("\"theirs\"");
        let cases = [
            (format!("\"a,b\",{ours} , W/\"c\""), "\"a,b\", \"theirs\", W/\"c\"".to_owned()),
            ("\"a\" ,\"b\"".to_owned(), "\"a\" ,\"b\"".to_owned()),
            ("*".to_owned(), "*".to_owned()),
        ];
        for (before, after) in cases {
            let mut request = fields(&[("if-match", before.as_str())]);
            map_tags(&mut request, &IF_MATCH, &theirs, |tag| tag == ours.as_bytes());
            assert_eq!(request, fields(&[("if-match", after.as_str())]), "{before}");
        }
    }
}
