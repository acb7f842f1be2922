//! A relay in front of an HTTP server that fails on demand: it answers 500, delays, keeps silent, or cuts an answer off.

use std::io;
use std::net::SocketAddr;
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
pub enum HttpFault {
    /// They reach the server.
    None,
    /// Each of so many, counted from the first, is answered with 500; with 1 it is every one.
    Fails {
        /// Of how many requests one fails.
        one_of: u64,
    },
    /// They reach the server after a while.
    Delays(Duration),
    /// They are read, and never answered.
    KeepsSilent,
    /// They reach the server, and its answer ends after so many bytes.
    CutsAfter(u64),
}

/// A relay for servers that take one request per connection, as moto does. It ends with the test.
#[derive(Clone, Debug)]
pub struct Faults {
    address: SocketAddr,
    fault: Arc<watch::Sender<HttpFault>>,
    requests: Arc<AtomicU64>,
}

impl Faults {
    /// Sets up a relay to `far` that does not fail yet.
    ///
    /// # Errors
    /// Where no port can be had.
    pub async fn before(far: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let relay =
            Self { address: listener.local_addr()?, fault: Arc::new(watch::Sender::new(HttpFault::None)), requests: Arc::default() };
        tokio::spawn(relay.clone().relay_all(listener, far));
        Ok(relay)
    }

    /// Returns its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Decides what becomes of requests from now on. Who is kept waiting without an answer is cut off.
    pub fn set(&self, fault: HttpFault) {
        self.fault.send_replace(fault);
    }

    /// Returns how many requests came.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    async fn relay_all(self, listener: TcpListener, far: SocketAddr) {
        while let Ok((near, _)) = listener.accept().await {
            let relay = self.clone();
            // Whoever is at either end sees the connection end; there is nobody else to tell.
            tokio::spawn(async move { relay.relay(near, far).await });
        }
    }

    async fn relay(self, mut near: TcpStream, far: SocketAddr) -> io::Result<()> {
        near.set_nodelay(true)?;
        let begun = read_head(&mut near).await?;
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut faults = self.fault.subscribe();
        let fault = *faults.borrow_and_update();
        match fault {
            HttpFault::Fails { one_of } if number.is_multiple_of(one_of.max(1)) => return fail(near, &begun).await,
            HttpFault::KeepsSilent => return faults.changed().await.map_err(io::Error::other),
            HttpFault::Delays(delay) => tokio::time::sleep(delay).await,
            _ => {}
        }
        let mut server = TcpStream::connect(far).await?;
        server.set_nodelay(true)?;
        server.write_all(&begun).await?;
        let HttpFault::CutsAfter(bytes) = fault else {
            return tokio::io::copy_bidirectional(&mut near, &mut server).await.map(|_| ());
        };
        let ((mut from_near, mut to_near), (from_server, mut to_server)) = (near.split(), server.split());
        let mut answer = from_server.take(bytes);
        tokio::select! {
            sent = tokio::io::copy(&mut answer, &mut to_near) => sent.map(|_| ()),
            // Whoever asks keeps its side open until it is answered.
            Err(error) = tokio::io::copy(&mut from_near, &mut to_server) => Err(error),
        }
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
    let head = String::from_utf8_lossy(&begun[..head_length]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok()).unwrap_or(0);
    let left = (head_length + length).saturating_sub(begun.len());
    tokio::io::copy(&mut (&mut near).take(left as u64), &mut tokio::io::sink()).await?;
    let body = "<Error><Code>InternalError</Code><Message>on demand</Message></Error>";
    let answer = format!("HTTP/1.1 500 Internal Server Error\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    near.write_all(answer.as_bytes()).await?;
    near.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reply, Upstream};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn requests_fail_as_they_are_told_and_else_reach_the_server() -> anyhow::Result<()> {
        let upstream = Upstream::start(|_| Reply::plain(200, "x".repeat(1000))).await?;
        let (relay, client) = (Faults::before(upstream.address()).await?, crate::answer::client()?);
        let ask = || async { anyhow::Ok(client.post(relay.url()).body("body").send().await?.error_for_status()?.bytes().await?.len()) };

        assert_eq!(ask().await?, 1000);
        relay.set(HttpFault::Fails { one_of: 1 });
        assert!(ask().await.is_err_and(|error| error.to_string().contains("500")));
        relay.set(HttpFault::CutsAfter(200));
        assert!(ask().await.is_err());
        relay.set(HttpFault::KeepsSilent);
        assert!(tokio::time::timeout(Duration::from_millis(200), ask()).await.is_err());
        relay.set(HttpFault::Delays(Duration::from_millis(200)));
        let begun = std::time::Instant::now();
        assert_eq!((ask().await?, begun.elapsed() >= Duration::from_millis(200)), (1000, true));

        relay.set(HttpFault::Fails { one_of: 2 });
        let failed = [ask().await.is_err(), ask().await.is_err(), ask().await.is_err(), ask().await.is_err()];
        assert_eq!(failed.iter().filter(|failed| **failed).count(), 2);
        Ok(())
    }
}
