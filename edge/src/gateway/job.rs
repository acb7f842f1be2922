//! What is fetched and how it is judged: by the rules, at one position, under one route's settings.

use std::sync::Arc;

use config::{Route, Upstream};
use http::header::{AUTHORIZATION, COOKIE, DATE, IF_MATCH, IF_UNMODIFIED_SINCE, RANGE};
use http::{HeaderMap, Method, StatusCode};
use wire::{Subject, Tag, Target, Timestamp};

use super::entry::{Entry, Head};
use super::key::CacheKey;
use super::lookup::{Trouble, may_stand_in};
use super::upstream::{Answer, Call};
use crate::applied::View;
use crate::edge::Edge;
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
}

impl Start {
    /// P4: the position is read before the fetch starts, never after; and after the view, so that a
    /// position of another history never goes with this one's view.
    pub(crate) fn now(edge: &Edge, key: &CacheKey) -> Option<Self> {
        let view = edge.applied.view()?;
        let filled_at = edge.lease.standing().applied;
        let tombstone = edge.responses.tombstones.generation(key);
        Some(Self { view, filled_at, tombstone, sent_at: Timestamp::now() })
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
        })
    }

    /// Returns the slots of whatever purges a response with these tags.
    pub(crate) fn slots(&self, view: &View, tags: &[Tag]) -> wire::Slots {
        let keyed = (self.sent != self.key.target).then_some(&self.key.target);
        view.purges.slots(&Subject { owner: &self.route.owner, host: &self.key.host, sent: &self.sent, keyed, tags })
    }

    /// Stores an entry, unless something passed meanwhile that it must not outlive. `of` is the stored one that it
    /// was made of.
    pub(crate) fn store(&self, edge: &Edge, start: &Start, entry: &Arc<Entry>, of: Option<&Entry>) {
        let responses = &edge.responses;
        responses.store(&self.key, entry, of, || {
            let Some(view) = edge.applied.view() else { return false };
            let buried = Buried { at_start: start.tombstone, now: responses.tombstones.generation(&self.key) };
            may_store(&entry.head.provenance, self.key.place(), view.in_force(), buried)
        });
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
