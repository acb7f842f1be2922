//! Which field decides about storing: one that is meant for CDNs where it is well formed, else Cache-Control.
//!
//! A targeted field decides alone: Cache-Control and Expires then count for nothing, be they longer or
//! shorter (RFC 9213, 2.1 and 2.2).

use http::HeaderMap;

use super::dictionary::{self, Value};
use super::directives::{Argument, Directives};

/// The field that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `Atoll-CDN-Cache-Control`, for us alone.
    AtollCdn,
    /// `CDN-Cache-Control`, for every CDN (RFC 9213, 3.1).
    Cdn,
    /// `Surrogate-Control`, its predecessor.
    Surrogate,
    /// `Cache-Control`, or no field at all.
    Plain,
}

impl Source {
    /// The targeted fields, the nearest target first (RFC 9213, 2.2).
    const TARGETED: [Self; 3] = [Self::AtollCdn, Self::Cdn, Self::Surrogate];

    /// Returns the field's name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::AtollCdn => "atoll-cdn-cache-control",
            Self::Cdn => "cdn-cache-control",
            Self::Surrogate => "surrogate-control",
            Self::Plain => "cache-control",
        }
    }

    /// Tells whether the field was meant for caches such as this one.
    pub(crate) fn is_targeted(self) -> bool {
        self != Self::Plain
    }
}

/// Returns the directives that hold for this cache, and the field that they come from (RFC 9213, 2.2).
pub(crate) fn governing(headers: &HeaderMap) -> (Directives, Source) {
    let targeted = |source: Source| Some((read(headers, source)?, source));
    Source::TARGETED.into_iter().find_map(targeted).unwrap_or_else(|| (Directives::of(headers), Source::Plain))
}

/// Nothing where the field is absent, empty, malformed, or has a member of the wrong type.
fn read(headers: &HeaderMap, source: Source) -> Option<Directives> {
    let lines: Vec<_> = headers.get_all(source.as_str()).iter().map(|line| line.as_bytes()).collect();
    let members = dictionary::parse(&lines.join(b", ".as_slice()))?;
    if members.is_empty() {
        return None;
    }
    let mut directives = Directives::default();
    for (name, value) in &members {
        note(&mut directives, name, value)?;
    }
    Some(directives)
}

/// Maps a member to a directive by the type that the directive has (RFC 9213, 2.1); nothing where it does not fit.
fn note(directives: &mut Directives, name: &str, value: &Value) -> Option<()> {
    match (name, value) {
        ("max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error", Value::Integer(seconds)) => {
            directives.note(name, Argument::Text(seconds.to_string().as_bytes()));
        }
        ("no-cache" | "private", Value::Text(fields) | Value::Token(fields)) => {
            directives.note(name, Argument::Text(fields.as_bytes()));
        }
        (_, Value::Boolean(true)) if is_flag(name) => directives.note(name, Argument::None),
        (_, Value::Boolean(false)) if is_flag(name) => {}
        _ if is_known(name) => return None,
        _ => {}
    }
    Some(())
}

fn is_flag(name: &str) -> bool {
    matches!(
        name,
        "no-store"
            | "no-cache"
            | "private"
            | "public"
            | "must-revalidate"
            | "proxy-revalidate"
            | "must-understand"
            | "no-transform"
            | "immutable"
    )
}

fn is_known(name: &str) -> bool {
    is_flag(name) || matches!(name, "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rules::testing::headers;

    fn max_age(lines: &[(&str, &str)]) -> (Option<u64>, Source) {
        let (directives, source) = governing(&headers(lines));
        (directives.max_age.map(|age| age.as_secs()), source)
    }

    #[test]
    fn the_nearest_target_that_is_well_formed_decides_alone() {
        use Source::*;
        let (ours, cdn, old, all) = (
            ("atoll-cdn-cache-control", "max-age=1"),
            ("cdn-cache-control", "max-age=2"),
            ("surrogate-control", "max-age=3"),
            ("cache-control", "max-age=4, no-store"),
        );
        assert_eq!(max_age(&[all, old, cdn, ours]), (Some(1), AtollCdn));
        assert_eq!(max_age(&[all, old, cdn]), (Some(2), Cdn));
        assert_eq!(max_age(&[all, old]), (Some(3), Surrogate));
        assert_eq!(max_age(&[all]), (Some(4), Plain));
        assert_eq!(max_age(&[]), (None, Plain));
        assert!(!governing(&headers(&[all, cdn])).0.no_store);
        assert_eq!(max_age(&[("cdn-cache-control", "no-store"), all]), (None, Cdn));
    }

    #[test]
    fn a_field_that_is_broken_empty_or_of_the_wrong_type_is_ignored() {
        for value in [
            "",
            " ",
            "max-age",
            "max-age=\"2\"",
            "max-age=2.0",
            "max-age=a",
            "MAX-AGE=2",
            "max-age=2,",
            "no-store=1",
            "private=3",
            "max-age=2, no-store=\"x\"",
            "max-age=(2)",
        ] {
            let lines = [("cdn-cache-control", value), ("cache-control", "max-age=4")];
            assert_eq!(max_age(&lines), (Some(4), Source::Plain), "{value}");
        }
    }

    #[test]
    fn members_that_nobody_knows_and_parameters_do_no_harm() {
        let lines = [("cdn-cache-control", "x=(a b);c, max-age=2;d=e, no-cache=?0, y=1.5"), ("cdn-cache-control", "private=\"a, b\"")];
        let (directives, source) = governing(&headers(&lines));
        assert_eq!((directives.max_age, source), (Some(Duration::from_secs(2)), Source::Cdn));
        assert_eq!(directives.qualified_fields(), ["a", "b"]);
        assert!(!directives.is_no_cache());
    }

    #[test]
    fn a_negative_age_is_stale() {
        assert_eq!(max_age(&[("cdn-cache-control", "max-age=-5"), ("cache-control", "max-age=4")]), (Some(0), Source::Cdn));
    }
}
