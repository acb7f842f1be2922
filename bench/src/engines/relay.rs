//! A relay in front of a store, which lets it fail on demand: 500 now and then or always, or only after a while.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The most that a request's head may have.
const HEAD_MOST: usize = 64 << 10;

/// What becomes of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// They reach the store.
    None,
    /// Each of so many is answered with 500; with 1 it is every one.
    Fails(u64),
    /// They reach the store after a while.
    Delays(Duration),
}

/// A relay for stores that take one request per connection, as moto does.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    fault: Arc<watch::Sender<Fault>>,
    requests: Arc<AtomicU64>,
    harmed: Arc<AtomicU64>,
}

impl Relay {
    /// Sets up a relay to `far` that does not fail yet.
    pub(crate) async fn before(far: SocketAddr, host: IpAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((host, 0)).await?;
        let (fault, address) = (Arc::new(watch::Sender::new(Fault::None)), listener.local_addr()?);
        let relay = Self { address, fault, requests: Arc::default(), harmed: Arc::default() };
        tokio::spawn(relay.clone().relay_all(listener, far));
        Ok(relay)
    }

    /// Returns its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Decides what becomes of requests from now on.
    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Returns how many requests were failed or delayed.
    pub(crate) fn harmed(&self) -> u64 {
        self.harmed.load(Ordering::Relaxed)
    }

    async fn relay_all(self, listener: TcpListener, far: SocketAddr) {
        while let Ok((near, _)) = listener.accept().await {
            let relay = self.clone();
            // Whoever is at either end sees the connection end; there is nobody else to tell.
            tokio::spawn(async move { relay.relay(near, far).await.unwrap_or_default() });
        }
    }

    async fn relay(self, mut near: TcpStream, far: SocketAddr) -> io::Result<()> {
        near.set_nodelay(true)?;
        let begun = read_head(&mut near).await?;
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let fault = *self.fault.borrow();
        match fault {
            Fault::Fails(one_of) if number.is_multiple_of(one_of.max(1)) => {
                self.harmed.fetch_add(1, Ordering::Relaxed);
                return fail(near, &begun).await;
            }
            Fault::Delays(delay) => {
                self.harmed.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(delay).await;
            }
            Fault::None | Fault::Fails(_) => {}
        }
        let mut server = TcpStream::connect(far).await?;
        server.set_nodelay(true)?;
        server.write_all(&begun).await?;
        tokio::io::copy_bidirectional(&mut near, &mut server).await.map(|_| ())
    }
}

/// Reads until the end of the head; what came of the body is behind it.
async fn read_head(near: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut begun = Vec::new();
    while end_of_head(&begun).is_none() {
        if near.read_buf(&mut begun).await? == 0 || begun.len() > HEAD_MOST {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(begun)
}

fn end_of_head(begun: &[u8]) -> Option<usize> {
    begun.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// Reads the request to its end, without which the answer could be lost, and answers as a store does that is ill.
async fn fail(mut near: TcpStream, begun: &[u8]) -> io::Result<()> {
    let head_length = end_of_head(begun).unwrap_or(begun.len());
    let head = String::from_utf8_lossy(begun.get(..head_length).unwrap_or_default()).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok()).unwrap_or(0);
    let left = (head_length + length).saturating_sub(begun.len());
    tokio::io::copy(&mut (&mut near).take(left as u64), &mut tokio::io::sink()).await?;
    let body = "<Error><Code>InternalError</Code><Message>on demand</Message></Error>";
    let answer = format!("HTTP/1.1 500 Internal Server Error\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    near.write_all(answer.as_bytes()).await?;
    near.shutdown().await
}
