//! What a drill came to, as a row for people and as an object for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::Name;
use super::record::Reads;
use crate::figures::{Samples, ms};

/// The columns.
pub(crate) const HEADER: [&str; 12] = [
    "DRILL",
    "VERDICT",
    "TOOK",
    "READS",
    "BINDING",
    "HITS",
    "FAILED",
    "STALE",
    "SLOWEST",
    "PURGED",
    "RECEIPTS",
    "COMPLETE p50 / p99 / worst (bound)",
];

/// What a drill came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Which.
    pub(crate) drill: Name,
    /// How long it took, its processes' start included.
    pub(crate) took: Duration,
    /// What was read.
    pub(crate) reads: Reads,
    /// How many scopes were accepted.
    pub(crate) purged: usize,
    /// How many calls got a receipt that is settled.
    pub(crate) receipts: usize,
    /// From a call's acceptance to its receipt.
    pub(crate) completed: Samples,
    /// What that may take.
    pub(crate) bound: Duration,
    /// How often the upstream was asked.
    pub(crate) fetches: u64,
    /// What is wrong; nothing where the drill holds.
    pub(crate) complaints: Vec<String>,
    /// What is worth telling beside.
    pub(crate) notes: Vec<String>,
}

impl Outcome {
    /// Returns the outcome of a drill that could not be run to its end.
    pub(crate) fn broken(drill: Name, took: Duration, error: &anyhow::Error) -> Self {
        Self {
            drill,
            took,
            reads: Reads::default(),
            purged: 0,
            receipts: 0,
            completed: Samples::default(),
            bound: Duration::ZERO,
            fetches: 0,
            complaints: vec![format!("it could not be run to its end: {error:#}")],
            notes: Vec::new(),
        }
    }

    /// Tells whether all that was promised was kept.
    pub(crate) fn holds(&self) -> bool {
        self.complaints.is_empty()
    }

    fn verdict(&self) -> &'static str {
        if self.holds() { "holds" } else { "FAILED" }
    }

    /// Writes the row, and the lines beneath it.
    pub(crate) fn lines(&self) -> Vec<String> {
        let times = [self.completed.median(), self.completed.at(990), self.completed.at(1000), self.bound];
        let [p50, p99, worst, bound] = times.map(ms);
        let reads = &self.reads;
        let row = row(&[
            self.drill.as_str(),
            self.verdict(),
            &format!("{} s", self.took.as_secs()),
            &reads.all.to_string(),
            &reads.binding.to_string(),
            &reads.hits.to_string(),
            &reads.failed.to_string(),
            &reads.faults.to_string(),
            &ms(reads.slowest),
            &self.purged.to_string(),
            &self.receipts.to_string(),
            &format!("{p50} / {p99} / {worst} ({bound})"),
        ]);
        let wrong = self.complaints.iter().map(|complaint| format!("  WRONG: {complaint}"));
        std::iter::once(row).chain(wrong).chain(self.notes.iter().map(|note| format!("  {note}"))).collect()
    }

    /// Writes the object.
    pub(crate) fn json(&self) -> Value {
        let seconds = |span: Duration| span.as_secs_f64();
        json!({
            "drill": self.drill.as_str(),
            "verdict": self.verdict(),
            "took_s": seconds(self.took),
            "reads": self.reads.all,
            "binding": self.reads.binding,
            "hits": self.reads.hits,
            "failed": self.reads.failed,
            "stale": self.reads.faults,
            "fenced": self.reads.fenced,
            "from_second_tier": self.reads.second,
            "slowest_s": seconds(self.reads.slowest),
            "fetches": self.fetches,
            "purged": self.purged,
            "receipts": self.receipts,
            "complete_p50_s": seconds(self.completed.median()),
            "complete_p99_s": seconds(self.completed.at(990)),
            "complete_worst_s": seconds(self.completed.at(1000)),
            "bound_s": seconds(self.bound),
            "complaints": self.complaints,
            "notes": self.notes,
        })
    }
}

/// Sets cells into their columns.
pub(crate) fn row(cells: &[&str]) -> String {
    const WIDTHS: [usize; 12] = [17, 8, 6, 8, 8, 8, 7, 6, 11, 9, 9, 0];
    let cells = cells.iter().zip(WIDTHS).map(|(cell, width)| format!("{cell:width$}"));
    cells.collect::<Vec<_>>().join(" ").trim_end().to_owned()
}
