//! What the origin counts, for Prometheus. No URL, host or tag is a label.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The origin's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    pub(crate) purges: Counter,
    pub(crate) purge_scopes: Counter,
    pub(crate) purge_repeats: Counter,
    pub(crate) purges_limited: Counter,
    pub(crate) publishes: Counter,
    pub(crate) blob_bytes_in: Counter,
    pub(crate) acks: Counter,
    pub(crate) acks_refused: Counter,
    pub(crate) feeds: Gauge,
    pub(crate) feeds_cut: Counter,
    pub(crate) append_seconds: Histogram,
    responses: Family<Status, Counter>,
    head: Gauge<u64, AtomicU64>,
    complete: Gauge<u64, AtomicU64>,
    live_edges: Gauge,
    is_kept: Gauge,
    certificate_end: Gauge,
}

/// The status of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: u16,
}

/// Which version runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("atoll_origin");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let purges = counter("purges", "Purges accepted");
        let purge_scopes = counter("purge_scopes", "Scopes in accepted purges");
        let purge_repeats = counter("purge_repeats", "Purges done once more, as they had asked for");
        let purges_limited = counter("purges_limited", "Purges refused since their token had purged too much");
        let publishes = counter("publishes", "Versions committed");
        let blob_bytes_in = counter("blob_bytes_in", "Bytes of blobs received");
        let acks = counter("acks", "Acks of followers");
        let acks_refused = counter("acks_refused", "Acks that got no lease");
        let feeds_cut = counter("feeds_cut", "Feeds cut off because their reader was too slow");
        let responses: Family<Status, Counter> = Family::default();
        registry.register("responses", "Answers by their status", responses.clone());
        let (feeds, live_edges) = (Gauge::default(), Gauge::default());
        registry.register("feeds", "Feeds that are open", feeds.clone());
        registry.register("live_edges", "Edges that hold a lease", live_edges.clone());
        let (head, complete) = (Gauge::default(), Gauge::default());
        registry.register("head_seq", "The journal's last seq", head.clone());
        registry.register("complete_seq", "Up to where every edge has applied all events or is fenced", complete.clone());
        let build: Family<Build, Gauge> = Family::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "Which version runs: always 1", build);
        let is_kept: Gauge = Gauge::default();
        registry.register("custody", "Whether all that is accepted outlives what it is kept in (P3)", is_kept.clone());
        let certificate_end: Gauge = Gauge::default();
        registry.register(
            "certificate_end_timestamp_seconds",
            "When the certificate of origin.tls ends; 0 without one",
            certificate_end.clone(),
        );
        let append_seconds = Histogram::new(exponential_buckets(0.000_1, 2.0, 16));
        registry.register("append_seconds", "From a command to its event on the disk", append_seconds.clone());
        Self {
            registry: Mutex::new(registry),
            purges,
            purge_scopes,
            purge_repeats,
            purges_limited,
            publishes,
            blob_bytes_in,
            acks,
            acks_refused,
            feeds,
            feeds_cut,
            append_seconds,
            responses,
            head,
            complete,
            live_edges,
            is_kept,
            certificate_end,
        }
    }

    /// Tells when the certificate that is shown ends, in seconds since 1970.
    pub(crate) fn certificate_ends(&self, at: i64) {
        self.certificate_end.set(at);
    }

    /// Counts one answer.
    pub(crate) fn answered(&self, status: u16) {
        self.responses.get_or_create(&Status { status }).inc();
    }

    /// Returns all of it as Prometheus reads it.
    pub(crate) fn render(&self, head: u64, complete: u64, live_edges: usize, is_kept: bool) -> String {
        self.head.set(head);
        self.complete.set(complete);
        self.live_edges.set(i64::try_from(live_edges).unwrap_or(i64::MAX));
        self.is_kept.set(i64::from(is_kept));
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if encode(&mut text, &registry).is_err() {
            let _ = writeln!(text, "# failed to encode");
        }
        text
    }
}
