//! What is fetched and how it is judged: by the rules, at one position, under one route's settings.

use std::sync::Arc;
use std::time::Duration;

use config::{Route, Upstream};
use http::header::{AUTHORIZATION, COOKIE, DATE, IF_MATCH, IF_UNMODIFIED_SINCE, RANGE};
use http::{HeaderMap, Method, StatusCode};
use tracing::Span;
use wire::{PurgeTable, Subject, Tag, Target, Timestamp};

use super::claim::Claimed;
use super::entry::{Content, Entry, Head};
use super::key::CacheKey;
use super::lookup::{Trouble, may_stand_in};
use super::second::{Asking, Deposit};
use super::upstream::{Answer, Call};
use crate::applied::View;
use crate::edge::Edge;
use crate::metrics::Metrics;
use crate::refuse::Refusal;
use crate::rules::vary::{self, Variance};
use crate::rules::{Directives, NotStored, Policy, RequestFacts, date, fields, groups, storable};
use crate::validity::{Buried, Provenance, may_rely, may_store};

/// What is fetched.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) key: CacheKey,
    /// The target as the client sent it: it is purged by this one too.
    pub(crate) sent: Target,
    pub(crate) route: Route,
    pub(crate) upstream: Upstream,
    /// The fields for the upstream; conditions of our own are added.
    pub(crate) headers: HeaderMap,
    /// What is stored already, to be asked about, or to stand in for an error.
    pub(crate) entry: Option<Arc<Entry>>,
    /// Whether the second tier is asked first.
    pub(crate) asking: Asking,
    /// What it is fetched for: all edges of the region.
    pub(crate) claim: Option<Arc<Claimed>>,
}

/// What was true when a fetch started.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) view: Arc<View>,
    /// The seq that this edge had applied (P4).
    pub(crate) filled_at: u64,
    /// The generation of its key (P8).
    pub(crate) tombstone: u64,
    pub(crate) sent_at: Timestamp,
    /// The same by CLOCK_BOOTTIME.
    pub(crate) sent_boot: Duration,
}

impl Start {
    /// P4: the position is read before the fetch starts, never after; and after the view, so that a
    /// position of another history never goes with this one's view.
    pub(crate) fn now(edge: &Edge, key: &CacheKey) -> Option<Self> {
        let view = edge.applied.view()?;
        let filled_at = edge.lease.standing().applied;
        let tombstone = edge.responses.tombstones.generation(key);
        Some(Self { view, filled_at, tombstone, sent_at: Timestamp::now(), sent_boot: follow::boottime() })
    }
}

impl Job {
    /// Fetches a piece of what a fill brings: its interim responses are of no use to anybody.
    pub(crate) async fn fetch_piece(&self, edge: &Edge, headers: HeaderMap) -> Result<Answer, Refusal> {
        edge.metrics.upstream_requests.inc();
        let call = Call {
            method: Method::GET,
            target: &self.key.target,
            headers,
            body: None,
            inform: Box::new(|_, _| {}),
            may_switch: false,
            retries: self.route.retry,
        };
        edge.responses.upstreams.send(&self.upstream, call).await
    }

    pub(crate) fn is_purged(&self, view: &View, head: &Head) -> bool {
        head.provenance.is_purged(self.key.place(), view.in_force())
    }

    /// Whether what is stored may stand in for an answer: never what was purged meanwhile, and on a
    /// fenced edge only by the route's choice.
    pub(crate) fn may_stand_in(&self, edge: &Edge, entry: &Entry, trouble: Trouble) -> bool {
        let relied = may_rely(self.route.when_fenced, &edge.lease.standing());
        let unpurged = edge.applied.view().is_some_and(|view| !self.is_purged(&view, &entry.head));
        relied && unpurged && may_stand_in(entry, trouble, follow::boottime())
    }

    /// Decides whether a response to `method` may be stored, and on which terms.
    pub(crate) fn judge(
        &self,
        edge: &Edge,
        start: &Start,
        request: &RequestFacts,
        (status, headers): (StatusCode, HeaderMap),
        length: Option<u64>,
    ) -> Result<Head, NotStored> {
        let terms = storable::decide(request, status, &headers, &Policy::of(&self.route, status), Timestamp::now())?;
        let mut tags = fields::tags(&headers).inspect_err(|_| {
            edge.metrics.unstorable_tags.inc();
        })?;
        tags.extend(groups::tags(&headers, self.key.scheme.as_str(), &self.key.host)?);
        let tags: Arc<[Tag]> = tags.into();
        let Variance::Fields(mut names) = vary::of(&headers) else { return Err(NotStored::VaryStar) };
        names.extend(self.route.key_headers.iter().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>());
        Ok(Head {
            status,
            selection: vary::selecting(&names, &self.route.key_cookies, &self.headers),
            provenance: Provenance {
                filled_at: start.filled_at,
                generation: start.view.generation,
                settings: self.route.settings,
                slots: self.slots(&start.view, &tags),
            },
            headers,
            length,
            terms,
            tags,
            received_boot: follow::boottime(),
            started_boot: start.sent_boot,
        })
    }

    /// Returns the slots of whatever purges a response with these tags.
    pub(crate) fn slots(&self, view: &View, tags: &[Tag]) -> wire::Slots {
        self.slots_in(&view.purges, tags)
    }

    fn slots_in(&self, purges: &PurgeTable, tags: &[Tag]) -> wire::Slots {
        let keyed = (self.sent != self.key.target).then_some(&self.key.target);
        purges.slots(&Subject { owner: &self.route.owner, host: &self.key.host, sent: &self.sent, keyed, tags })
    }

    /// Tells whether every purge that names a response takes its entry: what the fields that are stored say now is read
    /// once more, and nothing of it is missing from what purges go by.
    fn is_purgeable(&self, purges: &PurgeTable, head: &Head) -> bool {
        let (named, groups) = (fields::tags(&head.headers), groups::tags(&head.headers, self.key.scheme.as_str(), &self.key.host));
        let (Ok(mut tags), Ok(groups)) = (named, groups) else { return false };
        tags.extend(groups);
        let slots = &head.provenance.slots;
        !slots.is_empty() && slots.hold(&self.slots_in(purges, &tags)) && tags.iter().all(|tag| head.tags.contains(tag))
    }

    /// Counts an entry that is stored where some purge could not take it.
    fn watch(&self, metrics: &Metrics, is_purgeable: bool) {
        if !is_purgeable {
            metrics.unpurgeable_entries.inc();
            tracing::error!(key = %self.key, "an entry was stored that some purge can't take");
        }
    }

    /// Stores an entry, unless something passed meanwhile that it must not outlive. `of` is the stored one that it
    /// was made of.
    pub(crate) fn store(&self, edge: &Edge, start: &Start, entry: &Arc<Entry>, of: Option<&Entry>) {
        let responses = &edge.responses;
        let stage = trace::stage!("store", atoll.tier = "l1").entered();
        let is_purgeable = self.is_purgeable(&start.view.purges, &entry.head);
        let is_stored = responses.store(&self.key, entry, of, || {
            let Some(view) = edge.applied.view() else { return false };
            let buried = Buried { at_start: start.tombstone, now: responses.tombstones.generation(&self.key) };
            let may_store = may_store(&entry.head.provenance, self.key.place(), view.in_force(), buried);
            if may_store {
                self.watch(&edge.metrics, is_purgeable);
            }
            may_store
        });
        drop(stage);
        if is_stored && matches!(entry.content, Content::Whole(_)) {
            responses.second.deposit(Deposit {
                key: self.key.clone(),
                sent: self.sent.clone(),
                owner: self.route.owner.clone(),
                epoch: start.view.epoch,
                entry: Arc::clone(entry),
                tombstone: start.tombstone,
                claim: self.claim.clone(),
                span: Span::current(),
            });
        }
    }

    /// What storing asks of the request.
    pub(crate) fn facts(&self, method: Method, describes_target: bool, start: &Start) -> RequestFacts {
        let has = |name| self.headers.contains_key(name);
        RequestFacts {
            method,
            has_authorization: has(AUTHORIZATION),
            has_cookie: has(COOKIE),
            no_store: Directives::of(&self.headers).no_store,
            has_range: has(RANGE),
            has_conditions: has(IF_MATCH) || has(IF_UNMODIFIED_SINCE),
            describes_target,
            sent_at: start.sent_at,
        }
    }
}

/// A response without a Date gets the time of its receipt (RFC 9110, 6.6.1).
pub(crate) fn date_it(headers: &mut HeaderMap) {
    if !headers.contains_key(DATE)
        && let Ok(now) = date::imf(Timestamp::now()).parse()
    {
        headers.insert(DATE, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Scheme;
    use crate::rules::StoreTerms;
    use crate::rules::testing::headers;
    use crate::rules::vary::Selection;

    fn job() -> Job {
        let network = config::Network::from_json(&serde_json::json!({
            "upstreams": { "u": { "servers": ["http://127.0.0.1:1"] } },
            "routes": { "r": { "hosts": ["*"], "upstream": "u", "query": "none" } },
        }))
        .unwrap();
        let key = CacheKey { scheme: Scheme::Http, host: "h".parse().unwrap(), target: "/a".parse().unwrap() };
        Job {
            key,
            sent: "/a?b".parse().unwrap(),
            route: network.routes.values().next().unwrap().clone(),
            upstream: network.upstreams.values().next().unwrap().clone(),
            headers: HeaderMap::new(),
            entry: None,
            asking: Asking::No,
            claim: None,
        }
    }

    /// A head with these fields that goes by `tags`.
    fn head(job: &Job, purges: &PurgeTable, lines: &[(&str, &str)], tags: &[&str]) -> Head {
        let tags: Vec<Tag> = tags.iter().map(|tag| tag.parse().unwrap()).collect();
        let terms = StoreTerms {
            lifetime: Duration::from_secs(10),
            initial_age: Duration::ZERO,
            must_revalidate: false,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            disconnected: Duration::ZERO,
            no_cache: false,
            dropped_on_reuse: vec![],
        };
        let slots = job.slots_in(purges, &tags);
        Head {
            status: StatusCode::OK,
            headers: headers(lines),
            length: None,
            selection: Selection::default(),
            terms,
            tags: tags.into(),
            provenance: Provenance { filled_at: 1, generation: 0, settings: 1, slots },
            received_boot: Duration::ZERO,
            started_boot: Duration::ZERO,
        }
    }

    #[test]
    fn an_entry_that_some_purge_could_not_take_is_counted() {
        let (job, purges, metrics) = (job(), PurgeTable::new([3; 16]), Metrics::new());
        let lines = [("surrogate-key", "a b"), ("cache-tag", "c"), ("cache-groups", "\"g\"")];
        let tags = ["a", "b", "c", "cache-group:http://h/g"];
        let sound = head(&job, &purges, &lines, &tags);
        let with_more = head(&job, &purges, &lines, &["a", "b", "c", "cache-group:http://h/g", "of-the-body-before"]);
        let of_another_url = {
            let slots = Job { sent: "/x".parse().unwrap(), ..job.clone() }.slots_in(&purges, &sound.tags);
            Head { provenance: Provenance { slots, ..sound.provenance.clone() }, ..sound.clone() }
        };
        let by_another_key = head(&job, &PurgeTable::new([4; 16]), &lines, &tags);
        let untagged = Head { tags: Vec::<Tag>::new().into(), ..sound.clone() };
        let cases = [
            (sound, true),
            (with_more, true),
            (head(&job, &purges, &[], &[]), true),
            (head(&job, &purges, &lines, &tags[1..]), false),
            (head(&job, &purges, &lines, &tags[..3]), false),
            (of_another_url, false),
            (by_another_key, false),
            (untagged, false),
            (head(&job, &purges, &[("surrogate-key", "\u{fc}")], &[]), false),
        ];
        for (at, (head, is_purgeable)) in cases.iter().enumerate() {
            assert_eq!(job.is_purgeable(&purges, head), *is_purgeable, "case {at}");
            job.watch(&metrics, job.is_purgeable(&purges, head));
        }
        assert_eq!(metrics.unpurgeable_entries.get(), 6);
    }
}
