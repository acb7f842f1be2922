//! Which header fields of a request reach the upstream, and which of them tell variants apart.

use std::str::FromStr;

use http::HeaderName;

use crate::section::Section;

/// What a route says about the header fields of requests.
pub(crate) struct RequestHeaders {
    pub(crate) strip: Vec<HeaderName>,
    pub(crate) pass: Vec<HeaderName>,
    pub(crate) key: Vec<HeaderName>,
}

/// A field that a route may have a say in.
struct FreeName(HeaderName);

/// What is about one connection (RFC 9110, 7.6.1), frames the message (RFC 9112, 6), names its authority or its way.
const NOT_FREE: [&str; 15] = [
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "content-length",
    "expect",
    "host",
    "via",
    "cdn-loop",
];

/// What the edge tells the upstream in the client's stead.
const REPLACED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];

const EXPECTED: &str = "a whole header name such as \"x-debug\"; Host, Via, CDN-Loop and what frames a message are the edge's own";

impl RequestHeaders {
    pub(crate) fn read(section: &Section<'_>) -> Self {
        let list = |key: &'static str| section.list::<FreeName>(key, EXPECTED).into_iter().map(|name| name.0).collect::<Vec<_>>();
        let headers = Self { strip: list("strip_request_headers"), pass: list("pass_request_headers"), key: list("key_headers") };
        headers.complain_of_conflicts(section);
        headers
    }

    fn complain_of_conflicts(&self, section: &Section<'_>) {
        for name in &self.pass {
            if self.strip.contains(name) {
                section.complain("pass_request_headers", format!("`{name}` is in strip_request_headers too"));
            }
            if REPLACED.contains(&name.as_str()) {
                section.complain("pass_request_headers", format!("the edge sends its own `{name}`"));
            }
        }
        for name in self.key.iter().filter(|name| self.strip.contains(*name)) {
            section.complain("key_headers", format!("`{name}` does not reach the upstream; see strip_request_headers"));
        }
    }
}

impl FromStr for FreeName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let name: HeaderName = text.parse().map_err(|_| ())?;
        // A star is a letter that names may have, and is surely meant otherwise.
        if text.contains('*') || NOT_FREE.contains(&name.as_str()) { Err(()) } else { Ok(Self(name)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_and_not_the_edges_own() {
        assert_eq!("X-Debug".parse::<FreeName>().map(|name| name.0.as_str().to_owned()), Ok("x-debug".to_owned()));
        for bad in ["", "*", "x-*", "x debug", "x-debug:", "é", "Host", "VIA", "cdn-loop"] {
            assert!(bad.parse::<FreeName>().is_err(), "{bad}");
        }
        for name in NOT_FREE {
            assert!(name.parse::<FreeName>().is_err(), "{name}");
        }
    }
}
