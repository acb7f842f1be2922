//! A collector of traces, which takes what nodes export by OTLP over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A span that was exported.
#[derive(Clone, Debug)]
pub struct ExportedSpan {
    /// Which service it is of.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its trace, in hex.
    pub trace: String,
    /// Its id, in hex.
    pub id: String,
    /// The id of the span that it is part of, in hex.
    pub parent: String,
    /// What is said of it.
    pub attributes: Vec<(String, String)>,
}

impl ExportedSpan {
    /// Returns what is said of it under a name.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A collector. It runs until the test ends.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<ExportedSpan>>>,
}

impl Collector {
    /// Begins to collect.
    ///
    /// # Errors
    /// Where it can't listen.
    pub async fn start() -> Result<Self> {
        Self::start_at(0).await
    }

    /// Begins to collect at a port.
    ///
    /// # Errors
    /// Where it can't listen there.
    pub async fn start_at(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let (address, spans) = (listener.local_addr()?, Arc::default());
        let all = Arc::clone(&spans);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(take(stream, Arc::clone(&all)));
            }
        });
        Ok(Self { address, spans })
    }

    /// Returns the URL that nodes export to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns all spans of a trace that came so far.
    #[must_use]
    pub fn spans(&self, trace: &str) -> Vec<ExportedSpan> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|span| span.trace == trace).cloned().collect()
    }
}

/// Takes requests of one connection until it ends.
async fn take(mut stream: TcpStream, all: Arc<Mutex<Vec<ExportedSpan>>>) -> Result<()> {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).to_ascii_lowercase();
        if !head.starts_with("post /v1/traces ") {
            bail!("this is no export: {head}");
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).context("an export without a length")?;
        let length = end + length.trim().parse::<usize>()?;
        while bytes.len() < length {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
        let request = ExportTraceServiceRequest::decode(bytes.get(end..length).unwrap_or_default())?;
        all.lock().unwrap_or_else(PoisonError::into_inner).extend(read(request));
        bytes.drain(..length);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n").await?;
    }
}

fn read(request: ExportTraceServiceRequest) -> Vec<ExportedSpan> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut spans = Vec::new();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.map(|resource| texts(resource.attributes)).unwrap_or_default();
        let service = resource.into_iter().find(|(key, _)| key == "service.name").map(|(_, value)| value).unwrap_or_default();
        for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
            spans.push(ExportedSpan {
                service: service.clone(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                name: span.name,
                attributes: texts(span.attributes),
            });
        }
    }
    spans
}

fn texts(attributes: Vec<opentelemetry_proto::tonic::common::v1::KeyValue>) -> Vec<(String, String)> {
    let text = |value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(truth) => truth.to_string(),
        other => format!("{other:?}"),
    };
    attributes.into_iter().map(|row| (row.key, row.value.and_then(|value| value.value).map(text).unwrap_or_default())).collect()
}
