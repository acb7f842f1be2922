//! Tokens: random secrets, known to the origin by their SHA-256, and what their bearers may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, NodeName, Owner, Role, SiteName};

/// A bearer token's secret: 256 random bits in hex. It is never printed by accident.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Writes 32 random bytes as a token.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(format!("atoll_{}", hex::encode(bytes)))
    }

    /// Takes a secret as somebody sent or stored it.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// Returns the secret itself, to send or to store.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns what the origin keeps of it.
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(•••)")
    }
}

/// One thing that a token's bearer may do; no name means any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Grant {
    /// Publish a site and move its aliases: `publish:SITE` or `publish:*`.
    Publish(Option<SiteName>),
    /// Purge what an owner has: `purge:OWNER` or `purge:*`.
    Purge(Option<Owner>),
    /// Change the network's configuration.
    Config,
    /// Speak for a follower: `follow:ROLE/NAME`, `follow:ROLE/*` or `follow:*`.
    Follow(Option<Role>, Option<NodeName>),
    /// Look at status, journal and configuration.
    Read,
    /// All of it, and issue tokens.
    Admin,
}

/// Text that is no grant.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a scope: publish:SITE, purge:OWNER, config, follow:ROLE/NAME, read or admin (`*` for any name)")]
pub struct BadGrant(String);

impl Grant {
    /// Tells whether holding `self` allows what `needed` names.
    #[must_use]
    pub fn covers(&self, needed: &Self) -> bool {
        fn within<T: PartialEq>(held: Option<&T>, needed: Option<&T>) -> bool {
            held.is_none() || held == needed
        }
        match (self, needed) {
            (Self::Admin, _) => true,
            (Self::Publish(held), Self::Publish(needed)) => within(held.as_ref(), needed.as_ref()),
            (Self::Purge(held), Self::Purge(needed)) => within(held.as_ref(), needed.as_ref()),
            (Self::Follow(role, name), Self::Follow(other_role, other_name)) => {
                within(role.as_ref(), other_role.as_ref()) && within(name.as_ref(), other_name.as_ref())
            }
            (Self::Config, Self::Config | Self::Read) | (Self::Read, Self::Read) => true,
            _ => false,
        }
    }
}

impl FromStr for Grant {
    type Err = BadGrant;

    fn from_str(text: &str) -> Result<Self, BadGrant> {
        let bad = || BadGrant(text.chars().take(120).collect());
        let (verb, name) = text.split_once(':').map_or((text, None), |(verb, name)| (verb, Some(name)));
        let named = || name.ok_or_else(bad);
        Ok(match verb {
            "publish" => Self::Publish(any_or(named()?).map_err(|()| bad())?),
            "purge" => Self::Purge(any_or(named()?).map_err(|()| bad())?),
            "follow" => match named()?.split_once('/') {
                None if name == Some("*") => Self::Follow(None, None),
                Some((role, node)) => Self::Follow(any_or(role).map_err(|()| bad())?, any_or(node).map_err(|()| bad())?),
                None => return Err(bad()),
            },
            "config" if name.is_none() => Self::Config,
            "read" if name.is_none() => Self::Read,
            "admin" if name.is_none() => Self::Admin,
            _ => return Err(bad()),
        })
    }
}

fn any_or<T: FromStr>(text: &str) -> Result<Option<T>, ()> {
    if text == "*" { Ok(None) } else { text.parse().map(Some).map_err(|_| ()) }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_any = |name: Option<&str>| name.unwrap_or("*").to_owned();
        match self {
            Self::Publish(site) => write!(f, "publish:{}", or_any(site.as_ref().map(SiteName::as_str))),
            Self::Purge(owner) => write!(f, "purge:{}", or_any(owner.as_ref().map(Owner::as_str))),
            Self::Follow(None, None) => f.write_str("follow:*"),
            Self::Follow(role, name) => {
                write!(f, "follow:{}/{}", or_any(role.as_ref().map(|r| r.as_str())), or_any(name.as_ref().map(NodeName::as_str)))
            }
            Self::Config => f.write_str("config"),
            Self::Read => f.write_str("read"),
            Self::Admin => f.write_str("admin"),
        }
    }
}

impl TryFrom<String> for Grant {
    type Error = BadGrant;

    fn try_from(text: String) -> Result<Self, BadGrant> {
        text.parse()
    }
}

impl From<Grant> for String {
    fn from(grant: Grant) -> Self {
        grant.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_survive_their_text() {
        for text in
            ["publish:docs", "publish:*", "purge:default", "config", "follow:edge/fra-1", "follow:dns/*", "follow:*", "read", "admin"]
        {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for bad in ["", "publish", "publish:", "publish:A", "admin:x", "follow:edge", "follow:moon/a", "root"] {
            assert!(bad.parse::<Grant>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_may_do_what_it_says_and_no_more() {
        let covers = |held: &str, needed: &str| held.parse::<Grant>().unwrap().covers(&needed.parse().unwrap());
        assert!(covers("publish:docs", "publish:docs") && covers("publish:*", "publish:docs") && covers("admin", "config"));
        assert!(covers("follow:*", "follow:edge/fra-1") && covers("config", "read"));
        for (held, needed) in [
            ("publish:docs", "publish:www"),
            ("publish:docs", "publish:*"),
            ("purge:a", "purge:*"),
            ("read", "config"),
            ("config", "admin"),
            ("follow:dns/*", "follow:edge/a"),
            ("publish:*", "read"),
        ] {
            assert!(!covers(held, needed), "{held} {needed}");
        }
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = Secret::from_bytes([5; 32]);
        assert!(!format!("{secret:?}").contains("0505"));
    }
}
