//! `PURGE`: asks an origin to purge one URL, in the name of whoever sent it. Plugins of content management systems know no
//! other way.
//!
//! The token is the client's and the origin decides: this edge adds no right of its own. Nothing of it reaches an upstream
//! or the cache. It waits for the receipt as the command line does; a client that leaves takes nothing back.

use std::time::Duration;

use config::Rule;
use follow::{Origins, OriginsError};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::sync::Semaphore;
use wire::{Mode, Problem, PurgeRequest, Secret};

use crate::applied::View;
use crate::edge::Edge;
use crate::message::{Body, Response};
use crate::normalise::Ask;
use crate::outcome::{Answer, Outcome};
use crate::refuse::Refusal;

/// Where some clients put the token.
const FASTLY_KEY: HeaderName = HeaderName::from_static("fastly-key");

/// How some clients ask for a soft purge: with `1`.
const FASTLY_SOFT_PURGE: HeaderName = HeaderName::from_static("fastly-soft-purge");

/// Purges under way at a time: each holds a connection to the origin for as long as an edge may stay fenced. A plugin
/// sends a dozen for one change.
const AT_A_TIME: usize = 256;

/// What an origin is given beside the time that it waits for edges.
const SLACK: Duration = Duration::from_secs(10);

/// The largest answer of an origin: a receipt names every edge.
const ANSWER_MOST: usize = 4 << 20;

/// Room for purges under way.
#[derive(Debug)]
pub(crate) struct Purging(Semaphore);

impl Default for Purging {
    fn default() -> Self {
        Self(Semaphore::new(AT_A_TIME))
    }
}

/// Why the edge itself says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum No {
    /// Nobody who may purge sends no token.
    Token,
    /// As many purges are under way as may be.
    Busy,
    /// No connection to an origin could be had.
    Unreachable,
    /// The request was sent, and no whole answer came.
    BrokeOff,
}

/// Tells whether a method asks for a purge.
pub(crate) fn is_purge(method: &Method) -> bool {
    method.as_str() == "PURGE"
}

/// Answers a `PURGE`. Who sends no token learns nothing, and nobody is asked.
pub(crate) async fn forward_purge(edge: &Edge, ask: &Ask, view: Option<&View>) -> Answer {
    let Some(token) = token(&ask.headers) else { return No::Token.answer() };
    let Some(view) = view else { return Answer::refused("edge", &Refusal::NotReady) };
    let Some(rule) = view.network.rule_for(&ask.host, ask.target.path()) else { return Answer::refused("edge", &Refusal::NoSuchHost) };
    let Ok(_seat) = edge.purging.0.try_acquire() else { return No::Busy.answer() };
    let patience = view.network.purge_bound() + SLACK;
    send(&edge.origins, &token, &request(ask, rule), patience).await.unwrap_or_else(No::answer)
}

/// The URL as it was asked for, for the owner of the rule that answers it.
fn request(ask: &Ask, rule: Rule<'_>) -> PurgeRequest {
    let owner = match rule {
        Rule::Site(site) => &site.owner,
        Rule::Route(route) => &route.owner,
    };
    let is_soft = ask.headers.get(&FASTLY_SOFT_PURGE).is_some_and(|value| value.as_bytes() == b"1");
    PurgeRequest {
        owner: owner.clone(),
        urls: vec![format!("{}{}", ask.host, ask.target)],
        mode: if is_soft { Mode::Soft } else { Mode::Hard },
        ..PurgeRequest::default()
    }
}

/// Takes the client's token, which is not looked at here.
fn token(headers: &HeaderMap) -> Option<Secret> {
    let field = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = field(AUTHORIZATION).and_then(|text| text.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let given = [bearer.map(|(_, token)| token), field(FASTLY_KEY)];
    given.into_iter().flatten().map(str::trim).find(|token| !token.is_empty()).map(Secret::from_text)
}

async fn send(origins: &Origins, token: &Secret, purge: &PurgeRequest, patience: Duration) -> Result<Answer, No> {
    let sent = origins.send_for(token, |client, url| client.post(format!("{url}/v1/purges")).timeout(patience).json(purge)).await;
    let mut answer = sent.map_err(|error| told(&error))?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|_| No::BrokeOff)? {
        if body.len() + chunk.len() > ANSWER_MOST {
            return Err(No::BrokeOff);
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = Response::new(answer.status());
    for name in [CONTENT_TYPE, WWW_AUTHENTICATE, RETRY_AFTER] {
        if let Some(value) = answer.headers().get(&name) {
            response.headers.insert(name, value.clone());
        }
    }
    response.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.body = Body::Whole(body.into());
    let (result, detail) = outcome(response.status);
    Ok(Answer { response, outcome: Outcome::made("edge", result, detail) })
}

/// The client is told that there is no origin, the log which one and why; where it is away for long the follower says so,
/// and strangers must not fill the log.
fn told(error: &OriginsError) -> No {
    tracing::debug!("failed to hand a purge on to an origin: {error}");
    match error {
        OriginsError::Unreachable { error, .. } if error.is_connect() => No::Unreachable,
        _ => No::BrokeOff,
    }
}

/// What an origin's answer comes to, in the words of log and metrics.
fn outcome(status: StatusCode) -> (&'static str, &'static str) {
    match status.as_u16() {
        200 => ("purge", "complete"),
        202 => ("purge", "incomplete"),
        401 => ("refused", "unknown-token"),
        403 => ("refused", "forbidden"),
        429 => ("refused", "too-many"),
        _ => ("refused", "by-origin"),
    }
}

impl No {
    fn status(self) -> StatusCode {
        match self {
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Busy | Self::Unreachable | Self::BrokeOff => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The name that logs and metrics know it by.
    fn name(self) -> &'static str {
        match self {
            Self::Token => "no-token",
            Self::Busy => "too-many-purges",
            Self::Unreachable => "origin-unreachable",
            Self::BrokeOff => "origin-broke-off",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Token => "A token is needed",
            Self::Busy => "There are too many purges under way",
            Self::Unreachable | Self::BrokeOff => "The origin can't be reached",
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Self::Token => "send `Authorization: Bearer TOKEN` or `Fastly-Key: TOKEN` with a token that may purge; nothing was purged",
            Self::Busy => "this edge has as many purges under way as it may; nothing was purged, try again soon",
            Self::Unreachable => "this edge reaches no origin at the moment; nothing was purged, try again soon",
            Self::BrokeOff => "no origin answered this edge in full, so it is not known whether this was purged; purge it again soon",
        }
    }

    /// Says it as the control API says its own: as a problem (RFC 9457).
    fn answer(self) -> Answer {
        let status = self.status();
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: self.title().to_owned(),
            status: status.as_u16(),
            detail: self.detail().to_owned(),
            more: std::collections::BTreeMap::new(),
        };
        let mut response = Response::new(status);
        response.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let (name, value) = if self == Self::Token { (WWW_AUTHENTICATE, "Bearer") } else { (RETRY_AFTER, "1") };
        response.headers.insert(name, HeaderValue::from_static(value));
        response.body = Body::Whole(serde_json::to_vec(&problem).unwrap_or_default().into());
        Answer { response, outcome: Outcome::made("edge", "refused", self.name()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&'static str, &str)]) -> HeaderMap {
        rows.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_comes_as_a_bearer_or_as_a_key_and_is_taken_as_it_is() {
        let rows: [(&[(&str, &str)], Option<&str>); 9] = [
            (&[], None),
            (&[("authorization", "Bearer abc")], Some("abc")),
            (&[("authorization", "bearer  abc ")], Some("abc")),
            (&[("fastly-key", "abc")], Some("abc")),
            (&[("authorization", "Bearer abc"), ("fastly-key", "def")], Some("abc")),
            (&[("authorization", "Basic eA=="), ("fastly-key", "def")], Some("def")),
            (&[("authorization", "Basic eA==")], None),
            (&[("authorization", "Bearer ")], None),
            (&[("authorization", "Bearer"), ("fastly-key", " ")], None),
        ];
        for (given, expected) in rows {
            assert_eq!(token(&headers(given)).as_ref().map(Secret::reveal), expected, "{given:?}");
        }
    }

    #[test]
    fn a_purge_is_of_the_url_alone_and_of_the_owner_whose_rule_answers_it() {
        let network = config::Network::from_json(&serde_json::json!({
            "sites": { "www": { "hosts": ["h.test"], "owner": "a" } },
            "upstreams": { "u": { "servers": ["http://127.0.0.1:1"] } },
            "routes": { "r": { "hosts": ["h.test"], "path": "/api/*", "upstream": "u", "owner": "b" } },
        }))
        .unwrap();
        let asked = |target: &str, rows: &[(&'static str, &str)]| {
            let target: wire::Target = target.parse().unwrap();
            let host: wire::Host = "h.test".parse().unwrap();
            let rule = network.rule_for(&host, target.path()).unwrap();
            let ask = Ask { method: Method::GET, host, authority: "H.test:81".to_owned(), target, headers: headers(rows) };
            request(&ask, rule)
        };
        let hard = asked("/api/x?y", &[("surrogate-key", "t")]);
        assert_eq!((hard.owner.as_str(), hard.urls.as_slice(), hard.mode), ("b", &["h.test/api/x?y".to_owned()][..], Mode::Hard));
        assert!(hard.tags.is_empty());
        assert_eq!(asked("/x", &[("fastly-soft-purge", "1")]).mode, Mode::Soft);
        assert_eq!(asked("/x", &[("fastly-soft-purge", "0")]).mode, Mode::Hard);
        assert_eq!(asked("/x", &[]).owner.as_str(), "a");
    }

    #[test]
    fn every_no_of_the_edge_says_the_way_out() {
        for no in [No::Token, No::Busy, No::Unreachable, No::BrokeOff] {
            let response = no.answer().response;
            let Body::Whole(body) = &response.body else { panic!("{no:?}") };
            let problem: Problem = serde_json::from_slice(body).unwrap();
            assert_eq!(problem.status, response.status.as_u16());
            let way_out = if no == No::Token { "www-authenticate" } else { "retry-after" };
            assert!(response.headers.contains_key(way_out) && response.headers.contains_key("cache-control"), "{no:?}");
        }
    }
}
