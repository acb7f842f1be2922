//! Whether the origin lives, whether it is ready, and what it counts.

use actix_web::{HttpResponse, Responder};

use super::Shared;
use crate::clock::boottime;

const PLAIN: &str = "text/plain; charset=utf-8";

/// Answers as long as the process runs.
pub(super) async fn livez() -> impl Responder {
    "ok\n"
}

/// Answers 200 while the origin takes calls.
pub(super) async fn readyz(core: Shared) -> impl Responder {
    let (mut response, said) = match (core.stop.is_cancelled(), core.must_be_current()) {
        (true, _) => (HttpResponse::ServiceUnavailable(), "stopping\n".to_owned()),
        (false, Err(fault)) => (HttpResponse::ServiceUnavailable(), format!("{fault}\n")),
        (false, Ok(())) => (HttpResponse::Ok(), "ready\n".to_owned()),
    };
    response.content_type(PLAIN).body(said)
}

/// Answers with the metrics in Prometheus' text form.
pub(super) async fn metrics(core: Shared) -> impl Responder {
    let (head, complete) = core.progress().await;
    let live = core.book().live(boottime()).len();
    let text = core.metrics.render(head.seq, complete, live, core.custody.losses().is_empty());
    HttpResponse::Ok().content_type("application/openmetrics-text; version=1.0.0; charset=utf-8").body(text)
}
