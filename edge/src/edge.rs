//! One request's journey through the edge, top to bottom.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use config::{EdgeNode, Rule};
use follow::{Lease, Origins, boottime};
use futures_util::StreamExt as _;
use http::header::{ALLOW, HeaderName};
use http::{HeaderValue, StatusCode};

use crate::applied::Applied;
use crate::assets::{self, Assets, Folder, Manifests};
use crate::gateway::{self, Client, Moment, Responses};
use crate::memory::Memory;
use crate::message::{ByteStream, Request, Response};
use crate::metrics::Metrics;
use crate::normalise::{Ask, Normalised, normalise};
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
pub(crate) async fn answer(edge: &Arc<Edge>, mut request: Request) -> Response {
    let begun = Instant::now();
    let (method, target, peer) = (request.method.clone(), request.target.clone(), request.peer);
    let id = request_id(&mut request);
    let Answer { mut response, outcome } = journey(edge, request).await;
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

async fn journey(edge: &Arc<Edge>, request: Request) -> Answer {
    let Request { method, target, headers, body, peer, .. } = request;
    let ask = match normalise(&method, &target, headers) {
        Ok(Normalised::Ask(ask)) => ask,
        Ok(Normalised::OptionsOfServer) => return options_of_server(),
        Err(refusal) => return Answer::refused("edge", &refusal),
    };
    let Some(view) = edge.applied.view() else { return Answer::refused("edge", &Refusal::NotReady) };
    let Some(rule) = view.network.rule_for(&ask.host, ask.target.path()) else { return Answer::refused("edge", &Refusal::NoSuchHost) };
    // Position and lease are read once, after the request was.
    let moment = Moment { boot: boottime(), standing: edge.lease.standing(), generation: view.generation };
    match rule {
        Rule::Site(site) => assets::serve(edge, &ask, site, view.sites.get(&site.name), &moment.standing).await,
        Rule::Route(route) => {
            let most = route.max_request_body.0;
            if announced_length(&ask).is_some_and(|length| length > most) {
                return Answer::refused("route", &Refusal::BodyTooLarge);
            }
            let too_large = Arc::new(AtomicBool::new(false));
            let body = body.map(|body| bounded(body, most, Arc::clone(&too_large)));
            let client = Client::of(peer, &ask.headers, &edge.node.trusted_proxies);
            let answer = gateway::serve(edge, &view, route, &ask, body, client, moment).await;
            if too_large.load(Ordering::Acquire) { Answer::refused("route", &Refusal::BodyTooLarge) } else { answer }
        }
    }
}

fn announced_length(ask: &Ask) -> Option<u64> {
    ask.headers.get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
}

/// Breaks off a body that turns out to be larger than the route takes.
fn bounded(body: ByteStream, most: u64, too_large: Arc<AtomicBool>) -> ByteStream {
    let mut came = 0;
    Box::pin(body.map(move |chunk| {
        let chunk = chunk?;
        came += chunk.len() as u64;
        if came > most {
            too_large.store(true, Ordering::Release);
            return Err(std::io::Error::other("the body is larger than is allowed"));
        }
        Ok(chunk)
    }))
}

fn options_of_server() -> Answer {
    let mut response = Response::new(StatusCode::NO_CONTENT);
    response.headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    Answer { response, outcome: Outcome::made("edge", "options", "server") }
}

/// Takes the client's request id, or makes one, so that logs of edge and upstream can be laid side by side.
fn request_id(request: &mut Request) -> String {
    let is_id =
        |text: &&str| (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let given = request.headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_id);
    if let Some(id) = given {
        return id.to_owned();
    }
    let mut bytes = [0; 8];
    // Without randomness the id is zero: it is for people, and nothing depends on it.
    let _ = getrandom::fill(&mut bytes);
    let id = format!("{:016x}", u64::from_be_bytes(bytes));
    if let Ok(value) = HeaderValue::from_str(&id) {
        request.headers.insert(REQUEST_ID, value);
    }
    id
}
