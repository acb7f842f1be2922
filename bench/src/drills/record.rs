//! What was promised in a drill, and what was seen: floors below which no read may fall, the calls that the origin
//! accepted with their receipts, and every answer that a reader judged.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wire::{FollowerState, Receipt, ReceiptState};

use crate::world::tap::Seen;

/// Faults that are told in full.
const EXAMPLES: usize = 3;

/// A version that must be seen from some moment on: the key, and the least version.
pub(crate) type Demand = (usize, u64);

/// A call that the origin accepted.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Its event.
    pub(crate) seq: u64,
    /// What it purged, and the versions that were true before it was sent.
    pub(crate) demands: Vec<Demand>,
    /// When its answer had come.
    pub(crate) accepted: Instant,
    /// When its receipt had come that says no longer `pending`, and that receipt.
    pub(crate) settled: Option<(Instant, Receipt)>,
}

/// Everything that one drill promised and saw. All who read and purge share it.
#[derive(Debug)]
pub(crate) struct Record {
    edges: Vec<String>,
    floors: Vec<Box<[AtomicU64]>>,
    reads: Vec<AtomicU64>,
    binding: AtomicU64,
    hits: AtomicU64,
    second: AtomicU64,
    fenced: AtomicU64,
    failed: Vec<AtomicU64>,
    slowest_us: AtomicU64,
    faults: AtomicU64,
    examples: Mutex<Vec<String>>,
    calls: Mutex<Vec<Call>>,
    refused: AtomicU64,
    restarts: Mutex<Vec<Instant>>,
}

/// The reads of a drill, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    /// Answers.
    pub(crate) all: u64,
    /// Of those, how many an old version would have shown as a fault.
    pub(crate) binding: u64,
    /// Of all, how many came from a cache.
    pub(crate) hits: u64,
    /// Of those, how many from a second tier.
    pub(crate) second: u64,
    /// Of all, how many from an edge without a lease.
    pub(crate) fenced: u64,
    /// Reads without an answer, such as from an edge that was killed.
    pub(crate) failed: u64,
    /// The same at each edge.
    pub(crate) failed_at: Vec<u64>,
    /// How long the slowest answer took.
    pub(crate) slowest: Duration,
    /// Answers that must not be.
    pub(crate) faults: u64,
    /// Some of them in words.
    pub(crate) examples: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    /// Begins with nothing promised at these edges for so many keys.
    pub(crate) fn new(edges: Vec<String>, keys: usize) -> Self {
        let floors_of_one = || (0..keys).map(|_| AtomicU64::new(0)).collect::<Box<[_]>>();
        let floors = edges.iter().map(|_| floors_of_one()).collect();
        Self {
            floors,
            reads: edges.iter().map(|_| AtomicU64::new(0)).collect(),
            failed: edges.iter().map(|_| AtomicU64::new(0)).collect(),
            edges,
            binding: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            second: AtomicU64::new(0),
            fenced: AtomicU64::new(0),
            slowest_us: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            examples: Mutex::default(),
            calls: Mutex::default(),
            refused: AtomicU64::new(0),
            restarts: Mutex::default(),
        }
    }

    /// The origin accepted a call: returns the number under which its receipts are told.
    pub(crate) fn accept(&self, seq: u64, demands: Vec<Demand>) -> usize {
        let mut calls = lock(&self.calls);
        calls.push(Call { seq, demands, accepted: Instant::now(), settled: None });
        calls.len() - 1
    }

    /// A call was not answered, or refused: nothing is promised, and nobody knows whether it was done.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A receipt came. What it says is believed, and held against every read that begins from now on.
    pub(crate) fn hear(&self, number: usize, receipt: Receipt) {
        let mut calls = lock(&self.calls);
        let Some(call) = calls.get_mut(number) else { return };
        for (edge, name) in self.edges.iter().enumerate() {
            let applied = receipt.followers.iter().any(|row| row.name.as_str() == name && row.state == FollowerState::Applied);
            if applied || receipt.state == ReceiptState::Complete {
                call.demands.iter().for_each(|demand| self.promise(edge, *demand));
            }
        }
        if receipt.state != ReceiptState::Pending {
            call.settled = Some((Instant::now(), receipt));
        }
    }

    /// Nothing older than this may be seen at an edge by who begins to read from now on.
    pub(crate) fn promise(&self, edge: usize, (key, version): Demand) {
        if let Some(floor) = self.floors.get(edge).and_then(|floors| floors.get(key)) {
            floor.fetch_max(version, Ordering::SeqCst);
        }
    }

    /// Returns the version below which a read that begins now must not fall; 0 where nothing was promised.
    pub(crate) fn floor(&self, edge: usize, key: usize) -> u64 {
        self.floors.get(edge).and_then(|floors| floors.get(key)).map_or(0, |floor| floor.load(Ordering::SeqCst))
    }

    /// Judges the answer to a read of `key` at `edge` that began when `floor` held.
    pub(crate) fn judge(&self, edge: usize, key: usize, floor: u64, seen: &Seen) {
        if let Some(reads) = self.reads.get(edge) {
            reads.fetch_add(1, Ordering::Relaxed);
        }
        self.binding.fetch_add(u64::from(floor > 0), Ordering::Relaxed);
        self.hits.fetch_add(u64::from(seen.hit), Ordering::Relaxed);
        self.second.fetch_add(u64::from(seen.second), Ordering::Relaxed);
        self.fenced.fetch_add(u64::from(seen.fenced), Ordering::Relaxed);
        let name = self.edges.get(edge).map_or("", String::as_str);
        if seen.key != key {
            self.fault(format!("{name} answered key {key} with the value of key {}", seen.key));
        } else if seen.version < floor {
            let from = if seen.hit { "its cache" } else { "a fetch" };
            self.fault(format!("{name} answered key {key} with version {} from {from}, {floor} was promised", seen.version));
        }
    }

    fn fault(&self, said: String) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let mut examples = lock(&self.examples);
        if examples.len() < EXAMPLES {
            examples.push(said);
        }
    }

    /// A read at an edge was not answered.
    pub(crate) fn fail(&self, edge: usize) {
        if let Some(failed) = self.failed.get(edge) {
            failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An answer took so long.
    pub(crate) fn took(&self, took: Duration) {
        self.slowest_us.fetch_max(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The origin takes calls again after it was killed: from here its bound begins anew (P2).
    pub(crate) fn restarted(&self) {
        lock(&self.restarts).push(Instant::now());
    }

    /// Returns how many answers came from one edge.
    pub(crate) fn reads_at(&self, edge: usize) -> u64 {
        self.reads.get(edge).map_or(0, |reads| reads.load(Ordering::Relaxed))
    }

    /// Returns how many calls were not answered or refused.
    pub(crate) fn refusals(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Counts the reads so far.
    pub(crate) fn reads(&self) -> Reads {
        let failed_at: Vec<u64> = self.failed.iter().map(|failed| failed.load(Ordering::Relaxed)).collect();
        Reads {
            failed: failed_at.iter().sum(),
            failed_at,
            second: self.second.load(Ordering::Relaxed),
            fenced: self.fenced.load(Ordering::Relaxed),
            slowest: Duration::from_micros(self.slowest_us.load(Ordering::Relaxed)),
            all: (0..self.edges.len()).map(|edge| self.reads_at(edge)).sum(),
            binding: self.binding.load(Ordering::Relaxed),
            hits: self.hits.load(Ordering::Relaxed),
            faults: self.faults.load(Ordering::Relaxed),
            examples: lock(&self.examples).clone(),
        }
    }

    /// Returns the calls so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }

    /// Returns when the origin took calls again.
    pub(crate) fn restarts(&self) -> Vec<Instant> {
        lock(&self.restarts).clone()
    }
}

impl Call {
    /// Returns how long it took until its receipt, from when the origin last began anew.
    pub(crate) fn took(&self, restarts: &[Instant]) -> Option<Duration> {
        let (settled, _) = self.settled.as_ref()?;
        let begun = restarts.iter().filter(|restart| *restart < settled).max().map_or(self.accepted, |last| self.accepted.max(*last));
        Some(settled.saturating_duration_since(begun))
    }
}

#[cfg(test)]
mod tests {
    use super::super::forged::receipt;
    use super::*;

    fn record() -> Record {
        Record::new(vec!["a".to_owned(), "b".to_owned()], 10)
    }

    fn seen(key: usize, version: u64) -> Seen {
        Seen { key, version, hit: true, second: false, fenced: false }
    }

    #[test]
    fn what_one_edge_has_applied_is_held_against_that_edge_alone_until_the_receipt_is_complete() {
        let record = record();
        let call = record.accept(7, vec![(3, 5)]);
        record.hear(call, receipt(7, ReceiptState::Pending, &[("a", FollowerState::Applied), ("b", FollowerState::Pending)]).unwrap());
        assert_eq!((record.floor(0, 3), record.floor(1, 3), record.floor(0, 4)), (5, 0, 0));
        assert!(record.calls()[0].settled.is_none());

        record.hear(call, receipt(7, ReceiptState::Complete, &[("a", FollowerState::Applied), ("b", FollowerState::Fenced)]).unwrap());
        assert_eq!(record.floor(1, 3), 5);
        assert!(record.calls()[0].settled.is_some());
    }

    #[test]
    fn an_older_version_than_was_promised_when_the_read_began_is_a_fault() {
        let record = record();
        record.judge(0, 3, 5, &seen(3, 5));
        record.judge(0, 3, 5, &seen(3, 6));
        record.judge(0, 3, 0, &seen(3, 1));
        assert_eq!(record.reads().faults, 0);
        record.judge(0, 3, 5, &seen(3, 4));
        record.judge(0, 3, 0, &seen(4, 9));
        let reads = record.reads();
        assert_eq!((reads.all, reads.binding, reads.hits, reads.faults), (5, 3, 5, 2));
        assert!(reads.examples[0].contains("version 4") && reads.examples[1].contains("key 4"), "{reads:?}");
    }

    #[test]
    fn reads_that_failed_are_counted_by_edge_and_of_answers_the_slowest_is_kept() {
        let record = record();
        record.fail(1);
        record.took(Duration::from_millis(7));
        record.took(Duration::from_millis(3));
        record.judge(0, 3, 0, &Seen { second: true, fenced: true, ..seen(3, 1) });
        let reads = record.reads();
        assert_eq!((reads.failed, reads.failed_at, reads.slowest), (1, vec![0, 1], Duration::from_millis(7)));
        assert_eq!((reads.second, reads.fenced), (1, 1));
    }

    #[test]
    fn a_restart_of_the_origin_starts_the_bound_anew() {
        let (restart, record) = (Instant::now() + Duration::from_secs(3), record());
        let call = record.accept(7, vec![]);
        record.hear(call, receipt(7, ReceiptState::Complete, &[]).unwrap());
        let mut call = record.calls().remove(0);
        let after = restart + Duration::from_secs(2);
        call.settled = call.settled.map(|(_, receipt)| (after, receipt));
        assert_eq!(call.took(&[restart]), Some(Duration::from_secs(2)));
        assert!(call.took(&[]) > Some(Duration::from_secs(4)));
        assert_eq!(call.took(&[after + Duration::from_secs(1), restart]), Some(Duration::from_secs(2)));
    }
}
