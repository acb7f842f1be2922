//! Runs a fill: one fetch, its response judged by its head, its bytes handed to all who wait, and an
//! entry stored where nothing that happened meanwhile forbids it (P4, P8).

use std::sync::Arc;
use std::time::Duration;

use config::{Route, Upstream};
use futures_util::StreamExt as _;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, COOKIE, DATE, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, Method, StatusCode};
use moka::sync::Cache;
use tokio::sync::oneshot;
use wire::{Matched, Subject, Tag, Timestamp};

use super::entry::{Entry, Head, Stored};
use super::fills::{Begun, Fill, Fills, Progress};
use super::flow::Flow;
use super::key::{CacheKey, Tombstones};
use super::lookup::{may_rely, may_stand_in};
use super::upstream::{Answer, Call, Upstreams};
use crate::applied::View;
use crate::edge::Edge;
use crate::memory::{Held, HeldKey, Memory};
use crate::message::ByteStream;
use crate::refuse::Refusal;
use crate::rules::date;
use crate::rules::vary::{self, Variance};
use crate::rules::{Directives, NotStored, Policy, RequestFacts, fields, storable};

/// For how long a key whose response could not be stored is fetched by each request for itself.
const HIT_FOR_MISS: Duration = Duration::from_secs(5);

/// Keys that are hit-for-miss at a time.
const HIT_FOR_MISS_KEYS: u64 = 100_000;

/// Everything about stored responses of routes.
#[derive(Debug)]
pub(crate) struct Responses {
    pub(crate) memory: Arc<Memory>,
    pub(crate) fills: Fills,
    pub(crate) tombstones: Tombstones,
    pub(crate) upstreams: Upstreams,
    /// Keys whose last response could not be stored.
    pub(crate) hit_for_miss: Cache<CacheKey, ()>,
}

impl Responses {
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        let hit_for_miss = Cache::builder().max_capacity(HIT_FOR_MISS_KEYS).time_to_live(HIT_FOR_MISS).build();
        Self { memory, fills: Fills::default(), tombstones: Tombstones::new(), upstreams: Upstreams::default(), hit_for_miss }
    }

    /// Returns what is stored for a URL.
    pub(crate) fn stored(&self, key: &CacheKey) -> Option<Arc<Stored>> {
        match self.memory.get(&HeldKey::Response(key.clone())) {
            Some(Held::Responses(stored)) => Some(stored),
            _ => None,
        }
    }

    /// Stores an entry if `may` still holds at the very moment: one change of a key at a time, so an
    /// invalidation comes either before, and is seen, or after, and takes the entry.
    fn store(&self, key: &CacheKey, entry: &Arc<Entry>, may: impl FnOnce() -> bool) {
        self.memory.change(HeldKey::Response(key.clone()), |held| {
            if !may() {
                return held;
            }
            let stored = if let Some(Held::Responses(stored)) = held { (*stored).clone() } else { Stored::default() };
            Some(Held::Responses(Arc::new(stored.with(Arc::clone(entry)))))
        });
    }

    /// Makes a URL invalid here, at once: what is stored, and what is being fetched (P8).
    pub(crate) fn invalidate(&self, key: &CacheKey) {
        self.tombstones.bury(key);
        self.memory.change(HeldKey::Response(key.clone()), |_| None);
    }

    /// Drops everything: the journal is of another history.
    pub(crate) fn clear(&self) {
        self.memory.clear();
    }
}

/// What a fill fetches.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) key: CacheKey,
    pub(crate) route: Route,
    pub(crate) upstream: Upstream,
    /// The fields for the upstream; conditions of our own are added.
    pub(crate) headers: HeaderMap,
    /// What is stored already, to be asked about, or to stand in for an error.
    pub(crate) entry: Option<Arc<Entry>>,
}

/// What the request that leads a fill gets of it.
pub(crate) enum Led {
    /// A response that flows, for this request alone or for others too.
    Flow(Arc<Head>, ByteStream),
    /// What was stored is right.
    Entry(Arc<Entry>),
    /// A response that is not stored.
    Direct(Answer, NotStored),
    /// No response came.
    Failed(Refusal),
}

/// Ends a fill however its task ends.
struct Ending {
    edge: Arc<Edge>,
    key: CacheKey,
    fill: Arc<Fill>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.edge.responses.fills.end(&self.key, &self.fill);
    }
}

/// Starts a fill; it goes on when whoever asked for it leaves.
pub(crate) fn start(edge: &Arc<Edge>, job: Job, fill: Arc<Fill>, before: Option<Arc<Fill>>) -> oneshot::Receiver<Led> {
    let (lead, led) = oneshot::channel();
    let ending = Ending { edge: Arc::clone(edge), key: job.key.clone(), fill: Arc::clone(&fill) };
    let edge = Arc::clone(edge);
    edge.runtime.clone().spawn(async move {
        let ending = ending;
        edge.responses.fills.wait_for_turn(before).await;
        Run { edge: &edge, job, fill: &fill }.run(lead).await;
        drop(ending);
    });
    led
}

struct Run<'a> {
    edge: &'a Arc<Edge>,
    job: Job,
    fill: &'a Arc<Fill>,
}

/// What was true when the fetch started.
struct Start {
    view: Arc<View>,
    filled_at: u64,
    tombstone: u64,
    sent_at: Timestamp,
}

impl Run<'_> {
    async fn run(mut self, lead: oneshot::Sender<Led>) {
        let Some(start) = self.begin() else {
            self.fail(Refusal::NotReady, lead);
            return;
        };
        self.drop_purged_entry(&start);
        let answer = match self.send(self.job.entry.as_deref()).await {
            Ok(answer) => answer,
            Err(refusal) => return self.fail(refusal, lead),
        };
        match self.job.entry.clone() {
            Some(entry) if answer.status == StatusCode::NOT_MODIFIED && entry.head.has_validator() => {
                self.not_modified(&start, &entry, answer, lead).await;
            }
            Some(entry) if is_trouble(answer.status) && self.may_still_serve(&entry) => {
                self.fail(Refusal::UpstreamFailed, lead);
            }
            _ => self.response(&start, answer, lead).await,
        }
    }

    /// P4: the position is read before the fetch starts, never after; and after the view, so that a
    /// position of another history never goes with this one's view.
    fn begin(&self) -> Option<Start> {
        let view = self.edge.applied.view()?;
        let filled_at = self.edge.lease.standing().applied;
        let tombstone = self.edge.responses.tombstones.generation(&self.job.key);
        let _ = self.fill.begun.set(Begun { filled_at, tombstone });
        Some(Start { view, filled_at, tombstone, sent_at: Timestamp::now() })
    }

    /// Whether what is stored may stand in for an error: never what was purged meanwhile, and on a
    /// fenced edge only by the route's choice.
    fn may_still_serve(&self, entry: &Entry) -> bool {
        let relied = may_rely(self.job.route.when_fenced, &self.edge.lease.standing());
        let unpurged = self.edge.applied.view().is_some_and(|view| !self.is_purged(&view, &entry.head));
        relied && unpurged && may_stand_in(entry, follow::boottime())
    }

    /// Validators and bodies of a hard-purged entry are never used again.
    fn drop_purged_entry(&mut self, start: &Start) {
        let purged = self.job.entry.as_ref().is_some_and(|entry| self.is_purged(&start.view, &entry.head));
        if purged {
            self.job.entry = None;
        }
    }

    fn is_purged(&self, view: &View, head: &Head) -> bool {
        let matched = view.purges.matched(&head.slots, &self.job.key.host, &self.job.key.target, head.filled_at);
        matches!(matched, Matched::Hard(_))
    }

    async fn send(&self, entry: Option<&Entry>) -> Result<Answer, Refusal> {
        let mut headers = self.job.headers.clone();
        if let Some(entry) = entry {
            fields::drop_own_conditions(&mut headers);
            // Every validator that there is goes along (RFC 9111, 4.3.1).
            if let Some(etag) = entry.head.headers.get(http::header::ETAG) {
                headers.insert(IF_NONE_MATCH, etag.clone());
            }
            if let Some(modified) = entry.head.headers.get(LAST_MODIFIED) {
                headers.insert(IF_MODIFIED_SINCE, modified.clone());
            }
        }
        self.edge.metrics.upstream_requests.inc();
        let fill = Arc::clone(self.fill);
        let inform = Box::new(move |status, headers: &HeaderMap| fill.inform(status, &fields::interim(headers)));
        let call = Call { method: Method::GET, target: &self.job.key.target, headers, body: None, inform };
        self.edge.responses.upstreams.send(&self.job.upstream, call).await
    }

    fn fail(&self, refusal: Refusal, lead: oneshot::Sender<Led>) {
        self.fill.say(Progress::Failed(refusal.clone()));
        // Nobody may wait any more.
        let _ = lead.send(Led::Failed(refusal));
    }

    /// A 304 renews the very entry that it was asked for, unless that was purged meanwhile.
    async fn not_modified(self, start: &Start, entry: &Entry, answer: Answer, lead: oneshot::Sender<Led>) {
        let now_view = self.edge.applied.view().unwrap_or_else(|| Arc::clone(&start.view));
        let other_tag = answer.headers.get(http::header::ETAG).is_some_and(|etag| entry.head.headers.get(http::header::ETAG) != Some(etag));
        if other_tag || self.is_purged(&now_view, &entry.head) {
            return self.fetch_whole(start, lead).await;
        }
        let mut received = answer.headers;
        fields::drop_hop_by_hop(&mut received);
        let mut headers = entry.head.headers.clone();
        update(&mut headers, &received);
        match self.judge(start, entry.head.status, headers, None) {
            Ok(mut head) => {
                head.tags = union(&entry.head.tags, &head.tags);
                head.slots = self.slots(&start.view, &head.tags);
                let renewed = Arc::new(Entry { head, body: entry.body.clone() });
                self.store(start, &renewed);
                self.fill.say(Progress::Entry(Arc::clone(&renewed)));
                let _ = lead.send(Led::Entry(renewed));
            }
            Err(_) => {
                // It says now that it must not be stored: this request alone gets it.
                self.edge.responses.invalidate(&self.job.key);
                self.fill.say(Progress::NotShared);
                let _ = lead.send(Led::Entry(Arc::new(entry.clone())));
            }
        }
    }

    async fn fetch_whole(mut self, start: &Start, lead: oneshot::Sender<Led>) {
        self.job.entry = None;
        match self.send(None).await {
            Ok(answer) => self.response(start, answer, lead).await,
            Err(refusal) => self.fail(refusal, lead),
        }
    }

    async fn response(self, start: &Start, answer: Answer, lead: oneshot::Sender<Led>) {
        let mut headers = answer.headers.clone();
        fields::drop_hop_by_hop(&mut headers);
        date_it(&mut headers);
        let head = match self.judge(start, answer.status, headers, answer.length) {
            Ok(head) => Arc::new(head),
            Err(reason) => return self.direct(answer, reason, lead),
        };
        let most = usize::try_from(self.job.route.max_object.0).unwrap_or(usize::MAX);
        if answer.length.is_some_and(|length| length > most as u64) {
            return self.direct(answer, NotStored::TooLarge, lead);
        }
        self.edge.responses.hit_for_miss.invalidate(&self.job.key);
        let flow = Arc::new(Flow::new(most));
        let shared = head.terms.is_fresh_on_arrival();
        self.fill.say(if shared { Progress::Shared(Arc::clone(&head), Arc::clone(&flow)) } else { Progress::NotShared });
        // The leader reads from the start on, however fast the upstream is.
        if let Some(body) = flow.read() {
            let _ = lead.send(Led::Flow(Arc::clone(&head), body));
        }
        let whole = self.pump(answer, &flow).await;
        if whole && let Some(body) = flow.whole() {
            self.store(start, &Arc::new(Entry { head: (*head).clone(), body }));
        }
        flow.finish(whole);
    }

    /// The key becomes hit-for-miss, so that nobody queues for what can't be shared.
    fn direct(self, answer: Answer, reason: NotStored, lead: oneshot::Sender<Led>) {
        if reason.is_of_response() {
            self.edge.responses.hit_for_miss.insert(self.job.key.clone(), ());
        }
        self.fill.say(Progress::NotShared);
        let _ = lead.send(Led::Direct(answer, reason));
    }

    /// Hands the bytes on; tells whether all that were announced came.
    async fn pump(&self, answer: Answer, flow: &Flow) -> bool {
        let (mut body, mut came) = (answer.body, 0);
        while let Some(chunk) = body.next().await {
            let Ok(chunk) = chunk else { return false };
            came += chunk.len() as u64;
            let pushed = flow.push(chunk, || {
                // Too large to be stored: nobody joins from here on, and nobody waits for its slowest reader.
                self.edge.responses.hit_for_miss.insert(self.job.key.clone(), ());
                self.edge.responses.fills.end(&self.job.key, self.fill);
            });
            if pushed.await.is_err() {
                return false;
            }
        }
        answer.length.is_none_or(|length| length == came)
    }

    /// Decides whether the response may be stored, and on which terms.
    fn judge(&self, start: &Start, status: StatusCode, headers: HeaderMap, length: Option<u64>) -> Result<Head, NotStored> {
        let now = Timestamp::now();
        let facts = facts(&self.job.headers, start.sent_at);
        let terms = storable::decide(&facts, status, &headers, &self.policy(), now)?;
        let tags: Arc<[Tag]> = fields::tags(&headers)
            .inspect_err(|_| {
                self.edge.metrics.unstorable_tags.inc();
            })?
            .into();
        let Variance::Fields(names) = vary::of(&headers) else { return Err(NotStored::VaryStar) };
        Ok(Head {
            status,
            selection: vary::selecting(&names, &self.job.headers),
            slots: self.slots(&start.view, &tags),
            headers,
            length,
            terms,
            tags,
            filled_at: start.filled_at,
            generation: start.view.generation,
            settings: self.job.route.settings,
            received_boot: follow::boottime(),
        })
    }

    fn policy(&self) -> Policy {
        let route = &self.job.route;
        Policy { default_lifetime: route.default_lifetime, set_cookie: route.set_cookie, cache_request_errors: route.cache_request_errors }
    }

    fn slots(&self, view: &View, tags: &[Tag]) -> wire::Slots {
        let key = &self.job.key;
        view.purges.slots(&Subject { owner: &self.job.route.owner, host: &key.host, sent: &key.target, keyed: None, tags })
    }

    /// Stores an entry, unless something passed meanwhile that it must not outlive.
    fn store(&self, start: &Start, entry: &Arc<Entry>) {
        let responses = &self.edge.responses;
        responses.store(&self.job.key, entry, || {
            let Some(view) = self.edge.applied.view() else { return false };
            let same_history = view.generation == start.view.generation;
            let same_generation = responses.tombstones.generation(&self.job.key) == start.tombstone;
            same_history && same_generation && !self.is_purged(&view, &entry.head)
        });
    }
}

/// A response without a Date gets the time of its receipt (RFC 9110, 6.6.1).
fn date_it(headers: &mut HeaderMap) {
    if !headers.contains_key(DATE)
        && let Ok(now) = date::imf(Timestamp::now()).parse()
    {
        headers.insert(DATE, now);
    }
}

/// What storing asks of the request.
pub(crate) fn facts(headers: &HeaderMap, sent_at: Timestamp) -> RequestFacts {
    RequestFacts {
        method: Method::GET,
        has_authorization: headers.contains_key(AUTHORIZATION),
        has_cookie: headers.contains_key(COOKIE),
        no_store: Directives::of(headers).no_store,
        has_range: headers.contains_key(RANGE),
        has_conditions: headers.contains_key(IF_MATCH) || headers.contains_key(IF_UNMODIFIED_SINCE),
        describes_target: false,
        sent_at,
    }
}

/// The statuses that `stale-if-error` is for (RFC 5861, 4).
fn is_trouble(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// RFC 9111, 3.2: every field that the 304 has replaces the stored one, but for those about the body's framing and coding.
fn update(stored: &mut HeaderMap, received: &HeaderMap) {
    const KEPT: [http::HeaderName; 3] = [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE];
    for name in received.keys().filter(|name| !KEPT.contains(name)) {
        stored.remove(name);
        for value in received.get_all(name) {
            stored.append(name.clone(), value.clone());
        }
    }
}

fn union(old: &[Tag], new: &[Tag]) -> Arc<[Tag]> {
    let mut tags: Vec<_> = old.iter().chain(new).cloned().collect();
    tags.sort_unstable();
    tags.dedup();
    tags.into()
}
