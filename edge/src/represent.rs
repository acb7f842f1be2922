//! Turns a whole representation into what a request asked of it: all of it, its head, a 304, or ranges
//! (RFC 9110, 13 and 14).

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use wire::{Digest, Timestamp};

use crate::assets::Source;
use crate::message::{Body, ByteStream, Response};
use crate::rules::conditional::{self, Outcome, Validators, Voice};
use crate::rules::date;
use crate::rules::ranges::{self, ByteRange, Multipart, Ranges};

/// A response that is all there.
pub(crate) struct Representation {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) length: u64,
    pub(crate) source: Source,
}

/// What a 304 leaves out (RFC 9110, 15.4.5).
const NOT_IN_304: [HeaderName; 5] = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_RANGE, ACCEPT_RANGES];

/// Answers a GET or HEAD with a representation.
pub(crate) fn answer(method: &Method, request: &HeaderMap, whole: Representation, voice: Voice, now: Timestamp) -> Response {
    let mut headers = whole.headers.clone();
    headers.remove(CONTENT_LENGTH);
    // Conditions and ranges are about a 200; anything else is sent as it is.
    if whole.status != StatusCode::OK {
        return finish(method, whole.status, headers, &whole);
    }
    let etag = whole.headers.get(ETAG).and_then(|etag| etag.to_str().ok());
    let validators = Validators {
        etag,
        last_modified: date::field(&whole.headers, &LAST_MODIFIED, now).time(),
        date: date::field(&whole.headers, &DATE, now).time(),
    };
    match conditional::evaluate(request, &validators, voice, now) {
        Outcome::NotModified => return not_modified(headers),
        Outcome::PreconditionFailed => return Response::new(StatusCode::PRECONDITION_FAILED),
        Outcome::Proceed => {}
    }
    // Range is for GET alone (RFC 9110, 14.2).
    if method == Method::GET && request.contains_key(RANGE) && conditional::range_applies(request, &validators, now) {
        match ranges::parse(request, whole.length) {
            Ranges::Whole => {}
            Ranges::One(range) => return one_range(headers, &whole, range),
            Ranges::Several(ranges) => return several_ranges(headers, &whole, ranges),
            Ranges::Unsatisfiable => {
                let mut response = Response::new(StatusCode::RANGE_NOT_SATISFIABLE);
                set(&mut response.headers, CONTENT_RANGE, &ranges::unsatisfied(whole.length));
                return response;
            }
        }
    }
    finish(method, StatusCode::OK, headers, &whole)
}

pub(crate) fn not_modified(mut headers: HeaderMap) -> Response {
    for name in &NOT_IN_304 {
        headers.remove(name);
    }
    if headers.contains_key(ETAG) {
        headers.remove(LAST_MODIFIED);
    }
    Response { status: StatusCode::NOT_MODIFIED, headers, body: Body::Empty }
}

fn one_range(mut headers: HeaderMap, whole: &Representation, range: ByteRange) -> Response {
    set(&mut headers, CONTENT_RANGE, &range.content_range(whole.length));
    Response { status: StatusCode::PARTIAL_CONTENT, headers, body: sized(whole, range.first..range.last + 1) }
}

fn several_ranges(mut headers: HeaderMap, whole: &Representation, ranges: Vec<ByteRange>) -> Response {
    let content_type = headers.remove(CONTENT_TYPE);
    let boundary = boundary(whole, &ranges);
    let frame = Multipart { boundary: &boundary, content_type: content_type.as_ref(), complete: whole.length };
    set(&mut headers, CONTENT_TYPE, &frame.media_type());
    let length = frame.length(&ranges);
    let parts: Vec<(Bytes, ByteStream)> =
        ranges.iter().map(|range| (frame.head(*range), whole.source.read(range.first..range.last + 1))).collect();
    let tail = frame.tail();
    let framed = stream::iter(parts).flat_map(|(head, bytes)| stream::once(async move { Ok(head) }).chain(bytes));
    let body = Body::Sized(length, Box::pin(framed.chain(stream::once(async move { Ok(tail) }))));
    Response { status: StatusCode::PARTIAL_CONTENT, headers, body }
}

/// A text that is not found in the content by chance; nobody gains by making it occur in their own file.
fn boundary(whole: &Representation, ranges: &[ByteRange]) -> String {
    let seed = format!("{:?} {:?} {ranges:?}", whole.headers.get(ETAG), whole.length);
    Digest::of(seed.as_bytes()).short()
}

fn sized(whole: &Representation, range: std::ops::Range<u64>) -> Body {
    let length = range.end - range.start;
    match &whole.source {
        Source::Memory(bytes) => Body::Whole(crate::assets::slice(bytes, &range)),
        Source::File { .. } => Body::Sized(length, whole.source.read(range)),
    }
}

fn finish(method: &Method, status: StatusCode, headers: HeaderMap, whole: &Representation) -> Response {
    let body = if method == Method::HEAD { Body::Head(whole.length) } else { sized(whole, 0..whole.length) };
    Response { status, headers, body }
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
