//! What is seen of a call from outside: its span, in the trace that it came with, its status in the metrics, and a line in
//! the log where its sender may not do what it asks.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::Next;
use actix_web::{Error, web};
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::core::Core;

/// Goes on with a call within a span. Of an answer that goes on for long, such as a feed, it has the head.
pub(crate) async fn observed<B: MessageBody>(
    core: web::Data<Core>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let span = trace::stage!(
        "call",
        otel.kind = "server",
        otel.name = Empty,
        http.request.method = request.method().as_str(),
        http.route = Empty,
        http.response.status_code = Empty,
        otel.status_code = Empty,
    );
    if !span.is_disabled() {
        let route = request.match_pattern().unwrap_or_else(|| "unknown".to_owned());
        span.record("otel.name", format!("{} {route}", request.method()));
        span.record("http.route", route);
        trace::adopt(&span, &carried(&request));
    }
    let answered = next.call(request).instrument(span.clone()).await?;
    span.record("http.response.status_code", answered.status().as_u16());
    if answered.status().is_server_error() {
        span.record("otel.status_code", "error");
    }
    core.metrics.answered(answered.status().as_u16());
    if matches!(answered.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let request = answered.request();
        let client = request.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
        tracing::info!(client, method = %request.method(), call = request.match_pattern().unwrap_or_else(|| "unknown".to_owned()), status = answered.status().as_u16(), "a call was refused");
    }
    Ok(answered)
}

/// actix-web speaks in the types of `http` 0.2.
fn carried(request: &ServiceRequest) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    for name in ["traceparent", "tracestate"] {
        let value = request.headers().get(name).and_then(|value| http::HeaderValue::from_bytes(value.as_bytes()).ok());
        headers.extend(value.map(|value| (http::HeaderName::from_static(name), value)));
    }
    headers
}
