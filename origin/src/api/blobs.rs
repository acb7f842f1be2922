//! Blobs in, one by one or packed, and out, as they are or compressed.

use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use wire::{Digest, Grant, PACK_TYPE, Unpacker};

use super::{Shared, name};
use crate::auth::{self, Caller};
use crate::blobs::{BlobError, Mark};
use crate::core::Core;
use crate::fault::Fault;
use crate::variants::Coding;

/// Unpacked bytes that are written side by side.
const BATCH: usize = 8 << 20;

impl From<BlobError> for Fault {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::TooLarge(..) => Self::TooLarge(error.to_string()),
            BlobError::Missing(_) => Self::NotFound(error.to_string()),
            BlobError::Storage(..) => Self::Storage(error.to_string()),
            BlobError::Away(..) | BlobError::List(_) => Self::Away(error.to_string()),
            BlobError::WrongDigest { .. } | BlobError::Cut(..) => Self::bad(error),
        }
    }
}

/// Whoever publishes any site may send blobs: they are named by their bytes and show nowhere by themselves.
pub(super) fn must_publish(core: &Core, caller: &Caller) -> Result<(), Fault> {
    let sites = core.network().sites.keys().cloned().collect::<Vec<_>>();
    let any = sites.into_iter().any(|site| caller.must(&Grant::Publish(Some(site))).is_ok());
    if any { Ok(()) } else { caller.must(&Grant::Publish(None)) }
}

/// The most that any site lets a file have.
fn largest(core: &Core) -> u64 {
    core.network().sites.values().map(|site| site.max_file.0).max().unwrap_or(0)
}

/// Takes one blob, checked against its digest while it streams in.
#[utoipa::path(put, path = "/v1/blobs/{digest}", request_body(content = Vec<u8>, content_type = "application/octet-stream"), params(("digest" = String, Path)), responses((status = 204)))]
pub(super) async fn put(core: Shared, request: HttpRequest, path: web::Path<String>, body: web::Payload) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request).await?;
    must_publish(&core, &caller)?;
    let digest: Digest = name(&path)?;
    let (most, mark) = (largest(&core), Mark::of(&core.journal.state()));
    let body = body.inspect(|chunk| {
        if let Ok(chunk) = chunk {
            core.metrics.blob_bytes_in.inc_by(chunk.len() as u64);
        }
    });
    core.blobs.put_stream(digest, most, body, Some(mark)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Takes many small blobs in one body of type `application/vnd.atoll.pack`: for each its digest (32
/// bytes), its length (4 bytes, big-endian) and its bytes.
#[utoipa::path(post, path = "/v1/blobs", request_body(content = Vec<u8>, content_type = "application/vnd.atoll.pack"), responses((status = 204)))]
pub(super) async fn put_pack(core: Shared, request: HttpRequest, mut body: web::Payload) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request).await?;
    must_publish(&core, &caller)?;
    let kind = request.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind != PACK_TYPE {
        return Err(Fault::bad(format!("Content-Type: `{kind}` is not `{PACK_TYPE}`")));
    }
    let mark = Mark::of(&core.journal.state());
    let (mut unpacker, mut batch, mut batched) = (Unpacker::default(), Vec::new(), 0);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(Fault::bad)?;
        core.metrics.blob_bytes_in.inc_by(chunk.len() as u64);
        unpacker.push(&chunk);
        while let Some((digest, bytes)) = unpacker.next_blob().map_err(Fault::bad)? {
            batched += bytes.len();
            batch.push((digest, bytes));
            if batched >= BATCH {
                core.blobs.put_all(std::mem::take(&mut batch), Some(mark)).await?;
                batched = 0;
            }
        }
    }
    unpacker.finish().map_err(Fault::bad)?;
    core.blobs.put_all(batch, Some(mark)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Gives a blob: compressed where `Accept-Encoding` names one coding and it pays, else as it is.
/// `Content-Digest` (RFC 9530) is of the bytes as coded; `Atoll-Variant: quick` says that a better
/// form is being made.
#[utoipa::path(get, path = "/v1/blobs/{digest}", params(("digest" = String, Path)), responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream")))]
pub(super) async fn get(core: Shared, request: HttpRequest, path: web::Path<String>) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request).await?;
    caller.must_follow(wire::Role::Edge).or_else(|_| caller.must(&Grant::Read))?;
    let digest: Digest = name(&path)?;
    let known = core.blobs.find(digest).await?.ok_or(BlobError::Missing(digest))?;
    let coding = request.headers().get("accept-encoding").and_then(|value| value.to_str().ok()).and_then(Coding::parse);
    if let Some(coding) = coding
        && let Some(variant) = core.variants.get(&core.blobs, digest, known.size, coding).await
    {
        let mut response = blob_response(&variant.digest);
        response.insert_header(("Content-Encoding", coding.name()));
        if !variant.best {
            response.insert_header(("Atoll-Variant", "quick"));
        }
        return Ok(response.body(variant.bytes));
    }
    let (size, body) = core.blobs.read(digest).await?;
    Ok(blob_response(&digest).no_chunking(size).streaming(body))
}

fn blob_response(digest: &Digest) -> actix_web::HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response.content_type("application/octet-stream");
    response.insert_header(("Content-Digest", format!("sha-256=:{}:", STANDARD.encode(digest.as_bytes()))));
    response
}
