//! Fetches a large object in slices where the route asks for it (http.md 20): a client that leaves while an
//! object passes that is too large to be stored has cost the upstream two slices at the most.
//!
//! All slices are of one response: the first one's strong ETag goes along with each request, and one that is
//! of another breaks the answer off.

use std::io;
use std::sync::Arc;

use config::Route;
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::job::Job;
use super::upstream::Answer;
use crate::edge::Edge;
use crate::message::ByteStream;
use crate::refuse::Refusal;
use crate::rules::conditional::has_strong_etag;
use crate::rules::content_range::{check_206, combine_allowed};
use crate::rules::fields;
use crate::rules::ranges::ByteRange;
use crate::rules::slices::slice_at;

/// Asks for the first slice in place of everything, where the route fetches in slices and the client named no range.
pub(crate) fn ask_for_first(route: &Route, headers: &mut HeaderMap) {
    if route.always_slice
        && !headers.contains_key(RANGE)
        && let Some(first) = slice_at(0, route.slice.0, None)
    {
        set_range(headers, first);
    }
}

fn set_range(headers: &mut HeaderMap, range: ByteRange) {
    if let Ok(value) = HeaderValue::try_from(format!("bytes={}-{}", range.first, range.last)) {
        headers.insert(RANGE, value);
    }
}

/// Makes one whole response of a first slice and those that follow; anything else stays as it is.
pub(crate) async fn join(edge: &Arc<Edge>, job: &Job, answer: Answer) -> Result<Answer, Refusal> {
    let was_sliced = job.route.always_slice && !job.headers.contains_key(RANGE);
    if !was_sliced {
        return Ok(answer);
    }
    if answer.status == StatusCode::RANGE_NOT_SATISFIABLE {
        // There is nothing in it, which no range can say.
        return plain(edge, job).await;
    }
    if answer.status != StatusCode::PARTIAL_CONTENT {
        return Ok(answer);
    }
    let extent = check_206(&answer.headers, answer.length).ok().filter(|extent| extent.range.first == 0);
    let Some((complete, extent)) = extent.and_then(|extent| Some((extent.complete?, extent))) else { return plain(edge, job).await };
    let is_all = extent.range.last + 1 == complete;
    if !is_all && !has_strong_etag(&answer.headers) {
        return plain(edge, job).await;
    }
    let rest = Rest { edge: Arc::clone(edge), job: job.clone(), first: answer.headers.clone(), complete, next: extent.range.last + 1 };
    let mut headers = answer.headers;
    headers.remove(CONTENT_RANGE);
    headers.insert(CONTENT_LENGTH, complete.into());
    let body: ByteStream = Box::pin(answer.body.chain(stream::unfold((Some(rest), None), next)));
    Ok(Answer { status: StatusCode::OK, headers, length: Some(complete), body, switched: None, on_wire: None })
}

/// Without what slices need, all of it is fetched at once.
async fn plain(edge: &Edge, job: &Job) -> Result<Answer, Refusal> {
    let mut headers = job.headers.clone();
    if job.entry.is_some() {
        fields::drop_own_conditions(&mut headers);
    }
    job.fetch_piece(edge, headers).await
}

/// What of a response is still to be fetched.
struct Rest {
    edge: Arc<Edge>,
    job: Job,
    /// The fields of the first slice.
    first: HeaderMap,
    complete: u64,
    next: u64,
}

impl Rest {
    async fn slice(&mut self) -> io::Result<ByteStream> {
        let mut headers = self.job.headers.clone();
        fields::drop_own_conditions(&mut headers);
        let slice = self.job.route.slice.0;
        let range = slice_at(self.next / slice.max(1), slice, Some(self.complete)).ok_or_else(broken)?;
        let range = ByteRange { first: self.next, ..range };
        set_range(&mut headers, range);
        if let Some(etag) = self.first.get(ETAG) {
            headers.insert(IF_RANGE, etag.clone());
        }
        let answer = self.job.fetch_piece(&self.edge, headers).await.map_err(io::Error::other)?;
        let extent = check_206(&answer.headers, answer.length).ok().filter(|_| answer.status == StatusCode::PARTIAL_CONTENT);
        let fits = extent.is_some_and(|extent| extent.range == range && extent.complete.is_none_or(|complete| complete == self.complete));
        if !fits || !combine_allowed(&self.first, &answer.headers) {
            return Err(broken());
        }
        self.next = range.last + 1;
        Ok(answer.body)
    }
}

fn broken() -> io::Error {
    io::Error::other("a slice is of another response")
}

type Position = (Option<Rest>, Option<ByteStream>);

async fn next((rest, mut slice): Position) -> Option<(io::Result<bytes::Bytes>, Position)> {
    let mut rest = rest?;
    loop {
        if let Some(body) = &mut slice
            && let Some(chunk) = body.next().await
        {
            return Some((chunk, (Some(rest), slice)));
        }
        if rest.next >= rest.complete {
            return None;
        }
        match rest.slice().await {
            Ok(body) => slice = Some(body),
            Err(error) => return Some((Err(error), (None, None))),
        }
    }
}
