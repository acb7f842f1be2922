//! A host as a cache key and a rule know it: lower case, no port (RFC 3986, 3.2.2; RFC 9110, 4.2.3).

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A host name or address, in lower case and without a port.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(String);

/// Text that is no host.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a host")]
pub struct BadHost(String);

impl Host {
    /// Returns the host as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads an authority, `host` or `host:port`, and drops the port.
    ///
    /// # Errors
    /// Where the host is empty or has a character that no host has (space, `@`, `/`, `?`), or where
    /// the port is not 1 to 65535.
    pub fn of_authority(text: &str) -> Result<Self, BadHost> {
        let bad = || BadHost(text.chars().take(300).collect());
        let (host, port) = match text.rfind(':') {
            Some(at) if !text[at..].contains(']') => (&text[..at], Some(&text[at + 1..])),
            _ => (text, None),
        };
        if let Some(port) = port {
            let valid = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && matches!(port.parse::<u16>(), Ok(1..));
            if !valid {
                return Err(bad());
            }
        }
        host.parse()
    }
}

fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    // A reg-name without percent escapes and sub-delims: what DNS and browsers send.
    (1..=255).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
        && text.split('.').rev().enumerate().all(|(i, label)| !label.is_empty() || i == 0)
        && text != "."
}

impl FromStr for Host {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, BadHost> {
        let lower = text.to_ascii_lowercase();
        if !is_host(&lower) {
            return Err(BadHost(text.chars().take(300).collect()));
        }
        // `example.test.` and `example.test` are one host (RFC 3986, 3.2.2).
        Ok(Self(lower.strip_suffix('.').map(str::to_owned).unwrap_or(lower)))
    }
}

impl TryFrom<String> for Host {
    type Error = BadHost;

    fn try_from(text: String) -> Result<Self, BadHost> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Which hosts a rule is for, the most specific one first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// This host alone.
    Exact(Host),
    /// `*.suffix`: every host below the suffix, at any depth; not the suffix itself.
    Below(Host),
    /// `*`: every host.
    Any,
}

impl HostPattern {
    /// Tells whether `host` is one of them.
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        match self {
            Self::Exact(own) => own == host,
            Self::Below(suffix) => host.0.strip_suffix(&suffix.0).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            Self::Any => true,
        }
    }

    /// Returns how specific the pattern is: a higher number wins where several match.
    #[must_use]
    pub fn specificity(&self) -> usize {
        match self {
            Self::Exact(_) => usize::MAX,
            Self::Below(suffix) => suffix.0.len() + 1,
            Self::Any => 0,
        }
    }
}

impl FromStr for HostPattern {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, BadHost> {
        match text.strip_prefix("*.") {
            _ if text == "*" => Ok(Self::Any),
            Some(suffix) => Ok(Self::Below(suffix.parse()?)),
            None => Ok(Self::Exact(text.parse()?)),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => write!(f, "{host}"),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_gives_its_host_in_lower_case_without_port() {
        let cases = [
            ("Example.TEST:8081", "example.test"),
            ("localhost", "localhost"),
            ("[::1]:80", "[::1]"),
            ("a.b.", "a.b"),
            ("127.0.0.1:1", "127.0.0.1"),
        ];
        for (text, host) in cases {
            assert_eq!(Host::of_authority(text).unwrap().as_str(), host, "{text}");
        }
    }

    #[test]
    fn an_authority_that_no_server_should_take_is_refused() {
        for bad in
            ["", ":80", "a b", "u@h", "h/", "h?", "h:", "h:0", "h:65536", "h:8a", "h:+1", "[::1", "[::g]", "a..b", ".", "h,i", "h:1:2", "ä"]
        {
            assert!(Host::of_authority(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_most_specific_pattern_matches_first() {
        let host: Host = "a.docs.example".parse().unwrap();
        let pattern = |text: &str| text.parse::<HostPattern>().unwrap();
        assert!(pattern("*.example").matches(&host) && pattern("*.docs.example").matches(&host) && pattern("*").matches(&host));
        assert!(!pattern("*.a.docs.example").matches(&host) && !pattern("*.ocs.example").matches(&host));
        let order = ["a.docs.example", "*.docs.example", "*.example", "*"].map(|p| pattern(p).specificity());
        assert!(order.is_sorted_by(|a, b| a > b));
    }
}
