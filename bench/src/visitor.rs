//! A client that keeps its connection to an edge, and sees how long each answer takes and where it comes from.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::line::{Head, Line};

/// The host that it asks.
pub(crate) const HOST: &str = "a.test";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection.
#[derive(Debug)]
pub(crate) struct Visitor {
    line: Line,
}

/// Where an answer came from, as the edge says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Memory,
    SecondTier,
    Upstream,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// From before the request was sent until the whole body was here.
    pub(crate) took: Duration,
    pub(crate) source: Source,
}

impl Visitor {
    /// Connects to the edge that serves at this address.
    pub(crate) async fn connect(edge: SocketAddr) -> Result<Self> {
        Ok(Self { line: Line::new(TcpStream::connect(edge).await?)? })
    }

    /// Asks for a path, and reads all of the answer.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let begun = Instant::now();
        let head = timeout(PATIENCE, self.exchange(&request)).await.with_context(|| format!("no answer within {PATIENCE:?}"))??;
        let took = begun.elapsed();
        ensure!(head.word(1) == "200", "{path} was answered with {}", head.word(1));
        let source =
            source(head.field("cache-status").unwrap_or_default()).with_context(|| format!("{path} came from nowhere: {head:?}"))?;
        Ok(Answer { took, source })
    }

    async fn exchange(&mut self, request: &str) -> Result<Head> {
        self.line.send(request.as_bytes()).await?;
        let head = self.line.head().await?.context("the edge closed the connection")?;
        let length = head.field("content-length").and_then(|length| length.parse().ok());
        self.line.body(length.context("an answer without a length")?).await?;
        Ok(head)
    }
}

/// Reads `Cache-Status`.
fn source(status: &str) -> Option<Source> {
    if status.contains("; fwd=") {
        return Some(Source::Upstream);
    }
    let is_of_second_tier = status.split("; ").any(|part| part == "detail=l2");
    status.contains("; hit").then_some(if is_of_second_tier { Source::SecondTier } else { Source::Memory })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_says_where_an_answer_comes_from() {
        assert_eq!(source("atoll; hit; ttl=3599"), Some(Source::Memory));
        assert_eq!(source("atoll; hit; ttl=3599; detail=l2"), Some(Source::SecondTier));
        assert_eq!(source("atoll; fwd=uri-miss; fwd-status=200; stored"), Some(Source::Upstream));
        assert_eq!(source("atoll; detail=refused"), None);
    }
}
