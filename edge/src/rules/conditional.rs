//! Whether a stored answer needs to be sent at all: the conditions that a client puts on GET and HEAD.

use http::header::{ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderName};
use wire::Timestamp;

use super::date;
use super::list;

/// What a stored response has for clients to compare with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validators<'a> {
    /// Its ETag as it was written, quotes and weakness included.
    pub(crate) etag: Option<&'a str>,
    /// Its Last-Modified, where that is a date.
    pub(crate) last_modified: Option<Timestamp>,
    /// Its Date, or when it was received.
    pub(crate) date: Option<Timestamp>,
}

/// For whom the answer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// The edge is the origin (a hosted site): all conditions hold.
    Origin,
    /// The edge is a cache: If-Match and If-Unmodified-Since are for the origin only (RFC 9111, 4.3.2).
    Cache,
}

/// What the conditions of a request come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The client has it: 304.
    NotModified,
    /// It is to be sent.
    Proceed,
    /// The client wanted another one: 412.
    PreconditionFailed,
}

/// Decides a GET's or HEAD's conditions in the order of RFC 9110, 13.2.2.
pub(crate) fn evaluate(request: &HeaderMap, stored: &Validators<'_>, voice: Voice, now: Timestamp) -> Outcome {
    if voice == Voice::Origin && !origin_conditions_hold(request, stored, now) {
        return Outcome::PreconditionFailed;
    }
    if request.contains_key(IF_NONE_MATCH) {
        let has_it = matches(request, &IF_NONE_MATCH, |tag| stored.etag.is_some_and(|etag| is_weakly_equal(tag, etag.as_bytes())));
        return if has_it { Outcome::NotModified } else { Outcome::Proceed };
    }
    if is_unmodified_since(request, stored, now) { Outcome::NotModified } else { Outcome::Proceed }
}

/// If-Match, and where it is absent If-Unmodified-Since (RFC 9110, 13.1.1 and 13.1.4).
fn origin_conditions_hold(request: &HeaderMap, stored: &Validators<'_>, now: Timestamp) -> bool {
    if request.contains_key(IF_MATCH) {
        return matches(request, &IF_MATCH, |tag| stored.etag.is_some_and(|etag| is_strongly_equal(tag, etag.as_bytes())));
    }
    match (date::field(request, &IF_UNMODIFIED_SINCE, now).time(), stored.last_modified) {
        (Some(since), Some(modified)) => modified.as_secs() <= since.as_secs(),
        _ => true,
    }
}

/// `*` matches whatever there is (RFC 9110, 13.1.1 and 13.1.2).
fn matches(request: &HeaderMap, name: &HeaderName, is_equal: impl Fn(&[u8]) -> bool) -> bool {
    request.get_all(name).iter().flat_map(|line| list::entity_tags(line.as_bytes())).any(|tag| tag == b"*" || is_equal(tag))
}

/// If-Modified-Since; a response without Last-Modified counts as made at its Date (RFC 9110, 13.1.3; RFC 9111, 4.3.2).
fn is_unmodified_since(request: &HeaderMap, stored: &Validators<'_>, now: Timestamp) -> bool {
    let Some(since) = date::field(request, &IF_MODIFIED_SINCE, now).time() else {
        return false;
    };
    stored.last_modified.or(stored.date).is_some_and(|modified| modified.as_secs() <= since.as_secs())
}

/// RFC 9110, 8.8.3.2: the same letters, weak or not.
fn is_weakly_equal(one: &[u8], other: &[u8]) -> bool {
    without_weakness(one) == without_weakness(other)
}

/// RFC 9110, 8.8.3.2: the same letters, and neither is weak.
fn is_strongly_equal(one: &[u8], other: &[u8]) -> bool {
    one == other && is_strong(one)
}

fn without_weakness(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn is_strong(tag: &[u8]) -> bool {
    tag.len() >= 2 && tag.starts_with(b"\"") && tag.ends_with(b"\"")
}

/// Tells whether a response has a strong ETag, by which parts of it can be put together (RFC 9110, 8.8.1).
pub(crate) fn has_strong_etag(headers: &HeaderMap) -> bool {
    headers.get(ETAG).is_some_and(|etag| is_strong(etag.as_bytes()))
}

/// Decides whether a request's Range is for this very response: there is no If-Range, or it fits, strongly (RFC 9110, 13.1.5).
///
/// A date fits where it is the Last-Modified to the second, and that second had passed when the response was
/// made: else the content could have changed twice in it (8.8.2.2).
pub(crate) fn range_applies(request: &HeaderMap, stored: &Validators<'_>, now: Timestamp) -> bool {
    let mut lines = request.get_all(IF_RANGE).iter();
    let (line, None) = (lines.next(), lines.next()) else {
        return false;
    };
    let Some(wanted) = line.map(|line| line.as_bytes().trim_ascii()) else {
        return true;
    };
    if let Some(since) = date::parse(wanted, now) {
        let (Some(modified), Some(date)) = (stored.last_modified, stored.date) else {
            return false;
        };
        return modified.as_secs() == since.as_secs() && modified.as_secs() < date.as_secs();
    }
    stored.etag.is_some_and(|etag| is_strongly_equal(wanted, etag.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{THEN, after, headers};

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sunday, 06-Nov-94 08:49:38 GMT";

    fn stored(etag: Option<&'static str>) -> Validators<'static> {
        Validators { etag, last_modified: Some(THEN), date: Some(after(100)) }
    }

    #[test]
    fn if_none_match_compares_weakly_over_the_whole_list() {
        let cases = [
            (Some("\"a\""), "\"a\"", true),
            (Some("\"a\""), "W/\"a\"", true),
            (Some("W/\"a\""), "\"a\"", true),
            (Some("W/\"a\""), "W/\"a\"", true),
            (Some("\"a\""), "\"b\", \"c\" ,\"a\"", true),
            (Some("\"a,b\""), "\"x\", \"a,b\"", true),
            (Some("\"b\""), "\"a, \"b\"\"", false),
            (Some("\"a\\\""), "\"x\\\", \"a\\\"", true),
            (Some("\"a\""), "*", true),
            (None, "*", true),
            (Some("\"a\""), "\"A\"", false),
            (Some("\"a\""), "a", false),
            (Some("a"), "a", true),
            (Some("\"a\""), "\"b\"", false),
            (Some("\"a\""), "", false),
            (None, "\"a\"", false),
        ];
        for (etag, value, has_it) in cases {
            let outcome = evaluate(&headers(&[("if-none-match", value)]), &stored(etag), Voice::Cache, THEN);
            assert_eq!(outcome == Outcome::NotModified, has_it, "{etag:?} {value}");
        }
    }

    #[test]
    fn several_lines_of_if_none_match_are_one_list() {
        let request = headers(&[("if-none-match", "\"x\""), ("if-none-match", "\"a\"")]);
        assert_eq!(evaluate(&request, &stored(Some("\"a\"")), Voice::Cache, THEN), Outcome::NotModified);
    }

    #[test]
    fn if_none_match_beats_if_modified_since() {
        let request = headers(&[("if-none-match", "\"x\""), ("if-modified-since", LATER)]);
        assert_eq!(evaluate(&request, &stored(Some("\"a\"")), Voice::Cache, THEN), Outcome::Proceed);
    }

    #[test]
    fn if_modified_since_takes_all_three_forms_and_nothing_else() {
        let cases = [
            (AT, true),
            (LATER, true),
            ("Sun Nov  6 08:49:37 1994", true),
            (BEFORE, false),
            ("0", false),
            ("Sun, 06 Nov 1994 08:49:38 UTC", false),
        ];
        for (value, has_it) in cases {
            let outcome = evaluate(&headers(&[("if-modified-since", value)]), &stored(None), Voice::Cache, THEN);
            assert_eq!(outcome == Outcome::NotModified, has_it, "{value}");
        }
        let two = headers(&[("if-modified-since", AT), ("if-modified-since", AT)]);
        assert_eq!(evaluate(&two, &stored(None), Voice::Cache, THEN), Outcome::Proceed);
    }

    #[test]
    fn without_last_modified_the_date_is_compared() {
        let dated = Validators { etag: None, last_modified: None, date: Some(THEN) };
        assert_eq!(evaluate(&headers(&[("if-modified-since", AT)]), &dated, Voice::Cache, THEN), Outcome::NotModified);
        assert_eq!(evaluate(&headers(&[("if-modified-since", BEFORE)]), &dated, Voice::Cache, THEN), Outcome::Proceed);
    }

    #[test]
    fn if_match_and_if_unmodified_since_are_for_the_origin_only() {
        let cases = [
            ("if-match", "\"b\"", false),
            ("if-match", "W/\"a\"", false),
            ("if-match", "\"b\", \"a\"", true),
            ("if-match", "*", true),
            ("if-unmodified-since", BEFORE, false),
            ("if-unmodified-since", AT, true),
            ("if-unmodified-since", "x", true),
        ];
        for (name, value, holds) in cases {
            let request = headers(&[(name, value)]);
            let at_origin = evaluate(&request, &stored(Some("\"a\"")), Voice::Origin, THEN);
            assert_eq!(at_origin == Outcome::Proceed, holds, "{name}: {value}");
            assert_eq!(evaluate(&request, &stored(Some("\"a\"")), Voice::Cache, THEN), Outcome::Proceed);
        }
        let both = headers(&[("if-match", "\"b\""), ("if-none-match", "\"a\"")]);
        assert_eq!(evaluate(&both, &stored(Some("\"a\"")), Voice::Origin, THEN), Outcome::PreconditionFailed);
    }

    #[test]
    fn if_range_is_strong() {
        let cases = [
            ("\"a\"", true),
            ("W/\"a\"", false),
            ("\"b\"", false),
            ("a", false),
            ("*", false),
            (AT, true),
            (BEFORE, false),
            (LATER, false),
        ];
        for (value, applies) in cases {
            assert_eq!(range_applies(&headers(&[("if-range", value)]), &stored(Some("\"a\"")), THEN), applies, "{value}");
        }
        assert!(range_applies(&headers(&[]), &stored(None), THEN));
        assert!(!range_applies(&headers(&[("if-range", "W/\"a\"")]), &stored(Some("W/\"a\"")), THEN));
        let just_made = Validators { etag: None, last_modified: Some(THEN), date: Some(THEN) };
        assert!(!range_applies(&headers(&[("if-range", AT)]), &just_made, THEN));
    }
}
