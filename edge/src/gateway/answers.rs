//! How a visit's answer looks: a stored response, one that flows in, one that passes, or none.

use std::sync::Arc;

use follow::boottime;
use http::header::{AGE, CONTENT_LENGTH, VIA};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use wire::Timestamp;

use super::coded;
use super::codings::Coded;
use super::compress::{self, may_compress};
use super::entry::{Content, Entry, Head};
use super::lookup::{Moment, Why};
use super::serve::Visit;
use super::upstream::Answer as Answered;
use crate::assets::Source;
use crate::message::{Body, ByteStream, Response};
use crate::outcome::{Answer, Outcome};
use crate::refuse::Refusal;
use crate::represent::{self, Representation};
use crate::rules::conditional::Voice;
use crate::rules::{Forward, NotStored, age, fields, update};

impl Visit<'_> {
    /// The fields of a stored response, as they are sent. `Date` and `Expires` stay as they were; `Age` grows.
    pub(super) fn stored_fields(&self, head: &Head, headers: &HeaderMap) -> HeaderMap {
        let mut headers = headers.clone();
        for name in &head.terms.dropped_on_reuse {
            headers.remove(name);
        }
        headers.insert(AGE, age::value(head.age(boottime())));
        self.finish_fields(&mut headers);
        headers
    }

    /// A stored response.
    pub(super) fn serve_entry(&self, entry: &Arc<Entry>, told: (&'static str, Option<&'static str>), moment: &Moment) -> Answer {
        let (headers, source, length) = self.representation(entry);
        let headers = self.stored_fields(&entry.head, &headers);
        let whole = Representation { status: entry.head.status, headers, length, source };
        let response = represent::answer(&self.ask.method, &self.ask.headers, whole, Voice::Cache, Timestamp::now());
        Answer { response, outcome: self.told(&entry.head, told, moment) }
    }

    /// The coding of a stored body that this client likes best, as far as it has been made.
    pub(super) fn representation(&self, entry: &Arc<Entry>) -> (HeaderMap, Source, u64) {
        let length = entry.length().unwrap_or_default();
        let body = match &entry.content {
            Content::Whole(body) => body.clone(),
            // Answers to HEAD have no bytes.
            Content::Parts(_) => bytes::Bytes::new(),
        };
        let mut headers = entry.head.headers.clone();
        if !may_compress(entry.head.status, &headers, Some(length), self.route.compress) {
            return (headers, Source::Memory(body), length);
        }
        if let Some(coding) = compress::coding_for(&self.ask.headers) {
            match entry.codings.get(coding) {
                Coded::Made(coded) => {
                    return (coded::headers(&headers, &coded), Source::Memory(coded.bytes.clone()), coded.bytes.len() as u64);
                }
                Coded::Useless => {}
                Coded::Unmade => {
                    let (edge, key, entry) = (Arc::clone(self.edge), self.key.clone(), Arc::clone(entry));
                    self.edge.runtime.spawn(async move { edge.responses.code(&key, &entry, coding).await });
                }
            }
        }
        update::vary_by_coding(&mut headers);
        (headers, Source::Memory(body), length)
    }

    pub(super) fn told(&self, head: &Head, (result, detail): (&'static str, Option<&'static str>), moment: &Moment) -> Outcome {
        let detail = if moment.standing.holds() { detail } else { Some("fenced") };
        // What was soft-purged is stale, whatever its lifetime (RFC 9211, 2.4).
        let ttl = if detail == Some(Why::SoftPurged.as_str()) { ttl(head).min(0) } else { ttl(head) };
        Outcome::stored(result, ttl, detail)
    }

    pub(super) fn revalidated(&self, entry: &Arc<Entry>, why: Why, is_stored: bool) -> Answer {
        let mut answer = self.serve_entry(entry, ("revalidated", Some(why.as_str())), &self.now());
        if why == Why::Partial {
            answer.outcome = completed_outcome();
            return answer;
        }
        answer.outcome = Outcome::forwarded("revalidated", Forward::Stale, StatusCode::NOT_MODIFIED, is_stored, Some(why.as_str()));
        answer
    }

    /// A response that flows in, to be stored when it is whole.
    pub(super) fn serve_flow(&self, head: &Head, body: ByteStream, why: Why, mut headers: HeaderMap) -> Answer {
        if may_compress(head.status, &headers, head.length, self.route.compress) {
            update::vary_by_coding(&mut headers);
        }
        self.finish_fields(&mut headers);
        headers.remove(CONTENT_LENGTH);
        let body = framed(head.status, head.length, body);
        let outcome = Outcome::forwarded("miss", forward(why), head.status, true, self.detail(why));
        Answer { response: Response { status: head.status, headers, body }, outcome }
    }

    pub(super) fn direct(&self, answer: Answered, why: Why, reason: NotStored) -> Answer {
        let status = answer.status;
        let outcome = Outcome::forwarded("pass", forward(why), status, false, Some(reason.as_str()));
        Answer { response: self.passed_on(answer), outcome }
    }

    /// Our own word, where it says more; that the node is fenced comes first.
    pub(super) fn detail(&self, why: Why) -> Option<&'static str> {
        match why {
            _ if !self.edge.lease.standing().holds() => Some(Why::Fenced.as_str()),
            Why::Miss | Why::VaryMiss | Why::Stale | Why::Partial => None,
            why => Some(why.as_str()),
        }
    }

    /// An upstream's answer for this request alone, without what is about one connection.
    pub(super) fn passed_on(&self, answer: Answered) -> Response {
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

    pub(super) fn finish_fields(&self, headers: &mut HeaderMap) {
        fields::drop_for_client(headers, self.route.keep_tags);
        headers.append(VIA, HeaderValue::from_static("1.1 atoll"));
    }

    /// The upstream was asked, and there is no answer.
    pub(super) fn unanswered(refusal: &Refusal, why: Why) -> Answer {
        let mut answer = Answer::refused("route", refusal);
        answer.outcome = answer.outcome.after(forward(why));
        answer
    }
}

pub(super) fn collapsed(mut answer: Answer) -> Answer {
    answer.outcome = answer.outcome.collapsed();
    answer
}

/// What was missing of a stored response was fetched.
pub(super) fn completed_outcome() -> Outcome {
    Outcome::forwarded("miss", Forward::Partial, StatusCode::PARTIAL_CONTENT, true, None)
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
pub(super) fn forward(why: Why) -> Forward {
    match why {
        Why::VaryMiss => Forward::VaryMiss,
        Why::Miss | Why::Purged | Why::Settings => Forward::UriMiss,
        Why::Stale | Why::SoftPurged | Why::NoCache | Why::Fenced => Forward::Stale,
        Why::Wish | Why::Behind => Forward::Request,
        Why::Partial => Forward::Partial,
    }
}
