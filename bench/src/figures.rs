//! How figures are printed: median, spread, goal, verdict.

use std::time::Duration;

/// Samples of one figure.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub(crate) fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// Returns the sample below which `share` of a thousand lie.
    pub(crate) fn at(&self, share: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * share / 1000).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or_default()
    }

    /// Returns the middle one.
    pub(crate) fn median(&self) -> Duration {
        self.at(500)
    }
}

/// Prints a figure, what was promised, and whether it holds.
#[expect(clippy::print_stdout, reason = "figures are what this program prints")]
pub(crate) fn say(what: &str, measured: &str, goal: &str, holds: bool) {
    let verdict = if holds { "holds" } else { "MISSED" };
    println!("{what:58} {measured:38} goal {goal:28} {verdict}");
}

/// Milliseconds with two digits.
pub(crate) fn ms(span: Duration) -> String {
    format!("{:.2} ms", span.as_secs_f64() * 1000.0)
}
