//! The control API as the command line speaks it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::{Body, Client, Method};
use serde::Serialize;
use wire::{
    Alias, AliasAnswer, AliasMove, ApplyAnswer, CommitAnswer, Digest, Event, Grant, Manifest, PACK_TYPE, Position, PublishStarted,
    PurgeRequest, Receipt, ReceiptState, SiteName, Status, TokenIssued, TokenRequest, VersionList, pack,
};

use crate::{Answer, Draft, PATIENCE};

/// Blobs up to this size travel in a pack; so a draft with a small and a large file takes both ways.
const PACKED: usize = 64 << 10;

/// Somebody who holds a token.
#[derive(Clone, Debug)]
pub struct Control {
    client: Client,
    url: String,
    token: String,
}

/// What a publish came to.
#[derive(Clone, Debug)]
pub struct Published {
    /// The version.
    pub version: Digest,
    /// The blobs that were sent.
    pub sent: Vec<Digest>,
    /// What its publisher should know.
    pub warnings: Vec<String>,
    /// How the alias came to every edge.
    pub receipt: Receipt,
}

impl Control {
    /// Prepares calls to the origin at `url`.
    ///
    /// # Errors
    /// Where no client can be built.
    pub fn new(url: String, token: &str) -> Result<Self> {
        Ok(Self { client: crate::answer::client()?, url, token: token.trim().to_owned() })
    }

    /// Returns the same with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// Returns the token, for who shows it to an edge.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Sends a call.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Result<Answer> {
        let request = self.client.request(Method::from_bytes(method.as_bytes())?, format!("{}{path}", self.url));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.bearer_auth(&self.token).body(body).send().await;
        Answer::of(response.with_context(|| format!("failed to call {method} {path}"))?).await
    }

    /// Sends a call with a JSON body.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn json<T: Serialize + Sync>(&self, method: &str, path: &str, body: &T) -> Result<Answer> {
        self.send(method, path, &[("content-type", "application/json")], serde_json::to_vec(body)?).await
    }

    /// Asks for a page of the API.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send("GET", path, &[], "").await
    }

    /// Sends a manifest.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn begin(&self, site: &str, manifest: &Manifest) -> Result<PublishStarted> {
        self.json("POST", &format!("/v1/sites/{site}/publishes"), manifest).await?.with_status(200)?.json()
    }

    /// Sends the blobs that are missing: small ones packed, large ones by themselves.
    ///
    /// # Errors
    /// Where one is refused.
    pub async fn upload(&self, draft: &Draft, missing: &[Digest]) -> Result<()> {
        let mut packed = Vec::new();
        for digest in missing {
            let bytes = draft.blob(digest)?;
            if bytes.len() <= PACKED {
                pack(&mut packed, digest, bytes);
            } else {
                self.put_blob(digest, bytes).await?.with_status(204)?;
            }
        }
        if !packed.is_empty() {
            self.put_pack(packed).await?.with_status(204)?;
        }
        Ok(())
    }

    /// Sends one blob.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<Answer> {
        self.send("PUT", &format!("/v1/blobs/{digest}"), &[], bytes.to_vec()).await
    }

    /// Sends a pack.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn put_pack(&self, packed: Vec<u8>) -> Result<Answer> {
        self.send("POST", "/v1/blobs", &[("content-type", PACK_TYPE)], packed).await
    }

    /// Commits a publish.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn commit(&self, site: &str, id: &str) -> Result<Answer> {
        self.send("POST", &format!("/v1/sites/{site}/publishes/{id}/commit"), &[], "").await
    }

    /// Points an alias to a version.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn point(&self, site: &str, alias: &str, version: Digest, back: bool) -> Result<Answer> {
        self.json("PUT", &format!("/v1/sites/{site}/aliases/{alias}"), &AliasMove { version, back }).await
    }

    /// Publishes a draft: sends what is missing, commits, moves `production`, and waits until every edge has it.
    ///
    /// # Errors
    /// Where any of it is refused, or an edge does not follow.
    pub async fn publish(&self, site: &str, draft: &Draft) -> Result<Published> {
        let started = self.begin(site, &draft.manifest).await?;
        ensure!(started.version == draft.version(), "the origin calls {} what is {}", started.version, draft.version());
        self.upload(draft, &started.missing).await?;
        let committed: CommitAnswer = self.commit(site, &started.id).await?.with_status(200)?.json()?;
        let receipt = self.point_everywhere(site, started.version, false).await?;
        Ok(Published { version: started.version, sent: started.missing, warnings: committed.warnings, receipt })
    }

    async fn point_everywhere(&self, site: &str, version: Digest, back: bool) -> Result<Receipt> {
        let moved: AliasAnswer = self.point(site, "production", version, back).await?.with_status(200)?.json()?;
        ensure!(moved.version == version, "{moved:?}");
        self.complete(moved.position.seq).await
    }

    /// Goes back through the history of `production`, and waits until every edge has gone along.
    ///
    /// # Errors
    /// Where there is nothing to go back to, or an edge does not follow.
    pub async fn rollback(&self, site: &str) -> Result<Digest> {
        let list = self.versions(site).await?;
        let state = list.aliases.get(&Alias::production()).context("nothing was published yet")?;
        let before = *state.before.last().context("there is nothing to go back to")?;
        self.point_everywhere(site, before, true).await?;
        Ok(before)
    }

    /// Lists a site's versions.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn versions(&self, site: &str) -> Result<VersionList> {
        let site: SiteName = site.parse()?;
        self.get(&format!("/v1/sites/{site}/versions")).await?.with_status(200)?.json()
    }

    /// Sends a purge.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn send_purge(&self, request: &PurgeRequest) -> Result<Answer> {
        self.json("POST", "/v1/purges", request).await
    }

    /// Sends a purge under a key, written as it stands.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn send_purge_under(&self, key: &str, request: &PurgeRequest) -> Result<Answer> {
        self.send("POST", "/v1/purges", &[("idempotency-key", key)], serde_json::to_vec(request)?).await
    }

    /// Purges and waits, and returns a receipt that says that it is complete.
    ///
    /// # Errors
    /// Where it is refused or not complete.
    pub async fn purge(&self, request: &PurgeRequest) -> Result<Receipt> {
        let receipt: Receipt = self.send_purge(request).await?.with_status(200)?.json()?;
        ensure!(receipt.state == ReceiptState::Complete, "{receipt:?}");
        Ok(receipt)
    }

    /// Asks what became of an event, and waits for its completion as long as `patience`.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn receipt(&self, seq: u64, patience: Duration) -> Result<Answer> {
        self.get(&format!("/v1/purges/{seq}?timeout_ms={}", patience.as_millis())).await
    }

    /// Waits until every edge has applied an event or is fenced.
    ///
    /// # Errors
    /// Where one does neither.
    pub async fn complete(&self, seq: u64) -> Result<Receipt> {
        self.receipt(seq, PATIENCE).await?.with_status(200)?.json()
    }

    /// Returns the network as the origin sees it.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn status(&self) -> Result<Status> {
        self.get("/v1/status").await?.with_status(200)?.json()
    }

    /// Returns the journal's last seq: what was refused leaves it as it was.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn head(&self) -> Result<u64> {
        Ok(self.status().await?.position.seq)
    }

    /// Reads the whole journal.
    ///
    /// # Errors
    /// Where it is refused, or has a gap.
    pub async fn journal(&self) -> Result<Vec<Event>> {
        #[derive(serde::Deserialize)]
        struct Page {
            head: Position,
            events: Vec<Event>,
        }
        let mut events: Vec<Event> = Vec::new();
        loop {
            let after = events.last().map_or(0, |event| event.seq);
            let page: Page = self.get(&format!("/v1/journal?after={after}")).await?.with_status(200)?.json()?;
            if page.events.is_empty() {
                ensure!(after == page.head.seq, "the journal ends at {after}, but its head is {}", page.head);
                return Ok(events);
            }
            events.extend(page.events);
            if let Some(pair) = events.windows(2).find(|pair| matches!(pair, [one, next] if next.seq != one.seq + 1)) {
                bail!("the journal has a gap: {pair:?}");
            }
        }
    }

    /// Puts a configuration in force.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn apply(&self, text: &str) -> Result<ApplyAnswer> {
        self.put_config(text, &[]).await?.with_status(200)?.json()
    }

    /// Sends a configuration.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn put_config(&self, text: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let headers: Vec<_> = headers.iter().copied().chain([("content-type", "application/toml")]).collect();
        self.send("PUT", "/v1/config", &headers, text.to_owned()).await
    }

    /// Issues a token and returns its id, and somebody who holds it.
    ///
    /// # Errors
    /// Where it is refused.
    pub async fn issue(&self, can: &[&str]) -> Result<(String, Self)> {
        let can = can.iter().map(|grant| grant.parse::<Grant>()).collect::<Result<Vec<_>, _>>()?;
        let request = TokenRequest { name: "scenario".to_owned(), can, purge_rate: None };
        let issued: TokenIssued = self.json("POST", "/v1/tokens", &request).await?.with_status(201)?.json()?;
        Ok((issued.id, self.with_token(&issued.token)))
    }
}
