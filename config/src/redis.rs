//! How a Redis (or Valkey) is reached: one server or a cluster, with or without TLS; its password stands elsewhere.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::SecretRef;
use crate::section::Section;

/// Where a Redis is, and what it takes to get in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAddress {
    /// The key of the configuration that names it, for whoever has to mend it.
    pub key: String,
    /// Its servers; of a cluster any of them.
    pub urls: Vec<RedisUrl>,
    /// Whether it is a cluster.
    pub cluster: bool,
    /// The user, where it is not the default one.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<SecretRef>,
    /// The certificates that are trusted for it; without them those of the system.
    pub ca: Option<SecretRef>,
}

/// `redis://host:port`, or `rediss://` for TLS; `/N` behind it is a database.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Whether it is reached by TLS.
    pub tls: bool,
    /// The host's name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The number of the database.
    pub database: u8,
}

/// The port that a Redis listens on, unless it was told otherwise.
const PORT: u16 = 6379;

const EXPECTED: &str = "a URL such as \"redis://127.0.0.1:6379\" or \"rediss://...\", a list of them for a cluster, or \
                        { url = \"...\", user = \"...\", password = \"file:PATH\", ca = \"file:PATH\", cluster = true }";

impl RedisAddress {
    /// Reads the address under `name`, where there is one; `or` is what else may stand there. `own` reads the keys that a
    /// table has beside those of an address, and is called for every address that is no table, too.
    pub(crate) fn read<T>(
        parent: &Section<'_>,
        name: &'static str,
        or: &str,
        own: impl FnOnce(Option<&Section<'_>>) -> T,
    ) -> Option<(Self, T)> {
        if !parent.has(name) {
            return None;
        }
        if !parent.is_table(name) {
            let urls: Vec<RedisUrl> = parent.list(name, &format!("{or}{EXPECTED}"));
            let cluster = urls.len() > 1;
            let address = Self { key: parent.key(name), urls, cluster, user: None, password: None, ca: None };
            return address.has_one_kind(parent, name).then(|| (address, own(None)));
        }
        let section = parent.table(name)?;
        let urls: Vec<RedisUrl> = section.required_list("url", "a URL such as \"redis://127.0.0.1:6379\"");
        let cluster = section.bool_or("cluster", urls.len() > 1);
        if !cluster && urls.len() > 1 {
            section.complain("cluster", "several servers are a cluster");
        }
        let (user, password) = (section.parsed::<String>("user", "a name"), section.secret("password"));
        if user.is_some() && !section.has("password") {
            section.complain("password", "is missing; expected file:PATH or env:NAME");
        }
        let address = Self { key: parent.key(name), urls, cluster, user, password, ca: section.secret("ca") };
        let own = own(Some(&section));
        address.has_one_kind(&section, "url").then_some((address, own))
    }

    /// Complains where TLS is asked for by some of a cluster's URLs, or a database, of which a cluster has only one.
    fn has_one_kind(&self, section: &Section<'_>, name: &str) -> bool {
        let Some(first) = self.urls.first() else { return false };
        if self.urls.iter().any(|url| url.tls != first.tls) {
            section.complain(name, "expected either redis:// or rediss:// for all servers of a cluster");
        }
        if self.cluster && self.urls.iter().any(|url| url.database > 0) {
            section.complain(name, "a cluster has no other database than 0");
        }
        true
    }

    /// Returns the same with secrets that stand beside a file in `folder`: what the journal keeps names them relative to
    /// the file of each node.
    #[must_use]
    pub fn within(&self, folder: &Path) -> Self {
        let within = |secret: &Option<SecretRef>| secret.as_ref().map(|secret| secret.within(folder));
        Self { password: within(&self.password), ca: within(&self.ca), ..self.clone() }
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self.urls.iter().map(RedisUrl::to_string).collect();
        f.write_str(&urls.join(", "))
    }
}

impl FromStr for RedisUrl {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (tls, rest) = match (text.strip_prefix("redis://"), text.strip_prefix("rediss://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(()),
        };
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = if database.is_empty() { 0 } else { database.parse().map_err(|_| ())? };
        wire::Host::of_authority(authority).map_err(|_| ())?;
        let (host, port) = split_port(authority)?;
        Ok(Self { tls, host: host.trim_start_matches('[').trim_end_matches(']').to_owned(), port, database })
    }
}

fn split_port(authority: &str) -> Result<(&str, u16), ()> {
    match authority.rsplit_once(':') {
        // The last part of an IPv6 address is no port.
        Some((host, port)) if !port.contains(']') => Ok((host, port.parse().map_err(|_| ())?)),
        _ => Ok((authority, PORT)),
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = (if self.tls { "rediss" } else { "redis" }, &self.host, self.port);
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{host}{close}:{port}")?;
        if self.database > 0 { write!(f, "/{}", self.database) } else { Ok(()) }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_shown_with_its_port() {
        for (text, shown) in [
            ("redis://127.0.0.1", "redis://127.0.0.1:6379"),
            ("redis://redis.fra:6380", "redis://redis.fra:6380"),
            ("rediss://redis.fra/", "rediss://redis.fra:6379"),
            ("redis://h:1/15", "redis://h:1/15"),
            ("redis://[::1]", "redis://[::1]:6379"),
            ("redis://[::1]:7", "redis://[::1]:7"),
        ] {
            let url = text.parse::<RedisUrl>().unwrap_or_else(|()| panic!("{text}"));
            assert_eq!(url.to_string(), shown);
        }
        assert_eq!("redis://[::1]:7".parse::<RedisUrl>().unwrap().host, "::1");
    }

    #[test]
    fn what_is_no_url_of_a_redis_is_refused() {
        for text in
            ["", "redis://", "http://h", "redis://h:x", "redis://h:70000", "redis://h/a", "redis://h/256", "redis://u:p@h", "redis://h/1/2"]
        {
            assert!(text.parse::<RedisUrl>().is_err(), "{text}");
        }
    }
}
