//! One request's journey through the edge, top to bottom.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use config::{EdgeNode, Route, Rule};
use follow::{Lease, Origins, Standing, boottime};
use http::header::{ALLOW, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::applied::{Applied, View};
use crate::assets::{self, Assets, Folder, Manifests};
use crate::door::{Exchange, Incoming};
use crate::gateway::{self, Asker, Client, Footing, Moment, Purging, Responses, WaitingRoom};
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
    pub(crate) waiting_room: WaitingRoom,
    pub(crate) purging: Purging,
    /// Where fills run: they outlive the connection that asked for them.
    pub(crate) runtime: tokio::runtime::Handle,
}

/// Answers one request.
pub(crate) async fn answer(edge: &Arc<Edge>, request: Request) -> Response {
    let begun = Instant::now();
    let Request { asked, body, peer, exchange } = request;
    let ground = Ground::of(edge);
    let standing = ground.standing;
    let answer = match asked {
        Normalised::OptionsOfServer => {
            Answered { method: Method::OPTIONS, target: "*".to_owned(), id: String::new(), standing, answer: options_of_server() }
        }
        Normalised::Ask(mut ask) => {
            let id = request_id(&mut ask.headers);
            let answer = journey(edge, &ask, ground, body, Way { peer, exchange: &exchange }).await;
            Answered { method: ask.method, target: ask.target.to_string(), id, standing, answer }
        }
    };
    tell(edge, answer, peer, begun)
}

/// Answers what is no request, or can't be served at all.
pub(crate) fn refuse(edge: &Edge, refusal: &Refusal, peer: SocketAddr) -> Response {
    let (standing, answer) = (edge.lease.standing(), Answer::refused("edge", refusal));
    let answer = Answered { method: Method::default(), target: String::new(), id: String::new(), standing, answer };
    tell(edge, answer, peer, Instant::now())
}

/// What a request stands on: what is in force, and whether this edge may rely on it. Read once, after the request was.
struct Ground {
    view: Option<Arc<View>>,
    standing: Standing,
}

impl Ground {
    /// The view comes first, so that a position of another history never goes with this one's view.
    fn of(edge: &Edge) -> Self {
        Self { view: edge.applied.view(), standing: edge.lease.standing() }
    }
}

/// Where a request came from, and the way back there.
#[derive(Clone, Copy)]
struct Way<'a> {
    peer: SocketAddr,
    exchange: &'a Arc<Exchange>,
}

/// An answer, and what the log says that it is to.
struct Answered {
    method: Method,
    target: String,
    id: String,
    /// How the edge stood when it had read the request.
    standing: Standing,
    answer: Answer,
}

/// Tells the client, the metrics and the log how an answer came to be: all of them from one value.
fn tell(edge: &Edge, answered: Answered, peer: SocketAddr, begun: Instant) -> Response {
    let Answered { method, target, id, standing, answer: Answer { mut response, outcome } } = answered;
    let outcome = outcome.of_standing(&standing);
    let fenced = outcome.status.is_fenced();
    if fenced {
        edge.metrics.fenced_responses.inc();
    }
    if let Ok(value) = HeaderValue::from_bytes(outcome.status.value().as_bytes()) {
        // Members of caches behind us stand before ours (RFC 9211, 2).
        response.headers.append(CACHE_STATUS, value);
    }
    let took = begun.elapsed();
    edge.metrics.answered(&outcome.labels(), took);
    tracing::debug!(
        target: "access", id, %method, target, client = %peer.ip(), status = response.status.as_u16(), kind = outcome.kind, result = outcome.result,
        tier = outcome.tier, detail = outcome.detail, fenced, duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX), bytes = response.body.len(),
        "{method} {target} {}", response.status.as_u16()
    );
    response
}

async fn journey(edge: &Arc<Edge>, ask: &Ask, mut ground: Ground, body: Option<Incoming>, way: Way<'_>) -> Answer {
    if gateway::is_purge(&ask.method) {
        // It waits for edges far away, and is no part of what is in a hurry here.
        return Box::pin(gateway::forward_purge(edge, ask, ground.view.as_deref())).await;
    }
    let mut footing = None;
    loop {
        let Some(view) = &ground.view else { return Answer::refused("edge", &Refusal::NotReady) };
        let Some(rule) = view.network.rule_for(&ask.host, ask.target.path()) else { return Answer::refused("edge", &Refusal::NoSuchHost) };
        match rule {
            Rule::Site(site) => return assets::serve(edge, ask, site, view.sites.get(&site.name), &ground.standing).await,
            Rule::Route(route) if footing.is_none() && may_name_position(route, ask) => match gateway::settle(edge, &ask.headers).await {
                Ok(settled) => footing = Some(settled),
                Err(refusal) => return Answer::refused("route", &refusal),
            },
            Rule::Route(route) => return by_route(edge, ask, (view, route), ground.standing, footing, body, way).await,
        }
        // What is looked up is read after what the reader is told of: that must not say more.
        ground = Ground::of(edge);
    }
}

/// Whether a reader may name a position that its answer is not to be older than.
fn may_name_position(route: &Route, ask: &Ask) -> bool {
    route.min_position && matches!(ask.method, Method::GET | Method::HEAD)
}

async fn by_route(
    edge: &Arc<Edge>,
    ask: &Ask,
    (view, route): (&Arc<View>, &Route),
    standing: Standing,
    footing: Option<Footing>,
    body: Option<Incoming>,
    Way { peer, exchange }: Way<'_>,
) -> Answer {
    let moment = Moment { boot: boottime(), standing, generation: view.generation };
    let most = route.max_request_body.0;
    if announced_length(ask).is_some_and(|length| length > most) {
        return Answer::refused("route", &Refusal::BodyTooLarge);
    }
    exchange.limit_body(most);
    let client = Client::of(peer, &ask.headers, &edge.node.trusted_proxies);
    let body = body.map(|body| Box::pin(body) as ByteStream);
    let asker = Asker { client, moment, exchange, footing: footing.unwrap_or_default() };
    let mut answer = gateway::serve(edge, view, route, ask, body, asker).await;
    if let Some(footing) = footing {
        footing.tell(&mut answer.response.headers);
    }
    // A body that broke off is why the upstream had no answer.
    exchange.broken().map_or(answer, |refusal| Answer::refused("route", &refusal))
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
