//! What an upstream is told: the client's fields without those of one connection and those that
//! strangers must not set, and our own Via, CDN-Loop, X-Forwarded-* and Forwarded.

use std::net::{IpAddr, SocketAddr};

use config::{Route, Upstream};
use http::header::{CONTENT_LENGTH, EXPECT, FORWARDED, HOST, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use wire::{Host, Target};

use super::key::Scheme;
use super::position::MIN_POSITION;
use crate::normalise::Ask;
use crate::rules::{cookies, fields};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Who asks, as far as we believe it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) scheme: Scheme,
    /// The addresses that a trusted proxy told, and the connection's own last.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Client {
    /// Finds out who asks: only a trusted proxy is believed about others (http.md 27).
    pub(crate) fn of(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let own = peer.ip().to_canonical();
        if !trusted.iter().any(|network| network.contains(&own)) {
            return Self { scheme: Scheme::Http, addresses: vec![own] };
        }
        let lines = headers.get_all(&X_FORWARDED_FOR);
        let told = lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
        let addresses = told.filter_map(|text| text.trim().parse().ok()).chain([own]).collect();
        let is_https = headers.get(&X_FORWARDED_PROTO).is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"));
        Self { scheme: if is_https { Scheme::Https } else { Scheme::Http }, addresses }
    }
}

/// Tells whether the request came through this network before (RFC 8586).
pub(crate) fn is_loop(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(&CDN_LOOP);
    let mut members = lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    members.any(|member| member.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("atoll")))
}

/// Tells whether a request is not larger than what the upstream takes: else it would answer with an error that
/// others might get (http.md 31).
pub(crate) fn fits_upstream(method: &Method, target: &Target, headers: &HeaderMap, upstream: &Upstream) -> bool {
    let field = |(name, value): (&HeaderName, &HeaderValue)| (name.as_str().len() + value.len() + 4) as u64;
    let line = (method.as_str().len() + target.as_str().len() + 12) as u64;
    let largest = headers.iter().map(field).max().unwrap_or(0);
    largest <= upstream.max_field.0 && line + headers.iter().map(field).sum::<u64>() <= upstream.max_request_head.0
}

/// Returns the fields of the request upstream, before those that only its answer's storing needs.
///
/// The host is the key's, in lower case and without a port: else one reader could choose the port of the links that an
/// upstream writes for all of them (http.md 28, 30).
pub(crate) fn upstream_headers(ask: &Ask, client: &Client, route: &Route, upstream: &Upstream) -> HeaderMap {
    let mut headers = fields::upstream_request(&ask.headers, &route.pass_request_headers, false);
    for name in &route.strip_request_headers {
        headers.remove(name);
    }
    // What a reader names is for this edge: it neither tells variants apart nor means anything to an upstream.
    headers.remove(MIN_POSITION);
    cookies::filter(&mut headers, &route.cookies);
    // A safe method's body does not go upstream (http.md 30), and `100-continue` was settled with us.
    if ask.method.is_safe() {
        headers.remove(CONTENT_LENGTH);
    }
    headers.remove(EXPECT);
    let public = public_host(upstream, &ask.host);
    set(&mut headers, HOST, upstream.host.as_deref().unwrap_or(public));
    headers.append(VIA, HeaderValue::from_static("1.1 atoll"));
    headers.append(CDN_LOOP, HeaderValue::from_static("atoll"));
    let chain = client.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let forwarded = client.addresses.iter().map(|address| forwarded(*address, client.scheme, public)).collect::<Vec<_>>().join(", ");
    set(&mut headers, X_FORWARDED_FOR, &chain);
    set(&mut headers, X_FORWARDED_PROTO, client.scheme.as_str());
    set(&mut headers, X_FORWARDED_HOST, public);
    set(&mut headers, FORWARDED, &forwarded);
    headers
}

/// The host as readers know it: the key's, with the port that it has in the upstream's own `host`, where that is of the same name.
fn public_host<'a>(upstream: &'a Upstream, host: &'a Host) -> &'a str {
    let own = upstream.host.as_deref().filter(|own| Host::of_authority(own).is_ok_and(|named| named == *host));
    own.unwrap_or(host.as_str())
}

/// RFC 7239, 4 and 6: an IPv6 address and a host with a port are quoted.
fn forwarded(address: IpAddr, scheme: Scheme, host: &str) -> String {
    let node = match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    format!("for={node};host=\"{host}\";proto={}", scheme.as_str())
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&str, &str)]) -> HeaderMap {
        rows.iter().map(|(name, value)| (HeaderName::try_from(*name).unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn rule_27_strangers_are_not_believed_about_others() {
        let told = headers(&[("x-forwarded-for", "1.2.3.4, 5.6.7.8"), ("x-forwarded-proto", "https")]);
        let peer = "10.0.0.1:9".parse().unwrap();
        let stranger = Client::of(peer, &told, &[]);
        assert_eq!((stranger.scheme, stranger.addresses.len()), (Scheme::Http, 1));
        let proxy = Client::of(peer, &told, &["10.0.0.0/8".parse().unwrap()]);
        assert_eq!((proxy.scheme, proxy.addresses.len()), (Scheme::Https, 3));
    }

    #[test]
    fn a_request_that_was_here_before_is_a_loop() {
        assert!(is_loop(&headers(&[("cdn-loop", "other, Atoll; v=1")])));
        assert!(!is_loop(&headers(&[("cdn-loop", "atollo, not-atoll")])) && !is_loop(&HeaderMap::new()));
    }

    #[test]
    fn rule_30_a_get_goes_upstream_without_a_body_and_without_what_strangers_claim() {
        let told = headers(&[
            ("content-length", "3"),
            ("expect", "100-continue"),
            ("x-original-url", "/admin"),
            ("atoll-min-position", "1"),
            ("accept", "*/*"),
        ]);
        let ask = Ask {
            method: http::Method::GET,
            host: "h".parse().unwrap(),
            authority: "H:1".to_owned(),
            target: "/".parse().unwrap(),
            headers: told,
        };
        let network = config::Network::from_json(&serde_json::json!({
            "upstreams": { "u": { "servers": ["http://127.0.0.1:1"] } },
            "routes": { "r": { "hosts": ["*"], "upstream": "u" } },
        }));
        let route = network.unwrap().routes.into_values().next().unwrap();
        let upstream = Upstream {
            name: "u".parse().unwrap(),
            servers: vec![],
            host: None,
            connect_timeout: std::time::Duration::from_secs(1),
            timeout: std::time::Duration::from_secs(1),
            max_head: config::ByteSize(64 << 10),
            max_field: config::ByteSize(8 << 10),
            max_request_head: config::ByteSize(16 << 10),
        };
        let client = Client { scheme: Scheme::Http, addresses: vec!["192.0.2.1".parse().unwrap()] };
        let sent = upstream_headers(&ask, &client, &route, &upstream);
        for gone in ["content-length", "expect", "x-original-url", "atoll-min-position"] {
            assert!(!sent.contains_key(gone), "{gone}");
        }
        let expected = [
            ("accept", "*/*"),
            ("host", "h"),
            ("via", "1.1 atoll"),
            ("cdn-loop", "atoll"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "h"),
            ("forwarded", "for=192.0.2.1;host=\"h\";proto=http"),
        ];
        for (name, value) in expected {
            assert_eq!(sent.get(name).unwrap(), value, "{name}");
        }
        // A port that readers need is the upstream's to know; another name is between it and the edge.
        for (own, public) in [("h:8443", "h:8443"), ("api.internal:81", "h")] {
            let sent = upstream_headers(&ask, &client, &route, &Upstream { host: Some(own.to_owned()), ..upstream.clone() });
            for (name, value) in [("host", own), ("x-forwarded-host", public)] {
                assert_eq!(sent.get(name).unwrap(), value, "{own}: {name}");
            }
        }
    }

    #[test]
    fn ipv6_addresses_are_quoted_in_forwarded() {
        assert_eq!(forwarded("::1".parse().unwrap(), Scheme::Http, "h:1"), "for=\"[::1]\";host=\"h:1\";proto=http");
    }
}
