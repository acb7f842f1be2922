//! Measures the promises of SPECIFICATION.md on this machine: real processes of the release binary,
//! medians and spread, the goal beside each figure. And drills: what is promised of purges, tried while things break.

mod process;
mod chance;
mod disk;
mod figures;
mod town;
mod control;
mod engines;
mod world;
mod start;
mod publish;
mod purge;
mod memory;
mod crowd;
mod attacks;
mod purge_rate;
mod purge_origins;
mod catch_up;
mod followers;
mod misses;
mod metrics;
mod upstream;
mod visitor;
mod second_tier;
mod dead_redis;
mod drills;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use figures::Voice;

/// A drill failed.
const FAILED: u8 = 2;

/// What to measure; all of it but the drills by default.
///
/// Exit codes: 0 done; 1 it could not be measured; 2 a drill failed.
#[derive(Debug, Parser)]
#[command(name = "atoll-bench", version)]
struct Arguments {
    /// What to measure.
    #[arg(value_enum)]
    what: Vec<What>,
    /// The binary; by default the `atoll` beside this one.
    #[arg(long)]
    atoll: Option<PathBuf>,
    /// The WAN emulator, for drills and purge-rate; without it, or where it can't run, cables on loopback do.
    #[arg(long, value_name = "WAN.PY")]
    wan: Option<PathBuf>,
    /// The drill to run; may be repeated.
    #[arg(long, value_enum, value_name = "DRILL")]
    only: Vec<drills::Name>,
    /// Lets drills do less, in less time.
    #[arg(long)]
    short: bool,
    /// Runs the drill alone in which the checker is lied to.
    #[arg(long)]
    self_test: bool,
    /// How long purge-rate purges, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Over how many origins purge-rate purges: one by itself, or two on a Redis.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=2))]
    origins: u32,
    /// Prints JSON: one object for the drills, one per line for purge-rate, catch-up, followers, misses, second-tier and failover.
    #[arg(long)]
    json: bool,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// From the start of `atoll up` to its first answers.
    Start,
    /// 10,000 files of 10 KB, cold and with one file changed.
    Publish,
    /// From a purge to the last of three edges' acknowledgement.
    Purge,
    /// An edge's memory under a working set ten times larger.
    Memory,
    /// Thousands of clients that miss one object at once.
    Crowd,
    /// An edge's memory under attacks.
    Attacks,
    /// 10,000 scopes a second over three regions.
    PurgeRate,
    /// An edge that missed 36,000 purges.
    CatchUp,
    /// 1,000 followers of one origin.
    Followers,
    /// What the purge table's size costs in misses.
    Misses,
    /// What a second tier saves, and what a dead one costs; needs a redis-server.
    SecondTier,
    /// An origin dies, and its followers move to another one; needs a redis-server.
    Failover,
    /// What is promised of purges, while things break; only when it is named.
    Drills,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    process::raise_open_files();
    let binary = match &arguments.atoll {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("atoll"),
    };
    anyhow::ensure!(binary.exists(), "there is no {}: run `cargo build --release` first", binary.display());
    let wanted = |what| if arguments.what.is_empty() { what != What::Drills } else { arguments.what.contains(&what) };
    for what in What::value_variants().iter().copied().filter(|what| wanted(*what)) {
        if what == What::Drills {
            if !Box::pin(drill(&binary, &arguments)).await {
                return Ok(ExitCode::from(FAILED));
            }
        } else {
            Box::pin(measure(what, &binary, &arguments)).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(what: What, binary: &Path, arguments: &Arguments) -> Result<()> {
    let voice = Voice::new(arguments.json);
    match what {
        What::Start => start::measure(binary).await,
        What::Publish => publish::measure(binary).await,
        What::Purge => purge::measure(binary).await,
        What::Memory => memory::measure(binary).await,
        What::Crowd => crowd::measure(binary).await,
        What::Attacks => attacks::measure(binary).await,
        What::PurgeRate if arguments.origins > 1 => {
            purge_origins::measure(binary, arguments.wan.as_deref(), arguments.seconds, voice).await
        }
        What::PurgeRate => purge_rate::measure(binary, arguments.wan.as_deref(), arguments.seconds, voice).await,
        What::CatchUp => catch_up::measure(binary, voice).await,
        What::Followers => followers::measure(binary, voice).await,
        What::Misses => misses::measure(voice),
        What::SecondTier => second_tier::measure(binary, voice).await,
        What::Failover => drills::failover::measure(binary, arguments.wan.as_deref(), voice).await,
        What::Drills => Ok(()),
    }
}

/// Runs drills; tells whether all of them hold.
async fn drill(binary: &Path, arguments: &Arguments) -> bool {
    let settings = drills::Settings { binary: binary.to_owned(), wan: arguments.wan.clone(), short: arguments.short };
    let only = if arguments.self_test { vec![drills::Name::Liar] } else { arguments.only.clone() };
    drills::run(&settings, &only, arguments.json).await
}
