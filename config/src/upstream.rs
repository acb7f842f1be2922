//! A service behind routes: where it is, how long it may take, and how much it takes and gives in one head.

use std::time::Duration;

use wire::UpstreamName;

use crate::ByteSize;
use crate::section::Section;

/// A user's own service.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name.
    pub name: UpstreamName,
    /// `http://host:port`, taken in turn.
    pub servers: Vec<String>,
    /// The Host that it is sent, maybe with a port; without one the request's goes through, without its port.
    pub host: Option<String>,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long the head of an answer may take, and how long a body may stand still.
    pub timeout: Duration,
    /// The largest head of an answer, in bytes; a larger one is a failure of the upstream.
    pub max_head: ByteSize,
    /// The largest field that it accepts, name and value, in bytes: the edge refuses what is larger (RFC 6585, 5).
    pub max_field: ByteSize,
    /// The largest head that it accepts, in bytes: the edge refuses what is larger, so that the upstream's own
    /// error is never provoked, and never stored for others.
    pub max_request_head: ByteSize,
}

impl Upstream {
    pub(crate) fn read(name: &UpstreamName, section: &Section<'_>) -> Self {
        let servers: Vec<ServerUrl> = section.required_list("servers", "a URL such as \"http://127.0.0.1:9000\", without a path");
        Self {
            name: name.clone(),
            servers: servers.into_iter().map(|server| server.0).collect(),
            host: section.parsed::<Authority>("host", "a host, with or without a port").map(|authority| authority.0),
            connect_timeout: section.duration_or("connect_timeout", Duration::from_secs(3)),
            timeout: section.duration_or("timeout", Duration::from_secs(30)),
            max_head: section.bytes_within("max_head", ByteSize(64 << 10), &(ByteSize(8 << 10)..=ByteSize(256 << 10))),
            max_field: section.bytes_within("max_field", FIELD_MOST, &(HEAD_LEAST..=FIELD_MOST)),
            max_request_head: section.bytes_within("max_request_head", HEAD_MOST, &(HEAD_LEAST..=HEAD_MOST)),
        }
    }
}

/// What the edge itself accepts of a client (SPECIFICATION.md); an upstream can only ask for less.
const FIELD_MOST: ByteSize = ByteSize(8 << 10);
const HEAD_MOST: ByteSize = ByteSize(16 << 10);

/// With less than this, an ordinary browser could not ask for anything.
const HEAD_LEAST: ByteSize = ByteSize(1 << 10);

/// A host, and its port where it has one.
struct Authority(String);

impl std::str::FromStr for Authority {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let host = wire::Host::of_authority(text).map_err(|_| ())?;
        let port = text.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.contains(']'));
        Ok(Self(port.map_or_else(|| host.to_string(), |port| format!("{host}:{port}"))))
    }
}

/// `http://host:port`, the only thing that a server of an upstream may be.
struct ServerUrl(String);

impl std::str::FromStr for ServerUrl {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let rest = text.strip_prefix("http://").ok_or(())?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        wire::Host::of_authority(authority).map_err(|_| ())?;
        Ok(Self(format!("http://{authority}")))
    }
}

#[cfg(test)]
mod tests {
    use crate::Network;

    #[test]
    fn an_upstreams_own_host_may_have_a_port_and_is_in_lower_case() {
        let read = |host: &str| {
            let network =
                Network::from_json(&serde_json::json!({ "upstreams": { "u": { "servers": ["http://127.0.0.1:1"], "host": host } } }));
            network.ok().and_then(|network| network.upstreams.into_values().next()?.host)
        };
        for (text, host) in
            [("API.internal", "api.internal"), ("Api.test:8443", "api.test:8443"), ("[::1]", "[::1]"), ("[::1]:81", "[::1]:81")]
        {
            assert_eq!(read(text).as_deref(), Some(host), "{text}");
        }
        for bad in ["", "a:0", "a:65536", "a:", "u@a", "http://a", "a/b", "a b"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
