//! Calls to upstreams: exact target bytes, no redirects, no retries of what may have arrived, and a
//! deadline for everything.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use config::Upstream;
use futures_util::{TryStreamExt as _, stream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Empty, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use wire::Target;

use crate::message::ByteStream;
use crate::refuse::Refusal;

/// Idle connections that are kept per server.
const IDLE: usize = 64;

/// A head of an upstream's response.
const HEAD_MOST: usize = 64 << 10;

type Http = Client<HttpConnector, UnsyncBoxBody<Bytes, io::Error>>;

/// What an upstream answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The length that it announced.
    pub(crate) length: Option<u64>,
    pub(crate) body: ByteStream,
    /// The connection itself, where the upstream switched to another protocol.
    pub(crate) switched: Option<OnUpgrade>,
}

/// Who is told of interim responses (RFC 9110, 15.2), with their fields.
pub(crate) type Inform = Box<dyn Fn(StatusCode, &HeaderMap) + Send + Sync>;

/// A request to an upstream.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) target: &'a Target,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<ByteStream>,
    pub(crate) inform: Inform,
}

/// The clients of all upstreams, by how long a connection may take.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    clients: Mutex<HashMap<Duration, Http>>,
    turn: AtomicUsize,
}

impl Upstreams {
    fn client(&self, connect_timeout: Duration) -> Http {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let build = || {
            let mut connector = HttpConnector::new();
            connector.set_connect_timeout(Some(connect_timeout));
            connector.set_nodelay(true);
            let mut builder = Client::builder(TokioExecutor::new());
            builder.pool_max_idle_per_host(IDLE).pool_timer(TokioTimer::new()).set_host(false).http1_max_buf_size(HEAD_MOST);
            builder.build(connector)
        };
        clients.entry(connect_timeout).or_insert_with(build).clone()
    }

    /// Sends a request and returns the answer's head, with its body to come.
    pub(crate) async fn send(&self, upstream: &Upstream, call: Call<'_>) -> Result<Answer, Refusal> {
        let Call { method, target, headers, body, inform } = call;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let server = upstream.servers.get(turn % upstream.servers.len().max(1)).ok_or(Refusal::UpstreamFailed)?;
        let mut request = http::Request::new(box_body(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri(server, target).ok_or(Refusal::UpstreamFailed)?;
        *request.headers_mut() = headers;
        hyper::ext::on_informational(&mut request, move |interim| {
            // `100 Continue` is between us and the upstream.
            if interim.status() != StatusCode::CONTINUE {
                inform(interim.status(), interim.headers());
            }
        });
        let client = self.client(upstream.connect_timeout);
        let answer = tokio::time::timeout(upstream.timeout, client.request(request)).await;
        let answer = answer.map_err(|_| Refusal::UpstreamTimedOut)?.map_err(|error| {
            tracing::warn!(upstream = %upstream.name, %server, error = %Chain(&error), "an upstream failed");
            Refusal::UpstreamFailed
        })?;
        let mut answer = answer;
        let switched = (answer.status() == StatusCode::SWITCHING_PROTOCOLS).then(|| hyper::upgrade::on(&mut answer));
        let (head, body) = answer.into_parts();
        let length = body.size_hint().exact();
        Ok(Answer { status: head.status, headers: head.headers, length, body: read_body(body, upstream.timeout), switched })
    }
}

/// An error with all its causes.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Exactly the canonical bytes, under the server's authority.
fn uri(server: &str, target: &Target) -> Option<Uri> {
    let authority = server.strip_prefix("http://")?;
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.parse::<Authority>().ok()?);
    parts.path_and_query = Some(target.as_str().parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

fn box_body(body: Option<ByteStream>) -> UnsyncBoxBody<Bytes, io::Error> {
    match body {
        None => BodyExt::boxed_unsync(BodyExt::map_err(Empty::new(), |never| match never {})),
        Some(stream) => BodyExt::boxed_unsync(StreamBody::new(stream.map_ok(Frame::data))),
    }
}

/// Returns the body's bytes; it may not stand still for longer than `patience`.
fn read_body(body: Incoming, patience: Duration) -> ByteStream {
    let frames = BodyStream::new(body);
    let bytes = stream::unfold(Some(frames), move |frames| async move {
        let mut frames = frames?;
        match tokio::time::timeout(patience, frames.try_next()).await {
            Ok(Ok(Some(frame))) => Some((Ok(frame.into_data().unwrap_or_default()), Some(frames))),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => Some((Err(io::Error::other(error)), None)),
            Err(_) => Some((Err(io::Error::new(io::ErrorKind::TimedOut, "the upstream's body stood still")), None)),
        }
    });
    // Trailers come out as empty chunks, which would end a chunked body early.
    Box::pin(bytes.try_filter(|chunk| std::future::ready(!chunk.is_empty())))
}

/// Returns the Host for an upstream: its own, or the client's as it came.
pub(crate) fn host_for(upstream: &Upstream, authority: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(upstream.host.as_deref().unwrap_or(authority)).ok()
}
