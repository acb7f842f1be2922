//! One request's journey through the edge, top to bottom.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use config::{EdgeNode, Route, Rule};
use follow::{Lease, Origins, Standing, boottime};
use http::header::{ALLOW, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

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

pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Everything that an edge works with.
#[derive(Debug)]
pub(crate) struct Edge {
    /// Its part of the file, which may be read anew.
    pub(crate) node: ArcSwap<EdgeNode>,
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

impl Edge {
    /// Returns its part of the file, as it was read last.
    pub(crate) fn node(&self) -> Guard<Arc<EdgeNode>> {
        self.node.load()
    }
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
            let span = span_of(&ask, peer);
            let answer = journey(edge, &ask, ground, body, Way { peer, exchange: &exchange, span: &span }).instrument(span.clone()).await;
            end_span(&span, &answer);
            Answered { method: ask.method, target: ask.target.to_string(), id, standing, answer }
        }
    };
    tell(edge, answer, peer, begun)
}

/// Begins the span of a request, in the trace that it came with.
fn span_of(ask: &Ask, peer: SocketAddr) -> Span {
    let span = trace::stage!(
        "request",
        otel.kind = "server",
        otel.name = %ask.method,
        http.request.method = %ask.method,
        server.address = %ask.host,
        url.path = ask.target.path(),
        client.address = %peer.ip(),
        http.route = Empty,
        http.response.status_code = Empty,
        atoll.result = Empty,
        atoll.tier = Empty,
        atoll.detail = Empty,
        otel.status_code = Empty,
    );
    trace::adopt(&span, &ask.headers);
    span
}

/// Says in the span how the answer came to be, in the words of the log and the metrics.
fn end_span(span: &Span, Answer { response, outcome }: &Answer) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", response.status.as_u16());
    span.record("atoll.result", outcome.result);
    span.record("atoll.tier", outcome.tier);
    span.record("atoll.detail", outcome.detail);
    if response.status.is_server_error() {
        span.record("otel.status_code", "error");
    }
}

/// Answers what is no request, or can't be served at all.
pub(crate) fn refuse(edge: &Edge, refusal: &Refusal, peer: SocketAddr) -> Response {
    let (standing, answer) = (edge.lease.standing(), Answer::refused("edge", refusal));
    let answer = Answered { method: Method::default(), target: String::new(), id: String::new(), standing, answer };
    tell(edge, answer, peer, Instant::now())
}

/// How often what is in force may change while it is read. It changes with the configuration and with what sites show,
/// so twice in a row is rare already.
const READINGS: usize = 8;

/// What a request stands on: what is in force, and whether this edge may rely on it. Read once, after the request was.
pub(crate) struct Ground {
    pub(crate) view: Option<Arc<View>>,
    pub(crate) standing: Standing,
}

impl Ground {
    /// Both are of one moment: the view is read before the lease and once more behind it. Else an edge that is fenced
    /// could read its old view, catch up and get a lease before it reads that, and would rely on what was in force
    /// before; and a position of another history could go with this one's view.
    pub(crate) fn of(edge: &Edge) -> Self {
        Self::read(|| edge.applied.view(), || edge.lease.standing())
    }

    fn read(mut view: impl FnMut() -> Option<Arc<View>>, mut standing: impl FnMut() -> Standing) -> Self {
        let mut before = view();
        for _ in 0..READINGS {
            let standing = standing();
            let behind = view();
            if before.as_ref().map(Arc::as_ptr) == behind.as_ref().map(Arc::as_ptr) {
                return Self { view: behind, standing };
            }
            before = behind;
        }
        // What changes faster than it is read is not relied on.
        Self { view: before, standing: Standing { fenced_for: Some(Duration::MAX), ..standing() } }
    }
}

/// Where a request came from, and the way back there.
#[derive(Clone, Copy)]
struct Way<'a> {
    peer: SocketAddr,
    exchange: &'a Arc<Exchange>,
    span: &'a Span,
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
    edge.metrics.answered(&outcome.labels(), response.status, took);
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
    Way { peer, exchange, span }: Way<'_>,
) -> Answer {
    span.record("http.route", route.name.as_str());
    let moment = Moment { boot: boottime(), standing, generation: view.generation };
    let most = route.max_request_body.0;
    if announced_length(ask).is_some_and(|length| length > most) {
        return Answer::refused("route", &Refusal::BodyTooLarge);
    }
    exchange.limit_body(most);
    let client = Client::of(peer, &ask.headers, &edge.node().trusted_proxies);
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

#[cfg(test)]
mod tests {
    use super::*;
    use config::Network;
    use std::collections::HashMap;
    use wire::{Epoch, PurgeTable};

    fn view(config: u64) -> Arc<View> {
        let network = Arc::new(Network::from_json(&serde_json::json!({})).unwrap());
        Arc::new(View {
            network,
            config,
            purges: Arc::new(PurgeTable::sized([0; 16], 1)),
            sites: HashMap::new(),
            generation: 0,
            epoch: Epoch::from_bytes([1; 8]),
        })
    }

    fn holds(applied: u64) -> Standing {
        Standing { applied, fenced_for: None }
    }

    #[test]
    fn a_lease_is_never_read_beside_what_was_in_force_before_it() {
        let (old, new) = (view(1), view(2));
        let fenced = Standing { applied: 1, fenced_for: Some(Duration::ZERO) };

        // Between the first readings the edge catches up and gets its lease.
        let mut views = [&old, &new, &new].into_iter();
        let mut standings = [holds(2), holds(2)].into_iter();
        let caught_up = Ground::read(|| views.next().cloned(), || standings.next().unwrap());
        let unchanged = Ground::read(|| Some(Arc::clone(&old)), || fenced);
        let nothing = Ground::read(|| None, || fenced);
        let restless = Ground::read(|| Some(view(3)), || holds(9));

        assert_eq!((caught_up.view.unwrap().config, caught_up.standing), (2, holds(2)));
        assert_eq!((unchanged.view.unwrap().config, unchanged.standing), (1, fenced));
        assert!(nothing.view.is_none());
        assert_eq!(restless.standing, Standing { applied: 9, fenced_for: Some(Duration::MAX) });
    }
}
