//! The API's own description, `/v1/openapi.json`.

use actix_web::{HttpResponse, Responder};
use utoipa::OpenApi;

/// The OpenAPI document of the control API.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Atoll control API",
        description = "Publish, purge, configure and follow. Bearer tokens; errors are application/problem+json (RFC 9457)."
    ),
    paths(
        super::publishes::begin,
        super::publishes::commit,
        super::publishes::move_alias,
        super::publishes::versions,
        super::blobs::put,
        super::blobs::put_pack,
        super::blobs::get,
        super::purges::purge,
        super::purges::receipt,
        super::fastly::purge_key,
        super::fastly::purge_keys,
        super::fastly::purge_all,
        super::fastly::purge_url,
        super::fastly::service,
        super::fastly::token,
        super::cloudflare::purge,
        super::cloudflare::invalidate,
        super::cloudflare::zones,
        super::cloudflare::zone,
        super::cloudflare::verify,
        super::follow::feed,
        super::follow::ack,
        super::follow::answer,
        super::follow::snapshot,
        super::nodes::drain,
        super::config::put,
        super::config::get,
        super::config::get_number,
        super::status::status,
        super::status::journal,
        super::tokens::issue,
        super::tokens::list,
        super::tokens::revoke
    ),
    components(schemas(wire::PurgePlan))
)]
struct Document;

/// Answers with the OpenAPI document; no token is needed.
pub(super) async fn document() -> impl Responder {
    HttpResponse::Ok().json(Document::openapi())
}
