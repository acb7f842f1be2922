//! Drills over real processes and sockets: what is promised of purges, tried while things break.
//!
//! Values change at the upstream, then their purge is sent. Once its receipt is there, no read that begins may bring an
//! older value from any edge; who reads knows that floor, and every answer is judged by it.

mod record;
mod forged;
mod audit;
mod scene;
mod readers;
mod purges;
mod outcome;
mod stage;
mod partition;
mod kills;
mod pause;
mod restarts;
mod slow_fills;
mod liar;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use serde_json::json;

use crate::figures::line;
use outcome::{HEADER, Outcome, row};

/// A drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// A region is cut off from the origin, and healed.
    Partition,
    /// Each process is killed in turn.
    Kill,
    /// An edge is held still for two leases, and wakes up.
    Pause,
    /// The origin is restarted four times in a row.
    Restarts,
    /// The upstream takes up to 2 s for each answer.
    SlowFills,
    /// The checker is lied to, and must notice.
    Liar,
}

impl Name {
    /// Returns the name as it is typed.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Restarts => "restarts",
            Self::SlowFills => "slow-fills",
            Self::Liar => "liar",
        }
    }
}

/// What all drills go by.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The `atoll` to run.
    pub(crate) binary: PathBuf,
    /// The WAN emulator, where there is one.
    pub(crate) wan: Option<PathBuf>,
    /// Whether less is done, in less time.
    pub(crate) short: bool,
}

/// Readers of one edge, and the pause of each between two reads.
const READERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(10);

/// How long reading and purging goes on before something breaks, and behind it.
const WARM: Duration = Duration::from_secs(3);

/// The region that things happen to: the one that is farthest away.
const FAR: usize = 2;

impl Settings {
    /// The longer or the shorter of two.
    fn pick<T>(&self, long: T, short: T) -> T {
        if self.short { short } else { long }
    }

    fn lease(&self) -> Duration {
        self.pick(Duration::from_secs(5), Duration::from_secs(2))
    }

    fn keys(&self) -> usize {
        self.pick(10_000, 4000)
    }

    /// Calls a second, of 100 scopes each.
    fn calls(&self) -> u32 {
        self.pick(50, 10)
    }
}

/// Runs the drills, prints what they came to, and tells whether all of them hold.
pub(crate) async fn run(settings: &Settings, only: &[Name], json: bool) -> bool {
    let chosen: Vec<Name> = Name::value_variants().iter().copied().filter(|name| only.is_empty() || only.contains(name)).collect();
    let mut outcomes = Vec::new();
    if !json {
        line(&row(&HEADER));
    }
    for name in chosen {
        let begun = Instant::now();
        let outcome = match run_one(settings, name).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::broken(name, begun.elapsed(), &error),
        };
        if !json {
            outcome.lines().iter().for_each(|text| line(text));
        }
        outcomes.push(outcome);
    }
    if json {
        line(&json!({ "drills": outcomes.iter().map(Outcome::json).collect::<Vec<_>>() }).to_string());
    }
    outcomes.iter().all(Outcome::holds)
}

async fn run_one(settings: &Settings, name: Name) -> Result<Outcome> {
    match name {
        Name::Partition => Box::pin(partition::run(settings)).await,
        Name::Kill => Box::pin(kills::run(settings)).await,
        Name::Pause => Box::pin(pause::run(settings)).await,
        Name::Restarts => Box::pin(restarts::run(settings)).await,
        Name::SlowFills => Box::pin(slow_fills::run(settings)).await,
        Name::Liar => Box::pin(liar::run(settings)).await,
    }
}
