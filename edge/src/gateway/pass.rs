//! Requests that go upstream for one client alone, and what their answers mean for what is stored: a HEAD
//! updates it, an unsafe method makes it invalid, a POST may bring a new one.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use config::{Rule, UnsafeInvalidates};
use futures_util::{StreamExt as _, stream};
use http::header::CONTENT_LOCATION;
use http::{HeaderMap, Method, StatusCode};
use wire::Target;

use super::announce::Invalid;
use super::entry::Entry;
use super::fetch;
use super::job::{Job, Start, date_it};
use super::key::CacheKey;
use super::upstream::{Answer, Call, Inform};
use crate::edge::Edge;
use crate::message::ByteStream;
use crate::normalise::Ask;
use crate::refuse::Refusal;
use crate::rules::fields;
use crate::rules::groups::{self, Groups};
use crate::rules::invalidate::{self, Place};
use crate::rules::update::{self, HeadVerdict, StoredGet};
use crate::validity::Said;

/// How long an answer waits until the groups that it makes invalid are so at this edge.
const GROUPS_IN_FORCE: Duration = Duration::from_millis(500);

/// A request that is not looked up.
pub(crate) struct Passing {
    pub(crate) ask: Ask,
    pub(crate) job: Job,
    pub(crate) body: Option<ByteStream>,
    pub(crate) inform: Inform,
}

/// Sends a HEAD, and updates or invalidates the stored answer to GET by what comes (RFC 9111, 4.3.5).
pub(crate) async fn head(edge: &Arc<Edge>, job: &Job, inform: Inform) -> Result<Answer, Refusal> {
    let start = Start::now(edge, &job.key).ok_or(Refusal::NotReady)?;
    edge.metrics.upstream_requests.inc();
    let call = Call {
        method: Method::HEAD,
        target: &job.key.target,
        headers: job.headers.clone(),
        body: None,
        inform,
        may_switch: false,
        retries: job.route.retry,
    };
    let answer = edge.responses.upstreams.send(&job.upstream, call).await?;
    if let Some(entry) = &job.entry {
        let stored = StoredGet { status: entry.head.status, headers: &entry.head.headers, length: entry.length() };
        match update::by_head(&stored, answer.status, &answer.headers) {
            HeadVerdict::Leave => {}
            HeadVerdict::Invalidate => {
                edge.responses.invalidate(&job.key);
            }
            HeadVerdict::Update(_) => refresh(edge, job, &start, entry, answer.headers.clone()),
        }
    }
    Ok(answer)
}

/// The body is as old as it was: its position is not raised.
fn refresh(edge: &Edge, job: &Job, start: &Start, entry: &Entry, mut received: HeaderMap) {
    fields::drop_hop_by_hop(&mut received);
    match fetch::renewed(edge, job, start, entry, Said::Head, received) {
        Ok(renewed) => job.store(edge, start, &Arc::new(renewed), Some(entry)),
        Err(reason) if reason.is_of_response() => {
            edge.responses.invalidate(&job.key);
        }
        Err(_) => {}
    }
}

/// Sends a request that is not looked up, and makes invalid what it may have changed: before the first
/// byte of the answer, and also where none came (P8).
pub(crate) async fn send_and_invalidate(edge: Arc<Edge>, passing: Passing) -> Result<Answer, Refusal> {
    let Passing { ask, job, body, inform } = passing;
    let is_post = ask.method == Method::POST;
    edge.metrics.upstream_requests.inc();
    let retries = job.route.retry;
    let call = Call {
        method: ask.method.clone(),
        target: &job.key.target,
        headers: job.headers.clone(),
        body,
        inform,
        may_switch: false,
        retries,
    };
    // P4: the position is read before the request is sent.
    let start = Start::now(&edge, &job.key);
    let sent = edge.responses.upstreams.send(&job.upstream, call).await;
    let empty = HeaderMap::new();
    let (status, answered) = sent.as_ref().map_or((None, &empty), |answer| (Some(answer.status), &answer.headers));
    let place = Place { scheme: job.key.scheme.as_str(), authority: &ask.authority, target: &ask.target };
    let targets = invalidate::targets(&ask.method, status, place, answered);
    let mut generation = None;
    for target in &targets {
        let buried = invalidate_url(&edge, &job, target);
        generation = generation.or_else(|| buried.filter(|_| *target == ask.target));
    }
    forget(&edge, &job, &targets).await;
    if !targets.is_empty() && status.is_some() {
        invalidate_groups(&edge, &job, groups::invalidated(answered, job.key.scheme.as_str(), &job.key.host)).await;
    }
    let answer = sent?;
    // The answer to a POST that says to be the representation of its target (RFC 9110, 9.3.3).
    let names_target = is_post && invalidate::names_target(place, &answer.headers, &CONTENT_LOCATION);
    match start {
        // Nobody else made it invalid while the request was under way.
        Some(start) if names_target && generation == Some(start.tombstone + 1) => {
            Ok(keep(edge, job, Start { tombstone: start.tombstone + 1, ..start }, answer))
        }
        _ => Ok(answer),
    }
}

/// Makes a URL of the request's origin invalid, by the rule that answers for it: here at once, and through the
/// journal everywhere. Returns the generation of its key from here on.
///
/// The journal is told the target as it was sent: its origin adds the one that is keyed, by the configuration that is
/// in force there. This edge's may be another, and so may its key be.
fn invalidate_url(edge: &Edge, job: &Job, target: &Target) -> Option<u64> {
    let view = edge.applied.view()?;
    let Some(Rule::Route(route)) = view.network.rule_for(&job.key.host, target.path()) else { return None };
    let [keyed, sent] = keys(&job.key, route.keyed(target), target);
    let generation = edge.responses.invalidate(&keyed);
    if sent != keyed {
        edge.responses.invalidate(&sent);
    }
    if job.route.unsafe_invalidates == UnsafeInvalidates::Everywhere {
        edge.responses.announcer.announce(&route.owner, Invalid::Url(sent.host, sent.target));
    }
    Some(generation)
}

/// Has what was made invalid forgotten outside of this process too, before anybody hears of it.
async fn forget(edge: &Edge, job: &Job, targets: &[Target]) {
    let Some(view) = edge.applied.view() else { return };
    for target in targets {
        let Some(Rule::Route(route)) = view.network.rule_for(&job.key.host, target.path()) else { continue };
        let [keyed, sent] = keys(&job.key, route.keyed(target), target);
        edge.responses.second.forget(&keyed).await;
        if sent != keyed {
            edge.responses.second.forget(&sent).await;
        }
    }
}

/// Returns the keys of a URL beside that of a request: as its route files it, and as it was sent.
fn keys(of: &CacheKey, keyed: Target, sent: &Target) -> [CacheKey; 2] {
    [keyed, sent.clone()].map(|target| CacheKey { target, ..of.clone() })
}

/// A group may be of any number of URLs, so it is made invalid by the journal; the answer waits until that is in
/// force here. Where it can't be had in time, or is not to be, this edge forgets all that it has stored.
async fn invalidate_groups(edge: &Arc<Edge>, job: &Job, groups: Groups) {
    if groups == Groups::Some(Vec::new()) {
        return;
    }
    let owner = &job.route.owner;
    let (Groups::Some(tags), UnsafeInvalidates::Everywhere) = (&groups, job.route.unsafe_invalidates) else {
        if job.route.unsafe_invalidates == UnsafeInvalidates::Everywhere {
            edge.responses.announcer.announce(owner, Invalid::Everything);
        }
        return edge.responses.invalidate_all();
    };
    let Some(start) = Start::now(edge, &job.key) else { return };
    for tag in tags {
        edge.responses.announcer.announce(owner, Invalid::Tag(tag.clone()));
    }
    let in_force = async {
        let is_in_force = |tag| edge.applied.view().is_some_and(|view| view.purges.has_purged_tag(owner, tag, start.filled_at));
        while !tags.iter().all(is_in_force) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if tokio::time::timeout(GROUPS_IN_FORCE, in_force).await.is_err() {
        tracing::warn!("cache groups could not be invalidated through the journal in time; forgetting all responses");
        edge.responses.invalidate_all();
    }
}

/// Stores an answer to POST as one to GET, when its body has passed whole.
fn keep(edge: Arc<Edge>, job: Job, start: Start, answer: Answer) -> Answer {
    if !fields::is_framed_soundly(&answer.headers) {
        return answer;
    }
    let excess = answer.excess();
    let mut headers = answer.headers.clone();
    fields::drop_hop_by_hop(&mut headers);
    date_it(&mut headers);
    let request = job.facts(Method::POST, true, &start);
    let judged = job.judge(&edge, &start, &request, (answer.status, headers), answer.length);
    let Some(head) = judged.ok().filter(|_| answer.status != StatusCode::PARTIAL_CONTENT) else { return answer };
    let most = usize::try_from(job.route.max_object.0).unwrap_or(usize::MAX);
    let (length, announced) = (answer.length, answer.length);
    let state = (answer.body, Some((edge, job, start, head, BytesMut::new())));
    let body = stream::unfold((state.0, state.1, excess), move |(mut body, keeping, excess)| async move {
        let chunk = body.next().await;
        let keeping = keeping.and_then(|(edge, job, start, head, mut kept)| {
            match &chunk {
                Some(Ok(chunk)) => kept.extend_from_slice(chunk),
                Some(Err(_)) => return None,
                None => {}
            }
            let is_whole = chunk.is_none() || announced == Some(kept.len() as u64);
            if is_whole && announced.is_none_or(|length| length == kept.len() as u64) && !excess.is_there() {
                job.store(&edge, &start, &Arc::new(Entry::whole(head, kept.freeze())), None);
                return None;
            }
            (kept.len() <= most).then_some((edge, job, start, head, kept))
        });
        chunk.map(|chunk| (chunk, (body, keeping, excess)))
    });
    Answer { status: answer.status, headers: answer.headers, length, body: Box::pin(body), switched: None, on_wire: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::Scheme;

    #[test]
    fn a_url_is_made_invalid_as_it_is_filed_and_as_it_was_sent() {
        let target = |text: &str| text.parse::<Target>().unwrap();
        let of = CacheKey { scheme: Scheme::Https, host: "h".parse().unwrap(), target: target("/other") };
        let keys = keys(&of, target("/a"), &target("/a?utm_source=x"));
        assert_eq!(keys.map(|key| key.to_string()), ["https://h/a", "https://h/a?utm_source=x"]);
    }
}
