//! Answers a request for a route: from what is stored, from a fetch that others share, or for itself.

use std::sync::Arc;

use config::{Route, Upstream};
use follow::boottime;
use http::header::{AUTHORIZATION, DATE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE};
use http::{HeaderMap, Method, StatusCode};
use tracing::Instrument as _;
use wire::Timestamp;

use super::answers::{collapsed, completed_outcome, forward};
use super::coded;
use super::entry::{Content, Entry, Head};
use super::fetch::{self, Led};
use super::fill_table::Part;
use super::fills::{Fill, Progress};
use super::forward::{Client, fits_upstream, is_loop, upstream_headers};
use super::job::Job;
use super::key::CacheKey;
use super::lookup::{Found, Moment, Trouble, Why, find, may_stand_in, refuses};
use super::parts::{self, Fit};
use super::pass::{self, Passing};
use super::position::{Footing, in_doubt};
use super::second::{Asking, bring};
use super::tunnel;
use super::upstream::{Call, Inform};
use crate::applied::View;
use crate::door::Exchange;
use crate::edge::{CACHE_STATUS, Edge, Ground};
use crate::message::{ByteStream, Response};
use crate::normalise::Ask;
use crate::outcome::{Answer, Outcome};
use crate::refuse::Refusal;
use crate::represent;
use crate::rules::conditional::{self, Validators, Voice};
use crate::rules::{Forward, Wishes, date, fields};
use crate::validity::{self, Arrival, Proof, may_join};

/// How often a request that could not share a fetch looks again before it fetches for itself.
const LOOKS: usize = 3;

/// A request for a route, with all that deciding about it takes.
pub(crate) struct Visit<'a> {
    pub(super) edge: &'a Arc<Edge>,
    pub(super) view: &'a Arc<View>,
    pub(super) route: &'a Route,
    pub(super) upstream: &'a Upstream,
    pub(super) ask: &'a Ask,
    pub(super) key: CacheKey,
    /// The fields as they go upstream: what selects a variant.
    pub(super) headers: HeaderMap,
    pub(super) wishes: Wishes,
    /// The way back to the client, before the answer.
    pub(super) exchange: &'a Arc<Exchange>,
    /// The reader has seen more of the journal than is in force here: what was fetched before it came is not for it.
    is_behind: bool,
}

/// Whose request it is, and how it is answered.
pub(crate) struct Asker<'a> {
    pub(crate) client: Client,
    pub(crate) moment: Moment,
    pub(crate) exchange: &'a Arc<Exchange>,
    pub(crate) footing: Footing,
}

/// Answers a request for `route`.
pub(crate) async fn serve(
    edge: &Arc<Edge>,
    view: &Arc<View>,
    route: &Route,
    ask: &Ask,
    body: Option<ByteStream>,
    asker: Asker<'_>,
) -> Answer {
    let Asker { client, moment, exchange, footing } = asker;
    let Some(upstream) = view.network.upstreams.get(&route.upstream) else {
        return Answer::refused("route", &Refusal::UpstreamFailed);
    };
    if is_loop(&ask.headers) {
        return Answer::refused("route", &Refusal::Loop);
    }
    let key = CacheKey { scheme: client.scheme, host: ask.host.clone(), target: route.keyed(&ask.target) };
    let headers = upstream_headers(ask, &client, route, upstream);
    if !fits_upstream(&ask.method, &key.target, &headers, upstream) {
        return Answer::refused("route", &Refusal::HeadTooLarge);
    }
    let wishes = Wishes::of(&ask.headers, route.honour_request_directives);
    let visit = Visit { edge, view, route, upstream, ask, key, headers, wishes, exchange, is_behind: footing.is_behind };
    let answered = match ask.method {
        Method::GET if route.upgrade && exchange.upgrades() => visit.tunnel(&moment).await,
        Method::GET | Method::HEAD => visit.read(moment).await,
        _ => visit.pass(body).await,
    };
    answered.unwrap_or_else(|refusal| visit.refused(&refusal))
}

impl Visit<'_> {
    /// GET and HEAD.
    async fn read(&self, moment: Moment) -> Result<Answer, Refusal> {
        let mut moment = moment;
        let (mut ask_again, mut has_failed, mut is_from_second) = (false, false, false);
        let mut found = self.look_up(&moment);
        if self.ask.method == Method::HEAD && self.may_be_elsewhere(&found) {
            // What is fetched for it tells nobody else anything, so it has no fill.
            let _ = bring(self.edge, &mut Job { asking: Asking::Look, ..self.job(None) }).await;
            moment = self.now();
            found = self.look_up(&moment);
        }
        for _ in 0..LOOKS {
            let (entry, why) = match found {
                Found::Refuse => return Err(Refusal::Fenced),
                Found::Fresh(entry) => match self.from(&entry, &moment, ("hit", is_from_second.then_some("l2"))).await {
                    Some(answer) if is_from_second => return Ok(answer.of_second_tier()),
                    Some(answer) => return Ok(answer),
                    None => (Some(entry), Why::Partial),
                },
                Found::Stale(entry) => match self.from(&entry, &moment, ("stale", Some("max-stale"))).await {
                    Some(answer) => return Ok(answer),
                    None => (None, Why::Stale),
                },
                // Parts are not refreshed behind: they are fetched anew once they are stale.
                Found::StaleWhileRevalidate(entry, why) if matches!(entry.content, Content::Parts(_)) => (None, why),
                Found::StaleWhileRevalidate(entry, why) => match self.from(&entry, &moment, ("stale", Some(why.as_str()))).await {
                    Some(answer) => {
                        self.refresh(&entry);
                        return Ok(answer);
                    }
                    None => (None, why),
                },
                Found::Revalidate(entry, why) if self.is_spared(&entry, why, &moment) => {
                    match self.from(&entry, &moment, ("stale", Some("stale-if-error"))).await {
                        Some(answer) => return Ok(answer),
                        None => (None, why),
                    }
                }
                Found::Revalidate(entry, why) => (Some(entry), why),
                Found::Nothing(why) => (None, why),
            };
            // RFC 9111, 5.2.1.7.
            if self.wishes.only_if_cached {
                return Err(Refusal::NotCached);
            }
            // What a HEAD is answered with updates what is stored (RFC 9111, 4.3.5).
            if self.ask.method == Method::HEAD {
                return self.head(entry, why).await;
            }
            // Only a whole body can be asked about: parts are completed, and fetched anew once they are stale.
            let entry = entry.filter(|entry| matches!(entry.content, Content::Whole(_)) || why == Why::Partial);
            if !self.may_share(&entry) {
                let asking = if self.asking(why) == Asking::No { Asking::No } else { Asking::Look };
                return self.lead(Arc::new(Fill::new()), None, entry, why, asking).await;
            }
            // P8: a fetch that began before an unsafe method was answered is not for who came after.
            let generation = self.edge.responses.tombstones.generation(&self.key);
            // What is asked for again on each use is asked for now (RFC 9111, 5.2): a fetch that ends at this moment may be the one
            // whose answer this client has just got.
            let arrival = self.arrival(&moment, ask_again || matches!(why, Why::Wish | Why::NoCache));
            let asking = self.asking(why);
            let (fill, had_started) = match self.edge.responses.fills.take_part(&self.key, generation, may_join(&arrival)) {
                Part::Lead(fill, before) => return self.lead(fill, before, entry, why, asking).await,
                Part::Join(fill) => (fill, true),
                Part::Await(fill) => (fill, false),
            };
            self.edge.metrics.collapsed.inc();
            match self.follow(&fill, had_started, entry, why, &arrival).await {
                Followed::Answer(answer) => return Ok(*answer),
                // Whoever comes first tries again; that failed, the others need not.
                Followed::Failed(Refusal::UpstreamFailed) if !has_failed => has_failed = true,
                Followed::Failed(refusal) => return Ok(Self::unanswered(&refusal, why)),
                Followed::NotForUs => {}
                Followed::Look => {
                    moment = self.now();
                    found = self.look_up(&moment);
                    is_from_second = true;
                    continue;
                }
            }
            // What was fetched is not for this request: look again, as if it came now.
            ask_again = true;
            moment = self.now();
            found = self.look_up(&moment);
        }
        self.lead(Arc::new(Fill::new()), None, None, Why::Miss, Asking::No).await
    }

    /// Whether the second tier may hold what answers this request, or a newer one than what is here.
    fn may_be_elsewhere(&self, found: &Found) -> bool {
        matches!(found, Found::Nothing(why) | Found::Revalidate(_, why) if self.asking(*why) != Asking::No)
    }

    /// Whether a fetch of what is not here asks the second tier first.
    fn asking(&self, why: Why) -> Asking {
        let may_be_there = matches!(why, Why::Miss | Why::VaryMiss | Why::Purged | Why::Settings | Why::Stale | Why::SoftPurged);
        let may = may_be_there && !self.is_behind && !self.edge.responses.is_passing(&self.key);
        if may { Asking::Claim } else { Asking::No }
    }

    pub(super) fn now(&self) -> Moment {
        let Ground { view, standing } = Ground::of(self.edge);
        let generation = view.map_or(self.view.generation, |view| view.generation);
        Moment { boot: boottime(), standing, generation }
    }

    /// What this request is to a fetch that others started.
    fn arrival(&self, moment: &Moment, asks_again: bool) -> Arrival {
        Arrival {
            standing: moment.standing,
            generation: moment.generation,
            asks_again: asks_again || self.is_behind,
            must_be_strong: self.is_behind || !moment.standing.holds(),
        }
    }

    /// What is in force at this moment, which may be more than when the request came.
    fn current_view(&self) -> Arc<View> {
        self.edge.applied.view().unwrap_or_else(|| Arc::clone(self.view))
    }

    fn look_up(&self, moment: &Moment) -> Found {
        // Before anything else: a route that refuses asks no upstream either.
        if refuses(self.route, &moment.standing) {
            return Found::Refuse;
        }
        let _stage = trace::stage!("look up", atoll.tier = "l1").entered();
        let view = self.current_view();
        // Who came under settings that no longer hold must not rely on what they brought.
        if view.network.routes.get(&self.route.name).map(|route| route.settings) != Some(self.route.settings) {
            return Found::Nothing(Why::Settings);
        }
        let stored = self.edge.responses.stored(&self.key);
        let found = find(stored.as_deref(), self.route, view.in_force(), self.key.place(), &self.headers, &self.wishes, moment);
        if self.is_behind { in_doubt(found) } else { found }
    }

    /// Whether an upstream in trouble is not asked this time: what is stored may stand in for its answer.
    fn is_spared(&self, entry: &Entry, why: Why, moment: &Moment) -> bool {
        let upstreams = &self.edge.responses.upstreams;
        !why.is_doubt()
            && may_stand_in(entry, upstreams.trouble(&self.upstream.name), moment.boot)
            && !upstreams.may_probe(&self.upstream.name, moment.boot)
    }

    /// Whether the answer to this request may be the answer to others: nothing in it is its own.
    fn may_share(&self, entry: &Option<Arc<Entry>>) -> bool {
        let own = [AUTHORIZATION, RANGE, IF_MATCH, IF_UNMODIFIED_SINCE];
        let conditions = [IF_NONE_MATCH, IF_MODIFIED_SINCE];
        let has = |names: &[http::HeaderName]| names.iter().any(|name| self.headers.contains_key(name));
        // Where something is stored, its own validators go upstream in place of the client's.
        !has(&own) && (entry.is_some() || !has(&conditions)) && !self.edge.responses.is_passing(&self.key)
    }

    fn job(&self, entry: Option<Arc<Entry>>) -> Job {
        Job {
            key: self.key.clone(),
            sent: self.ask.target.clone(),
            route: self.route.clone(),
            upstream: self.upstream.clone(),
            headers: self.headers.clone(),
            entry,
            asking: Asking::No,
            claim: None,
        }
    }

    /// One fetch in the background, unless one runs or the upstream is better left alone.
    fn refresh(&self, entry: &Arc<Entry>) {
        if self.edge.responses.upstreams.may_probe(&self.upstream.name, boottime())
            && let Some(fill) = self.edge.responses.fills.lead_if_idle(&self.key)
        {
            let job = Job { asking: Asking::Refresh, ..self.job(Some(Arc::clone(entry))) };
            fetch::start(self.edge, job, fill, None);
        }
    }

    async fn lead(
        &self,
        fill: Arc<Fill>,
        before: Option<Arc<Fill>>,
        entry: Option<Arc<Entry>>,
        why: Why,
        asking: Asking,
    ) -> Result<Answer, Refusal> {
        fill.informs(self.exchange);
        let job = Job { asking, ..self.job(entry.clone()) };
        let led = fetch::start(self.edge, job, fill, before).await;
        match led.unwrap_or(Led::Failed(Refusal::UpstreamFailed)) {
            Led::Stored => match self.answer_from_second().await {
                Some(answer) => Ok(answer),
                // It was purged in this very moment, or is not what this request wants.
                None => Box::pin(self.lead(Arc::new(Fill::new()), None, None, why, Asking::No)).await,
            },
            Led::Flow(head, body) => Ok(self.serve_flow(&head, body, why, head.headers.clone())),
            Led::Entry(renewed, is_stored) => Ok(self.revalidated(&renewed, why, is_stored)),
            Led::Direct(answer, reason) => Ok(self.direct(answer, why, reason)),
            Led::Failed(refusal) => Ok(self.stand_in(&refusal).await.unwrap_or_else(|| Self::unanswered(&refusal, why))),
        }
    }

    /// Answers with what the second tier has just brought.
    async fn answer_from_second(&self) -> Option<Answer> {
        let now = self.now();
        match self.look_up(&now) {
            Found::Fresh(entry) => Some(self.from(&entry, &now, ("hit", Some("l2"))).await?.of_second_tier()),
            Found::Stale(entry) => Some(self.from(&entry, &now, ("stale", Some("max-stale"))).await?.of_second_tier()),
            Found::StaleWhileRevalidate(entry, why) => {
                let answer = self.from(&entry, &now, ("stale", Some(why.as_str()))).await?;
                self.refresh(&entry);
                Some(answer.of_second_tier())
            }
            _ => None,
        }
    }

    /// Takes what another request's fetch brings, where it is for this request too.
    async fn follow(&self, fill: &Fill, had_started: bool, entry: Option<Arc<Entry>>, why: Why, arrival: &Arrival) -> Followed {
        fill.informs(self.exchange);
        match fill.outcome().instrument(trace::stage!("join")).await {
            Progress::Shared(head, flow) if self.may_take(&head, Proof::Strong, had_started, arrival) => {
                let Some(body) = flow.read() else { return Followed::NotForUs };
                let mut headers = head.headers.clone();
                // What only the first client gets.
                head.terms.dropped_on_reuse.iter().for_each(|name| {
                    headers.remove(name);
                });
                Followed::Answer(Box::new(collapsed(self.serve_flow(&head, body, why, headers))))
            }
            Progress::Entry(renewed, proof) if self.may_take(&renewed.head, proof, had_started, arrival) => {
                Followed::Answer(Box::new(collapsed(self.revalidated(&renewed, why, true))))
            }
            Progress::Failed(refusal) => {
                self.stand_in(&refusal).await.map_or(Followed::Failed(refusal), |answer| Followed::Answer(Box::new(answer)))
            }
            Progress::Stored => Followed::Look,
            Progress::NotShared => {
                let led = self.lead(Arc::new(Fill::new()), None, entry, why, Asking::No).await;
                Followed::Answer(Box::new(led.unwrap_or_else(|refusal| Self::unanswered(&refusal, why))))
            }
            Progress::Shared(..) | Progress::Entry(..) | Progress::Waiting => Followed::NotForUs,
        }
    }

    fn may_take(&self, head: &Head, proof: Proof, had_started: bool, arrival: &Arrival) -> bool {
        let fits = head.selection.matches(&self.headers) && head.provenance.settings == self.route.settings;
        fits && validity::may_take(&head.provenance, proof, self.key.place(), self.current_view().in_force(), had_started, arrival)
    }

    /// Looks once more for something that may stand in for an error: what was purged or fenced meanwhile may not.
    async fn stand_in(&self, refusal: &Refusal) -> Option<Answer> {
        let trouble = if *refusal == Refusal::UpstreamInTrouble { Trouble::Status } else { Trouble::Silence };
        let now = self.now();
        match self.look_up(&now) {
            Found::Fresh(entry) => self.from(&entry, &now, ("hit", None)).await,
            Found::Stale(entry) | Found::StaleWhileRevalidate(entry, _) => self.from(&entry, &now, ("stale", Some("stale-if-error"))).await,
            Found::Revalidate(entry, why) if !why.is_doubt() && may_stand_in(&entry, trouble, now.boot) => {
                self.from(&entry, &now, ("stale", Some("stale-if-error"))).await
            }
            _ => None,
        }
    }

    /// Answers from what is stored, and where only parts of it are, with what is missing fetched; nothing where
    /// that can't be.
    async fn from(&self, entry: &Arc<Entry>, moment: &Moment, told: (&'static str, Option<&'static str>)) -> Option<Answer> {
        let Content::Parts(held) = &entry.content else { return Some(self.serve_entry(entry, told, moment)) };
        if self.ask.method == Method::HEAD {
            return entry.length().is_some().then(|| self.serve_entry(entry, told, moment));
        }
        let headers = self.stored_fields(&entry.head, &entry.head.headers);
        let now = Timestamp::now();
        let validators = validators(&headers, now);
        if conditional::evaluate(&self.ask.headers, &validators, Voice::Cache, now) == conditional::Outcome::NotModified {
            return Some(Answer { response: represent::not_modified(headers), outcome: self.told(&entry.head, told, moment) });
        }
        let applies = conditional::range_applies(&self.ask.headers, &validators, now);
        match parts::fit(&self.ask.headers, applies, &headers, held) {
            Fit::Answer(response) => Some(Answer { response, outcome: self.told(&entry.head, told, moment) }),
            Fit::Useless => None,
            Fit::Missing(_) if self.wishes.only_if_cached => None,
            Fit::Missing(missing) => {
                let completed = parts::complete(self.edge, &self.job(None), entry, missing).await?;
                let response = match &completed.content {
                    Content::Whole(_) => self.serve_entry(&Arc::new(completed), told, moment).response,
                    Content::Parts(held) => match parts::fit(&self.ask.headers, applies, &headers, held) {
                        Fit::Answer(response) => response,
                        Fit::Missing(_) | Fit::Useless => return None,
                    },
                };
                Some(Answer { response, outcome: completed_outcome() })
            }
        }
    }

    fn refused(&self, refusal: &Refusal) -> Answer {
        Answer::refused("route", refusal)
    }

    /// A HEAD that is not answered from the cache, and what its answer means for what is stored.
    async fn head(&self, entry: Option<Arc<Entry>>, why: Why) -> Result<Answer, Refusal> {
        let job = self.job(entry);
        let sent = pass::head(self.edge, &job, self.inform()).await;
        match sent {
            Ok(answer) => {
                let outcome = Outcome::forwarded("pass", forward(why), answer.status, false, Some("method"));
                Ok(Answer { response: self.passed_on(answer), outcome })
            }
            Err(refusal) => Ok(self.stand_in(&refusal).await.unwrap_or_else(|| Self::unanswered(&refusal, why))),
        }
    }

    fn inform(&self) -> Inform {
        let exchange = Arc::clone(self.exchange);
        Box::new(move |status, headers| exchange.inform(status, &fields::interim(headers)))
    }

    /// A websocket, where the upstream agrees.
    async fn tunnel(&self, moment: &Moment) -> Result<Answer, Refusal> {
        let mut headers = self.headers.clone();
        tunnel::ask_for_it(&mut headers);
        self.edge.metrics.upstream_requests.inc();
        let call = Call {
            method: Method::GET,
            target: &self.key.target,
            headers,
            body: None,
            inform: Box::new(|_, _| {}),
            may_switch: true,
            retries: 0,
        };
        let mut answer = self.edge.responses.upstreams.send(self.upstream, call).await?;
        let outcome = Outcome::forwarded("tunnel", Forward::Method, answer.status, false, Some("upgrade"));
        if let Some(switched) = answer.switched.take() {
            let upstream = switched.await.map_err(|_| Refusal::UpstreamFailed)?;
            let mut headers = answer.headers;
            fields::drop_hop_by_hop(&mut headers);
            fields::drop_for_client(&mut headers, self.route.keep_tags);
            // It is written before bytes are carried, and the answer itself when they have been.
            headers.append(CACHE_STATUS, outcome.clone().of_standing(&moment.standing).status.value());
            tunnel::run(self.exchange, headers, upstream).await;
            return Ok(Answer { response: Response::new(StatusCode::SWITCHING_PROTOCOLS), outcome });
        }
        Ok(Answer { response: self.passed_on(answer), outcome })
    }

    /// A request that is neither answered from the cache nor shared; an unsafe one makes invalid what it changed.
    async fn pass(&self, body: Option<ByteStream>) -> Result<Answer, Refusal> {
        // A safe method has no use for a body, and some upstreams read one (http.md 30).
        let body = if self.ask.method.is_safe() { None } else { body };
        let mut job = self.job(None);
        if let Some(stored) = self.edge.responses.stored(&self.key)
            && let Some(entry) = stored.select(&self.headers)
        {
            coded::map_conditions(entry, &mut job.headers);
        }
        let passing = Passing { ask: self.ask.clone(), job, body, inform: self.inform() };
        // A client that leaves must not keep what its request changed from being invalidated.
        let sending = pass::send_and_invalidate(Arc::clone(self.edge), passing).in_current_span();
        let answer = self.edge.runtime.spawn(sending).await.unwrap_or(Err(Refusal::UpstreamFailed))?;
        let outcome = Outcome::forwarded("pass", Forward::Method, answer.status, false, Some("method"));
        Ok(Answer { response: self.passed_on(answer), outcome })
    }
}

/// What following another request's fetch came to.
enum Followed {
    Answer(Box<Answer>),
    /// What it brought is not for this request.
    NotForUs,
    /// It is in the memory tier now.
    Look,
    /// It brought nothing, and nothing stands in for it.
    Failed(Refusal),
}

fn validators(stored: &HeaderMap, now: Timestamp) -> Validators<'_> {
    Validators {
        etag: stored.get(ETAG).and_then(|etag| etag.to_str().ok()),
        last_modified: date::field(stored, &LAST_MODIFIED, now).time(),
        date: date::field(stored, &DATE, now).time(),
    }
}
