//! Many read while every answer of the upstream takes up to 2 s, so that old values arrive long after their purge has
//! completed: none of them may be kept, and none given to who came behind the purge.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::outcome::Outcome;
use super::stage::Stage;
use super::{Name, Settings};

/// Readers of one edge; most of them wait most of the time.
const READERS: usize = 100;

/// The slowest answer.
const SLOWEST: Duration = Duration::from_secs(2);

/// Calls a second: a key lives for some seconds, so that there are hits, fills and purges of the same key side by side.
const CALLS: u32 = 10;

/// How long the reads may take.
const PATIENCE: Duration = Duration::from_secs(900);

pub(super) async fn run(settings: &Settings) -> Result<Outcome> {
    let wanted = settings.pick(100_000, 10_000);
    let mut stage = Stage::set(settings, Name::SlowFills).await?;
    stage.scene.truth.slow_down(SLOWEST);
    stage.read(READERS, Duration::ZERO);
    stage.purge(CALLS);
    let begun = Instant::now();
    loop {
        let reads = stage.scene.record.reads();
        if reads.all >= wanted {
            break;
        }
        ensure!(begun.elapsed() < PATIENCE, "{} of {wanted} reads within {PATIENCE:?}", reads.all);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let fetches = stage.scene.truth.asked();
    stage.notes.push(format!("{wanted} reads within {} s, {fetches} fetches of 0 to 2 s", begun.elapsed().as_secs()));
    stage.close().await
}
