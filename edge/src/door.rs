//! The door for HTTP/1.1: a thin adapter between actix-web and the core.
//!
//! actix-web speaks in the types of `http` 0.2 and in bodies that stay on one thread; the core in those
//! of `http` 1 and in bodies that don't. Nothing is decided here.

use std::io;

use actix_web::body::{BodyStream, BoxBody, SizedStream};
use actix_web::http::header as actix_header;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::sync::mpsc;

use crate::edge::{Edge, answer};
use crate::message::{Body, ByteStream, Request, Response};
use crate::refuse::Refusal;

/// Chunks of a request's body that wait for the upstream.
const CHUNKS: usize = 4;

/// Answers every request.
pub(crate) async fn handle(edge: web::Data<Edge>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let edge = edge.into_inner();
    match read(&request, payload) {
        Ok(read) => write(answer(&edge, read).await),
        Err(refusal) => write(refusal.respond()),
    }
}

fn read(request: &HttpRequest, payload: web::Payload) -> Result<Request, Refusal> {
    let method = Method::from_bytes(request.method().as_str().as_bytes()).map_err(|_| Refusal::UnknownMethod)?;
    let mut headers = HeaderMap::with_capacity(request.headers().len());
    for (name, value) in request.headers() {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|_| Refusal::HeadTooLarge)?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| Refusal::HeadTooLarge)?;
        headers.append(name, value);
    }
    let peer = request.peer_addr().ok_or(Refusal::NotReady)?;
    let announced = headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    let has_body = announced || headers.contains_key(TRANSFER_ENCODING);
    Ok(Request { method, target: request.uri().to_string(), headers, body: has_body.then(|| sendable(payload)), peer })
}

/// Carries a body from the connection's thread to wherever the upstream's is.
fn sendable(mut payload: web::Payload) -> ByteStream {
    let (chunks, out) = mpsc::channel::<io::Result<Bytes>>(CHUNKS);
    actix_web::rt::spawn(async move {
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(io::Error::other);
            let broken = chunk.is_err();
            // Nobody reads any more, or there is nothing more to read.
            if chunks.send(chunk).await.is_err() || broken {
                return;
            }
        }
    });
    Box::pin(stream::unfold(out, |mut out| async { out.recv().await.map(|chunk| (chunk, out)) }))
}

fn write(response: Response) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(response.status.as_u16()).unwrap_or(actix_web::http::StatusCode::BAD_GATEWAY);
    let bodiless = matches!(response.status.as_u16(), 100..=199 | 204 | 304);
    let body = match response.body {
        Body::Unknown => BoxBody::new(actix_web::body::None::new()),
        Body::Empty if bodiless => BoxBody::new(actix_web::body::None::new()),
        Body::Empty => BoxBody::new(()),
        Body::Whole(bytes) => BoxBody::new(bytes),
        Body::Sized(length, stream) => BoxBody::new(SizedStream::new(length, stream)),
        Body::Head(length) => BoxBody::new(SizedStream::new(length, stream::empty::<io::Result<Bytes>>())),
        Body::Stream(stream) => BoxBody::new(BodyStream::new(stream)),
    };
    let mut written = HttpResponse::with_body(status, body);
    for (name, value) in &response.headers {
        let name = actix_header::HeaderName::from_bytes(name.as_str().as_bytes());
        let value = actix_header::HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            written.headers_mut().append(name, value);
        }
    }
    written
}
