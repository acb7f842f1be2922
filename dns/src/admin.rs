//! What a DNS node tells about itself, on a listener of its own: /livez, /readyz, /metrics, /explain.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

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
}

type Shared = web::Data<Pages>;

/// Mounts the pages.
pub(crate) fn mount(app: &mut web::ServiceConfig) {
    app.route("/livez", web::get().to(async || "ok\n"))
        .route("/readyz", web::get().to(readyz))
        .route("/metrics", web::get().to(metrics))
        .route("/explain", web::get().to(explain_name));
}

async fn readyz(pages: Shared) -> HttpResponse {
    if pages.steering.config() == 0 {
        return HttpResponse::ServiceUnavailable().body("starting: no snapshot yet\n");
    }
    HttpResponse::Ok().body("ready\n")
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
