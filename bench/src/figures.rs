//! How figures are printed: median, spread, goal, verdict.

use std::time::Duration;

use serde_json::{Value, json};

/// Samples of one figure.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub(crate) fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// Adds those of another.
    pub(crate) fn add_all(&mut self, others: &Self) {
        self.0.extend_from_slice(&others.0);
    }

    /// Returns how many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
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

/// Prints one line.
#[expect(clippy::print_stdout, reason = "figures are what this program prints")]
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// To whom figures are told: people, or a program that reads one JSON object per line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voice {
    json: bool,
}

impl Voice {
    /// Speaks JSON or to people.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Tells a figure, what was promised, and whether it holds.
    pub(crate) fn say(self, what: &str, measured: &str, goal: &str, holds: bool) {
        if self.json {
            line(&json!({ "what": what, "measured": measured, "goal": goal, "holds": holds }).to_string());
        } else {
            say(what, measured, goal, holds);
        }
    }

    /// Tells something in words to people, and as a value to programs.
    pub(crate) fn tell(self, words: &str, value: &Value) {
        if self.json { line(&value.to_string()) } else { line(words) }
    }
}

/// Milliseconds with two digits.
pub(crate) fn ms(span: Duration) -> String {
    format!("{:.2} ms", span.as_secs_f64() * 1000.0)
}
