//! A small upstream for `atoll up` without a file, so that a newcomer sees caching and purging at once.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::{Context as _, Result};
use serde_json::json;
use wire::Timestamp;

/// How long the slow answer takes.
const SLOW: Duration = Duration::from_secs(2);

/// The version that every product shows.
#[derive(Debug, Default)]
struct Version(AtomicU64);

/// Starts the demo upstream.
pub(crate) fn start(address: SocketAddr) -> Result<ServerHandle> {
    let listener = TcpListener::bind(address).with_context(|| format!("failed to listen on {address} (the demo upstream)"))?;
    let version = web::Data::from(Arc::new(Version(AtomicU64::new(1))));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(version.clone())
            .route("/api/", web::get().to(contents))
            .route("/api/products/{id}", web::get().to(product))
            .route("/api/raise", web::post().to(raise))
            .route("/api/slow", web::get().to(slow))
            .route("/api/me", web::get().to(me))
            .default_service(web::to(async || HttpResponse::NotFound().json(json!({ "error": "see /api/" }))))
    });
    // An edge keeps connections for longer than a moment: none is closed just when it asks.
    let server = server.workers(1).keep_alive(Duration::from_secs(120)).client_request_timeout(Duration::ZERO);
    let server = server.shutdown_timeout(1).disable_signals().listen(listener)?.run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(handle)
}

async fn contents() -> HttpResponse {
    HttpResponse::Ok().insert_header(("Cache-Control", "max-age=60")).json(json!({
        "GET /api/products/42": "cached for a minute, tagged product-42 and products",
        "POST /api/raise": "raises the version that products show; purge to see it",
        "GET /api/slow": "takes two seconds, once",
        "GET /api/me": "never cached",
    }))
}

async fn product(version: web::Data<Version>, id: web::Path<u64>) -> HttpResponse {
    let now = version.0.load(Ordering::Relaxed);
    HttpResponse::Ok()
        .insert_header(("Cache-Control", "max-age=60, stale-while-revalidate=30, stale-if-error=3600"))
        .insert_header(("Surrogate-Key", format!("product-{id} products")))
        .insert_header(("ETag", format!("\"{id}-{now}\"")))
        .json(json!({ "product": *id, "version": now, "made_at": Timestamp::now() }))
}

async fn raise(version: web::Data<Version>) -> HttpResponse {
    let now = version.0.fetch_add(1, Ordering::Relaxed) + 1;
    HttpResponse::Ok().json(json!({ "version": now }))
}

async fn slow() -> HttpResponse {
    tokio::time::sleep(SLOW).await;
    HttpResponse::Ok().insert_header(("Cache-Control", "max-age=10")).json(json!({ "took_ms": 2000, "made_at": Timestamp::now() }))
}

async fn me() -> HttpResponse {
    HttpResponse::Ok().insert_header(("Cache-Control", "private, no-store")).json(json!({ "made_at": Timestamp::now() }))
}
