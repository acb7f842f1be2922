//! Which cookies of a request reach the upstream, and which of them tell variants apart.

use std::fmt;
use std::str::FromStr;

use crate::choice::{Choice, all_parsed};
use crate::section::Section;

/// Which cookies of a request reach the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CookiePolicy {
    /// All of them.
    #[default]
    Pass,
    /// None: the request goes without Cookie.
    Strip,
    /// Those with these names.
    Keep(Vec<CookieName>),
}

/// A cookie's name (RFC 6265, 4.1.1), in its case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieName(String);

const NAME: &str = "a cookie's whole name such as \"session\"";

impl CookiePolicy {
    pub(crate) fn read(section: &Section<'_>) -> Self {
        let expected = "\"pass\", \"strip\" or { keep = [\"session\"] }, with whole names";
        section.either("cookies", expected, Self::Pass, "\"pass\"", |choice| match choice {
            Choice::Word("pass") => Some(Self::Pass),
            Choice::Word("strip") => Some(Self::Strip),
            Choice::With("keep", names) => all_parsed(names).map(Self::Keep),
            _ => None,
        })
    }

    /// Reads the cookies that tell variants apart. One that does not reach the upstream can't change its answer:
    /// it would only make copies.
    pub(crate) fn read_keys(&self, section: &Section<'_>) -> Vec<CookieName> {
        let names: Vec<CookieName> = section.list("key_cookies", NAME);
        for name in names.iter().filter(|name| !self.passes(name.as_str())) {
            section.complain("key_cookies", format!("`{name}` does not reach the upstream; see `cookies`"));
        }
        names
    }

    /// Tells whether a cookie of this name reaches the upstream.
    #[must_use]
    pub fn passes(&self, name: &str) -> bool {
        match self {
            Self::Pass => true,
            Self::Strip => false,
            Self::Keep(names) => names.iter().any(|kept| kept.as_str() == name),
        }
    }
}

impl CookieName {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CookieName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // A star would be a letter of the name, and is surely meant otherwise.
        let is_letter = |byte: u8| byte.is_ascii_graphic() && !b"=;,\"*".contains(&byte);
        if !text.is_empty() && text.bytes().all(is_letter) { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_pass_by_their_whole_name_and_its_case() {
        let keep = CookiePolicy::Keep(all_parsed(&["session", "lang"]).unwrap());
        for (policy, name, passes) in [
            (&CookiePolicy::Pass, "any", true),
            (&CookiePolicy::Strip, "any", false),
            (&keep, "session", true),
            (&keep, "Session", false),
            (&keep, "session2", false),
        ] {
            assert_eq!(policy.passes(name), passes, "{policy:?} {name}");
        }
        for bad in ["", "a b", "a=b", "a;", "é", "wp_*"] {
            assert!(bad.parse::<CookieName>().is_err(), "{bad}");
        }
    }
}
