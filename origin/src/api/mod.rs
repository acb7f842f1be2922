//! The control API: a thin shell that reads a request, asks who calls, lets the pure parts decide,
//! appends, and answers. The shapes are those of `wire`; errors are problems (RFC 9457).

mod blobs;
mod config;
mod follow;
mod health;
mod nodes;
mod openapi;
mod publishes;
mod purges;
mod dialect;
mod fastly;
mod cloudflare;
mod status;
mod tokens;
mod observed;

use std::ops::Deref;
use std::time::Duration;

use actix_web::error::InternalError;
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap};
use actix_web::{HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use tokio::sync::SemaphorePermit;
use wire::{Digest, IdempotencyKey};

use crate::auth::{self, Caller};
use crate::core::Core;
use crate::fault::Fault;

/// A body of a request, other than a manifest or a purge.
const BODY_MOST: usize = 1 << 20;

/// A purge of as many URLs as are allowed, each with as long a target as an edge reads (8 KiB), its scheme and its host.
const PURGE_MOST: usize = 10 << 20;

/// A manifest of as many files as are allowed.
const MANIFEST_MOST: usize = 64 << 20;

/// From here on a body is large, and only some are read at a time: they are in memory as a whole.
const LARGE: usize = 1 << 20;

/// How long a body may take until it is known for a large one, and how long the rest of that.
const WITHIN: Duration = Duration::from_secs(60);
const LARGE_WITHIN: Duration = Duration::from_secs(120);

pub(crate) use observed::observed;

type Shared = web::Data<Core>;

/// Mounts every call.
pub(crate) fn mount(app: &mut web::ServiceConfig) {
    let bad_query = |error: actix_web::error::QueryPayloadError, _: &HttpRequest| {
        let response = actix_web::ResponseError::error_response(&Fault::bad(&error));
        InternalError::from_response(error, response).into()
    };
    let bad_path = |error: actix_web::error::PathError, _: &HttpRequest| {
        let response = actix_web::ResponseError::error_response(&Fault::bad(&error));
        InternalError::from_response(error, response).into()
    };
    app.app_data(web::PathConfig::default().error_handler(bad_path))
        .app_data(web::QueryConfig::default().error_handler(bad_query))
        .service(page("/livez").route(web::get().to(health::livez)).route(web::head().to(health::livez)))
        .service(page("/readyz").route(web::get().to(health::readyz)).route(web::head().to(health::readyz)))
        .service(page("/metrics").route(web::get().to(health::metrics)).route(web::head().to(health::metrics)))
        .route("/v1/openapi.json", web::get().to(openapi::document))
        .route("/v1/sites/{site}/publishes", web::post().to(publishes::begin))
        .route("/v1/sites/{site}/publishes/{id}/commit", web::post().to(publishes::commit))
        .route("/v1/sites/{site}/aliases/{alias}", web::put().to(publishes::move_alias))
        .route("/v1/sites/{site}/versions", web::get().to(publishes::versions))
        .route("/v1/blobs/{digest}", web::put().to(blobs::put))
        .route("/v1/blobs", web::post().to(blobs::put_pack))
        .route("/v1/blobs/{digest}", web::get().to(blobs::get))
        .route("/v1/purges", web::post().to(purges::purge))
        .route("/v1/purges/{seq}", web::get().to(purges::receipt))
        .route("/v1/feed", web::get().to(follow::feed))
        .route("/v1/ack", web::post().to(follow::ack))
        .route("/v1/questions/{id}", web::post().to(follow::answer))
        .route("/v1/snapshot", web::get().to(follow::snapshot))
        .route("/v1/nodes/{name}/drain", web::post().to(nodes::drain))
        .route("/v1/config", web::put().to(config::put))
        .route("/v1/config", web::get().to(config::get))
        .route("/v1/config/{number}", web::get().to(config::get_number))
        .route("/v1/status", web::get().to(status::status))
        .route("/v1/journal", web::get().to(status::journal))
        .route("/v1/tokens", web::post().to(tokens::issue))
        .route("/v1/tokens", web::get().to(tokens::list))
        .route("/v1/tokens/{id}", web::delete().to(tokens::revoke))
        .configure(fastly::mount)
        .configure(cloudflare::mount)
        .default_service(web::to(|request: HttpRequest| async move {
            Err::<actix_web::HttpResponse, _>(Fault::NotFound(format!(
                "there is no {} {}; see /v1/openapi.json",
                request.method(),
                request.path()
            )))
        }));
}

/// A page that is only looked at. HEAD is answered like GET; actix-web leaves its body out.
fn page(path: &str) -> actix_web::Resource {
    web::resource(path).default_service(web::to(|request: HttpRequest| async move {
        let (path, method) = (request.path(), request.method());
        Err::<actix_web::HttpResponse, _>(Fault::OnlyRead(format!("{path} is only for GET and HEAD, not for {method}")))
    }))
}

/// Reads a path's parts as checked names.
fn name<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Fault> {
    text.parse().map_err(|error: T::Err| Fault::bad(error))
}

/// Reads `If-Match` with one strong entity tag (RFC 9110, 13.1.1).
fn if_match(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let Some(value) = headers.get("if-match") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).filter(|inner| !inner.contains('"'));
    inner.map(|inner| Some(inner.to_owned())).ok_or_else(|| Fault::bad(format!("If-Match: `{text}` is not one quoted entity tag")))
}

/// Reads `Idempotency-Key`, bare or as a structured field's string (draft-ietf-httpapi-idempotency-key-header).
fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Fault> {
    let mut values = headers.get_all("idempotency-key");
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Fault::bad("Idempotency-Key: one key is enough, there are several"));
    }
    name(String::from_utf8_lossy(value.as_bytes()).trim()).map(Some)
}

/// A body that was read, with the permit of a large one: it is given back when the body is dropped.
#[derive(Debug)]
struct Whole<'a> {
    bytes: Bytes,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Deref for Whole<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads what a body of ordinary size says.
async fn read_json<T: DeserializeOwned>(core: &Core, caller: &Caller, request: &HttpRequest, body: web::Payload) -> Result<T, Fault> {
    serde_json::from_slice(&read_whole(core, caller, request, body, BODY_MOST).await?).map_err(Fault::unreadable)
}

/// Reads a body of at most so many bytes; one that is announced as longer is refused before it is read. It has to come within
/// a time; a large one waits for its turn before its rest is read. Who sends it is known by then: no call takes a body of its
/// own accord, which would be read before it is asked whose it is. A token that was revoked while it came is refused.
async fn read_whole<'a>(
    core: &'a Core,
    caller: &Caller,
    request: &HttpRequest,
    body: web::Payload,
    most: usize,
) -> Result<Whole<'a>, Fault> {
    let whole = read_bytes(core, request, body, most).await?;
    if auth::is_in_force(core, &caller.hash) { Ok(whole) } else { Err(Fault::UnknownToken) }
}

async fn read_bytes<'a>(core: &'a Core, request: &HttpRequest, mut body: web::Payload, most: usize) -> Result<Whole<'a>, Fault> {
    let too_large = || Fault::TooLarge(format!("the body has more than the {most} bytes that are allowed"));
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > most) {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    if read_up_to(&mut body, &mut whole, most.min(LARGE), WITHIN).await? {
        return Ok(Whole { bytes: whole.freeze(), _permit: None });
    }
    if most <= LARGE {
        return Err(too_large());
    }
    let permit = core.limits.large_bodies.acquire().await.map_err(|_| Fault::Stopping)?;
    if !read_up_to(&mut body, &mut whole, most, LARGE_WITHIN).await? {
        return Err(too_large());
    }
    Ok(Whole { bytes: whole.freeze(), _permit: Some(permit) })
}

/// Reads a body until there is more of it than so many bytes; tells whether it ended before.
async fn read_up_to(body: &mut web::Payload, whole: &mut BytesMut, most: usize, within: Duration) -> Result<bool, Fault> {
    let read = async {
        while whole.len() <= most {
            let Some(chunk) = body.next().await else { return Ok(true) };
            whole.extend_from_slice(&chunk.map_err(Fault::bad)?);
        }
        Ok(false)
    };
    let late = |_| Fault::Late(format!("the body did not come within {} s", within.as_secs()));
    tokio::time::timeout(within, read).await.map_err(late)?
}

fn if_match_digest(headers: &HeaderMap) -> Result<Option<Digest>, Fault> {
    if_match(headers)?.map(|text| name(&text)).transpose()
}
