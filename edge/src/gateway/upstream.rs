//! Calls to upstreams: exact target bytes, no redirects, no retries of what may have arrived but over a connection
//! that was closing, and a deadline for everything.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use config::Upstream;
use futures_util::{TryStreamExt as _, stream};
use http::header::CONNECTION;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Empty, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;
use tracing::{Instrument as _, field};
use wire::{Target, UpstreamName};

use super::health::Health;
use super::lookup::Trouble;
use super::meter::{BodyBytes, Metering};
use crate::message::ByteStream;
use crate::refuse::Refusal;

/// Fields of an upstream's response.
const FIELDS_MOST: usize = 256;

/// Within this a kept connection that was closing says so: one that ends later had taken the request, and may have worked on it.
const CLOSING: Duration = Duration::from_secs(1);

/// Idle connections that are kept per server.
const IDLE: usize = 64;

type Http = Client<Metering, UnsyncBoxBody<Bytes, io::Error>>;

/// What an upstream answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The length that it announced.
    pub(crate) length: Option<u64>,
    pub(crate) body: ByteStream,
    /// Counts what really came behind its head.
    pub(crate) on_wire: Option<BodyBytes>,
    /// The connection itself, where the upstream switched to another protocol.
    pub(crate) switched: Option<OnUpgrade>,
}

impl Answer {
    /// Returns what tells, once the body has come, whether more came than was announced (http.md 32).
    pub(crate) fn excess(&self) -> Excess {
        let is_chunked = self.headers.contains_key(http::header::TRANSFER_ENCODING);
        let announced = self.length.filter(|_| !is_chunked);
        Excess(announced.zip(self.on_wire.clone()).map(|(length, on_wire)| (length, on_wire.request(), on_wire)))
    }
}

/// Tells whether more came behind a head than it announced.
#[derive(Clone, Debug)]
pub(crate) struct Excess(Option<(u64, u64, BodyBytes)>);

impl Excess {
    pub(crate) fn is_there(&self) -> bool {
        self.0.as_ref().is_some_and(|(length, request, on_wire)| on_wire.count(*request).is_some_and(|count| count > *length))
    }
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
    /// The connection may become another protocol's.
    pub(crate) may_switch: bool,
    /// How often it is sent again where the connection failed before an answer.
    pub(crate) retries: u64,
}

/// What a client is made for: how long a connection may take, and how large a response's head may be.
type Kind = (Duration, usize);

/// The clients of all upstreams, and how these are.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    clients: Mutex<HashMap<Kind, Http>>,
    health: Mutex<HashMap<UpstreamName, Health>>,
    turn: AtomicUsize,
}

impl Upstreams {
    fn client(&self, upstream: &Upstream) -> Http {
        let kind = (upstream.connect_timeout, usize::try_from(upstream.max_head.0).unwrap_or(usize::MAX));
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let build = || {
            let mut connector = HttpConnector::new();
            connector.set_connect_timeout(Some(kind.0));
            connector.set_nodelay(true);
            let mut builder = Client::builder(TokioExecutor::new());
            builder
                .pool_max_idle_per_host(IDLE)
                .pool_timer(TokioTimer::new())
                .set_host(false)
                .http1_max_buf_size(kind.1)
                .http1_max_headers(FIELDS_MOST);
            builder.build(Metering(connector))
        };
        clients.entry(kind).or_insert_with(build).clone()
    }

    /// Tells whether who could do without the upstream may ask it now.
    pub(crate) fn may_probe(&self, upstream: &UpstreamName, now: Duration) -> bool {
        self.with_health(upstream, |health| health.may_probe(now))
    }

    /// Returns what the upstream last failed in.
    pub(crate) fn trouble(&self, upstream: &UpstreamName) -> Trouble {
        self.with_health(upstream, |health| health.trouble())
    }

    fn with_health<T>(&self, upstream: &UpstreamName, change: impl FnOnce(&mut Health) -> T) -> T {
        let mut all = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(upstream.clone()).or_default())
    }

    /// Sends a request and returns the answer's head, with its body to come.
    pub(crate) async fn send(&self, upstream: &Upstream, mut call: Call<'_>) -> Result<Answer, Refusal> {
        let span = trace::stage!(
            "fetch",
            otel.kind = "client",
            peer.service = upstream.name.as_str(),
            http.request.method = %call.method,
            url.path = call.target.path(),
            http.response.status_code = field::Empty,
            otel.status_code = field::Empty,
        );
        trace::carry(&span, &mut call.headers);
        let answer = self.ask(upstream, call).instrument(span.clone()).await;
        match &answer {
            Ok(answer) => span.record("http.response.status_code", answer.status.as_u16()),
            Err(_) => span.record("otel.status_code", "error"),
        };
        answer
    }

    async fn ask(&self, upstream: &Upstream, call: Call<'_>) -> Result<Answer, Refusal> {
        let Call { method, target, headers, mut body, inform, may_switch, retries } = call;
        let has_body = body.is_some();
        let inform: Arc<Inform> = Arc::new(inform);
        let may_repeat = method.is_idempotent() && body.is_none();
        let mut left = if may_repeat { retries } else { 0 };
        let mut is_first = may_repeat;
        let answer = loop {
            let request =
                Attempt { method: method.clone(), target, headers: headers.clone(), body: body.take(), inform: Arc::clone(&inform) };
            match self.attempt(upstream, request).await {
                Err(Failure::Closing) if is_first => {}
                Ok(answer) if is_first && says_closing(&answer) => {}
                Err(Failure::Closing | Failure::Other(Refusal::UpstreamFailed)) if left > 0 => left -= 1,
                Ok(answer) => break Ok(answer),
                Err(Failure::Closing) => {
                    tracing::warn!(upstream = %upstream.name, "an upstream closed a kept connection instead of an answer");
                    break Err(Refusal::UpstreamFailed);
                }
                Err(Failure::Other(refusal)) => break Err(refusal),
            }
            is_first = false;
        };
        match &answer {
            Ok(answer) if is_trouble(answer.status) => self.with_health(&upstream.name, |health| health.failed(Trouble::Status)),
            // Of a switch nobody asked for, what follows could be taken for the answer to another request.
            Ok(answer) if answer.status.is_informational() && !may_switch => return Err(Refusal::UpstreamFailed),
            Ok(_) => self.with_health(&upstream.name, Health::answered),
            // It may be the body's fault, which is the client's.
            Err(_) if has_body => {}
            Err(_) => self.with_health(&upstream.name, |health| health.failed(Trouble::Silence)),
        }
        answer
    }

    async fn attempt(&self, upstream: &Upstream, attempt: Attempt<'_>) -> Result<Answer, Failure> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let server = upstream.servers.get(turn % upstream.servers.len().max(1)).ok_or(Refusal::UpstreamFailed)?;
        let begun = Instant::now();
        let moved = Arc::new(Mutex::new(begun));
        let mut request = http::Request::new(box_body(attempt.body.map(|body| noting(body, Arc::clone(&moved)))));
        *request.method_mut() = attempt.method;
        *request.uri_mut() = uri(server, attempt.target).ok_or(Refusal::UpstreamFailed)?;
        *request.headers_mut() = attempt.headers;
        hyper::ext::on_informational(&mut request, move |interim| {
            // `100 Continue` is between us and the upstream.
            if interim.status() != StatusCode::CONTINUE {
                (attempt.inform)(interim.status(), interim.headers());
            }
        });
        let answer = patiently(self.client(upstream).request(request), &moved, upstream.timeout).await?;
        let mut answer = answer.map_err(|error| {
            if begun.elapsed() < CLOSING && was_closing(&error) {
                tracing::debug!(upstream = %upstream.name, %server, error = %Chain(&error), "a kept connection was closing");
                return Failure::Closing;
            }
            if is_clients_fault(&error) {
                tracing::debug!(upstream = %upstream.name, %server, error = %Chain(&error), "a client's body broke off");
            } else {
                tracing::warn!(upstream = %upstream.name, %server, error = %Chain(&error), "an upstream failed");
            }
            Failure::Other(Refusal::UpstreamFailed)
        })?;
        let switched = (answer.status() == StatusCode::SWITCHING_PROTOCOLS).then(|| hyper::upgrade::on(&mut answer));
        let on_wire = answer.extensions().get::<BodyBytes>().cloned();
        let (head, body) = answer.into_parts();
        let length = body.size_hint().exact();
        Ok(Answer {
            status: head.status,
            headers: by_themselves(head.headers),
            length,
            body: read_body(body, upstream.timeout),
            switched,
            on_wire,
        })
    }
}

/// One try of a call.
struct Attempt<'a> {
    method: Method,
    target: &'a Target,
    headers: HeaderMap,
    body: Option<ByteStream>,
    inform: Arc<Inform>,
}

/// Why there is no answer.
enum Failure {
    /// The connection was kept from before, and ended without a byte of an answer: its upstream was closing it as the
    /// request came, and may have it again over another one where that is idempotent (RFC 9110, 9.2.2; RFC 9112, 9.3.1).
    Closing,
    Other(Refusal),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Other(refusal)
    }
}

/// Notes when the last piece of a request's body went.
fn noting(body: ByteStream, moved: Arc<Mutex<Instant>>) -> ByteStream {
    Box::pin(body.inspect_ok(move |_| *moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now()))
}

/// Waits for an answer: so long after the request began, or after the last of its body went.
async fn patiently<T>(answer: impl Future<Output = T>, moved: &Mutex<Instant>, patience: Duration) -> Result<T, Refusal> {
    let mut answer = std::pin::pin!(answer);
    loop {
        let deadline = *moved.lock().unwrap_or_else(PoisonError::into_inner) + patience;
        if let Ok(answer) = tokio::time::timeout_at(deadline, &mut answer).await {
            return Ok(answer);
        }
        if *moved.lock().unwrap_or_else(PoisonError::into_inner) + patience <= Instant::now() {
            return Err(Refusal::UpstreamTimedOut);
        }
    }
}

/// The statuses by which an upstream says that it can't answer (RFC 5861, 4).
pub(crate) fn is_trouble(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// Tells whether it is [`Failure::Closing`].
fn was_closing(error: &hyper_util::client::legacy::Error) -> bool {
    let Some(connection) = error.connect_info() else { return false };
    let mut extras = http::Extensions::new();
    connection.get_extras(&mut extras);
    extras.get::<BodyBytes>().is_some_and(|bytes| bytes.is_reused() && !bytes.is_heard())
}

/// Tells whether an upstream said of a kept connection that it had waited long enough, as the request came (RFC 9110, 15.5.9).
fn says_closing(answer: &Answer) -> bool {
    let closes = answer.headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    answer.status == StatusCode::REQUEST_TIMEOUT && closes && answer.on_wire.as_ref().is_some_and(BodyBytes::is_reused)
}

/// Tells whether it was the request's body that failed.
fn is_clients_fault(error: &hyper_util::client::legacy::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<hyper::Error>());
    cause.is_some_and(hyper::Error::is_user)
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

/// Values are slices of what was read from the connection: kept as they are, each entry would keep all of that.
fn by_themselves(mut headers: HeaderMap) -> HeaderMap {
    for value in headers.values_mut() {
        if let Ok(own) = HeaderValue::from_bytes(value.as_bytes()) {
            *value = own;
        }
    }
    headers
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

    async fn head(connection: &mut TcpStream) -> Option<()> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.push(connection.read_u8().await.ok()?);
        }
        Some(())
    }

    /// Asks a server twice, which answers the first request of a connection, and the second by `last` before it closes; returns
    /// what comes of the second, and how many requests the server got.
    async fn ask_again(method: Method, last: &'static str) -> (Result<StatusCode, Refusal>, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let network = config::Network::from_json(&serde_json::json!({
            "upstreams": { "u": { "servers": [format!("http://{}", listener.local_addr().unwrap())] } },
        }));
        let upstream = network.unwrap().upstreams.into_values().next().unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        let server = tokio::spawn(async move {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                for answer in [FINE, last] {
                    if head(&mut connection).await.is_none() {
                        break;
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                    connection.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        let upstreams = Upstreams::default();
        let target = "/".parse().unwrap();
        let send = |method: Method| {
            let body: Option<ByteStream> = (method == Method::PUT).then(|| Box::pin(stream::empty()) as ByteStream);
            let headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("h"))]);
            let inform: Inform = Box::new(|_, _| {});
            upstreams.send(&upstream, Call { method, target: &target, headers, body, inform, may_switch: false, retries: 0 })
        };
        let first = send(Method::GET).await.unwrap();
        assert_eq!(first.body.try_collect::<Vec<_>>().await.unwrap().len(), 0);
        // The library takes the connection back in tasks of its own, and waits for nothing but their turn.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let answer = send(method).await.map(|answer| answer.status);
        server.abort();
        (answer, seen.load(Ordering::Relaxed))
    }

    #[tokio::test]
    async fn what_met_a_kept_connection_that_was_closing_is_sent_once_more() {
        let timed_out = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        for last in ["", timed_out] {
            assert_eq!(ask_again(Method::GET, last).await, (Ok(StatusCode::OK), 3), "{last}");
        }
    }

    #[tokio::test]
    async fn what_may_have_been_heard_is_not_sent_once_more() {
        assert_eq!(ask_again(Method::POST, "").await, (Err(Refusal::UpstreamFailed), 2));
        // Its body has gone.
        assert_eq!(ask_again(Method::PUT, "").await, (Err(Refusal::UpstreamFailed), 2));
        for broken in ["H", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\n"] {
            assert_eq!(ask_again(Method::GET, broken).await, (Err(Refusal::UpstreamFailed), 2), "{broken}");
        }
    }
}
