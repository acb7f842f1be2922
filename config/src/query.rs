//! Which query parameters of a request count. What is left of the query makes the key AND goes upstream, so
//! that two requests with equal keys are still the same request.

use std::borrow::Cow;
use std::str::FromStr;

use wire::Target;

use crate::choice::{Choice, all_parsed};
use crate::section::Section;

/// What a route does with the query of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryPolicy {
    /// Which parameters count.
    pub choice: QueryChoice,
    /// Whether their order does not count: they are sorted by name, then by value.
    pub sort: bool,
}

/// Which parameters count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QueryChoice {
    /// All of them.
    #[default]
    All,
    /// None: there is no query.
    None,
    /// Those with such a name.
    Keep(Vec<ParameterName>),
    /// Those without such a name.
    Drop(Vec<ParameterName>),
}

/// A parameter's name, or with a `*` behind it the beginning of names: `page`, `utm_*`. It is spelt as in a
/// canonical target and compared byte by byte: decoding could make one name of two that a server tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterName {
    stem: String,
    is_prefix: bool,
}

const EXPECTED: &str =
    "\"all\", \"none\", { keep = [\"page\", \"utm_*\"] } or { drop = [\"utm_*\"] }, with names as they are spelt in URLs";

impl QueryPolicy {
    pub(crate) fn read(section: &Section<'_>) -> Self {
        let choice = section.either("query", EXPECTED, QueryChoice::All, "\"all\"", |choice| match choice {
            Choice::Word("all") => Some(QueryChoice::All),
            Choice::Word("none") => Some(QueryChoice::None),
            Choice::With("keep", names) => all_parsed(names).map(QueryChoice::Keep),
            Choice::With("drop", names) => all_parsed(names).map(QueryChoice::Drop),
            _ => None,
        });
        Self { choice, sort: section.bool_or("sort_query", false) }
    }

    /// Returns what counts of a canonical query, given without its `?`; `None` is no query, and no `?` either.
    ///
    /// Parameters stand between `&`s, each with its name before the first `=`. Unless all is kept as it is,
    /// an empty one (`a&&b`) does not count.
    #[must_use]
    pub fn apply<'q>(&self, query: &'q str) -> Option<Cow<'q, str>> {
        if self.choice == QueryChoice::All && !self.sort {
            return Some(Cow::Borrowed(query));
        }
        let mut counting: Vec<&'q str> = query.split('&').filter(|parameter| self.choice.counts(parameter)).collect();
        if self.sort {
            counting.sort_by_key(|&parameter| name_and_value(parameter));
        }
        (!counting.is_empty()).then(|| Cow::Owned(counting.join("&")))
    }
}

impl QueryChoice {
    fn counts(&self, parameter: &str) -> bool {
        let is_named = |names: &[ParameterName]| names.iter().any(|name| name.matches(name_and_value(parameter).0));
        let is_chosen = match self {
            Self::All => true,
            Self::None => false,
            Self::Keep(names) => is_named(names),
            Self::Drop(names) => !is_named(names),
        };
        is_chosen && !parameter.is_empty()
    }
}

/// `a` has no value, which is not the empty one of `a=`.
fn name_and_value(parameter: &str) -> (&str, Option<&str>) {
    parameter.split_once('=').map_or((parameter, None), |(name, value)| (name, Some(value)))
}

impl ParameterName {
    fn matches(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&self.stem) } else { name == self.stem }
    }
}

impl FromStr for ParameterName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let stem = text.strip_suffix('*').unwrap_or(text);
        let target: Target = format!("/?{stem}").parse().map_err(|_| ())?;
        let is_canonical = target.query() == Some(stem);
        if stem.is_empty() || stem.contains(['*', '&', '=']) || !is_canonical {
            return Err(());
        }
        Ok(Self { stem: stem.to_owned(), is_prefix: stem.len() < text.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<ParameterName> {
        all_parsed(names).unwrap()
    }

    #[test]
    fn a_query_is_what_counts_of_it() {
        let keep = || QueryChoice::Keep(names(&["page", "f[*", "%C3%A9"]));
        let drop = || QueryChoice::Drop(names(&["utm_*", "fbclid"]));
        let cases = [
            (QueryChoice::All, false, "b=2&&a=1", Some("b=2&&a=1")),
            (QueryChoice::All, false, "", Some("")),
            (QueryChoice::All, true, "b=2&a=1&a&a=&b=1", Some("a&a=&a=1&b=1&b=2")),
            (QueryChoice::All, true, "&b&&a&", Some("a&b")),
            (QueryChoice::All, true, "&", None),
            (QueryChoice::None, false, "a=1", None),
            (keep(), false, "x=1&page=2&pages=3&page=1", Some("page=2&page=1")),
            (keep(), false, "f[b]=1&%C3%A9=2&f%5Bb%5D=3&f=4", Some("f[b]=1&%C3%A9=2")),
            (keep(), false, "page&Page=1&page=a=b", Some("page&page=a=b")),
            (keep(), false, "=page&x=page", None),
            (keep(), true, "page=2&f[a]=1&page=10", Some("f[a]=1&page=10&page=2")),
            (drop(), false, "b=2&utm_source=x&a=1&fbclid=y&utm_", Some("b=2&a=1")),
            (drop(), false, "fbclid2=1&utm=2&=3", Some("fbclid2=1&utm=2&=3")),
            (drop(), false, "utm_a=1&&fbclid", None),
            (drop(), true, "b=2&utm_a=1&a=1", Some("a=1&b=2")),
        ];
        for (choice, sort, given, left) in cases {
            let policy = QueryPolicy { choice, sort };
            assert_eq!(policy.apply(given).as_deref(), left, "{given} by {policy:?}");
        }
    }

    #[test]
    fn a_parameters_name_is_spelt_as_in_a_canonical_target() {
        for good in ["page", "utm_*", "f[]", "%C3%A9", "a?b"] {
            assert!(good.parse::<ParameterName>().is_ok(), "{good}");
        }
        for bad in ["", "*", "a*b", "**", "a&b", "a=b", "é", "a b", "%c3%a9", "%41", "a%4*", "#"] {
            assert!(bad.parse::<ParameterName>().is_err(), "{bad}");
        }
    }
}
