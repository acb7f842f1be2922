//! Responses of which only parts are stored (RFC 9111, 3.3 and 3.4; http.md 19): they answer for ranges that
//! they hold, and what is missing of others is fetched and put together with them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::entry::{Content, Entry, Head};
use super::fetch::union;
use super::job::{Job, Start, date_it};
use crate::edge::Edge;
use crate::message::{Body, Response};
use crate::rules::conditional::has_strong_etag;
use crate::rules::content_range::{Extent, check_206, combine_allowed};
use crate::rules::parts::Parts;
use crate::rules::ranges::{self, ByteRange, Ranges};
use crate::rules::{fields, update};

/// Returns which part of which whole a 206 is, where it may be believed.
pub(crate) fn extent(head: &Head) -> Option<Extent> {
    check_206(&head.headers, head.length).ok()
}

/// Stores what a 206 brought, together with what is stored of the same response.
pub(crate) fn keep(edge: &Edge, job: &Job, start: &Start, head: &Head, body: Bytes) {
    let Some(extent) = extent(head).filter(|extent| extent.range.length() == body.len() as u64) else { return };
    let stored = edge.responses.stored(&job.key);
    let stored = stored.as_deref().and_then(|stored| stored.select(&job.headers)).filter(|entry| is_usable(job, start, entry));
    let stored = stored.map(AsRef::as_ref).filter(|entry| combine_allowed(&entry.head.headers, &head.headers));
    let Some(known) = stored else {
        let mut parts = Parts::new(extent.complete);
        if parts.insert(extent.range.first, body).is_ok() {
            job.store(edge, start, &Arc::new(Entry::of_parts(of_whole(head.clone(), extent), parts)), None);
        }
        return;
    };
    if let Some(entry) = combined(edge, job, start, known, &head.headers, extent, body) {
        job.store(edge, start, &Arc::new(entry), Some(known));
    }
}

fn is_usable(job: &Job, start: &Start, entry: &Entry) -> bool {
    entry.head.status == StatusCode::OK && entry.head.provenance.settings == job.route.settings && !job.is_purged(&start.view, &entry.head)
}

/// The head of the representation that a part is of.
fn of_whole(mut head: Head, extent: Extent) -> Head {
    head.status = StatusCode::OK;
    head.length = extent.complete;
    head.headers.remove(CONTENT_RANGE);
    head.headers.remove(CONTENT_LENGTH);
    head
}

/// Puts a part together with what is stored of the same response: its fields are those of both, and it is
/// judged by them (RFC 9111, 3.4; RFC 9110, 15.3.7.3). Nothing where all of it is stored, or it is not to be.
fn combined(edge: &Edge, job: &Job, start: &Start, known: &Entry, received: &HeaderMap, extent: Extent, body: Bytes) -> Option<Entry> {
    let Content::Parts(held) = &known.content else { return None };
    if held.weight() as u64 + body.len() as u64 > job.route.max_object.0 {
        return None;
    }
    let headers = update::by_304(&known.head.headers, received);
    let mut request = job.facts(Method::GET, false, start);
    request.has_range = false;
    let head = job.judge(edge, start, &request, (StatusCode::OK, headers), extent.complete).ok()?;
    let mut head = of_whole(head, extent);
    head.tags = union(&known.head.tags, &head.tags);
    head.provenance.slots = job.slots(&start.view, &head.tags);
    // What was purged since the older part was fetched is gone with it.
    head.provenance.filled_at = head.provenance.filled_at.min(known.head.provenance.filled_at);
    let mut parts = held.clone();
    parts.learn(extent.complete).ok()?;
    parts.insert(extent.range.first, body).ok()?;
    Some(Entry::of_parts(head, parts))
}

/// What a stored part comes to for a request.
#[derive(Debug)]
pub(crate) enum Fit {
    /// The answer is there; its fields are finished by the caller.
    Answer(Response),
    /// This range is missing for it.
    Missing(ByteRange),
    /// It is of no use for this request.
    Useless,
}

/// Decides what stored parts come to for a GET that may have their representation.
pub(crate) fn fit(request: &HeaderMap, range_applies: bool, headers: &HeaderMap, parts: &Parts) -> Fit {
    let Some(complete) = parts.complete() else {
        return Fit::Useless;
    };
    let wanted = if range_applies && request.contains_key(RANGE) { ranges::parse(request, complete) } else { Ranges::Whole };
    match wanted {
        Ranges::One(range) => parts.read(range).map_or_else(
            || parts.missing(range).map_or(Fit::Useless, Fit::Missing),
            |chunks| Fit::Answer(part(headers, range, complete, &chunks)),
        ),
        // All of it is for others too: that is a fill, which many share.
        Ranges::Whole | Ranges::Several(_) => Fit::Useless,
        Ranges::Unsatisfiable => {
            let mut response = Response::new(StatusCode::RANGE_NOT_SATISFIABLE);
            set(&mut response.headers, &ranges::unsatisfied(complete));
            Fit::Answer(response)
        }
    }
}

fn part(headers: &HeaderMap, range: ByteRange, complete: u64, chunks: &[Bytes]) -> Response {
    let mut headers = headers.clone();
    set(&mut headers, &range.content_range(complete));
    let body = if let [only] = chunks { only.clone() } else { chunks.concat().into() };
    Response { status: StatusCode::PARTIAL_CONTENT, headers, body: Body::Whole(body) }
}

fn set(headers: &mut HeaderMap, content_range: &str) {
    if let Ok(value) = HeaderValue::from_str(content_range) {
        headers.insert(CONTENT_RANGE, value);
    }
}

/// Returns what is missing of the whole.
pub(crate) fn missing_of_whole(entry: &Entry) -> Option<ByteRange> {
    let Content::Parts(parts) = &entry.content else { return None };
    parts.missing(ByteRange { first: 0, last: parts.complete()?.saturating_sub(1) })
}

/// Fetches what is missing and stores it with the rest. Returns the entry with all that is held then; nothing
/// where the upstream has another response by now, or none.
pub(crate) async fn complete(edge: &Arc<Edge>, job: &Job, entry: &Entry, missing: ByteRange) -> Option<Entry> {
    if !has_strong_etag(&entry.head.headers) || missing.length() > job.route.max_object.0 {
        return None;
    }
    let start = Start::now(edge, &job.key)?;
    let mut headers = job.headers.clone();
    fields::drop_own_conditions(&mut headers);
    let to_the_end = entry.length().is_some_and(|complete| missing.last + 1 == complete);
    let range = if to_the_end { format!("bytes={}-", missing.first) } else { format!("bytes={}-{}", missing.first, missing.last) };
    headers.insert(RANGE, HeaderValue::try_from(range).ok()?);
    if let Some(etag) = entry.head.headers.get(ETAG) {
        headers.insert(IF_RANGE, etag.clone());
    }
    let mut answer = job.fetch_piece(edge, headers).await.ok()?;
    if answer.status != StatusCode::PARTIAL_CONTENT || !fields::is_framed_soundly(&answer.headers) {
        return None;
    }
    let excess = answer.excess();
    fields::drop_hop_by_hop(&mut answer.headers);
    date_it(&mut answer.headers);
    let extent = check_206(&answer.headers, answer.length).ok().filter(|extent| extent.range.length() <= job.route.max_object.0)?;
    if !combine_allowed(&entry.head.headers, &answer.headers) || !is_usable(job, &start, entry) {
        return None;
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.body.next().await {
        body.extend_from_slice(&chunk.ok()?);
        if body.len() as u64 > extent.range.length() {
            return None;
        }
    }
    if body.len() as u64 != extent.range.length() || excess.is_there() {
        return None;
    }
    let whole = combined(edge, job, &start, entry, &answer.headers, extent, body.into())?;
    job.store(edge, &start, &Arc::new(whole.clone()), Some(entry));
    Some(whole)
}
