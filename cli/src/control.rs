//! A client of the control API.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Body, Certificate, Client, Method, RequestBuilder, Response, StatusCode, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wire::{IdempotencyKey, Problem, Receipt, Secret};

use crate::exit::Failure;

/// How long a call may take beyond what it was asked to wait for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same where another origin can be asked.
const IMPATIENCE: Duration = Duration::from_secs(5);

/// A token, and where it was found.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) secret: Secret,
    pub(crate) found_in: String,
}

/// The origins, and the token for them.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    client: Client,
    urls: Vec<String>,
    /// The one that answered last, which is asked first: each call to one that is away would wait for it anew.
    first: Arc<AtomicUsize>,
    token: Token,
}

impl Control {
    /// Prepares calls. `ca` is PEM; where it is given nothing else is trusted.
    pub(crate) fn new(urls: Vec<String>, token: Token, ca: Option<&str>) -> Result<Self, Failure> {
        let mut builder =
            Client::builder().no_proxy().redirect(redirect::Policy::none()).connect_timeout(Duration::from_secs(5)).http1_only();
        if let Some(pem) = ca {
            let certificates =
                Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| Failure::typed(format!("origin.ca: {error}")))?;
            builder = builder.tls_certs_only(certificates);
        } else if urls.iter().all(|url| url.starts_with("http://")) {
            // Without TLS no certificates are needed: an image without a CA bundle works.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(Failure::failed)?;
        Ok(Self { client, urls, first: Arc::default(), token })
    }

    /// Sends a request to the first origin that can be reached. What only asks is asked of the next one also where an origin
    /// does not answer, or can't at the moment.
    async fn send(&self, method: Method, path: &str, build: impl Fn(RequestBuilder) -> RequestBuilder) -> Result<Response, Failure> {
        let mut said = Vec::new();
        let first = self.first.load(Ordering::Relaxed);
        for (at, url) in self.urls.iter().enumerate().cycle().skip(first).take(self.urls.len()) {
            let may_ask_next = method == Method::GET && said.len() + 1 < self.urls.len();
            let patience = if may_ask_next { IMPATIENCE } else { PATIENCE };
            let request = self.client.request(method.clone(), format!("{url}{path}")).timeout(patience);
            match build(request.bearer_auth(self.token.secret.reveal())).send().await {
                Ok(response) if may_ask_next && response.status() == StatusCode::SERVICE_UNAVAILABLE => {
                    said.push(format!("the origin at {url} can't answer at the moment"));
                }
                Ok(response) => {
                    self.first.store(at, Ordering::Relaxed);
                    return self.accepted(response, url).await;
                }
                Err(error) if error.is_connect() || may_ask_next => said.push(unreached(url, &error)),
                Err(error) => return Err(Failure::failed(format!("failed to ask the origin at {url}: {}", causes(&error)))),
            }
        }
        Err(Failure::failed(said.join("\n")))
    }

    /// Turns a problem into words, and says whose fault it is.
    async fn accepted(&self, response: Response, url: &str) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let Ok(problem) = serde_json::from_str::<Problem>(&text) else {
            let said = text.trim().chars().take(300).collect::<String>();
            return Err(stranger(url, &format!("it answered {status}: {said}")));
        };
        if status == StatusCode::UNAUTHORIZED {
            let found_in = &self.token.found_in;
            return Err(Failure::failed(format!(
                "the token of {found_in} is unknown at the origin {url}, or was revoked; `atoll token create` issues another"
            )));
        }
        // Of what the origin refuses, only these are something that was typed.
        Err(if matches!(status.as_u16(), 400 | 404 | 413 | 422) { Failure::typed(problem.detail) } else { Failure::failed(problem.detail) })
    }

    /// GET.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        read(self.send(Method::GET, path, |request| request).await?).await
    }

    /// POST with a JSON body.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        read(self.send(Method::POST, path, |request| request.json(body)).await?).await
    }

    /// POST with a JSON body, for as long as `patience`.
    pub(crate) async fn post_patiently<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<T, Failure> {
        self.post_once(path, body, None, patience).await
    }

    /// The same under a key, where there is one: sent again it does nothing again.
    pub(crate) async fn post_once<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        key: Option<&IdempotencyKey>,
        patience: Duration,
    ) -> Result<T, Failure> {
        let build = |request: RequestBuilder| {
            let request = request.timeout(patience + PATIENCE).json(body);
            if let Some(key) = key { request.header("idempotency-key", key.to_field()) } else { request }
        };
        read(self.send(Method::POST, path, build).await?).await
    }

    /// PUT with a JSON body and, where given, If-Match.
    pub(crate) async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize, if_match: Option<&str>) -> Result<T, Failure> {
        let build = |request: RequestBuilder| {
            let request = request.json(body);
            if let Some(tag) = if_match { request.header("if-match", format!("\"{tag}\"")) } else { request }
        };
        read(self.send(Method::PUT, path, build).await?).await
    }

    /// Sends bytes; there is no answer but yes or no.
    pub(crate) async fn upload(&self, method: Method, path: &str, kind: &str, make_body: impl Fn() -> Body) -> Result<(), Failure> {
        self.send(method, path, |request| request.timeout(Duration::from_secs(3600)).header("content-type", kind).body(make_body()))
            .await
            .map(|_| ())
    }

    /// POST without a body; there is no answer but yes or no.
    pub(crate) async fn tell(&self, path: &str) -> Result<(), Failure> {
        self.send(Method::POST, path, |request| request).await.map(|_| ())
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(Method::DELETE, path, |request| request).await.map(|_| ())
    }

    /// Waits until the event `seq` is in force at every edge, for at most `timeout`.
    pub(crate) async fn wait_for(&self, seq: u64, timeout: Duration) -> Result<Receipt, Failure> {
        let path = format!("/v1/purges/{seq}?timeout_ms={}", timeout.as_millis());
        read(self.send(Method::GET, &path, |request| request.timeout(timeout + PATIENCE)).await?).await
    }
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, Failure> {
    let url = response.url().origin().ascii_serialization();
    let text = response.text().await.map_err(|error| Failure::failed(causes(&error)))?;
    serde_json::from_str(&text).map_err(|error| stranger(&url, &format!("its answer is not understood: {error}")))
}

/// Says that what answers there is something else, or of another version.
fn stranger(url: &str, said: &str) -> Failure {
    Failure::failed(format!("{url} does not look like an Atoll origin of this version: {said} ({WHERE})"))
}

/// Says that nothing answers there, or nobody who can be trusted.
fn unreached(url: &str, error: &reqwest::Error) -> String {
    let causes = causes(error);
    let hint = if causes.contains("certificate") {
        "origin.ca in the file of -c FILE names the certificates that are trusted for it".to_owned()
    } else {
        format!("is it running? ({WHERE})")
    };
    format!("failed to reach the origin at {url}: {causes}; {hint}")
}

const WHERE: &str = "ATOLL_ORIGIN or -c FILE says where it is";

/// Returns what is behind an error, to the last cause: that is the one that helps. The error itself only says that a
/// request failed.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    let mut said = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        said.push(error.to_string());
        cause = error.source();
    }
    if said.is_empty() { error.to_string() } else { said.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    const AWAY: &str = r#"{"type":"about:blank","title":"away","status":503,"detail":"ask another origin"}"#;

    /// Origins that give each connection the same answer, and how often the first of them was asked.
    fn control(answers: [&'static str; 2]) -> (Control, Arc<AtomicUsize>) {
        let asked = [Arc::new(AtomicUsize::new(0)), Arc::default()];
        let urls = answers.iter().zip(&asked).map(|(answer, asked)| origin(answer, Arc::clone(asked))).collect();
        let token = Token { secret: Secret::from_text("t"), found_in: "a test".to_owned() };
        let [first, _] = asked;
        (Control::new(urls, token, None).unwrap(), first)
    }

    fn origin(answer: &'static str, asked: Arc<AtomicUsize>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                asked.fetch_add(1, Ordering::Relaxed);
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let length = answer.len();
                let status = if answer.starts_with('{') { "503 Service Unavailable" } else { "200 OK" };
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{answer}");
            }
        });
        url
    }

    #[tokio::test]
    async fn what_only_asks_is_asked_of_the_next_origin_where_one_can_not_answer_and_what_does_something_is_not() {
        let (control, _) = control([AWAY, "[7]"]);
        let Failure::Failed(said) = control.post::<Vec<u8>>("/v1/purges", &0).await.unwrap_err() else { panic!() };
        assert!(said.to_string().contains("ask another origin"), "{said}");
        assert_eq!(control.get::<Vec<u8>>("/v1/status").await.unwrap(), [7]);
    }

    #[tokio::test]
    async fn an_origin_that_can_not_answer_is_not_asked_by_each_call() {
        let (control, asked) = control([AWAY, "[7]"]);
        for _ in 0..3 {
            assert_eq!(control.get::<Vec<u8>>("/v1/status").await.unwrap(), [7]);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
