//! What a DNS node tells about itself, on a listener of its own: /livez, /readyz, /metrics, /explain.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::{HttpResponse, web};
use arc_swap::ArcSwap;
use serde::Deserialize;

use crate::explain::explain;
use crate::following::Steering;
use crate::metrics::Metrics;
use crate::view::View;

/// What the pages are made of.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) view: Arc<ArcSwap<View>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) steering: Arc<Steering>,
    pub(crate) lease: Arc<follow::Lease>,
    pub(crate) draining: Arc<AtomicBool>,
}

type Shared = web::Data<Pages>;

/// Mounts the pages.
pub(crate) fn mount(app: &mut web::ServiceConfig) {
    // HEAD is answered like GET; actix-web leaves its body out, and refuses other methods with 405 and Allow.
    app.service(web::resource("/livez").route(web::get().to(livez)).route(web::head().to(livez)))
        .service(web::resource("/readyz").route(web::get().to(readyz)).route(web::head().to(readyz)))
        .service(web::resource("/metrics").route(web::get().to(metrics)).route(web::head().to(metrics)))
        .service(web::resource("/explain").route(web::get().to(explain_name)).route(web::head().to(explain_name)));
}

async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(pages: Shared) -> HttpResponse {
    let why_not = match pages.steering.config() {
        _ if pages.draining.load(Ordering::Acquire) => Some("draining\n"),
        0 => Some("starting: no snapshot yet\n"),
        // It would answer that nobody lives.
        _ if !pages.steering.has_heard() => Some("starting: no origin has told yet which edges live\n"),
        _ => None,
    };
    let (mut response, said) =
        why_not.map_or_else(|| (HttpResponse::Ok(), "ready\n"), |why_not| (HttpResponse::ServiceUnavailable(), why_not));
    response.content_type("text/plain; charset=utf-8").body(said)
}

async fn metrics(pages: Shared) -> HttpResponse {
    let standing = pages.lease.standing();
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, rows: &[(String, u64)]| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "# HELP atoll_dns_{name} {help}.\n# TYPE atoll_dns_{name} {kind}");
        for (labels, value) in rows {
            let suffix = if kind == "counter" { "_total" } else { "" };
            let _ = writeln!(text, "atoll_dns_{name}{suffix}{labels} {value}");
        }
    };
    let labelled = |key: &str, rows: &[(&'static str, u64)]| {
        rows.iter().map(|(label, value)| (format!("{{{key}=\"{label}\"}}"), *value)).collect::<Vec<_>>()
    };
    let alone = |value: u64| [(String::new(), value)];
    family("queries", "counter", "Queries by transport", &labelled("transport", &pages.metrics.queries()));
    family("answers", "counter", "Answers by response code", &labelled("rcode", &pages.metrics.answers()));
    family("dropped", "counter", "Packets that got no answer", &alone(pages.metrics.dropped()));
    family(
        "connections_closed_for_room",
        "counter",
        "TCP connections closed to make room",
        &alone(pages.metrics.connections_closed_for_room()),
    );
    let build = [(format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1)];
    family("build_info", "gauge", "Which version runs: always 1", &build);
    family("live_edges", "gauge", "Edges that may be answered", &alone(pages.view.load().live.len() as u64));
    family("head_seq", "gauge", "The journal's last seq, as far as the origin has told", &alone(pages.lease.head()));
    family("applied_seq", "gauge", "The last seq in force here", &alone(standing.applied));
    family("leased", "gauge", "Whether the lease holds", &alone(u64::from(standing.holds())));
    family("config_number", "gauge", "The number of the configuration in force", &alone(pages.steering.config()));
    text.push_str("# EOF\n");
    HttpResponse::Ok().content_type("application/openmetrics-text; version=1.0.0; charset=utf-8").body(text)
}

#[derive(Debug, Deserialize)]
pub(crate) struct About {
    name: String,
    address: IpAddr,
}

async fn explain_name(pages: Shared, about: web::Query<About>) -> HttpResponse {
    HttpResponse::Ok().json(explain(&pages.view.load(), about.address, &about.name))
}
