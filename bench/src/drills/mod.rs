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
mod second_tier;
mod control_redis;
mod origins;
mod pages;
mod publishing;
mod liar;
pub(crate) mod failover;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use serde_json::json;

use crate::figures::line;
use crate::world::Shared;
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
    /// The Redis that two edges share is killed.
    L2Killed,
    /// It is held still.
    L2Stopped,
    /// It answers nobody for a while.
    L2Paused,
    /// It is emptied again and again.
    L2Flushed,
    /// It has no room.
    L2Full,
    /// It is asleep half of the time.
    L2Slow,
    /// An older dump of it is put back.
    L2Restored,
    /// The Redis under two origins is killed.
    ControlKilled,
    /// It answers nobody for a while.
    ControlPaused,
    /// Older files of it are put back while both origins live.
    ControlRestored,
    /// Each of two origins is killed in turn while purges go on.
    OriginKilled,
    /// The origin to which a publish was sent is killed meanwhile.
    OriginPublishing,
    /// The store for blobs answers 500.
    StoreFails,
    /// The store for blobs takes its time.
    StoreSlow,
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
            Self::L2Killed => "l2-killed",
            Self::L2Stopped => "l2-stopped",
            Self::L2Paused => "l2-paused",
            Self::L2Flushed => "l2-flushed",
            Self::L2Full => "l2-full",
            Self::L2Slow => "l2-slow",
            Self::L2Restored => "l2-restored",
            Self::ControlKilled => "control-killed",
            Self::ControlPaused => "control-paused",
            Self::ControlRestored => "control-restored",
            Self::OriginKilled => "origin-killed",
            Self::OriginPublishing => "origin-publishing",
            Self::StoreFails => "store-fails",
            Self::StoreSlow => "store-slow",
            Self::Liar => "liar",
        }
    }

    /// Returns the engines that it needs.
    fn shared(self) -> Shared {
        match self {
            Self::Partition | Self::Kill | Self::Pause | Self::Restarts | Self::SlowFills | Self::Liar => Shared::Nothing,
            Self::L2Killed | Self::L2Stopped | Self::L2Paused | Self::L2Flushed | Self::L2Full | Self::L2Slow | Self::L2Restored => {
                Shared::SecondTier
            }
            Self::ControlKilled | Self::ControlPaused | Self::ControlRestored | Self::OriginKilled => Shared::Control,
            Self::OriginPublishing | Self::StoreFails | Self::StoreSlow => Shared::ControlAndStore,
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
        Name::L2Killed => to_second_tier(settings, name, second_tier::Harm::Killed).await,
        Name::L2Stopped => to_second_tier(settings, name, second_tier::Harm::Stopped).await,
        Name::L2Paused => to_second_tier(settings, name, second_tier::Harm::Paused).await,
        Name::L2Flushed => to_second_tier(settings, name, second_tier::Harm::Flushed).await,
        Name::L2Full => to_second_tier(settings, name, second_tier::Harm::Full).await,
        Name::L2Slow => to_second_tier(settings, name, second_tier::Harm::Slow).await,
        Name::L2Restored => to_second_tier(settings, name, second_tier::Harm::Restored).await,
        Name::ControlKilled => Box::pin(control_redis::run(settings, name, control_redis::Harm::Killed)).await,
        Name::ControlPaused => Box::pin(control_redis::run(settings, name, control_redis::Harm::Paused)).await,
        Name::ControlRestored => Box::pin(control_redis::run(settings, name, control_redis::Harm::Restored)).await,
        Name::OriginKilled => Box::pin(origins::run(settings)).await,
        Name::OriginPublishing => Box::pin(publishing::run(settings, name, publishing::Harm::OriginKilled)).await,
        Name::StoreFails => Box::pin(publishing::run(settings, name, publishing::Harm::StoreFails)).await,
        Name::StoreSlow => Box::pin(publishing::run(settings, name, publishing::Harm::StoreSlow)).await,
        Name::Liar => Box::pin(liar::run(settings)).await,
    }
}

async fn to_second_tier(settings: &Settings, name: Name, harm: second_tier::Harm) -> Result<Outcome> {
    Box::pin(second_tier::run(settings, name, harm)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_is_called_in_the_table_as_it_is_typed() {
        for name in Name::value_variants() {
            let typed = name.to_possible_value().unwrap();
            assert_eq!(typed.get_name(), name.as_str());
        }
    }
}
