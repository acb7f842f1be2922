//! The stream itself.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use http::Method;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::io::poll_read_buf;

use super::admit::Seat;
use super::exchange::{Exchange, Link, write_last};
use super::framing::{self, Frame, Reader};
use super::head::{self, Scan, Version};
use super::pace::Pace;
use crate::edge::{self, Edge};
use crate::message::Body;
use crate::normalise::{Normalised, normalise};
use crate::refuse::Refusal;

/// Bytes that are asked of the socket at a time.
const READ: usize = 8 << 10;

/// Bytes of the next request that are read while one is answered.
const READ_AHEAD: usize = 16 << 10;

/// How long, and for how many bytes, a client that is sent away may go on talking: closing at once could
/// take the answer from it (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// A tunnel in which nothing moves is closed.
const TUNNEL_IDLE: Duration = Duration::from_secs(300);

/// A connection of a client.
#[derive(Debug)]
pub(crate) struct Door {
    socket: TcpStream,
    peer: SocketAddr,
    edge: Arc<Edge>,
    link: Link,
    /// Read, and not yet understood.
    bytes: BytesMut,
    phase: Phase,
    /// To be written before anything that comes from actix-http.
    out: BytesMut,
    /// The client sends no more.
    eof: bool,
    reading: Pace,
    writing: Pace,
    timer: Timer,
    /// Held as long as the connection lives.
    _seat: Option<Seat>,
}

#[derive(Debug)]
enum Phase {
    /// Waiting for a head; the time is that of its first byte.
    Head(Scan, Option<Instant>),
    /// A request is being answered.
    Exchange(Arc<Exchange>, Frame, Reader),
    /// Bytes go both ways unread.
    Tunnel(Arc<Exchange>),
    /// Nothing more is read. `lingers`: the client may still be sending.
    Closing { lingers: bool, read: usize },
}

impl Door {
    /// Opens the door to a connection; without a seat only to say that there is none.
    pub(crate) fn new(socket: TcpStream, peer: SocketAddr, edge: Arc<Edge>, seat: Option<Seat>) -> Self {
        // A socket that does not take the option is as good as closed, and is found to be soon.
        let _ = socket.set_nodelay(true);
        let is_admitted = seat.is_some();
        let mut door = Self {
            socket,
            peer,
            timer: Timer::new(edge.node().head_timeout),
            edge,
            link: Rc::default(),
            bytes: BytesMut::new(),
            phase: Phase::Head(Scan::default(), None),
            out: BytesMut::new(),
            eof: false,
            reading: Pace::default(),
            writing: Pace::default(),
            _seat: seat,
        };
        if !is_admitted {
            door.refuse(&Refusal::TooManyConnections);
        }
        door
    }

    /// Returns where the handler finds its request.
    pub(crate) fn link(&self) -> Link {
        Rc::clone(&self.link)
    }

    fn read_socket(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.bytes.reserve(READ);
        let read = ready!(poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.bytes))?;
        self.eof = read == 0;
        Poll::Ready(Ok(read))
    }

    /// Writes the answer of the door itself, after which the connection ends.
    fn refuse(&mut self, refusal: &Refusal) {
        let response = edge::refuse(&self.edge, refusal, self.peer);
        let body = if let Body::Whole(body) = &response.body { body.as_ref() } else { &[] };
        write_last(&mut self.out, response.status, &response.headers, body);
        self.close(true);
    }

    fn close(&mut self, lingers: bool) {
        self.timer.clear();
        self.phase = Phase::Closing { lingers, read: 0 };
    }

    /// Waits for a head. Returns what actix-http is shown of it, or nothing at the connection's end.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&'static [u8]>> {
        loop {
            let Phase::Head(scan, begun) = &mut self.phase else { return Poll::Ready(Ok(&[])) };
            match scan.find(&self.bytes) {
                Ok(Some(head)) => {
                    let parsed = head::parse(head);
                    let end = scan.end();
                    self.bytes.advance(end);
                    return match parsed.and_then(|head| self.begin(head)) {
                        Ok(shown) => Poll::Ready(Ok(shown)),
                        Err(refusal) => {
                            self.refuse(&refusal);
                            Poll::Ready(Ok(&[]))
                        }
                    };
                }
                Ok(None) => {}
                Err(refusal) => {
                    self.refuse(&refusal);
                    return Poll::Ready(Ok(&[]));
                }
            }
            if begun.is_none() && !self.bytes.is_empty() {
                let now = Instant::now();
                *begun = Some(now);
                self.timer.set(now + self.edge.node().head_timeout);
            }
            let is_idle = begun.is_none();
            match self.read_socket(cx) {
                // A head that broke off has nobody left to be told.
                Poll::Ready(Ok(0)) => {
                    self.close(false);
                    return Poll::Ready(Ok(&[]));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if self.timer.is_over(cx) => {
                    if is_idle {
                        self.close(false);
                    } else {
                        self.refuse(&Refusal::TooSlow);
                    }
                    return Poll::Ready(Ok(&[]));
                }
                Poll::Pending => {
                    if is_idle && self.bytes.capacity() > 0 {
                        // Idle connections hold no buffer.
                        self.bytes = BytesMut::new();
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// A head was read: the request waits for its handler.
    fn begin(&mut self, head: head::Head) -> Result<&'static [u8], Refusal> {
        let frame = framing::of(head.version, &head.headers)?;
        let asked = normalise(&head.method, &head.target, head.headers)?;
        let is_head = matches!(&asked, Normalised::Ask(ask) if ask.method == Method::HEAD);
        let shown = shown(is_head, head.version, frame.keeps_alive && !frame.upgrades);
        let exchange = Arc::new(Exchange::new(asked, &frame, head.version == Version::Http11));
        *self.link.borrow_mut() = Some(Arc::clone(&exchange));
        self.timer.clear();
        self.phase = Phase::Exchange(exchange, frame, Reader::new(frame.body));
        Ok(shown)
    }

    /// Carries the body of the request that is being answered, and notices when the client leaves.
    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Phase::Exchange(exchange, _, reader) = &mut self.phase else { return Poll::Pending };
            exchange.watched_by(cx.waker());
            if exchange.is_tunnel() {
                let exchange = Arc::clone(exchange);
                self.phase = Phase::Tunnel(exchange);
                self.timer.set(Instant::now() + TUNNEL_IDLE);
                return self.poll_tunnel(cx);
            }
            if reader.is_done() {
                if self.bytes.len() >= READ_AHEAD || self.eof {
                    break;
                }
            } else {
                let room = exchange.room();
                if room == 0 {
                    self.reading.rests();
                    break;
                }
                let content = reader.next(&mut self.bytes, room);
                if reader.is_done() {
                    self.reading.rests();
                }
                match content {
                    Ok(content) if content.is_some() || reader.is_done() => {
                        exchange.push(content.unwrap_or_default());
                        if reader.is_done() {
                            exchange.whole();
                        }
                        continue;
                    }
                    Ok(_) if self.eof => {
                        exchange.gone();
                        break;
                    }
                    Ok(_) => {}
                    Err(refusal) => {
                        exchange.break_off(refusal);
                        self.reading.rests();
                        break;
                    }
                }
            }
            match self.read_socket(cx) {
                Poll::Ready(Ok(read)) => self.reading.moved(read),
                Poll::Ready(Err(error)) => {
                    if let Phase::Exchange(exchange, ..) = &self.phase {
                        exchange.gone();
                    }
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    if let Phase::Exchange(_, _, reader) = &self.phase
                        && !reader.is_done()
                    {
                        self.reading.waits(Instant::now());
                    }
                    break;
                }
            }
        }
        self.poll_paces(cx)?;
        Poll::Pending
    }

    fn poll_tunnel(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Phase::Tunnel(exchange) = &self.phase else { return Poll::Pending };
        let exchange = Arc::clone(exchange);
        exchange.watched_by(cx.waker());
        loop {
            if !self.bytes.is_empty() {
                let room = exchange.room().min(self.bytes.len());
                if room == 0 {
                    break;
                }
                exchange.push(self.bytes.split_to(room).freeze());
                self.timer.set(Instant::now() + TUNNEL_IDLE);
            } else if self.eof {
                exchange.whole();
                break;
            } else {
                match self.read_socket(cx) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => {
                        exchange.gone();
                        return Poll::Ready(Err(error));
                    }
                    Poll::Pending => break,
                }
            }
        }
        if self.timer.is_over(cx) {
            exchange.gone();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }

    /// Cuts off who moves too little.
    fn poll_paces(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let next = match (self.reading.judged_at(), self.writing.judged_at()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let Some(next) = next else {
            if !matches!(self.phase, Phase::Tunnel(_)) {
                self.timer.clear();
            }
            return Ok(());
        };
        self.timer.set(next);
        if !self.timer.is_over(cx) {
            return Ok(());
        }
        let (now, least) = (Instant::now(), self.edge.node().min_rate.0);
        if self.reading.is_too_slow(now, least)
            && let Phase::Exchange(exchange, ..) = &self.phase
        {
            exchange.break_off(Refusal::TooSlow);
            self.reading.rests();
        }
        if self.writing.is_too_slow(now, least) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.poll_paces(cx)
    }

    /// Writes what is to come before actix-http's bytes.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.out.is_empty() {
                let (Phase::Exchange(exchange, ..) | Phase::Tunnel(exchange)) = &self.phase else { return Poll::Ready(Ok(())) };
                let Some(ahead) = exchange.take_ahead() else { return Poll::Ready(Ok(())) };
                self.out = ahead;
            }
            let written = ready!(poll_write_paced(&mut self.socket, &mut self.writing, cx, &self.out))?;
            self.out.advance(written);
            if matches!(self.phase, Phase::Tunnel(_)) {
                self.timer.set(Instant::now() + TUNNEL_IDLE);
            }
        }
    }

    /// The answer is written: the next request may come, or the connection ends.
    fn end_exchange(&mut self, cx: &mut Context<'_>) {
        let Phase::Exchange(exchange, frame, reader) = &self.phase else { return };
        if !exchange.is_answered() {
            return;
        }
        self.writing.rests();
        self.reading.rests();
        if reader.is_done() && frame.keeps_alive && exchange.broken().is_none() {
            self.phase = Phase::Head(Scan::default(), None);
            self.timer.set(Instant::now() + self.edge.node().idle_timeout);
        } else {
            let lingers = !reader.is_done() || !self.bytes.is_empty();
            // Who still reads the body will get no more of it.
            exchange.gone();
            self.close(lingers);
        }
        // What has been read already wakes nobody.
        if !self.bytes.is_empty() || self.eof || matches!(self.phase, Phase::Closing { .. }) || self.timer.is_over(cx) {
            cx.waker().wake_by_ref();
        }
    }

    /// Reads on for a while, so that the client can read what it was told.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Phase::Closing { lingers: true, read } = &mut self.phase else { return Poll::Ready(Ok(())) };
            *read += self.bytes.len();
            let is_enough = self.eof || *read > LINGER_BYTES;
            self.bytes.clear();
            if is_enough {
                return Poll::Ready(Ok(()));
            }
            match self.read_socket(cx) {
                Poll::Ready(Ok(_)) => {}
                // There is nobody left to be polite to.
                Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
                Poll::Pending if self.timer.is_over(cx) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Phase::Exchange(exchange, ..) | Phase::Tunnel(exchange) = &self.phase {
            exchange.gone();
        }
    }
}

fn poll_write_paced(socket: &mut TcpStream, pace: &mut Pace, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    let written = Pin::new(socket).poll_write(cx, bytes);
    match &written {
        Poll::Ready(Ok(bytes)) => pace.moved(*bytes),
        Poll::Ready(Err(_)) => {}
        Poll::Pending => pace.waits(Instant::now()),
    }
    written
}

/// What actix-http sees of a request: as much as it needs to write the answer.
fn shown(is_head: bool, version: Version, keeps_alive: bool) -> &'static [u8] {
    match (is_head, version, keeps_alive) {
        (false, Version::Http11, true) => b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        (false, Version::Http11, false) => b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        (false, Version::Http10, true) => b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        (false, Version::Http10, false) => b"GET / HTTP/1.0\r\n\r\n",
        (true, Version::Http11, true) => b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n",
        (true, Version::Http11, false) => b"HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        (true, Version::Http10, true) => b"HEAD / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        (true, Version::Http10, false) => b"HEAD / HTTP/1.0\r\n\r\n",
    }
}

impl AsyncRead for Door {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let door = self.get_mut();
        match &door.phase {
            Phase::Head(..) => {
                let shown = ready!(door.poll_head(cx))?;
                // A buffer that is too small is a fault of the caller's; it always asks for a kilobyte or more.
                buffer.put_slice(shown.get(..buffer.remaining().min(shown.len())).unwrap_or_default());
                Poll::Ready(Ok(()))
            }
            Phase::Exchange(..) => door.poll_exchange(cx),
            Phase::Tunnel(_) => door.poll_tunnel(cx),
            Phase::Closing { .. } => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Door {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let door = self.get_mut();
        // After a tunnel nobody waits for an answer in HTTP.
        if matches!(&door.phase, Phase::Tunnel(exchange) | Phase::Exchange(exchange, ..) if exchange.is_tunnel()) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = if let Poll::Ready(written) = door.poll_out(cx) {
            written?;
            poll_write_paced(&mut door.socket, &mut door.writing, cx, bytes)
        } else {
            Poll::Pending
        };
        if written.is_pending() {
            door.poll_paces(cx)?;
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let door = self.get_mut();
        if door.poll_out(cx)?.is_pending() {
            door.poll_paces(cx)?;
            return Poll::Pending;
        }
        door.writing.rests();
        door.end_exchange(cx);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let door = self.get_mut();
        if door.poll_out(cx)?.is_pending() {
            door.poll_paces(cx)?;
            return Poll::Pending;
        }
        if let Phase::Closing { lingers: true, read: 0 } = door.phase
            && door.timer.is_clear()
        {
            door.timer.set(Instant::now() + LINGER);
        }
        ready!(Pin::new(&mut door.socket).poll_shutdown(cx))?;
        door.poll_linger(cx)
    }
}

/// The one timer of a connection. Its time mostly moves back, so it is set anew only when it goes off.
#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
    at: Option<Instant>,
}

impl Timer {
    fn new(after: Duration) -> Self {
        let sleep = Box::pin(tokio::time::sleep(after));
        Self { at: Some(sleep.deadline()), sleep }
    }

    fn set(&mut self, at: Instant) {
        self.at = Some(at);
        if self.sleep.deadline() > at || self.sleep.is_elapsed() {
            self.sleep.as_mut().reset(at);
        }
    }

    fn clear(&mut self) {
        self.at = None;
    }

    fn is_clear(&self) -> bool {
        self.at.is_none()
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        while self.sleep.as_mut().poll(cx).is_ready() {
            let Some(at) = self.at else { return false };
            if at <= Instant::now() {
                return true;
            }
            self.sleep.as_mut().reset(at);
        }
        false
    }
}
