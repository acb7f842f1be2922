//! The origins as a follower calls them: one HTTP client, and the URL that answered last.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Certificate, Client, RequestBuilder, Response, redirect};
use tokio::sync::watch;
use tracing::Span;
use wire::{Ack, AckAnswer, Position, Role, Secret, State};

use crate::causes;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);

/// How long an origin may take to begin with a snapshot, of which it writes megabytes first.
const SNAPSHOT_BEGUN: Duration = Duration::from_secs(10);

/// The largest line of a feed or snapshot that is believed.
pub(crate) const LINE_MOST: usize = 256 << 20;

/// How a follower reaches its origins.
#[derive(Debug)]
pub struct Origins {
    way: Mutex<Arc<Way>>,
    /// How often the next URL was chosen: which one is asked first. Whoever uses one hears when another is chosen.
    choice: watch::Sender<usize>,
}

/// Where origins are, and what they are shown. What has begun to use one way ends with it.
#[derive(Debug)]
pub struct Way {
    client: Client,
    urls: Vec<String>,
    token: Secret,
}

/// Why a call to the origin failed.
#[derive(Debug, thiserror::Error)]
pub enum OriginsError {
    /// The certificates in `origin.ca` can't be read.
    #[error("origin.ca: {}", causes(.0))]
    Ca(reqwest::Error),
    /// No origin could be reached.
    #[error("{url}: {}", causes(.error))]
    Unreachable {
        /// The URL that was tried last.
        url: String,
        /// Why.
        error: reqwest::Error,
    },
    /// The origin said no.
    #[error("{url}: {status}: {detail}")]
    Refused {
        /// Who said it.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        detail: String,
        /// Whether it says that its journal lost what was shown to it.
        is_lost: bool,
    },
    /// The origin takes connections, and says nothing.
    #[error("{url}: no answer within {patience:?}")]
    Silent {
        /// Who.
        url: String,
        /// For how long.
        patience: Duration,
    },
    /// The answer can't be read.
    #[error("{url}: the answer is not understood: {error}")]
    NotUnderstood {
        /// Who sent it.
        url: String,
        /// Why.
        error: String,
    },
}

impl Way {
    /// Prepares calls to `urls` with a bearer token. `ca` is PEM; where it is given nothing else is trusted.
    ///
    /// # Errors
    /// Where `ca` is not PEM.
    pub fn new(urls: Vec<String>, token: Secret, ca: Option<&str>) -> Result<Self, OriginsError> {
        let builder = Client::builder().no_proxy().redirect(redirect::Policy::none()).connect_timeout(CONNECT).http1_only();
        // What is sent is small and waited for.
        let mut builder = builder.tcp_nodelay(true);
        let plain = urls.iter().all(|url| url.starts_with("http://"));
        if let Some(pem) = ca {
            builder = builder.tls_certs_only(Certificate::from_pem_bundle(pem.as_bytes()).map_err(OriginsError::Ca)?);
        } else if plain {
            // Without TLS no certificates are needed: an image without a CA bundle works.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(OriginsError::Ca)?;
        Ok(Self { client, urls, token })
    }

    /// Returns each URL once, beginning with that of a choice.
    fn in_turn(&self, choice: usize) -> impl Iterator<Item = &str> {
        let count = self.urls.len();
        self.urls.iter().cycle().skip(choice % count.max(1)).take(count).map(String::as_str)
    }
}

impl Origins {
    /// Begins to call origins this way.
    #[must_use]
    pub fn new(way: Way) -> Self {
        Self { way: Mutex::new(Arc::new(way)), choice: watch::Sender::new(0) }
    }

    /// Calls origins another way from now on: what is under way begins anew.
    pub fn renew(&self, way: Way) {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(way);
        self.choice.send_modify(|choice| *choice = 0);
    }

    fn way(&self) -> Arc<Way> {
        Arc::clone(&self.way.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the URL that is asked first.
    #[must_use]
    pub fn current(&self) -> String {
        self.way().in_turn(*self.choice.borrow()).next().unwrap_or_default().to_owned()
    }

    /// Tells how many origins there are to choose from.
    pub(crate) fn count(&self) -> usize {
        self.way().urls.len()
    }

    /// Returns the present choice, and hears of the next one.
    pub(crate) fn choice(&self) -> (usize, watch::Receiver<usize>) {
        let mut choice = self.choice.subscribe();
        let now = *choice.borrow_and_update();
        (now, choice)
    }

    /// Asks the next origin first from now on, unless somebody chose another one than `used` already.
    pub(crate) fn move_on_from(&self, used: usize) {
        self.choice.send_if_modified(|choice| {
            let is_present = *choice == used && self.count() > 1;
            *choice += usize::from(is_present);
            is_present
        });
    }

    /// Sends a request to the current origin.
    ///
    /// # Errors
    /// Where it can't be reached or says no.
    pub async fn send(&self, build: impl FnOnce(&Client, &str) -> RequestBuilder) -> Result<Response, OriginsError> {
        let (way, url) = (self.way(), self.current());
        let request = build(&way.client, &url).bearer_auth(way.token.reveal()).headers(carried());
        // The error names the URL by itself, and with all of its query.
        let unreachable = |error: reqwest::Error| OriginsError::Unreachable { url: url.clone(), error: error.without_url() };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let problem = response.json::<wire::Problem>().await.ok();
        let is_lost = problem.as_ref().is_some_and(|problem| problem.more.get(wire::LOST) == Some(&true.into()));
        let detail = problem.map(|problem| problem.detail).unwrap_or_default();
        Err(OriginsError::Refused { url, status: status.as_u16(), detail, is_lost })
    }

    /// Sends a request in the name of somebody who has a token of their own, and returns whatever the origin answers:
    /// what they may do is the origin's to decide. Where no connection to one can be had the next one is asked, each
    /// once; what was sent to one is not sent to another, since nobody knows what became of it.
    ///
    /// # Errors
    /// Where none can be reached.
    pub async fn send_for(&self, token: &Secret, build: impl Fn(&Client, &str) -> RequestBuilder) -> Result<Response, OriginsError> {
        let way = self.way();
        let mut urls = way.in_turn(*self.choice.borrow());
        let mut url = urls.next().unwrap_or_default();
        loop {
            let error = match build(&way.client, url).bearer_auth(token.reveal()).headers(carried()).send().await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            match urls.next() {
                Some(next) if error.is_connect() => url = next,
                _ => return Err(OriginsError::Unreachable { url: url.to_owned(), error: error.without_url() }),
            }
        }
    }

    /// The same, where the head of the answer has to come in time: an origin that stands still takes connections.
    async fn send_within(&self, patience: Duration, build: impl FnOnce(&Client, &str) -> RequestBuilder) -> Result<Response, OriginsError> {
        let url = self.current();
        let answer = tokio::time::timeout(patience, self.send(build)).await;
        answer.unwrap_or_else(|_| Err(OriginsError::Silent { url, patience }))
    }

    /// Opens the feed behind `after`.
    pub(crate) async fn feed(&self, after: &Position, role: Role, patience: Duration) -> Result<Response, OriginsError> {
        self.send_within(patience, |client, url| client.get(format!("{url}/v1/feed?after={after}&role={role}"))).await
    }

    /// Loads the snapshot for `role`.
    pub(crate) async fn snapshot(&self, role: Role) -> Result<State, OriginsError> {
        let whole = Duration::from_secs(60);
        let ask = |client: &Client, url: &str| client.get(format!("{url}/v1/snapshot?role={role}")).timeout(whole);
        let response = self.send_within(SNAPSHOT_BEGUN, ask).await?;
        self.read_json(response).await
    }

    /// Acknowledges, and returns the answer.
    pub(crate) async fn ack(&self, ack: &Ack, timeout: Duration) -> Result<AckAnswer, OriginsError> {
        let response = self.send(|client, url| client.post(format!("{url}/v1/ack")).timeout(timeout).json(ack)).await?;
        self.read_json(response).await
    }

    async fn read_json<T: serde::de::DeserializeOwned>(&self, mut response: Response) -> Result<T, OriginsError> {
        let wrong = |error: String| OriginsError::NotUnderstood { url: self.current(), error };
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| wrong(causes(&error)))? {
            if body.len() + chunk.len() > LINE_MOST {
                return Err(wrong("it is too large".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|error| wrong(error.to_string()))
    }
}

/// What a call carries on of the trace that it is part of.
fn carried() -> HeaderMap {
    let mut headers = HeaderMap::new();
    trace::carry(&Span::current(), &mut headers);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    #[tokio::test]
    async fn where_one_origin_cannot_be_reached_the_next_one_is_asked_once() {
        // Nobody listens there any more.
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let read = socket.read(&mut [0; 4096]).unwrap();
            socket.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            read
        });
        let (closed, open) = (format!("http://{closed}"), format!("http://{open}"));
        let token = Secret::from_text("t");

        let both = Origins::new(Way::new(vec![closed.clone(), open], Secret::from_text("own"), None).unwrap());
        let answer = both.send_for(&token, |client, url| client.get(url)).await.unwrap();
        let one = Origins::new(Way::new(vec![closed.clone()], Secret::from_text("own"), None).unwrap());
        let none = one.send_for(&token, |client, url| client.get(url)).await;

        assert_eq!(answer.status(), 403, "what it answers is not judged");
        assert!(serving.join().unwrap() > 0);
        assert!(matches!(none, Err(OriginsError::Unreachable { url, .. }) if url == closed));
    }

    #[test]
    fn the_origin_that_answered_last_is_the_first_in_turn() {
        let urls = ["a", "b", "c"].map(|host| format!("http://{host}")).to_vec();
        let origins = Origins::new(Way::new(urls, Secret::from_text("own"), None).unwrap());
        let (used, mut choice) = origins.choice();
        origins.move_on_from(used);
        // Whoever comes late with the same complaint does not skip one.
        origins.move_on_from(used);
        assert!(choice.has_changed().unwrap() && *choice.borrow_and_update() == used + 1);
        let (way, first) = (origins.way(), *choice.borrow());
        assert_eq!(way.in_turn(first).collect::<Vec<_>>(), ["http://b", "http://c", "http://a"]);
        assert_eq!(origins.current(), "http://b");
    }

    #[test]
    fn origins_that_are_renewed_are_called_at_once_and_whoever_uses_the_former_hears_of_it() {
        let way = |url: &str| Way::new(vec![url.to_owned()], Secret::from_text("own"), None).unwrap();
        let origins = Origins::new(way("http://a"));
        let (_, choice) = origins.choice();
        origins.renew(way("http://b"));
        assert_eq!(origins.current(), "http://b");
        assert!(choice.has_changed().unwrap());
    }
}
