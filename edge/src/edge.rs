//! One request's journey through the edge, top to bottom.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use config::{EdgeNode, Rule};
use follow::{Lease, Origins, boottime};
use http::header::{ALLOW, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::applied::Applied;
use crate::assets::{self, Assets, Folder, Manifests};
use crate::door::{Exchange, Incoming};
use crate::gateway::{self, Asker, Client, Moment, Responses};
use crate::memory::Memory;
use crate::message::{ByteStream, Request, Response};
use crate::metrics::Metrics;
use crate::normalise::{Ask, Normalised};
use crate::outcome::{Answer, Outcome};
use crate::refuse::Refusal;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Everything that an edge works with.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) node: EdgeNode,
    pub(crate) applied: Arc<Applied>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) folder: Arc<Folder>,
    pub(crate) assets: Arc<Assets>,
    pub(crate) manifests: Arc<Manifests>,
    pub(crate) responses: Arc<Responses>,
    pub(crate) origins: Arc<Origins>,
    pub(crate) metrics: Arc<Metrics>,
    /// Where fills run: they outlive the connection that asked for them.
    pub(crate) runtime: tokio::runtime::Handle,
}

/// Answers one request.
pub(crate) async fn answer(edge: &Arc<Edge>, request: Request) -> Response {
    let begun = Instant::now();
    let Request { asked, body, peer, exchange } = request;
    let answer = match asked {
        Normalised::OptionsOfServer => {
            Answered { method: Method::OPTIONS, target: "*".to_owned(), id: String::new(), answer: options_of_server() }
        }
        Normalised::Ask(mut ask) => {
            let id = request_id(&mut ask.headers);
            let answer = journey(edge, &ask, body, peer, &exchange).await;
            Answered { method: ask.method, target: ask.target.to_string(), id, answer }
        }
    };
    tell(edge, answer, peer, begun)
}

/// Answers what is no request, or can't be served at all.
pub(crate) fn refuse(edge: &Edge, refusal: &Refusal, peer: SocketAddr) -> Response {
    let answer = Answered { method: Method::default(), target: String::new(), id: String::new(), answer: Answer::refused("edge", refusal) };
    tell(edge, answer, peer, Instant::now())
}

/// An answer, and what the log says that it is to.
struct Answered {
    method: Method,
    target: String,
    id: String,
    answer: Answer,
}

/// Tells the client, the metrics and the log how an answer came to be: all of them from one value.
fn tell(edge: &Edge, answered: Answered, peer: SocketAddr, begun: Instant) -> Response {
    let Answered { method, target, id, answer: Answer { mut response, outcome } } = answered;
    if let Ok(value) = HeaderValue::from_bytes(outcome.status.value().as_bytes()) {
        // Members of caches behind us stand before ours (RFC 9211, 2).
        response.headers.append(CACHE_STATUS, value);
    }
    let took = begun.elapsed();
    edge.metrics.answered(&outcome.labels(), took);
    tracing::debug!(
        target: "access", id, %method, target, client = %peer.ip(), status = response.status.as_u16(), kind = outcome.kind, result = outcome.result,
        tier = outcome.tier, detail = outcome.detail, duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX), bytes = response.body.len(),
        "{method} {target} {}", response.status.as_u16()
    );
    response
}

async fn journey(edge: &Arc<Edge>, ask: &Ask, body: Option<Incoming>, peer: SocketAddr, exchange: &Arc<Exchange>) -> Answer {
    let Some(view) = edge.applied.view() else { return Answer::refused("edge", &Refusal::NotReady) };
    let Some(rule) = view.network.rule_for(&ask.host, ask.target.path()) else { return Answer::refused("edge", &Refusal::NoSuchHost) };
    // Position and lease are read once, after the request was.
    let moment = Moment { boot: boottime(), standing: edge.lease.standing(), generation: view.generation };
    match rule {
        Rule::Site(site) => assets::serve(edge, ask, site, view.sites.get(&site.name), &moment.standing).await,
        Rule::Route(route) => {
            let most = route.max_request_body.0;
            if announced_length(ask).is_some_and(|length| length > most) {
                return Answer::refused("route", &Refusal::BodyTooLarge);
            }
            exchange.limit_body(most);
            let client = Client::of(peer, &ask.headers, &edge.node.trusted_proxies);
            let body = body.map(|body| Box::pin(body) as ByteStream);
            let answer = gateway::serve(edge, &view, route, ask, body, Asker { client, moment, exchange }).await;
            // A body that broke off is why the upstream had no answer.
            exchange.broken().map_or(answer, |refusal| Answer::refused("route", &refusal))
        }
    }
}

fn announced_length(ask: &Ask) -> Option<u64> {
    ask.headers.get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
}

fn options_of_server() -> Answer {
    let mut response = Response::new(StatusCode::NO_CONTENT);
    response.headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    Answer { response, outcome: Outcome::made("edge", "options", "server") }
}

/// Takes the client's request id, or makes one, so that logs of edge and upstream can be laid side by side.
fn request_id(headers: &mut HeaderMap) -> String {
    let is_id =
        |text: &&str| (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let given = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_id);
    if let Some(id) = given {
        return id.to_owned();
    }
    let mut bytes = [0; 8];
    // Without randomness the id is zero: it is for people, and nothing depends on it.
    let _ = getrandom::fill(&mut bytes);
    let id = format!("{:016x}", u64::from_be_bytes(bytes));
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    id
}
