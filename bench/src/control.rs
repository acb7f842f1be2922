//! The control API as an administrator speaks it, in the types of `wire`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, RequestBuilder};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wire::{Event, PurgeRequest, Receipt, Status, TokenIssued, Wait};

use crate::town::client;

/// How long a call may take beside what it is told to wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// Somebody who holds a token. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    client: Client,
    url: String,
    token: String,
}

impl Control {
    /// Prepares calls to the origin at `url`.
    pub(crate) fn new(url: String, token: &str) -> Result<Self> {
        Ok(Self { client: client()?, url, token: token.trim().to_owned() })
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder, wait: Duration) -> Result<T> {
        let response = request.bearer_auth(&self.token).timeout(wait + PATIENCE).send().await?;
        let status = response.status();
        ensure!(status.is_success(), "{status}: {}", response.text().await?);
        Ok(response.json().await?)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T> {
        self.send(self.client.get(format!("{}{path}", self.url)), wait).await
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
        self.send(self.client.post(format!("{}/v1/purges", self.url)).json(request), wait).await
    }

    /// Asks what became of an event, and waits for its completion.
    pub(crate) async fn receipt(&self, seq: u64, wait: Duration) -> Result<Receipt> {
        self.get(&format!("/v1/purges/{seq}?timeout_ms={}", wait.as_millis()), wait).await
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
        let request = self.client.post(format!("{}/v1/tokens", self.url)).json(&json!({ "name": name, "can": [can] }));
        Ok(self.send::<TokenIssued>(request, Duration::ZERO).await?.token)
    }
}
