//! The control API as an administrator speaks it, in the types of `wire`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wire::{Digest, Event, Manifest, Position, PurgeRequest, Receipt, SiteName, Status, TokenIssued, VersionList, Wait};

use crate::town::client;

/// How long a call may take beside what it is told to wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// Somebody who holds a token. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    client: Client,
    urls: Arc<[String]>,
    token: Arc<str>,
    /// Which origin is asked first the next time: each in turn.
    turn: Arc<AtomicUsize>,
}

impl Control {
    /// Prepares calls to the origin at `url`.
    pub(crate) fn new(url: String, token: &str) -> Result<Self> {
        Self::of(vec![url], token)
    }

    /// Prepares calls to several origins, each in turn.
    pub(crate) fn of(urls: Vec<String>, token: &str) -> Result<Self> {
        Ok(Self { client: client()?, urls: urls.into(), token: token.trim().into(), turn: Arc::default() })
    }

    /// Returns each origin once, another one first each time.
    fn in_turn(&self) -> impl Iterator<Item = &str> {
        let count = self.urls.len();
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % count.max(1);
        self.urls.iter().cycle().skip(first).take(count).map(String::as_str)
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder, wait: Duration) -> Result<T> {
        Ok(accepted(self.ready(request, wait).send().await?).await?.json().await?)
    }

    fn ready(&self, request: RequestBuilder, wait: Duration) -> RequestBuilder {
        request.bearer_auth(&self.token).timeout(wait + PATIENCE)
    }

    /// Asks one origin after the other until one has an answer: asking changes nothing.
    async fn get<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T> {
        let mut said = None;
        for url in self.in_turn() {
            match self.send(self.client.get(format!("{url}{path}")), wait).await {
                Ok(answer) => return Ok(answer),
                Err(error) => said = Some(error),
            }
        }
        Err(said.context("there is no origin")?)
    }

    /// Sends a request to the first origin that can be reached. What was sent to one is not sent to another: nobody knows
    /// what became of it.
    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl serde::Serialize, wait: Duration) -> Result<T> {
        let mut said = None;
        for url in self.in_turn() {
            match self.ready(self.client.post(format!("{url}{path}")).json(body), wait).send().await {
                Err(error) if error.is_connect() => said = Some(error),
                answered => return Ok(accepted(answered?).await?.json().await?),
            }
        }
        Err(said.context("there is no origin")?.into())
    }

    /// Purges tags, and returns as soon as the origin has accepted it.
    pub(crate) async fn purge(&self, tags: Vec<String>) -> Result<Receipt> {
        self.send_purge(&PurgeRequest { tags, wait: Wait::None, ..PurgeRequest::default() }, Duration::ZERO).await
    }

    /// Purges tags, and waits for the receipt.
    pub(crate) async fn purge_and_wait(&self, tags: Vec<String>, wait: Duration) -> Result<Receipt> {
        let timeout_ms = Some(u64::try_from(wait.as_millis())?);
        self.send_purge(&PurgeRequest { tags, timeout_ms, ..PurgeRequest::default() }, wait).await
    }

    async fn send_purge(&self, request: &PurgeRequest, wait: Duration) -> Result<Receipt> {
        self.post("/v1/purges", request, wait).await
    }

    /// Asks what became of an event, and waits for its completion. It is asked for by its position: in a journal that lost
    /// its end another event may have its number.
    pub(crate) async fn receipt(&self, position: &Position, wait: Duration) -> Result<Receipt> {
        self.get(&format!("/v1/purges/{position}?timeout_ms={}", wait.as_millis()), wait).await
    }

    /// Returns the versions of a site.
    pub(crate) async fn versions(&self, site: &SiteName) -> Result<VersionList> {
        self.get(&format!("/v1/sites/{site}/versions"), Duration::ZERO).await
    }

    /// Returns the manifest of a version.
    pub(crate) async fn manifest(&self, version: Digest) -> Result<Manifest> {
        serde_json::from_slice(&self.blob(version).await?).context("the manifest is not understood")
    }

    /// Returns the bytes of a blob.
    pub(crate) async fn blob(&self, digest: Digest) -> Result<Vec<u8>> {
        let url = self.in_turn().next().context("there is no origin")?;
        let asked = self.ready(self.client.get(format!("{url}/v1/blobs/{digest}")), Duration::ZERO).send().await?;
        Ok(accepted(asked).await?.bytes().await?.to_vec())
    }

    /// Returns the network as the origin sees it.
    pub(crate) async fn status(&self) -> Result<Status> {
        self.get("/v1/status", Duration::ZERO).await
    }

    /// Reads the whole journal.
    pub(crate) async fn journal(&self) -> Result<Vec<Event>> {
        let mut events: Vec<Event> = Vec::new();
        loop {
            let after = events.last().map_or(0, |event| event.seq);
            let mut page: Value = self.get(&format!("/v1/journal?after={after}"), Duration::ZERO).await?;
            let more: Vec<Event> = serde_json::from_value(page["events"].take()).context("the journal's events are not understood")?;
            if more.is_empty() {
                return Ok(events);
            }
            events.extend(more);
        }
    }

    /// Issues a token for what it can be used for, and returns its secret.
    pub(crate) async fn issue(&self, name: &str, can: &str) -> Result<String> {
        let request = json!({ "name": name, "can": [can] });
        Ok(self.post::<TokenIssued>("/v1/tokens", &request, Duration::ZERO).await?.token)
    }
}

async fn accepted(response: Response) -> Result<Response> {
    let status = response.status();
    ensure!(status.is_success(), "{status}: {}", response.text().await?);
    Ok(response)
}
