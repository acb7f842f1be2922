//! Carries the calls of `object_store` to a bucket: over this program's own HTTP client, within its own patience.
//!
//! The crate's own client would bring HTTP/2 into every client of the workspace, and would take proxies from the
//! environment; and what a bucket says of a refused call repeats the key that was shown to it.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt as _, Limited};
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService};
use reqwest::{Body, Client, Url, redirect};

/// How long it may take to be connected.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a bucket may keep silent: until its answer begins, which is behind a whole part that is sent to it, and
/// between any two pieces of it. With what [`super::bucket`] tries again it stays below the 30 s that an edge waits.
const SILENCE: Duration = Duration::from_secs(8);

/// How much of a refusal is read to find its code.
const REFUSAL_MOST: usize = 64 << 10;

/// A client of buckets. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Carrier {
    client: Client,
    answered: Arc<AtomicU16>,
}

/// What became of a call that brought no answer. The URL stands beside it already.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoAnswer(String);

impl Carrier {
    pub(super) fn new(has_tls: bool) -> reqwest::Result<Self> {
        let mut builder = Client::builder().no_proxy().redirect(redirect::Policy::none()).http1_only();
        if !has_tls {
            // Without TLS no certificates are needed: an image without a CA bundle works.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.connect_timeout(CONNECT).read_timeout(SILENCE).build()?;
        Ok(Self { client, answered: Arc::default() })
    }

    /// Returns the status of the last answer, 0 before there is any.
    pub(super) fn last_status(&self) -> u16 {
        self.answered.load(Ordering::Relaxed)
    }

    async fn carry(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let mut outgoing = reqwest::Request::new(parts.method, url);
        *outgoing.headers_mut() = parts.headers;
        *outgoing.body_mut() = match body.as_bytes() {
            Some(bytes) => (!bytes.is_empty()).then(|| Body::from(bytes.clone())),
            None => Some(Body::wrap(body)),
        };
        let answer = self.client.execute(outgoing).await.map_err(no_answer)?;
        let status = answer.status();
        self.answered.store(status.as_u16(), Ordering::Relaxed);
        let (parts, body) = http::Response::<Body>::from(answer).into_parts();
        if status.is_client_error() || status.is_server_error() {
            return Ok(refused(parts, body).await);
        }
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body.map_err(no_answer))))
    }
}

/// Keeps the code of a refusal and leaves the rest behind: it may repeat the key and what was signed with it.
async fn refused(mut parts: http::response::Parts, body: Body) -> HttpResponse {
    let said = Limited::new(body, REFUSAL_MOST).collect().await.map(|said| said.to_bytes()).unwrap_or_default();
    let code = code_of(&String::from_utf8_lossy(&said)).to_owned();
    parts.headers.remove(CONTENT_LENGTH);
    HttpResponse::from_parts(parts, HttpResponseBody::from(code))
}

/// Returns what stands in `<Code>`, which is a word such as `SlowDown`.
fn code_of(said: &str) -> &str {
    let code = said.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
    code.filter(|code| code.len() <= 64 && code.chars().all(|c| c.is_ascii_alphanumeric())).unwrap_or_default()
}

fn no_answer(error: reqwest::Error) -> HttpError {
    let kind = match (error.is_connect(), error.is_timeout(), error.is_decode()) {
        (true, _, _) => HttpErrorKind::Connect,
        (_, true, _) => HttpErrorKind::Timeout,
        (_, _, true) => HttpErrorKind::Decode,
        _ => HttpErrorKind::Interrupted,
    };
    let error = error.without_url();
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        said = format!("{said}: {deeper}");
        cause = deeper.source();
    }
    HttpError::new(kind, NoAnswer(said))
}

impl HttpConnector for Carrier {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Carrier {
    fn call<'carrier, 'call>(&'carrier self, request: HttpRequest) -> BoxFuture<'call, Result<HttpResponse, HttpError>>
    where
        'carrier: 'call,
        Self: 'call,
    {
        Box::pin(self.carry(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_refusal_only_its_code_is_kept() {
        let said = "<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIA7</AWSAccessKeyId></Error>";
        assert_eq!(code_of(said), "SignatureDoesNotMatch");
        for strange in ["", "<Code>", "<Code>AKIA7 and more</Code>", "<html>AKIA7</html>"] {
            assert_eq!(code_of(strange), "", "{strange}");
        }
    }
}
