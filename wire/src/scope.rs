//! What a purge takes away: a URL, a tag, a prefix, a host, or everything of an owner.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Host, Tag, Target};

/// Whether purged entries are gone or merely stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Never to be served again.
    #[default]
    Hard,
    /// Stale from now on: the stale modes of a route may still use them.
    Soft,
}

/// One URL without its scheme: every variant, coding and slice of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UrlScope {
    /// The host, without port.
    pub host: Host,
    /// The canonical path and query.
    pub target: Target,
}

/// Every URL of one host that begins with a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrefixScope {
    /// The host, without port.
    pub host: Host,
    /// The canonical beginning, compared character by character.
    pub path: Target,
}

/// What one purge event takes away, with hosts and URLs already resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One URL.
    Url(UrlScope),
    /// All entries with a tag, within the event's owner.
    Tag(Tag),
    /// All URLs with a beginning.
    Prefix(PrefixScope),
    /// All URLs of a host.
    Host(Host),
    /// All entries of the event's owner.
    All,
    /// A scope from a newer version: taken as everything, for all owners.
    Unknown(Value),
}

/// Text that is no purge URL or prefix.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not {expected}: {why}")]
pub struct BadScope {
    text: String,
    expected: &'static str,
    why: String,
}

fn split(text: &str, expected: &'static str, must_have_path: bool) -> Result<(Host, Target), BadScope> {
    let bad = |why: String| BadScope { text: text.chars().take(200).collect(), expected, why };
    let rest = match text.split_once("://") {
        Some(("http" | "https", rest)) => rest,
        Some((scheme, _)) if !scheme.contains(['/', '?']) => return Err(bad(format!("the scheme `{scheme}` is not http or https"))),
        _ => text,
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let host = Host::of_authority(authority).map_err(|error| bad(error.to_string()))?;
    let target = match target {
        "" if must_have_path => return Err(bad("at least the slash after the host is needed".to_owned())),
        "" => "/".to_owned(),
        query if query.starts_with('?') => format!("/{query}"),
        target => target.to_owned(),
    };
    let target = target.parse().map_err(|error: crate::BadTarget| bad(error.to_string()))?;
    Ok((host, target))
}

impl FromStr for UrlScope {
    type Err = BadScope;

    /// Reads `https://host/path?query`, with `http://` or no scheme, with or without a port.
    fn from_str(text: &str) -> Result<Self, BadScope> {
        split(text, "a URL (https://host/path?query)", false).map(|(host, target)| Self { host, target })
    }
}

impl FromStr for PrefixScope {
    type Err = BadScope;

    /// Reads the same forms, with at least the slash after the host.
    fn from_str(text: &str) -> Result<Self, BadScope> {
        split(text, "a prefix (host/path)", true).map(|(host, path)| Self { host, path })
    }
}

impl fmt::Display for UrlScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.target)
    }
}

impl fmt::Display for PrefixScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(f, "url {url}"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::Prefix(prefix) => write!(f, "prefix {prefix}"),
            Self::Host(host) => write!(f, "host {host}"),
            Self::All => f.write_str("all"),
            Self::Unknown(_) => f.write_str("a scope of a newer version (everything)"),
        }
    }
}

impl Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let one = |key: &str, value: Value| Value::Object(Map::from_iter([(key.to_owned(), value)]));
        match self {
            Self::Url(url) => one("url", url.to_string().into()),
            Self::Tag(tag) => one("tag", tag.as_str().into()),
            Self::Prefix(prefix) => one("prefix", prefix.to_string().into()),
            Self::Host(host) => one("host", host.as_str().into()),
            Self::All => one("all", true.into()),
            Self::Unknown(value) => value.clone(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(known_scope(&value).unwrap_or(Self::Unknown(value)))
    }
}

/// What we don't understand must not be lost, and must not leave a stale entry behind.
fn known_scope(value: &Value) -> Option<Scope> {
    let fields = value.as_object().filter(|fields| fields.len() == 1)?;
    let (key, inner) = fields.iter().next()?;
    if key == "all" {
        return (inner == &Value::Bool(true)).then_some(Scope::All);
    }
    let text = inner.as_str()?;
    match key.as_str() {
        "url" => text.parse().ok().map(Scope::Url),
        "tag" => text.parse().ok().map(Scope::Tag),
        "prefix" => text.parse().ok().map(Scope::Prefix),
        "host" => text.parse().ok().map(Scope::Host),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_url_is_the_same_with_any_scheme_and_port() {
        for text in ["https://Docs.example/a/../b?c", "http://docs.example:8081/b?c", "docs.example/b?c", "docs.example:443/b?c"] {
            assert_eq!(text.parse::<UrlScope>().unwrap().to_string(), "docs.example/b?c", "{text}");
        }
        assert_eq!("localhost:8081".parse::<UrlScope>().unwrap().to_string(), "localhost/");
        assert_eq!("h?q".parse::<UrlScope>().unwrap().to_string(), "h/?q");
        assert_eq!("h/?u=http://x/".parse::<UrlScope>().unwrap().to_string(), "h/?u=http://x/");
    }

    #[test]
    fn a_purge_url_that_names_nothing_is_refused_with_the_reason() {
        for (bad, part) in [("/a", "host"), ("ftp://h/", "ftp"), ("h/%zz", "percent"), ("", "host"), ("u@h/", "host")] {
            let said = bad.parse::<UrlScope>().unwrap_err().to_string();
            assert!(said.contains(part), "{bad}: {said}");
        }
        assert!("h".parse::<PrefixScope>().is_err());
        assert_eq!("h/".parse::<PrefixScope>().unwrap().path.as_str(), "/");
    }

    #[test]
    fn a_scope_survives_json_and_an_unknown_one_is_kept_as_it_was() {
        for json in [r#"{"url":"h/a?b"}"#, r#"{"tag":"t"}"#, r#"{"prefix":"h/a"}"#, r#"{"host":"h"}"#, r#"{"all":true}"#] {
            let scope: Scope = serde_json::from_str(json).unwrap();
            assert!(!matches!(scope, Scope::Unknown(_)), "{json}");
            assert_eq!(serde_json::to_string(&scope).unwrap(), json);
        }
        for json in [r#"{"regex":".*"}"#, r#"{"host":"h","tag":"t"}"#, r#""x""#, r#"{"all":false}"#] {
            let scope: Scope = serde_json::from_str(json).unwrap();
            assert!(matches!(scope, Scope::Unknown(_)), "{json}");
            assert_eq!(serde_json::to_string(&scope).unwrap(), json);
        }
    }
}
