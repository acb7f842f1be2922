//! What an edge counts, for Prometheus and for `atoll status`. No URL, host or tag is a label.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// How a request was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Answered {
    /// `site`, `route` or `edge`.
    pub(crate) kind: &'static str,
    /// Hit, miss, and so on: the word of `Cache-Status` and of the log.
    pub(crate) result: &'static str,
    /// `l1`, `l2`, `origin`, `upstream` or `none`.
    pub(crate) tier: &'static str,
    /// Why: the detail of `Cache-Status`, or `none`.
    pub(crate) detail: &'static str,
}

/// What the gauges show at the moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) head: u64,
    pub(crate) applied: u64,
    pub(crate) leased: bool,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_entries: u64,
    pub(crate) folder_bytes: u64,
    pub(crate) config: u64,
    pub(crate) second: Used,
}

/// An edge's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Answered, Counter>,
    seconds: Family<Answered, Histogram, fn() -> Histogram>,
    responses: [Counter; 5],
    hits: Counter,
    misses: Counter,
    pub(crate) upstream_requests: Counter,
    pub(crate) collapsed: Counter,
    pub(crate) unstorable_tags: Counter,
    pub(crate) fenced_responses: Counter,
    /// From a purge's append to its being in force here, by the wall clocks of both machines.
    pub(crate) purge_seconds: Histogram,
    /// Entries stored that some purge which names them could not take: none, as long as nothing is wrong here.
    pub(crate) unpurgeable_entries: Gauge<u64, AtomicU64>,
    second_reads: Family<Result, Counter>,
    second_read_seconds: Histogram,
    second_writes: Family<Result, Counter>,
    second_unusable: Family<Reason, Counter>,
    gauges: BTreeMap<&'static str, Gauge<u64, AtomicU64>>,
}

/// What a status begins with.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The class of a status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    class: &'static str,
}

/// Which version runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// How something went.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Result {
    result: &'static str,
}

/// Why something was not used.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// What the gauges show of the second tier.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// Whether it answers.
    pub(crate) up: bool,
    /// What it takes of this machine's disk.
    pub(crate) disk_bytes: u64,
}

/// What a purge's way takes: from a neighbour to the other side of the world, and where something is slow.
const PURGE_BUCKETS: [f64; 16] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.075, 0.09, 0.1, 0.125, 0.15, 0.2, 0.3, 0.5, 1.0, 10.0];

fn duration_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 4.0, 10))
}

const GAUGES: [(&str, &str); 9] = [
    ("head_seq", "The journal's last seq, as far as the origin has told"),
    ("applied_seq", "The last seq in force here"),
    ("leased", "Whether the lease holds"),
    ("memory_bytes", "Bytes in the memory tier"),
    ("memory_entries", "Entries in the memory tier"),
    ("folder_bytes", "Bytes in the folder tier"),
    ("config_number", "The number of the configuration in force"),
    ("second_tier_up", "Whether the second tier of responses answers"),
    ("second_tier_disk_bytes", "Bytes that the second tier of responses takes of this machine's disk"),
];

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut all = Registry::default();
        // Not one of an edge alone: whatever stores may be asked for it.
        let unpurgeable_entries = Gauge::default();
        let help = "Entries stored that a purge of one of their tags, their URL, host or owner could not take: 0, or a bug";
        all.register("atoll_unpurgeable_entries", help, unpurgeable_entries.clone());
        let registry = all.sub_registry_with_prefix("atoll_edge");
        let requests = Family::default();
        let seconds = Family::new_with_constructor(duration_buckets as fn() -> Histogram);
        registry.register("requests", "Requests by how they were answered", requests.clone());
        registry.register("request_seconds", "From a request's head to its answer's head", seconds.clone());
        let by_class: Family<Class, Counter> = Family::default();
        let responses = CLASSES.map(|class| by_class.get_or_create(&Class { class }).clone());
        registry.register("responses", "Answers by the class of their status, upstreams' own errors among them", by_class);
        let build: Family<Build, Gauge> = Family::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "Which version runs: always 1", build);
        let purge_seconds = Histogram::new(PURGE_BUCKETS);
        registry.register("purge_seconds", "From a purge's append to its being in force here, by both wall clocks", purge_seconds.clone());
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let upstream_requests = counter("upstream_requests", "Requests sent to upstreams");
        let collapsed = counter("collapsed", "Requests that shared the fill of another");
        let unstorable_tags = counter("unstorable_tags", "Responses not stored since their tags don't fit: nothing is unpurgeable");
        let fenced_responses = counter("fenced_responses", "Answers that this edge gave without a lease");
        let (second_reads, second_writes, second_unusable) = (Family::default(), Family::default(), Family::default());
        registry.register("second_tier_reads", "Looks into the second tier of responses", second_reads.clone());
        registry.register("second_tier_writes", "Responses written to the second tier, or not", second_writes.clone());
        registry.register("second_tier_unusable", "What the second tier held and was not used", second_unusable.clone());
        let second_read_seconds = Histogram::new(exponential_buckets(0.000_05, 2.0, 12));
        registry.register(
            "second_tier_read_seconds",
            "How long looks into the second tier took, waiting for others included",
            second_read_seconds.clone(),
        );
        let mut gauges = BTreeMap::new();
        for (name, help) in GAUGES {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauges.insert(name, gauge);
        }
        Self {
            registry: Mutex::new(all),
            requests,
            seconds,
            responses,
            hits: Counter::default(),
            misses: Counter::default(),
            upstream_requests,
            collapsed,
            unstorable_tags,
            fenced_responses,
            purge_seconds,
            unpurgeable_entries,
            second_reads,
            second_read_seconds,
            second_writes,
            second_unusable,
            gauges,
        }
    }

    /// Counts one answer.
    pub(crate) fn answered(&self, answered: &Answered, status: StatusCode, took: Duration) {
        if let Some(class) = self.responses.get(usize::from(status.as_u16() / 100).saturating_sub(1)) {
            class.inc();
        }
        self.requests.get_or_create(answered).inc();
        self.seconds.get_or_create(answered).observe(took.as_secs_f64());
        match answered.tier {
            "l1" | "l2" => self.hits.inc(),
            "origin" | "upstream" => self.misses.inc(),
            _ => 0,
        };
    }

    /// Counts a look into the second tier.
    pub(crate) fn second_read(&self, result: &'static str, took: Duration) {
        self.second_reads.get_or_create(&Result { result }).inc();
        self.second_read_seconds.observe(took.as_secs_f64());
    }

    /// Counts what became of a response that was to be written to the second tier.
    pub(crate) fn second_wrote(&self, result: &'static str) {
        self.second_writes.get_or_create(&Result { result }).inc();
    }

    /// Counts what the second tier held and was not used.
    pub(crate) fn second_unusable(&self, reason: &'static str) {
        self.second_unusable.get_or_create(&Reason { reason }).inc();
    }

    /// Returns what `atoll status` shows.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        BTreeMap::from([("hits".to_owned(), self.hits.get()), ("misses".to_owned(), self.misses.get())])
    }

    /// Returns all of it as Prometheus reads it.
    pub(crate) fn render(&self, now: &Gauges) -> String {
        let values = [
            now.head,
            now.applied,
            u64::from(now.leased),
            now.memory_bytes,
            now.memory_entries,
            now.folder_bytes,
            now.config,
            u64::from(now.second.up),
            now.second.disk_bytes,
        ];
        for ((name, _), value) in GAUGES.iter().zip(values) {
            if let Some(gauge) = self.gauges.get(name) {
                gauge.set(value);
            }
        }
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a String does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_the_prefix_but_the_one_that_whatever_stores_has() {
        let metrics = Metrics::new();
        metrics.collapsed.inc();
        let text = metrics.render(&Gauges::default());
        assert!(text.contains("\natoll_edge_collapsed_total 1\n"), "{text}");
        assert!(text.contains("\natoll_unpurgeable_entries 0\n"), "{text}");
        metrics.unpurgeable_entries.inc();
        assert!(metrics.render(&Gauges::default()).contains("\natoll_unpurgeable_entries 1\n"));
        let names = text.lines().filter(|line| !line.starts_with('#'));
        let others = names.filter(|line| !line.starts_with("atoll_edge_"));
        assert_eq!(others.collect::<Vec<_>>(), ["atoll_unpurgeable_entries 0"]);
    }
}
