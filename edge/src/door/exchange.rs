//! What a connection's stream and the handler of its request share: the request itself, its body as it
//! comes, and what is to be written before the answer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderMap, StatusCode};

use wire::Timestamp;

use super::framing::{Frame, Framing};
use crate::normalise::Normalised;
use crate::refuse::Refusal;
use crate::rules::date;

/// Bytes of a body that wait for whoever reads them.
const QUEUED_MOST: usize = 256 << 10;

/// What a piece of a body takes beside its bytes: one that comes byte by byte must not take more than it says.
const PIECE: usize = 64;

/// Bytes that wait to be written before the answer; more interim responses than fit are not sent.
const AHEAD_MOST: usize = 64 << 10;

/// Where the stream puts a request for the handler to find: both live on one thread.
pub(crate) type Link = Rc<RefCell<Option<Arc<Exchange>>>>;

/// One request and its answer.
#[derive(Debug)]
pub(crate) struct Exchange(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    asked: Option<Normalised>,
    body: Body,
    /// Somebody reads the body: what they have not read is theirs.
    is_read: bool,
    /// The client wants to speak another protocol.
    upgrades: bool,
    /// The client understands interim responses and chunks: it speaks HTTP/1.1.
    is_modern: bool,
    queued: VecDeque<Bytes>,
    queued_bytes: usize,
    /// How long the body is, where its head says so.
    announced: u64,
    /// How much more of the body may come.
    may_come: u64,
    /// The client waits for a word before it sends the body.
    owes_continue: bool,
    ahead: BytesMut,
    stage: Stage,
    /// Who is woken when there is something to write, or room for more of the body.
    stream: Option<Waker>,
    /// Who is woken when there is more of the body.
    reader: Option<Waker>,
    /// Who is woken when what was ahead has been written.
    writer: Option<Waker>,
}

/// What is known of the request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    None,
    Coming,
    Whole,
    /// It can't be read on, and why.
    Broken(Refusal),
    /// The client left.
    Gone,
}

/// How far the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is decided: interim responses may be sent.
    Open,
    /// The connection belongs to another protocol now.
    Tunnel,
    /// The answer's head is there.
    Answering,
    /// All of the answer was handed over.
    Answered,
}

/// How a body was read to its end by nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// There is no more of it.
    Whole,
    /// There is more than anybody cares to read.
    TooMuch,
    /// It can't be read.
    Broken(Refusal),
}

impl Exchange {
    /// `is_modern`: the client speaks HTTP/1.1.
    pub(crate) fn new(asked: Normalised, frame: &Frame, is_modern: bool) -> Self {
        Self(Mutex::new(Inner {
            asked: Some(asked),
            body: if frame.body == Framing::None { Body::None } else { Body::Coming },
            is_read: false,
            upgrades: frame.upgrades,
            is_modern,
            queued: VecDeque::new(),
            queued_bytes: 0,
            announced: if let Framing::Length(length) = frame.body { length } else { 0 },
            may_come: u64::MAX,
            owes_continue: frame.expects_continue,
            ahead: BytesMut::new(),
            stage: Stage::Open,
            stream: None,
            reader: None,
            writer: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For the stream.
impl Exchange {
    /// Remembers whom to wake.
    pub(crate) fn watched_by(&self, stream: &Waker) {
        let mut inner = self.lock();
        if inner.stream.as_ref().is_none_or(|known| !known.will_wake(stream)) {
            inner.stream = Some(stream.clone());
        }
    }

    /// Returns how many more bytes of the body may be queued.
    pub(crate) fn room(&self) -> usize {
        QUEUED_MOST.saturating_sub(self.lock().queued_bytes)
    }

    pub(crate) fn push(&self, bytes: Bytes) {
        let mut inner = self.lock();
        if bytes.is_empty() {
            return;
        }
        wake(inner.reader.take());
        match inner.may_come.checked_sub(bytes.len() as u64) {
            Some(left) => inner.may_come = left,
            None => {
                inner.body = Body::Broken(Refusal::BodyTooLarge);
                return;
            }
        }
        inner.queued_bytes += bytes.len() + PIECE;
        inner.queued.push_back(bytes);
    }

    /// All of the body has come.
    pub(crate) fn whole(&self) {
        self.body_is(Body::Whole);
    }

    /// The body can't be read on.
    pub(crate) fn break_off(&self, refusal: Refusal) {
        self.body_is(Body::Broken(refusal));
    }

    /// The client left.
    pub(crate) fn gone(&self) {
        self.body_is(Body::Gone);
    }

    fn body_is(&self, body: Body) {
        let mut inner = self.lock();
        // What was wrong first stays what was wrong.
        if inner.body == Body::Coming {
            inner.body = body;
        }
        wake(inner.reader.take());
    }

    /// Takes what is to be written before the answer.
    pub(crate) fn take_ahead(&self) -> Option<BytesMut> {
        let mut inner = self.lock();
        wake(inner.writer.take());
        (!inner.ahead.is_empty()).then(|| std::mem::take(&mut inner.ahead))
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.lock().stage == Stage::Answered
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.lock().stage == Stage::Tunnel
    }
}

/// For the handler.
impl Exchange {
    /// Takes the request.
    pub(crate) fn take_asked(&self) -> Option<Normalised> {
        self.lock().asked.take()
    }

    pub(crate) fn has_body(&self) -> bool {
        self.lock().body != Body::None
    }

    /// Tells whether the client speaks HTTP/1.1.
    pub(crate) fn is_modern(&self) -> bool {
        self.lock().is_modern
    }

    /// Tells whether somebody reads the body who has not come to its end.
    pub(crate) fn is_being_read(&self) -> bool {
        let inner = self.lock();
        inner.is_read && (inner.body == Body::Coming || !inner.queued.is_empty())
    }

    /// Tells whether the client wants to speak another protocol.
    pub(crate) fn upgrades(&self) -> bool {
        self.lock().upgrades
    }

    /// Lets the body be at most `most` bytes long, of which none may have been read yet.
    pub(crate) fn limit_body(&self, most: u64) {
        let mut inner = self.lock();
        let come: usize = inner.queued.iter().map(Bytes::len).sum();
        match most.checked_sub(come as u64) {
            Some(left) => inner.may_come = left,
            None => inner.body = Body::Broken(Refusal::BodyTooLarge),
        }
    }

    /// Returns why the body could not be read, where that was so.
    pub(crate) fn broken(&self) -> Option<Refusal> {
        match &self.lock().body {
            Body::Broken(refusal) => Some(refusal.clone()),
            _ => None,
        }
    }

    /// Sends an interim response on, unless the answer has begun (RFC 9110, 15.2; RFC 8297).
    pub(crate) fn inform(&self, status: StatusCode, headers: &HeaderMap) {
        let mut inner = self.lock();
        if inner.stage != Stage::Open || !inner.is_modern {
            return;
        }
        let mut head = BytesMut::new();
        write_head(&mut head, status, headers);
        if inner.ahead.len() + head.len() <= AHEAD_MOST {
            inner.ahead.extend_from_slice(&head);
            wake(inner.stream.take());
        }
    }

    /// Gives the connection to another protocol: its bytes go both ways unread from here on.
    pub(crate) fn switch(&self, headers: &HeaderMap) {
        let mut inner = self.lock();
        inner.stage = Stage::Tunnel;
        inner.body = Body::Coming;
        inner.may_come = u64::MAX;
        write_head(&mut inner.ahead, StatusCode::SWITCHING_PROTOCOLS, headers);
        wake(inner.stream.take());
    }

    /// Writes into a tunnel; waits until there is room.
    pub(crate) async fn write(&self, bytes: &[u8]) {
        std::future::poll_fn(|cx| {
            let mut inner = self.lock();
            if inner.ahead.len() >= AHEAD_MOST && inner.body != Body::Gone {
                inner.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            inner.ahead.extend_from_slice(bytes);
            wake(inner.stream.take());
            Poll::Ready(())
        })
        .await;
    }

    /// The answer is decided: no interim response comes after it.
    pub(crate) fn begin_answer(&self) {
        let mut inner = self.lock();
        if inner.stage == Stage::Open {
            inner.stage = Stage::Answering;
        }
    }

    /// All of the answer was handed over.
    pub(crate) fn answered(&self) {
        let mut inner = self.lock();
        if inner.stage != Stage::Tunnel {
            inner.stage = Stage::Answered;
        }
    }

    /// Reads up to `most` bytes of a body that nobody wants, so that bad framing is refused and the
    /// connection can go on. A client that still waits for a word is not asked to send it.
    pub(crate) async fn drain(&self, most: usize) -> Drained {
        let mut read = 0;
        std::future::poll_fn(|cx| {
            let mut inner = self.lock();
            read += inner.queued_bytes;
            inner.queued.clear();
            inner.queued_bytes = 0;
            let drained = match &inner.body {
                Body::None | Body::Whole => Drained::Whole,
                Body::Broken(refusal) => Drained::Broken(refusal.clone()),
                Body::Gone => Drained::TooMuch,
                Body::Coming if inner.announced.max(read as u64) > most as u64 || inner.owes_continue => Drained::TooMuch,
                Body::Coming => {
                    inner.reader = Some(cx.waker().clone());
                    wake(inner.stream.take());
                    return Poll::Pending;
                }
            };
            Poll::Ready(drained)
        })
        .await
    }
}

/// The body of a request, for whoever reads it, on whatever thread.
#[derive(Debug)]
pub(crate) struct Incoming(Arc<Exchange>);

impl Incoming {
    pub(crate) fn of(exchange: &Arc<Exchange>) -> Self {
        exchange.lock().is_read = true;
        Self(Arc::clone(exchange))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.0.lock().is_read = false;
    }
}

impl Stream for Incoming {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut inner = self.0.lock();
        // Once the answer has begun it would stand in the midst of it.
        if std::mem::take(&mut inner.owes_continue) && inner.stage == Stage::Open {
            inner.ahead.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            wake(inner.stream.take());
        }
        if let Some(bytes) = inner.queued.pop_front() {
            inner.queued_bytes -= bytes.len() + PIECE;
            wake(inner.stream.take());
            return Poll::Ready(Some(Ok(bytes)));
        }
        match &inner.body {
            Body::None | Body::Whole => Poll::Ready(None),
            Body::Broken(refusal) => Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::InvalidData, refusal.clone())))),
            Body::Gone => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            Body::Coming => {
                inner.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Writes a response's head that has no body to announce.
fn write_head(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap) {
    out.extend_from_slice(format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or_default()).as_bytes());
    for (name, value) in headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a whole response after which the connection is closed.
pub(crate) fn write_last(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap, body: &[u8]) {
    let mut headers = headers.clone();
    headers.insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    if let Ok(now) = http::HeaderValue::try_from(date::imf(Timestamp::now())) {
        headers.insert(http::header::DATE, now);
    }
    headers.insert(http::header::CONTENT_LENGTH, body.len().into());
    write_head(out, status, &headers);
    out.extend_from_slice(body);
}
