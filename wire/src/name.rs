//! Checked names: what people call sites, regions, nodes and tags. A name that exists is well formed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name that breaks its rule, with the rule.
#[derive(Debug, thiserror::Error)]
#[error("{kind} `{text}` is not allowed: {rule}")]
pub struct BadName {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

const NAME_RULE: &str = "1 to 63 of a-z, 0-9, `-`, `_` and `.`, beginning with a letter or digit";
const TAG_RULE: &str = "1 to 1024 visible ASCII characters";

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && (bytes[0].is_ascii_lowercase() || bytes[0].is_ascii_digit())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(b))
}

fn is_tag(text: &str) -> bool {
    (1..=1024).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $kind:literal, $check:ident, $rule:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;

            fn try_from(text: String) -> Result<Self, BadName> {
                if $check(&text) {
                    Ok(Self(text))
                } else {
                    Err(BadName { kind: $kind, text: text.chars().take(80).collect(), rule: $rule })
                }
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    )*};
}

names! {
    /// A hosted static site.
    SiteName = "site name", is_name, NAME_RULE;
    /// A movable name of a site's version, such as `production`.
    Alias = "alias", is_name, NAME_RULE;
    /// A tenant that owns sites and routes; tags are matched within it.
    Owner = "owner", is_name, NAME_RULE;
    /// A place with edges.
    RegionName = "region name", is_name, NAME_RULE;
    /// One edge or DNS node.
    NodeName = "node name", is_name, NAME_RULE;
    /// A gateway rule.
    RouteName = "route name", is_name, NAME_RULE;
    /// A user's own HTTP service behind a route.
    UpstreamName = "upstream name", is_name, NAME_RULE;
    /// A surrogate key on a cached response.
    Tag = "tag", is_tag, TAG_RULE;
}

impl Default for Owner {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl Alias {
    /// Returns the alias whose version a site's hosts serve.
    #[must_use]
    pub fn production() -> Self {
        Self("production".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_climb_or_confuse_are_refused() {
        for good in ["www", "fra-1", "a", "0x", "docs.example", &"a".repeat(63)] {
            assert!(good.parse::<SiteName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "_a", "A", "a/b", "a b", "ä", "a\0", &"a".repeat(64)] {
            assert!(bad.parse::<SiteName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_are_visible_ascii() {
        for good in ["product-42", "a,b", "x:y/z?", &"t".repeat(1024)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\n", "ü", &"t".repeat(1025)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_name_says_its_rule() {
        let said = "Docs".parse::<SiteName>().unwrap_err().to_string();
        assert!(said.contains("site name `Docs`") && said.contains("a-z"), "{said}");
    }
}
