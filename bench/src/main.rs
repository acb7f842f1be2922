//! Measures the promises of SPECIFICATION.md on this machine: real processes of the release binary,
//! medians and spread, the goal beside each figure.

mod town;
mod figures;
mod start;
mod publish;
mod purge;
mod memory;
mod crowd;
mod attacks;

use anyhow::Result;
use clap::{Parser, ValueEnum};

/// What to measure; all of it by default.
#[derive(Debug, Parser)]
#[command(name = "atoll-bench", version)]
struct Arguments {
    /// What to measure.
    #[arg(value_enum)]
    what: Vec<What>,
    /// The binary; by default the `atoll` beside this one.
    #[arg(long)]
    atoll: Option<std::path::PathBuf>,
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
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let binary = match arguments.atoll {
        Some(binary) => binary,
        None => std::env::current_exe()?.with_file_name("atoll"),
    };
    anyhow::ensure!(binary.exists(), "there is no {}: run `cargo build --release` first", binary.display());
    let wanted = |what| arguments.what.is_empty() || arguments.what.contains(&what);
    if wanted(What::Start) {
        start::measure(&binary).await?;
    }
    if wanted(What::Publish) {
        publish::measure(&binary).await?;
    }
    if wanted(What::Purge) {
        purge::measure(&binary).await?;
    }
    if wanted(What::Memory) {
        memory::measure(&binary).await?;
    }
    if wanted(What::Crowd) {
        crowd::measure(&binary).await?;
    }
    if wanted(What::Attacks) {
        attacks::measure(&binary).await?;
    }
    Ok(())
}
