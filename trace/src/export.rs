//! Sends spans to a collector by OTLP over HTTP, in batches and behind the requests.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use crate::TARGET;

/// How long a collector may take for a batch.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the last batch may hold up the end of a process.
const LAST: Duration = Duration::from_secs(2);

/// What its answer may have: it has nothing to say.
const ANSWER_MOST: usize = 64 << 10;

/// The variables by which a collector is named.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The variables that name the protocol, and the only one that is spoken.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const PROTOCOL: &str = "http/protobuf";

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The environment does not name a collector that can be asked.
    #[error("the environment's OTEL_EXPORTER_OTLP_* name no collector: {0}")]
    Settings(#[from] ExporterBuildError),
    /// The environment asks for a protocol that is not spoken.
    #[error("{0}={1}: traces are exported by {PROTOCOL} alone; a collector takes it at port 4318")]
    Protocol(&'static str, String),
    /// There is no client to ask it with.
    #[error("failed to set up the client for the collector of traces: {0}")]
    Client(#[from] reqwest::Error),
}

/// What exports spans until it is shut down.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Begins to export what `service` does as `instance`, where the environment names a collector. Called within the
    /// runtime that sends it.
    ///
    /// # Errors
    /// Where what the environment names can't be asked.
    pub fn from_environment(service: &'static str, instance: String) -> Result<Option<Self>, ExportError> {
        let is_named = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_off = std::env::var_os("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || std::env::var_os("OTEL_TRACES_EXPORTER").is_some_and(|value| value.eq_ignore_ascii_case("none"));
        if is_off || !ENDPOINTS.iter().any(is_named) {
            return Ok(None);
        }
        // The more special variable wins, as with endpoints.
        if let Some((name, asked)) =
            PROTOCOLS.iter().find_map(|name| Some((*name, std::env::var(name).ok().filter(|asked| !asked.is_empty())?)))
            && asked != PROTOCOL
        {
            return Err(ExportError::Protocol(name, asked));
        }
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector { client, runtime: Handle::current(), is_failing: AtomicBool::new(false) })
            .build()?;
        // What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say wins.
        let own = [
            KeyValue::new("service.name", service),
            KeyValue::new("service.instance.id", instance),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let own = Resource::builder_empty().with_attributes(own).build();
        let told = Resource::builder_empty().with_detectors(&[Box::new(opentelemetry_sdk::resource::EnvResourceDetector::new())]).build();
        let name = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty()).map(|name| KeyValue::new("service.name", name));
        let all = own.iter().chain(told.iter()).map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let resource = Resource::builder_empty().with_attributes(all.chain(name).collect::<Vec<_>>()).build();
        Ok(Some(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())))
    }

    /// Returns what takes spans of traces out of all that is logged and traced.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let tracer = self.0.tracer("atoll");
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(TARGET, tracing::Level::TRACE))
    }

    /// Sends what is left.
    pub fn shut_down(self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST) {
            tracing::warn!(%error, "failed to export the last spans");
        }
    }
}

/// The collector. Batches come from a thread of their own, which has no runtime.
#[derive(Debug)]
struct Collector {
    client: reqwest::Client,
    runtime: Handle,
    is_failing: AtomicBool,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let (client, request) = (self.client.clone(), request.map(reqwest::Body::from).try_into()?);
        let answer = self.runtime.spawn(async move { send(&client, request).await }).await?;
        self.tell(&answer);
        answer
    }
}

impl Collector {
    /// A failure is told when it begins and when it ends: else it would come with every batch.
    fn tell(&self, answer: &Result<http::Response<Bytes>, HttpError>) {
        let said = match answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            // What is around the first cause says no more than that something was sent.
            Err(error) => {
                std::iter::successors(Some(error.as_ref() as &dyn Error), |error| (*error).source()).last().map(ToString::to_string)
            }
        };
        match (said, self.is_failing.load(Ordering::Relaxed)) {
            (Some(said), false) => tracing::warn!("spans don't reach the collector, and are lost until they do: {said}"),
            (None, true) => tracing::info!("spans reach the collector again"),
            (Some(_), true) | (None, false) => return,
        }
        self.is_failing.fetch_not(Ordering::Relaxed);
    }
}

async fn send(client: &reqwest::Client, request: reqwest::Request) -> Result<http::Response<Bytes>, HttpError> {
    // There may be a password in the URL.
    let mut answer = client.execute(request).await.map_err(reqwest::Error::without_url)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > ANSWER_MOST {
            return Err("the collector's answer is too long".into());
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = http::Response::new(Bytes::from(body));
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    Ok(response)
}
