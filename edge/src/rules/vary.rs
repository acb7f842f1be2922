//! Which request fields pick a stored response, and whether a request picks the same as the one it was stored for.

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, VARY};
use http::{HeaderMap, HeaderName};

use super::{cookies, list};
use config::CookieName;

/// What a response's Vary says (RFC 9110, 12.5.5; RFC 9111, 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Variance {
    /// No later request is ever known to pick this response.
    Star,
    /// These request fields pick it, in the order of their names; none where Vary is absent.
    Fields(Vec<HeaderName>),
}

/// Reads Vary from all its lines; a member that is no field name can't be matched and counts as `*`.
pub(crate) fn of(headers: &HeaderMap) -> Variance {
    let mut fields = Vec::new();
    for member in headers.get_all(VARY).iter().flat_map(|line| list::tokens(line.as_bytes())) {
        match HeaderName::from_bytes(member) {
            Ok(name) if name.as_str() != "*" => fields.push(name),
            _ => return Variance::Star,
        }
    }
    fields.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    fields.dedup();
    Variance::Fields(fields)
}

/// What of one request picked a response: fields, each in its normal form, and cookies; nothing where one
/// was absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) fields: Vec<(HeaderName, Option<Vec<u8>>)>,
    pub(crate) cookies: Vec<(CookieName, Option<Vec<u8>>)>,
}

/// Returns what `request` says in these fields (RFC 9111, 4.1).
///
/// `request` is to be what the upstream was sent: a field that was stripped on the way picked nothing.
/// `cookies` are those that the route tells variants apart by.
pub(crate) fn selecting(fields: &[HeaderName], cookies: &[CookieName], request: &HeaderMap) -> Selection {
    let of = |name: &CookieName| cookies::value(request, name).map(<[u8]>::to_vec);
    Selection {
        fields: fields.iter().map(|name| (name.clone(), normal(name, request))).collect(),
        cookies: cookies.iter().map(|name| (name.clone(), of(name))).collect(),
    }
}

impl Selection {
    /// Tells whether `request` picks the response that was stored for this selection; absent matches absent only.
    pub(crate) fn matches(&self, request: &HeaderMap) -> bool {
        self.fields.iter().all(|(name, stored)| is_same(name, stored.as_deref(), request))
            && self.cookies.iter().all(|(name, stored)| cookies::value(request, name) == stored.as_deref())
    }
}

fn is_same(name: &HeaderName, stored: Option<&[u8]>, request: &HeaderMap) -> bool {
    let mut lines = request.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => stored.is_none(),
        // A normal form is its own normal form, so equal bytes need no work.
        (Some(line), None) if stored == Some(line.as_bytes()) => true,
        _ => stored.is_some() && normal(name, request).as_deref() == stored,
    }
}

/// One spelling for all values that mean the same, as far as the field's own meaning is known (RFC 9111, 4.1).
fn normal(name: &HeaderName, request: &HeaderMap) -> Option<Vec<u8>> {
    if !request.contains_key(name) {
        return None;
    }
    let lines: Vec<_> = request.get_all(name).iter().map(|line| line.as_bytes().trim_ascii()).collect();
    let combined = lines.join(b", ".as_slice()).trim_ascii().to_vec();
    if name == ACCEPT_ENCODING || name == ACCEPT_LANGUAGE {
        return Some(by_weight(&combined).unwrap_or(combined));
    }
    Some(combined)
}

/// The members in lower case, by falling weight and then by name; nothing where one is malformed.
///
/// Order among equal weights says nothing about codings (RFC 9110, 12.5.3), and nothing that a server may
/// be relied upon to heed about languages (12.5.4).
fn by_weight(combined: &[u8]) -> Option<Vec<u8>> {
    let mut members = Vec::new();
    for member in list::tokens(combined) {
        let (name, weight) = list::weighted(member)?;
        members.push((std::cmp::Reverse(weight), name.to_ascii_lowercase()));
    }
    members.sort_unstable();
    members.dedup();
    let spelled: Vec<_> = members.into_iter().map(|(weight, name)| spell(name, weight.0)).collect();
    Some(spelled.join(b",".as_slice()))
}

fn spell(mut name: Vec<u8>, weight: list::Weight) -> Vec<u8> {
    if weight < 1000 {
        let digits = format!("{weight:03}");
        let fraction = digits.trim_end_matches('0');
        name.extend_from_slice(if fraction.is_empty() { b";q=0".as_slice() } else { b";q=0.".as_slice() });
        name.extend_from_slice(fraction.as_bytes());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;

    fn fields(lines: &[(&str, &str)]) -> Vec<String> {
        match of(&headers(lines)) {
            Variance::Star => vec!["*".to_owned()],
            Variance::Fields(fields) => fields.iter().map(|name| name.as_str().to_owned()).collect(),
        }
    }

    #[test]
    fn a_star_anywhere_never_matches() {
        for value in ["*", "a, *", "*, a", ", *,", "a,*,b", "a b", "\"a, *\"", "a, \u{7}"] {
            let Ok(value) = http::HeaderValue::from_bytes(value.as_bytes()) else { continue };
            assert_eq!(fields(&[("vary", "x"), ("vary", value.to_str().unwrap())]), ["*"], "{value:?}");
        }
    }

    #[test]
    fn several_lines_name_one_set_of_fields() {
        assert_eq!(fields(&[]), [""; 0]);
        assert_eq!(fields(&[("vary", "Foo, bar"), ("vary", " , BAR,baz,")]), ["bar", "baz", "foo"]);
    }

    #[test]
    fn requests_that_mean_the_same_pick_the_same() {
        let cases: [(&str, &[&str], &[&str]); 10] = [
            ("foo", &["1"], &["1"]),
            ("foo", &["1, 2"], &["1", "2"]),
            ("foo", &[], &[]),
            ("accept-encoding", &["gzip, br"], &["BR,gzip"]),
            ("accept-encoding", &["gzip;q=1.0, br;q=0.50"], &["br; q=0.5", "gzip"]),
            ("accept-encoding", &["gzip;q=0"], &["gzip ;Q=0.000"]),
            ("accept-language", &["en, de;q=0.5"], &["EN ,  de;q=0.5"]),
            ("accept-language", &["en, de"], &["de, en"]),
            ("accept-language", &["en-GB"], &["en-gb"]),
            ("accept-encoding", &["gzip;;"], &["gzip;;"]),
        ];
        for (name, stored, asked) in cases {
            let lines = |values: &[&'static str]| headers(&values.iter().map(|value| (name, *value)).collect::<Vec<_>>());
            let names = [HeaderName::from_static(name)];
            let selection = selecting(&names, &[], &lines(stored));
            assert!(selection.matches(&lines(asked)), "{name} {stored:?} {asked:?}");
            assert!(selecting(&names, &[], &lines(asked)).matches(&lines(stored)), "{name} {stored:?} {asked:?}");
        }
    }

    #[test]
    fn requests_that_differ_pick_different_responses() {
        let cases: [(&str, &[&str], &[&str]); 8] = [
            ("foo", &["1"], &["2"]),
            ("foo", &["1"], &[]),
            ("foo", &[], &["1"]),
            ("foo", &[], &[""]),
            ("foo", &["a"], &["A"]),
            ("foo", &["1"], &["1", "1"]),
            ("accept-language", &["en, de;q=0.5"], &["de, en;q=0.5"]),
            ("accept-encoding", &["gzip"], &["gzip;q=0"]),
        ];
        for (name, stored, asked) in cases {
            let lines = |values: &[&'static str]| headers(&values.iter().map(|value| (name, *value)).collect::<Vec<_>>());
            assert!(
                !selecting(&[HeaderName::from_static(name)], &[], &lines(stored)).matches(&lines(asked)),
                "{name} {stored:?} {asked:?}"
            );
        }
    }

    #[test]
    fn a_normal_form_is_its_own_normal_form() {
        for value in ["gzip;q=0.5, br, *;q=0", "x;q=0.001", "", "en;q=2"] {
            let once = normal(&ACCEPT_ENCODING, &headers(&[("accept-encoding", value)])).unwrap();
            let again = normal(&ACCEPT_ENCODING, &headers(&[("accept-encoding", std::str::from_utf8(&once).unwrap())])).unwrap();
            assert_eq!(once, again, "{value}");
        }
    }
}
