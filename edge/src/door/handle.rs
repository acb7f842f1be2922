//! The adapter between actix-http and the core.
//!
//! actix-http speaks in the types of `http` 0.2; the core in those of `http` 1. All that is decided here is
//! what becomes of a body that nobody read.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::body::{BodySize, MessageBody};
use actix_http::{HttpService, KeepAlive, Protocol, error::DispatchError};
use actix_server::Server;
use actix_service::{ServiceFactoryExt as _, fn_service};
use anyhow::Result;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::HeaderValue;
use http::header::CONNECTION;
use tokio::net::TcpStream;

use super::admit::{Admission, Caps};
use super::exchange::{Drained, Exchange, Incoming, Link};
use super::stream::Door;
use crate::edge::{self, Edge};
use crate::message::{Body, Request, Response};
use crate::refuse::Refusal;

/// Bytes of a body that nobody wants which are read all the same, so that the connection can go on.
const DRAINED_MOST: usize = 64 << 10;

/// Bytes of a stored body that are copied at a time: a slow reader has no more of it in buffers.
const SLICE: usize = 64 << 10;

/// How long requests in hand may take when the edge stops, in seconds.
pub(crate) const GRACE_S: u64 = 10;

/// Serves on these listeners.
///
/// # Errors
/// Where the system refuses a listener.
pub(crate) fn serve(edge: &Arc<Edge>, listeners: Vec<TcpListener>) -> Result<Server> {
    let admission = Arc::new(Admission::default());
    let mut builder = Server::build().shutdown_timeout(GRACE_S).disable_signals();
    for listener in listeners {
        let signal = builder.graceful_shutdown_signal();
        let (edge, admission) = (Arc::clone(edge), Arc::clone(&admission));
        builder = builder.listen(edge.node().name.to_string(), listener, move || {
            let (open_edge, admission, signal) = (Arc::clone(&edge), Arc::clone(&admission), signal.clone());
            let edge = Arc::clone(&edge);
            let http = HttpService::build()
                // The door has timers of its own: it sees bytes that actix-http never does.
                .client_request_timeout(Duration::ZERO)
                .keep_alive(KeepAlive::Os)
                .graceful_shutdown_signal(move || {
                    let signal = signal.clone();
                    async move { signal.notified().await }
                })
                .on_connect_ext(|door: &Door, data| {
                    data.insert(door.link());
                })
                .finish(move |request: actix_http::Request| handle(Arc::clone(&edge), request));
            fn_service(move |socket: TcpStream| {
                let opened = open(&open_edge, &admission, socket);
                async move { opened.map(|(door, peer)| (door, Protocol::Http1, Some(peer))).map_err(DispatchError::Io) }
            })
            .and_then(http)
        })?;
    }
    Ok(builder.run())
}

fn open(edge: &Arc<Edge>, admission: &Arc<Admission>, socket: TcpStream) -> io::Result<(Door, SocketAddr)> {
    let peer = socket.peer_addr()?;
    let seat = admission.admit(peer.ip(), Caps::of(&edge.node()));
    Ok((Door::new(socket, peer, Arc::clone(edge), seat), peer))
}

async fn handle(edge: Arc<Edge>, request: actix_http::Request) -> Result<actix_http::Response<Answering>, Infallible> {
    let exchange = request.conn_data::<Link>().and_then(|link| link.borrow_mut().take());
    let peer = request.peer_addr();
    let (Some(exchange), Some(peer)) = (exchange, peer) else { return Ok(not_ready(&edge, peer)) };
    let Some(asked) = exchange.take_asked() else { return Ok(not_ready(&edge, Some(peer))) };
    let body = exchange.has_body().then(|| Incoming::of(&exchange));
    let mut response = edge::answer(&edge, Request { asked, body, peer, exchange: Arc::clone(&exchange) }).await;
    // What a tunnel carried was its answer.
    if exchange.is_tunnel() {
        return Ok(write(response, None));
    }
    // Whoever comes again should find another edge, by the DNS or by what balances the load.
    if edge.applied.is_draining() {
        response.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // An answer that came before all of the request is no reason to take the rest from who still reads it.
    let drained = if exchange.is_being_read() { Drained::TooMuch } else { exchange.drain(DRAINED_MOST).await };
    match drained {
        Drained::Whole => {}
        Drained::TooMuch => {
            response.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Drained::Broken(refusal) => {
            response = edge::refuse(&edge, &refusal, peer);
            response.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
    exchange.begin_answer();
    Ok(write(response, Some(exchange)))
}

/// The door has put no request there.
fn not_ready(edge: &Edge, peer: Option<SocketAddr>) -> actix_http::Response<Answering> {
    let peer = peer.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    write(edge::refuse(edge, &Refusal::NotReady, peer), None)
}

fn write(mut response: Response, exchange: Option<Arc<Exchange>>) -> actix_http::Response<Answering> {
    let status = actix_http::StatusCode::from_u16(response.status.as_u16()).unwrap_or(actix_http::StatusCode::BAD_GATEWAY);
    // Without chunks the end of the connection is the end of the body.
    let is_endless = matches!(response.body, Body::Stream(_)) && exchange.as_ref().is_some_and(|exchange| !exchange.is_modern());
    let closes = response.headers.remove(CONNECTION).is_some() || is_endless;
    let body = Answering { body: bodiless(response.status.as_u16(), response.body), exchange, broken: None };
    let mut written = actix_http::Response::with_body(status, body);
    for (name, value) in &response.headers {
        let name = actix_http::header::HeaderName::from_bytes(name.as_str().as_bytes());
        let value = actix_http::header::HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            written.headers_mut().append(name, value);
        }
    }
    if status.canonical_reason().is_none() {
        // actix-http would write a remark of its own in place of a phrase that it does not know.
        written.head_mut().reason = Some("");
    }
    if is_endless {
        written.head_mut().no_chunking(true);
    }
    if closes {
        written.head_mut().set_connection_type(actix_http::ConnectionType::Close);
    }
    written
}

/// Statuses without a body have none, not even an empty one (RFC 9112, 6.3).
fn bodiless(status: u16, body: Body) -> Body {
    match body {
        Body::Empty if !matches!(status, 100..=199 | 204 | 304) => Body::Whole(Bytes::new()),
        body => body,
    }
}

/// A body on its way out. When it is dropped, all of it has been handed over.
struct Answering {
    body: Body,
    exchange: Option<Arc<Exchange>>,
    /// Why there is no more of it.
    broken: Option<io::Error>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(exchange) = &self.exchange {
            exchange.answered();
        }
    }
}

impl MessageBody for Answering {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        match &self.body {
            Body::Empty | Body::Unknown => BodySize::None,
            Body::Whole(bytes) => BodySize::Sized(bytes.len() as u64),
            Body::Sized(length, _) | Body::Head(length) => BodySize::Sized(*length),
            Body::Stream(_) => BodySize::Stream,
        }
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let next = match &mut self.body {
            Body::Empty | Body::Unknown | Body::Head(_) => Poll::Ready(None),
            Body::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Whole(bytes) => Poll::Ready(Some(Ok(bytes.split_to(bytes.len().min(SLICE))))),
            Body::Sized(_, stream) | Body::Stream(stream) => stream.poll_next_unpin(cx),
        };
        match next {
            // What was written before gets a chance to go out first: actix-http drops all that it still holds when it
            // hears of an error.
            Poll::Ready(Some(Err(error))) => {
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            next => next,
        }
    }
}
