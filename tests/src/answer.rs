//! Asking over HTTP: an answer with all of its bytes, and a visitor of one edge.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, redirect};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::Problem;

use crate::eventually;

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body, as it came: nothing is decoded.
    pub body: Bytes,
}

impl Answer {
    pub(crate) async fn of(response: reqwest::Response) -> Result<Self> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.context("failed to read the body of an answer")?;
        Ok(Self { status, headers, body })
    }

    /// Returns a field's first value, or nothing at all as an empty text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns what our edge says about how the answer came to be.
    #[must_use]
    pub fn cache_status(&self) -> &str {
        self.header("cache-status")
    }

    /// Tells whether the answer came from the cache.
    #[must_use]
    pub fn is_hit(&self) -> bool {
        self.cache_status().starts_with("atoll; hit")
    }

    /// Returns the answer where it has this status.
    ///
    /// # Errors
    /// With the whole answer where it has another.
    pub fn with_status(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "expected status {status}, got {}: {:?} {}", self.status, self.headers, self.text());
        Ok(self)
    }

    /// Reads the body as JSON.
    ///
    /// # Errors
    /// Where it is none, or of another shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).with_context(|| format!("status {}: {}", self.status, self.text()))
    }

    /// Reads the body as the problem that every refusal of the control API is.
    ///
    /// # Errors
    /// Where the status, the media type or the body are not those of the problem.
    pub fn problem(self, status: u16) -> Result<Problem> {
        let answer = self.with_status(status)?;
        ensure!(answer.header("content-type") == "application/problem+json", "{:?}", answer.headers);
        let problem: Problem = answer.json()?;
        ensure!(problem.status == status && !problem.detail.is_empty() && !problem.title.is_empty(), "{problem:?}");
        Ok(problem)
    }
}

/// A client that follows nothing, decodes nothing, and keeps no connection that would hold up a node that stops.
pub(crate) fn client() -> Result<Client> {
    let builder = Client::builder().no_proxy().redirect(redirect::Policy::none()).http1_only().pool_max_idle_per_host(0);
    Ok(builder.tls_certs_only([]).timeout(Duration::from_secs(60)).build()?)
}

/// Somebody who asks one edge.
#[derive(Clone, Debug)]
pub struct Visitor {
    client: Client,
    address: SocketAddr,
}

impl Visitor {
    pub(crate) fn new(client: Client, address: SocketAddr) -> Self {
        Self { client, address }
    }

    /// Returns the address that is asked.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks for a page.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn get(&self, host: &str, path: &str) -> Result<Answer> {
        self.send("GET", host, path, &[]).await
    }

    /// Sends a request without a body.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn send(&self, method: &str, host: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let method = Method::from_bytes(method.as_bytes())?;
        let request = self.client.request(method, format!("http://{}{path}", self.address)).header("host", host);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.send().await.with_context(|| format!("failed to ask {} for {host}{path}", self.address))?;
        Answer::of(response).await
    }

    /// Asks until the answer comes from the cache: an edge stores behind the last byte of its answer.
    ///
    /// # Errors
    /// Where it never does.
    pub async fn hit(&self, host: &str, path: &str) -> Result<Answer> {
        eventually(&format!("{host}{path} to be a hit"), || async {
            let answer = self.get(host, path).await?.with_status(200)?;
            ensure!(answer.is_hit(), "{}", answer.cache_status());
            Ok(answer)
        })
        .await
    }
}

/// An answer as it stood on the wire.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The statuses of the interim answers before it.
    pub interim: Vec<u16>,
    /// The answer, its body without chunks.
    pub answer: Answer,
    /// Whether all came that its head announced, and no more.
    pub is_whole: bool,
}

/// Sends exactly these bytes, which should ask for the connection to be closed, and returns all that comes until it is.
///
/// # Errors
/// Where no head came, or one that can't be read.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> Result<Heard> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        match tokio::time::timeout(crate::PATIENCE, stream.read(&mut buffer)).await.context("the connection was not closed")? {
            Ok(0) => break,
            Ok(read) => bytes.extend(buffer.iter().take(read)),
            // A refusal may close while it is still being spoken to; what it said counts.
            Err(_) if !bytes.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
    }
    let (mut interim, mut rest) = (Vec::new(), bytes.as_slice());
    loop {
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.with_context(|| format!("no head in {:?}", String::from_utf8_lossy(rest)))?;
        let (head, after) = rest.split_at(end + 4);
        let (status, headers) = read_head(head)?;
        rest = after;
        if (100..200).contains(&status) {
            interim.push(status);
            continue;
        }
        let is_bare = request.starts_with(b"HEAD ") || matches!(status, 204 | 304);
        let (body, is_whole) = if is_bare { (rest.to_vec(), rest.is_empty()) } else { unframe(&headers, rest) };
        return Ok(Heard { interim, answer: Answer { status, headers, body: body.into() }, is_whole });
    }
}

fn read_head(head: &[u8]) -> Result<(u16, HeaderMap)> {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("no status in `{first}`"))?;
    let mut headers = HeaderMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':');
        let colon = colon.with_context(|| format!("no field in `{}`", String::from_utf8_lossy(line)))?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        headers.append(HeaderName::from_bytes(name)?, HeaderValue::from_bytes(value)?);
    }
    Ok((status, headers))
}

/// Takes a body out of its framing, and tells whether it is whole.
fn unframe(headers: &HeaderMap, rest: &[u8]) -> (Vec<u8>, bool) {
    if headers.contains_key("transfer-encoding") {
        return unchunk(rest);
    }
    let length = headers.get("content-length").and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    (rest.to_vec(), length.is_none_or(|length| length == rest.len()))
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let (line, after) = rest.split_at(end);
        let size = std::str::from_utf8(line).ok().and_then(|line| usize::from_str_radix(line.split(';').next()?.trim(), 16).ok());
        let after = after.get(2..).unwrap_or_default();
        match size {
            Some(0) => return (body, true),
            Some(size) if after.len() >= size + 2 => {
                let (chunk, next) = after.split_at(size);
                body.extend_from_slice(chunk);
                rest = next.get(2..).unwrap_or_default();
            }
            _ => {
                body.extend_from_slice(after);
                return (body, false);
            }
        }
    }
    (body, false)
}

/// Sends exactly these bytes and returns the head of the answer, with what came along of its body; for what no client
/// would send.
///
/// # Errors
/// Where the connection breaks before a head came.
pub async fn raw(address: SocketAddr, request: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        let read = tokio::time::timeout(crate::PATIENCE, stream.read(&mut buffer)).await.context("no head came")??;
        ensure!(read > 0, "the connection ended after {:?}", String::from_utf8_lossy(&answer));
        answer.extend(buffer.iter().take(read));
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
