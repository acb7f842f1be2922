//! Counts the bytes that come behind a response's head, since the client library stops at the length that was
//! announced: a body longer than that is a lie about one of the two (http.md 32).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt as _};
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

/// How many bytes have come behind the head of a connection's current response.
#[derive(Clone, Debug, Default)]
pub(crate) struct BodyBytes(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// The how-manieth request of the connection it is.
    request: AtomicU64,
    bytes: AtomicU64,
    /// Something came since that request began.
    is_heard: AtomicBool,
}

impl BodyBytes {
    /// Returns which request the connection is at.
    pub(crate) fn request(&self) -> u64 {
        self.0.request.load(Ordering::Acquire)
    }

    /// Returns how many bytes came for this request; nothing where the connection is at another by now.
    pub(crate) fn count(&self, request: u64) -> Option<u64> {
        let bytes = self.0.bytes.load(Ordering::Acquire);
        (self.request() == request).then_some(bytes)
    }

    /// Tells whether the connection had answered a request before this one.
    pub(crate) fn is_reused(&self) -> bool {
        self.request() > 0
    }

    /// Tells whether anything came for this request.
    pub(crate) fn is_heard(&self) -> bool {
        self.0.is_heard.load(Ordering::Acquire)
    }

    fn begin_next(&self) {
        self.0.request.fetch_add(1, Ordering::AcqRel);
        self.0.bytes.store(0, Ordering::Release);
        self.0.is_heard.store(false, Ordering::Release);
    }
}

/// Makes connections whose bytes are counted.
#[derive(Clone, Debug)]
pub(crate) struct Metering(pub(crate) HttpConnector);

impl Service<Uri> for Metering {
    type Response = Metered;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = BoxFuture<'static, Result<Metered, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        self.0
            .call(server)
            .map(|connected| connected.map(|socket| Metered { socket, body: BodyBytes::default(), scan: Scan::default() }))
            .boxed()
    }
}

/// A connection to an upstream.
#[derive(Debug)]
pub(crate) struct Metered {
    socket: TokioIo<TcpStream>,
    body: BodyBytes,
    scan: Scan,
}

/// Looks for the end of a response's head.
#[derive(Debug, Default)]
struct Scan {
    is_behind: bool,
    /// The first bytes of the head: `HTTP/1.1 1`.
    start: Vec<u8>,
    /// How much of an empty line the last bytes are.
    ends: u8,
}

/// Where a status line says that the response is interim.
const CLASS: usize = 9;

impl Scan {
    /// Takes the next bytes, and returns how many of them are behind the head.
    fn take(&mut self, bytes: &[u8]) -> u64 {
        let mut rest = bytes.iter();
        while !self.is_behind {
            let Some(&byte) = rest.next() else { return 0 };
            if self.start.len() <= CLASS {
                self.start.push(byte);
            }
            self.ends = match (byte, self.ends) {
                (b'\n', ends) => ends + 1,
                (b'\r', ends) => ends,
                _ => 0,
            };
            if self.ends == 2 {
                let is_interim = self.start.get(CLASS) == Some(&b'1');
                *self = Self { is_behind: !is_interim, ..Self::default() };
            }
        }
        rest.len() as u64
    }
}

impl Connection for Metered {
    fn connected(&self) -> Connected {
        self.socket.connected().extra(self.body.clone())
    }
}

impl Read for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        // Through a buffer of our own, since hyper's can only be written.
        let mut bytes = [0; 16 << 10];
        let most = bytes.len().min(buffer.remaining());
        let mut own = tokio::io::ReadBuf::new(bytes.get_mut(..most).unwrap_or_default());
        match tokio::io::AsyncRead::poll_read(Pin::new(self.socket.inner_mut()), cx, &mut own) {
            Poll::Ready(Ok(())) => {}
            other => return other,
        }
        if !own.filled().is_empty() {
            self.body.0.is_heard.store(true, Ordering::Release);
        }
        let behind = self.scan.take(own.filled());
        self.body.0.bytes.fetch_add(behind, Ordering::AcqRel);
        buffer.put_slice(own.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // A request after a response: the next head is to come.
        if self.scan.is_behind {
            self.scan = Scan::default();
            self.body.begin_next();
        }
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.scan.is_behind {
            self.scan = Scan::default();
            self.body.begin_next();
        }
        Pin::new(&mut self.socket).poll_write_vectored(cx, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_32_bytes_behind_the_head_are_counted_however_they_are_cut() {
        let text = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcde";
        for size in 1..=text.len() {
            let mut scan = Scan::default();
            assert_eq!(text.chunks(size).map(|bytes| scan.take(bytes)).sum::<u64>(), 5, "{size}");
        }
    }
}
