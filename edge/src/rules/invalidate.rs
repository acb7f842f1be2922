//! What an unsafe request makes invalid: its own target, and what the answer names at the same origin.

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, Method, StatusCode};
use wire::{Host, Target};

/// The URI of a request, as the client sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// `http` or `https`.
    pub(crate) scheme: &'a str,
    /// Host and, where it has one, port.
    pub(crate) authority: &'a str,
    /// Path and query.
    pub(crate) target: &'a Target,
}

/// Returns what an answered request makes invalid (RFC 9111, 4.4): nothing where the method is safe or the answer an error.
///
/// Without any answer (`None`) the request may have been carried out, so that its own target is invalid.
pub(crate) fn targets(method: &Method, status: Option<StatusCode>, place: Place<'_>, answer: &HeaderMap) -> Vec<Target> {
    let is_done = status.is_none_or(|status| status.is_success() || status.is_redirection());
    if method.is_safe() || !is_done {
        return Vec::new();
    }
    let mut targets = vec![place.target.clone()];
    if status.is_some() {
        for uri in [LOCATION, CONTENT_LOCATION].iter().flat_map(|name| named(answer, name, place)) {
            if !targets.contains(&uri) {
                targets.push(uri);
            }
        }
    }
    targets
}

/// Tells whether a field of an answer names the request's own target.
pub(crate) fn names_target(place: Place<'_>, answer: &HeaderMap, name: &http::HeaderName) -> bool {
    let mut named = named(answer, name, place);
    matches!((named.next(), named.next()), (Some(target), None) if &target == place.target)
}

fn named<'a>(answer: &'a HeaderMap, name: &http::HeaderName, place: Place<'a>) -> impl Iterator<Item = Target> + use<'a> {
    answer.get_all(name).iter().filter_map(move |line| resolve(place, line.to_str().ok()?))
}

/// Resolves a reference against the request's URI; nothing where it leads to another origin (RFC 3986, 5.2; RFC 6454, 4).
fn resolve(place: Place<'_>, reference: &str) -> Option<Target> {
    let reference = reference.trim_matches([' ', '\t']).split('#').next()?;
    if let Some(rest) = reference.strip_prefix("//") {
        return at_same_origin(place, place.scheme, rest);
    }
    if let Some((scheme, rest)) = scheme_of(reference) {
        return at_same_origin(place, scheme, rest.strip_prefix("//")?);
    }
    let path = place.target.path();
    let text = match reference.chars().next() {
        None => return Some(place.target.clone()),
        Some('/') => reference.to_owned(),
        Some('?') => format!("{path}{reference}"),
        Some(_) => format!("{}/{reference}", path.rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    text.parse().ok()
}

/// A colon makes a scheme of what is before it, unless that has a slash or a query (RFC 3986, 4.1).
fn scheme_of(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then_some((scheme, rest))
}

fn at_same_origin(place: Place<'_>, scheme: &str, rest: &str) -> Option<Target> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    let named = origin(scheme, authority)?;
    let asked = origin(scheme, place.authority)?;
    // Of the port that the client asked at, the upstream knows nothing: it is told the host alone.
    let told = origin(scheme, asked.0.as_str())?;
    if !scheme.eq_ignore_ascii_case(place.scheme) || (named != asked && named != told) {
        return None;
    }
    if path.starts_with('/') { path.parse().ok() } else { format!("/{path}").parse().ok() }
}

/// Host and port, the scheme's own port where none is named; nothing where there is userinfo.
fn origin(scheme: &str, authority: &str) -> Option<(Host, u16)> {
    let authority = authority.strip_suffix(':').unwrap_or(authority);
    let host = Host::of_authority(authority).ok()?;
    let default = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
    let port = match authority.rsplit_once(':') {
        Some((_, port)) if !port.contains(']') => port.parse().ok()?,
        _ => default,
    };
    Some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;

    fn invalid(method: &str, status: Option<u16>, lines: &[(&str, &str)]) -> Vec<String> {
        let target: Target = "/a/b?c=1".parse().unwrap();
        let place = Place { scheme: "http", authority: "Example.test:8081", target: &target };
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let status = status.map(|status| StatusCode::from_u16(status).unwrap());
        targets(&method, status, place, &headers(lines)).iter().map(ToString::to_string).collect()
    }

    fn by_location(location: &str) -> Option<String> {
        invalid("POST", Some(201), &[("location", location)]).get(1).cloned()
    }

    #[test]
    fn an_unsafe_method_that_went_well_invalidates_its_target() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "FOO", "get"] {
            for status in [200, 201, 204, 299, 301, 303, 399] {
                assert_eq!(invalid(method, Some(status), &[]), ["/a/b?c=1"], "{method} {status}");
            }
            for status in [400, 404, 500, 503, 599] {
                assert_eq!(invalid(method, Some(status), &[]), [""; 0], "{method} {status}");
            }
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert_eq!(invalid(method, Some(200), &[("location", "/x")]), [""; 0], "{method}");
            assert_eq!(invalid(method, None, &[]), [""; 0], "{method}");
        }
    }

    #[test]
    fn no_answer_at_all_invalidates_the_target() {
        assert_eq!(invalid("POST", None, &[]), ["/a/b?c=1"]);
    }

    #[test]
    fn what_the_answer_names_is_resolved_against_the_request() {
        let cases = [
            ("/x", "/x"),
            ("x/../y?z#f", "/a/y?z"),
            ("../x", "/x"),
            ("?d", "/a/b?d"),
            ("//example.TEST:8081/x", "/x"),
            ("HTTP://example.test:8081/x", "/x"),
            ("http://example.test:8081", "/"),
            // The upstream knows no port.
            ("http://example.test/x", "/x"),
            ("//example.test/x", "/x"),
            ("http://example.test:8081?q", "/?q"),
            ("./a:b", "/a/a:b"),
            ("/x%2dy", "/x-y"),
        ];
        for (location, target) in cases {
            assert_eq!(by_location(location).as_deref(), Some(target), "{location}");
        }
    }

    #[test]
    fn another_origin_stays_as_it_is() {
        let others = [
            "https://example.test:8081/x",
            "http://example.test:8082/x",
            "http://other.test/x",
            "http://other.test:8081/x",
            "http://user@example.test:8081/x",
            "//example.test:443/x",
            "mailto:x",
            "http:/x",
            "/bad%zz",
            "",
        ];
        for location in others {
            assert_eq!(by_location(location), None, "{location}");
        }
    }

    #[test]
    fn location_and_content_location_count_once_each() {
        let lines = [("content-location", "/x"), ("location", "/y"), ("location", "/x")];
        assert_eq!(invalid("PUT", Some(200), &lines), ["/a/b?c=1", "/y", "/x"]);
    }

    #[test]
    fn the_port_of_the_scheme_need_not_be_named() {
        assert_eq!(origin("http", "a"), origin("http", "A:80"));
        assert_eq!(origin("https", "a:"), origin("https", "a:443"));
        assert_eq!(origin("http", "[::1]"), origin("http", "[::1]:80"));
        assert_ne!(origin("http", "a"), origin("http", "a:443"));
        assert_eq!(origin("http", "u@a"), None);
    }
}
