//! What an edge tells about itself, on a listener of its own: /livez, /readyz, /metrics, /explain.

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use wire::UrlScope;

use crate::edge::Edge;
use crate::explain::explain;
use crate::metrics::Gauges;

type Shared = web::Data<Edge>;

/// Mounts the pages.
pub(crate) fn mount(app: &mut web::ServiceConfig) {
    app.route("/livez", web::get().to(async || "ok\n"))
        .route("/readyz", web::get().to(readyz))
        .route("/metrics", web::get().to(metrics))
        .route("/explain", web::get().to(explain_url));
}

/// Ready is who has a fold to answer from and is not leaving.
async fn readyz(edge: Shared) -> HttpResponse {
    match (edge.applied.view().is_some(), edge.applied.is_draining()) {
        (_, true) => HttpResponse::ServiceUnavailable().body("draining\n"),
        (false, false) => HttpResponse::ServiceUnavailable().body("starting: no snapshot yet\n"),
        (true, false) => HttpResponse::Ok().body("ready\n"),
    }
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
        Err(error) => HttpResponse::BadRequest().body(format!("{error}\n")),
    }
}
