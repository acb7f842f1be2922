//! What an edge tells about itself, on a listener of its own: /livez, /readyz, /metrics, /explain.

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use wire::UrlScope;

use crate::edge::Edge;
use crate::explain::explain;
use crate::metrics::Gauges;

type Shared = web::Data<Edge>;

const PLAIN: &str = "text/plain; charset=utf-8";

/// Mounts the pages.
pub(crate) fn mount(app: &mut web::ServiceConfig) {
    // HEAD is answered like GET; actix-web leaves its body out, and refuses other methods with 405 and Allow.
    app.service(web::resource("/livez").route(web::get().to(livez)).route(web::head().to(livez)))
        .service(web::resource("/readyz").route(web::get().to(readyz)).route(web::head().to(readyz)))
        .service(web::resource("/metrics").route(web::get().to(metrics)).route(web::head().to(metrics)))
        .service(web::resource("/explain").route(web::get().to(explain_url)).route(web::head().to(explain_url)));
}

async fn livez() -> &'static str {
    "ok\n"
}

/// Ready is who has a fold to answer from, is not leaving, and was not taken out of service.
async fn readyz(edge: Shared) -> HttpResponse {
    let why_not = match edge.applied.view() {
        _ if edge.applied.is_draining() => Some("draining\n"),
        _ if edge.lease.is_retired() => Some("drained: it was taken out of service, until it is started anew\n"),
        None => Some("starting: no snapshot yet\n"),
        Some(_) => None,
    };
    let (mut response, said) =
        why_not.map_or_else(|| (HttpResponse::Ok(), "ready\n"), |why_not| (HttpResponse::ServiceUnavailable(), why_not));
    response.content_type(PLAIN).body(said)
}

async fn metrics(edge: Shared) -> HttpResponse {
    edge.memory.tidy();
    let standing = edge.lease.standing();
    let (memory_bytes, memory_entries) = edge.memory.size();
    let now = Gauges {
        head: edge.lease.head(),
        applied: standing.applied,
        leased: standing.holds(),
        memory_bytes,
        memory_entries,
        folder_bytes: edge.folder.bytes(),
        config: edge.applied.view().map_or(0, |view| view.config),
        second: edge.responses.second.used(),
    };
    HttpResponse::Ok().content_type("application/openmetrics-text; version=1.0.0; charset=utf-8").body(edge.metrics.render(&now))
}

#[derive(Debug, Deserialize)]
pub(crate) struct About {
    url: String,
}

async fn explain_url(edge: Shared, about: web::Query<About>) -> HttpResponse {
    match about.url.parse::<UrlScope>() {
        Ok(url) => HttpResponse::Ok().json(explain(&edge.into_inner(), &url).await),
        Err(error) => HttpResponse::BadRequest().content_type(PLAIN).body(format!("{error}\n")),
    }
}
