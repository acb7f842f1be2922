//! The upstream that knows the truth: one value per key, with a version that is raised before its purge is sent.
//!
//! What it answers is what was true when the request came, however long the answer takes: the way in which an old value
//! comes late.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};

use super::line::{Head, Line};
use crate::chance::Chance;

/// The host that it answers for.
pub(crate) const HOST: &str = "truth.test";

/// The host of the site that is published in some drills; no upstream is behind it.
pub(crate) const SITE_HOST: &str = "www.test";

/// The upstream.
#[derive(Debug)]
pub(crate) struct Truth {
    address: SocketAddr,
    known: Arc<Known>,
}

#[derive(Debug)]
struct Known {
    versions: Box<[AtomicU64]>,
    slowest_ms: AtomicU64,
    asked: AtomicU64,
}

/// The tag of a key.
pub(crate) fn tag(key: usize) -> String {
    format!("k-{key}")
}

impl Truth {
    /// Starts it with so many keys, at version 1 all of them.
    pub(crate) async fn start(host: IpAddr, keys: usize) -> Result<Self> {
        let listener = TcpListener::bind((host, 0)).await?;
        let address = listener.local_addr()?;
        let versions = (0..keys).map(|_| AtomicU64::new(1)).collect();
        let known = Arc::new(Known { versions, slowest_ms: AtomicU64::new(0), asked: AtomicU64::new(0) });
        tokio::spawn(accept(listener, Arc::clone(&known)));
        Ok(Self { address, known })
    }

    /// Returns where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many keys there are.
    pub(crate) fn keys(&self) -> usize {
        self.known.versions.len()
    }

    /// Makes a value change, and returns its new version.
    pub(crate) fn raise(&self, key: usize) -> u64 {
        self.known.versions.get(key).map_or(0, |version| version.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// Lets each answer take up to this from now on.
    pub(crate) fn slow_down(&self, slowest: Duration) {
        self.known.slowest_ms.store(u64::try_from(slowest.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns how often it was asked.
    pub(crate) fn asked(&self) -> u64 {
        self.known.asked.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, known: Arc<Known>) {
    for seed in 0.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        let known = Arc::clone(&known);
        // An edge that leaves, or is killed, is no fault of the upstream.
        tokio::spawn(async move { serve(stream, &known, Chance::new(seed)).await.unwrap_or_default() });
    }
}

async fn serve(stream: TcpStream, known: &Known, mut chance: Chance) -> io::Result<()> {
    let mut line = Line::new(stream)?;
    while let Some(head) = line.head().await? {
        let answer = known.answer(&head);
        let slowest = known.slowest_ms.load(Ordering::Relaxed);
        if slowest > 0 {
            tokio::time::sleep(Duration::from_millis(chance.below(slowest + 1))).await;
        }
        line.send(answer.as_bytes()).await?;
    }
    Ok(())
}

impl Known {
    /// Writes what is true now. Every other key has a strong validator, so that both ways of asking again are gone.
    fn answer(&self, head: &Head) -> String {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let key = head.word(1).strip_prefix("/k/").and_then(|key| key.parse::<usize>().ok());
        let Some((key, version)) = key.and_then(|key| Some((key, self.versions.get(key)?.load(Ordering::SeqCst)))) else {
            return "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nCache-Control: no-store\r\n\r\n".to_owned();
        };
        let (etag, tag) = (format!("\"{key}-{version}\""), tag(key));
        let mut fields = format!("Cache-Control: max-age=3600\r\nSurrogate-Key: {tag}\r\n");
        if key.is_multiple_of(2) {
            fields += &format!("ETag: {etag}\r\n");
            if head.field("if-none-match") == Some(&etag) {
                return format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n");
            }
        }
        let body = format!("{key} {version}\n");
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
    }
}
