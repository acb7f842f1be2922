//! Answers a request for a route: from what is stored, from a fetch that others share, or for itself.

use std::sync::Arc;

use config::{Route, Upstream};
use follow::boottime;
use http::header::{AGE, AUTHORIZATION, CONTENT_LENGTH, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, RANGE, VIA};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use wire::{Matched, Timestamp};

use super::entry::{Entry, Head};
use super::fetch::{self, Job, Led};
use super::fills::{Begun, Fill, Part, Progress};
use super::forward::{Client, is_loop, upstream_headers};
use super::key::CacheKey;
use super::lookup::{Found, Moment, Why, find, may_stand_in};
use super::tunnel;
use super::upstream::{Answer as Answered, Call, Inform};
use crate::applied::View;
use crate::assets::Source;
use crate::door::Exchange;
use crate::edge::Edge;
use crate::message::{Body, ByteStream, Response};
use crate::normalise::Ask;
use crate::outcome::{Answer, Outcome};
use crate::refuse::Refusal;
use crate::represent::{self, Representation};
use crate::rules::conditional::Voice;
use crate::rules::invalidate::{self, Place};
use crate::rules::{Directives, Forward, NotStored, age, fields};

/// How often a request that could not share a fetch looks again before it fetches for itself.
const LOOKS: usize = 3;

/// A request for a route, with all that deciding about it takes.
pub(crate) struct Visit<'a> {
    edge: &'a Arc<Edge>,
    view: &'a Arc<View>,
    route: &'a Route,
    upstream: &'a Upstream,
    ask: &'a Ask,
    key: CacheKey,
    /// The fields as they go upstream: what selects a variant.
    headers: HeaderMap,
    /// The way back to the client, before the answer.
    exchange: &'a Arc<Exchange>,
}

/// Whose request it is, and how it is answered.
pub(crate) struct Asker<'a> {
    pub(crate) client: Client,
    pub(crate) moment: Moment,
    pub(crate) exchange: &'a Arc<Exchange>,
}

/// Answers a request for `route`.
pub(crate) async fn serve(edge: &Arc<Edge>, view: &Arc<View>, route: &Route, ask: &Ask, body: Option<ByteStream>, asker: Asker<'_>) -> Answer {
    let Asker { client, moment, exchange } = asker;
    let Some(upstream) = view.network.upstreams.get(&route.upstream) else {
        return Answer::refused("route", &Refusal::UpstreamFailed);
    };
    if is_loop(&ask.headers) {
        return Answer::refused("route", &Refusal::Loop);
    }
    let key = CacheKey { scheme: client.scheme, host: ask.host.clone(), target: ask.target.clone() };
    let headers = upstream_headers(ask, &client, upstream);
    let visit = Visit { edge, view, route, upstream, ask, key, headers, exchange };
    let answered = match ask.method {
        Method::GET if route.upgrade && exchange.upgrades() => visit.tunnel().await,
        Method::GET | Method::HEAD => visit.read(moment).await,
        _ => visit.pass(body).await,
    };
    answered.unwrap_or_else(|refusal| Answer::refused("route", &refusal))
}

impl Visit<'_> {
    /// GET and HEAD.
    async fn read(&self, moment: Moment) -> Result<Answer, Refusal> {
        let mut moment = moment;
        let mut ask_again = false;
        for _ in 0..LOOKS {
            let (entry, why) = match self.look_up(&moment) {
                Found::Refuse => return Err(Refusal::Fenced),
                Found::Fresh(entry) => return Ok(self.serve_entry(&entry, "hit", None, &moment)),
                Found::StaleWhileRevalidate(entry, why) => {
                    self.refresh(&entry);
                    return Ok(self.serve_entry(&entry, "stale", Some(why.as_str()), &moment));
                }
                Found::Revalidate(entry, why) => (Some(entry), why),
                Found::Nothing(why) => (None, why),
            };
            // RFC 9111, 5.2.1.7.
            if Directives::of(&self.ask.headers).only_if_cached {
                return Err(Refusal::NotCached);
            }
            if self.ask.method == Method::HEAD && entry.is_none() {
                return self.pass(None).await;
            }
            if !self.may_share(&entry) {
                return self.lead(Arc::new(Fill::new()), None, entry, why).await;
            }
            // P8: a fetch that began before an unsafe method was answered is not for who came after.
            let generation = self.edge.responses.tombstones.generation(&self.key);
            let may_join = |begun: &Begun| moment.standing.holds() && !ask_again && begun.tombstone == generation;
            let (fill, had_started) = match self.edge.responses.fills.take_part(&self.key, may_join) {
                Part::Lead(fill, before) => return self.lead(fill, before, entry, why).await,
                Part::Join(fill) => (fill, true),
                Part::Await(fill) => (fill, false),
            };
            self.edge.metrics.collapsed.inc();
            if let Some(answer) = self.follow(&fill, had_started, entry, why, &moment).await? {
                return Ok(answer);
            }
            // What was fetched is not for this request: look again, as if it came now.
            ask_again = true;
            moment = self.now();
        }
        self.lead(Arc::new(Fill::new()), None, None, Why::Miss).await
    }

    fn now(&self) -> Moment {
        Moment { boot: boottime(), standing: self.edge.lease.standing(), generation: self.current_view().generation }
    }

    /// What is in force at this moment, which may be more than when the request came.
    fn current_view(&self) -> Arc<View> {
        self.edge.applied.view().unwrap_or_else(|| Arc::clone(self.view))
    }

    fn look_up(&self, moment: &Moment) -> Found {
        let stored = self.edge.responses.stored(&self.key);
        find(stored.as_deref(), self.route, &self.current_view().purges, (&self.key.host, &self.key.target), &self.headers, moment)
    }

    /// Whether the answer to this request may be the answer to others: nothing in it is its own.
    fn may_share(&self, entry: &Option<Arc<Entry>>) -> bool {
        let own = [AUTHORIZATION, RANGE, IF_MATCH, IF_UNMODIFIED_SINCE];
        let conditions = [IF_NONE_MATCH, IF_MODIFIED_SINCE];
        let has = |names: &[http::HeaderName]| names.iter().any(|name| self.headers.contains_key(name));
        // Where something is stored, its own validators go upstream in place of the client's.
        !has(&own) && (entry.is_some() || !has(&conditions)) && !self.edge.responses.hit_for_miss.contains_key(&self.key)
    }

    fn job(&self, entry: Option<Arc<Entry>>) -> Job {
        Job { key: self.key.clone(), route: self.route.clone(), upstream: self.upstream.clone(), headers: self.headers.clone(), entry }
    }

    /// One fetch in the background, unless one runs.
    fn refresh(&self, entry: &Arc<Entry>) {
        if let Some(fill) = self.edge.responses.fills.lead_if_idle(&self.key) {
            fetch::start(self.edge, self.job(Some(Arc::clone(entry))), fill, None);
        }
    }

    async fn lead(&self, fill: Arc<Fill>, before: Option<Arc<Fill>>, entry: Option<Arc<Entry>>, why: Why) -> Result<Answer, Refusal> {
        fill.informs(self.exchange);
        let led = fetch::start(self.edge, self.job(entry.clone()), fill, before).await;
        match led.unwrap_or(Led::Failed(Refusal::UpstreamFailed)) {
            Led::Flow(head, body) => Ok(self.serve_flow(&head, body, why, head.headers.clone())),
            Led::Entry(renewed) => Ok(self.revalidated(&renewed, why)),
            Led::Direct(answer, reason) => Ok(self.direct(answer, why, reason)),
            Led::Failed(refusal) => self.stand_in(refusal),
        }
    }

    /// Takes what another request's fetch brings, where it is for this request too.
    async fn follow(
        &self,
        fill: &Fill,
        had_started: bool,
        entry: Option<Arc<Entry>>,
        why: Why,
        moment: &Moment,
    ) -> Result<Option<Answer>, Refusal> {
        fill.informs(self.exchange);
        match fill.outcome().await {
            Progress::Shared(head, flow) if self.may_take(&head, had_started, moment) => Ok(flow.read().map(|body| {
                let mut headers = head.headers.clone();
                // What only the first client gets.
                head.terms.dropped_on_reuse.iter().for_each(|name| {
                    headers.remove(name);
                });
                collapsed(self.serve_flow(&head, body, why, headers))
            })),
            Progress::Entry(renewed) if self.may_take(&renewed.head, had_started, moment) => {
                Ok(Some(collapsed(self.revalidated(&renewed, why))))
            }
            Progress::Failed(refusal) => self.stand_in(refusal).map(Some),
            Progress::NotShared => {
                let fill = Arc::new(Fill::new());
                self.lead(fill, None, entry, why).await.map(Some)
            }
            Progress::Shared(..) | Progress::Entry(_) | Progress::Waiting => Ok(None),
        }
    }

    /// P4: what was fetched after this request came is for it. Who came after the edge had moved past the
    /// fetch's start takes it only if no purge that matches came since. Comparing the table's highest seq
    /// with the arrival looks right and is wrong.
    fn may_take(&self, head: &Head, had_started: bool, moment: &Moment) -> bool {
        let fits = head.selection.matches(&self.headers) && head.settings == self.route.settings;
        let unpurged = || {
            let view = self.current_view();
            let matched = view.purges.matched(&head.slots, &self.key.host, &self.key.target, head.filled_at);
            view.generation == head.generation && matches!(matched, Matched::Nothing)
        };
        let came_before = moment.generation == head.generation && moment.standing.applied <= head.filled_at;
        fits && (!had_started || came_before || unpurged())
    }

    /// Looks once more for something that may stand in for an error: what was purged or fenced meanwhile may not.
    fn stand_in(&self, refusal: Refusal) -> Result<Answer, Refusal> {
        let now = self.now();
        match self.look_up(&now) {
            Found::Fresh(entry) => Ok(self.serve_entry(&entry, "hit", None, &now)),
            Found::StaleWhileRevalidate(entry, why) | Found::Revalidate(entry, why)
                if why != Why::Fenced && may_stand_in(&entry, now.boot) =>
            {
                Ok(self.serve_entry(&entry, "stale", Some("stale-if-error"), &now))
            }
            _ => Err(refusal),
        }
    }

    /// A stored response. `Date` and `Expires` stay as they were; `Age` grows.
    fn serve_entry(&self, entry: &Entry, result: &'static str, detail: Option<&'static str>, moment: &Moment) -> Answer {
        let grown = entry.head.age(boottime());
        let mut headers = entry.head.headers.clone();
        for name in &entry.head.terms.dropped_on_reuse {
            headers.remove(name);
        }
        headers.insert(AGE, age::value(grown));
        self.finish_fields(&mut headers);
        let whole = Representation {
            status: entry.head.status,
            headers,
            length: entry.body.len() as u64,
            source: Source::Memory(entry.body.clone()),
        };
        let response = represent::answer(&self.ask.method, &self.ask.headers, whole, Voice::Cache, Timestamp::now());
        let detail = if moment.standing.holds() { detail } else { Some("fenced") };
        Answer { response, outcome: Outcome::stored(result, ttl(&entry.head), detail) }
    }

    fn revalidated(&self, entry: &Entry, why: Why) -> Answer {
        let mut answer = self.serve_entry(entry, "revalidated", Some(why.as_str()), &self.now());
        answer.outcome = Outcome::forwarded("revalidated", Forward::Stale, StatusCode::NOT_MODIFIED, true, Some(why.as_str()));
        answer
    }

    /// A response that flows in, to be stored when it is whole.
    fn serve_flow(&self, head: &Head, body: ByteStream, why: Why, mut headers: HeaderMap) -> Answer {
        self.finish_fields(&mut headers);
        headers.remove(CONTENT_LENGTH);
        let body = framed(head.status, head.length, body);
        let body = if self.ask.method == Method::HEAD { body.without_bytes() } else { body };
        let outcome = Outcome::forwarded("miss", forward(why), head.status, true, detail(why));
        Answer { response: Response { status: head.status, headers, body }, outcome }
    }

    fn direct(&self, answer: Answered, why: Why, reason: NotStored) -> Answer {
        let status = answer.status;
        let outcome = Outcome::forwarded("pass", forward(why), status, false, Some(reason.as_str()));
        Answer { response: self.passed_on(answer), outcome }
    }

    /// An upstream's answer for this request alone, without what is about one connection.
    fn passed_on(&self, answer: Answered) -> Response {
        let mut headers = answer.headers;
        fields::drop_hop_by_hop(&mut headers);
        self.finish_fields(&mut headers);
        let announced = headers.remove(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let body = if self.ask.method == Method::HEAD {
            announced.map_or(Body::Unknown, Body::Head)
        } else {
            framed(answer.status, answer.length, answer.body)
        };
        Response { status: answer.status, headers, body }
    }

    fn finish_fields(&self, headers: &mut HeaderMap) {
        fields::drop_for_client(headers, self.route.keep_tags);
        headers.append(VIA, HeaderValue::from_static("1.1 atoll"));
    }

    /// A websocket, where the upstream agrees.
    async fn tunnel(&self) -> Result<Answer, Refusal> {
        let mut headers = self.headers.clone();
        tunnel::ask_for_it(&mut headers);
        self.edge.metrics.upstream_requests.inc();
        let inform: Inform = Box::new(|_, _| {});
        let call = Call { method: Method::GET, target: &self.ask.target, headers, body: None, inform };
        let mut answer = self.edge.responses.upstreams.send(self.upstream, call).await?;
        let outcome = Outcome::forwarded("tunnel", Forward::Method, answer.status, false, Some("upgrade"));
        if let Some(switched) = answer.switched.take() {
            let upstream = switched.await.map_err(|_| Refusal::UpstreamFailed)?;
            let mut headers = answer.headers;
            fields::drop_hop_by_hop(&mut headers);
            tunnel::run(self.exchange, headers, upstream).await;
            return Ok(Answer { response: Response::new(StatusCode::SWITCHING_PROTOCOLS), outcome });
        }
        Ok(Answer { response: self.passed_on(answer), outcome })
    }

    /// A request that is neither answered from the cache nor stored; an unsafe one makes invalid what it changed.
    async fn pass(&self, body: Option<ByteStream>) -> Result<Answer, Refusal> {
        // A safe method has no use for a body, and some upstreams read one (http.md 30).
        let body = if self.ask.method.is_safe() { None } else { body };
        self.edge.metrics.upstream_requests.inc();
        let exchange = Arc::clone(self.exchange);
        let inform: Inform = Box::new(move |status, headers| exchange.inform(status, &fields::interim(headers)));
        let (upstream, ask, key, headers) = (self.upstream.clone(), self.ask.clone(), self.key.clone(), self.headers.clone());
        let sending = send_and_invalidate(Arc::clone(self.edge), upstream, ask, key, headers, body, inform);
        // A client that leaves must not keep what its request changed from being invalidated.
        let answer = self.edge.runtime.spawn(sending).await.unwrap_or(Err(Refusal::UpstreamFailed))?;
        let reason = if self.ask.method == Method::HEAD { Forward::UriMiss } else { Forward::Method };
        let outcome = Outcome::forwarded("pass", reason, answer.status, false, Some("method"));
        Ok(Answer { response: self.passed_on(answer), outcome })
    }
}

/// Sends a request that is not looked up, and makes invalid what it may have changed: before the first
/// byte of the answer, and also where none came (P8).
async fn send_and_invalidate(
    edge: Arc<Edge>,
    upstream: Upstream,
    ask: Ask,
    key: CacheKey,
    headers: HeaderMap,
    body: Option<ByteStream>,
    inform: Inform,
) -> Result<Answered, Refusal> {
    let call = Call { method: ask.method.clone(), target: &ask.target, headers, body, inform };
    let sent = edge.responses.upstreams.send(&upstream, call).await;
    let empty = HeaderMap::new();
    let (status, fields) = sent.as_ref().map_or((None, &empty), |answer| (Some(answer.status), &answer.headers));
    let place = Place { scheme: key.scheme.as_str(), authority: &ask.authority, target: &ask.target };
    for target in invalidate::targets(&ask.method, status, place, fields) {
        edge.responses.invalidate(&CacheKey { target, ..key.clone() });
    }
    sent
}

fn collapsed(mut answer: Answer) -> Answer {
    answer.outcome = answer.outcome.collapsed();
    answer
}

/// Statuses without a body have none, whatever the upstream sends (RFC 9112, 6.3).
fn framed(status: StatusCode, length: Option<u64>, body: ByteStream) -> Body {
    match (status, length) {
        (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED, _) => Body::Empty,
        (_, Some(length)) => Body::Sized(length, body),
        (_, None) => Body::Stream(body),
    }
}

fn ttl(head: &Head) -> i64 {
    let seconds = |span: std::time::Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    seconds(head.terms.lifetime) - seconds(head.age(boottime()))
}

/// The word of RFC 9211 for why the upstream was asked.
fn forward(why: Why) -> Forward {
    match why {
        Why::VaryMiss => Forward::VaryMiss,
        Why::Miss | Why::Purged | Why::Settings => Forward::UriMiss,
        Why::Stale | Why::SoftPurged | Why::NoCache | Why::Fenced => Forward::Stale,
    }
}

/// Our own word, where it says more.
fn detail(why: Why) -> Option<&'static str> {
    match why {
        Why::Miss | Why::VaryMiss | Why::Stale => None,
        why => Some(why.as_str()),
    }
}
