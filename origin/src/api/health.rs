//! Whether the origin lives, whether it is ready, and what it counts.

use actix_web::{HttpResponse, Responder};

use super::Shared;
use crate::clock::boottime;

/// Answers as long as the process runs.
pub(super) async fn livez() -> impl Responder {
    "ok\n"
}

/// Answers 200 while the origin takes calls.
pub(super) async fn readyz(core: Shared) -> impl Responder {
    if core.stop.is_cancelled() { HttpResponse::ServiceUnavailable().body("stopping\n") } else { HttpResponse::Ok().body("ready\n") }
}

/// Answers with the metrics in Prometheus' text form.
pub(super) async fn metrics(core: Shared) -> impl Responder {
    let (complete, live) = {
        let book = core.book();
        (book.complete(), book.live(boottime()).len())
    };
    let text = core.metrics.render(core.journal.head().seq, complete, live);
    HttpResponse::Ok().content_type("application/openmetrics-text; version=1.0.0; charset=utf-8").body(text)
}
