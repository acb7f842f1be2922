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
mod status;
mod tokens;

use actix_web::error::InternalError;
use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, web};
use wire::Digest;

use crate::core::Core;
use crate::fault::Fault;

/// A JSON body of a request, other than a manifest.
const JSON_MOST: usize = 1 << 20;

/// A manifest of as many files as are allowed.
const MANIFEST_MOST: usize = 64 << 20;

type Shared = web::Data<Core>;

/// Mounts every call.
pub(crate) fn mount(app: &mut web::ServiceConfig) {
    let as_problem = |error: actix_web::error::JsonPayloadError, _: &HttpRequest| {
        let fault = match &error {
            actix_web::error::JsonPayloadError::Overflow { .. } | actix_web::error::JsonPayloadError::OverflowKnownLength { .. } => {
                Fault::TooLarge(error.to_string())
            }
            _ => Fault::bad(&error),
        };
        let response = actix_web::ResponseError::error_response(&fault);
        InternalError::from_response(error, response).into()
    };
    let bad_query = |error: actix_web::error::QueryPayloadError, _: &HttpRequest| {
        let response = actix_web::ResponseError::error_response(&Fault::bad(&error));
        InternalError::from_response(error, response).into()
    };
    let bad_path = |error: actix_web::error::PathError, _: &HttpRequest| {
        let response = actix_web::ResponseError::error_response(&Fault::bad(&error));
        InternalError::from_response(error, response).into()
    };
    app.app_data(web::PayloadConfig::new(JSON_MOST))
        .app_data(web::PathConfig::default().error_handler(bad_path))
        .app_data(web::JsonConfig::default().limit(JSON_MOST).content_type_required(false).error_handler(as_problem))
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

fn if_match_digest(headers: &HeaderMap) -> Result<Option<Digest>, Fault> {
    if_match(headers)?.map(|text| name(&text)).transpose()
}
