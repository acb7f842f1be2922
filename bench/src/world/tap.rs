//! A reader's connection to an edge. It asks for keys of the truth, and reads which version came.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use tokio::net::TcpStream;

use super::line::Line;
use super::truth::{HOST, SITE_HOST};

/// How long an answer may take: two fills of 2 s one behind the other, and much more.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an edge answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The key that the answer is about.
    pub(crate) key: usize,
    /// The version of its value.
    pub(crate) version: u64,
    /// Whether it came from the cache.
    pub(crate) hit: bool,
    /// Whether that was the second tier.
    pub(crate) second: bool,
    /// Whether the edge had no lease.
    pub(crate) fenced: bool,
}

/// A connection that is opened when it is needed.
#[derive(Debug)]
pub(crate) struct Tap {
    edge: SocketAddr,
    host: &'static str,
    /// What is behind the key in a path.
    suffix: &'static str,
    line: Option<Line>,
}

impl Tap {
    /// Prepares a connection.
    pub(crate) fn new(edge: SocketAddr) -> Self {
        Self { edge, host: HOST, suffix: "", line: None }
    }

    /// Prepares a connection for the pages of a site, each of which has a key and a version too.
    pub(crate) fn of_site(edge: SocketAddr) -> Self {
        Self { edge, host: SITE_HOST, suffix: ".txt", line: None }
    }

    /// Reads a key. A connection on which that failed is not used again.
    pub(crate) async fn read(&mut self, key: usize) -> Result<Seen> {
        let asked = self.ask(key).await;
        let seen = match asked {
            Ok(()) => self.hear().await,
            Err(error) => Err(error),
        };
        if seen.is_err() {
            self.line = None;
        }
        seen
    }

    /// Sends the question alone.
    pub(crate) async fn ask(&mut self, key: usize) -> Result<()> {
        let asked = tokio::time::timeout(PATIENCE, self.send(key)).await;
        asked.unwrap_or_else(|_| Err(anyhow!("no connection within {PATIENCE:?}")))
    }

    /// Reads the answer.
    pub(crate) async fn hear(&mut self) -> Result<Seen> {
        let heard = tokio::time::timeout(PATIENCE, self.answer()).await;
        heard.unwrap_or_else(|_| Err(anyhow!("no answer within {PATIENCE:?}")))
    }

    async fn send(&mut self, key: usize) -> Result<()> {
        let line = match self.line.take() {
            Some(line) => line,
            None => Line::new(TcpStream::connect(self.edge).await?)?,
        };
        let line = self.line.insert(line);
        let (host, suffix) = (self.host, self.suffix);
        Ok(line.send(format!("GET /k/{key}{suffix} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?)
    }

    async fn answer(&mut self) -> Result<Seen> {
        let line = self.line.as_mut().context("nothing was asked")?;
        let head = line.head().await?.context("the edge closed the connection")?;
        let length = head.field("content-length").and_then(|length| length.parse().ok());
        let body = line.body(length.context("an answer without a length")?).await?;
        ensure!(head.word(1) == "200", "status {}", head.word(1));
        let status = head.field("cache-status").unwrap_or_default();
        let (hit, fenced) = (status.contains("; hit"), status.ends_with("; fenced"));
        let second = hit && status.contains("detail=l2");
        let body = String::from_utf8_lossy(&body);
        let (key, version) = body.trim().split_once(' ').with_context(|| format!("an answer of `{body}`"))?;
        Ok(Seen { key: key.parse()?, version: version.parse()?, hit, second, fenced })
    }
}
