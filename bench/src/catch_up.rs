//! An edge was away while 36,000 purges were appended: how long from its start until it holds a lease with all applied.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, stream};

use crate::control::Control;
use crate::figures::{Samples, Voice, ms};
use crate::town::Town;

const PURGES: u64 = 36_000;
const ROUNDS: usize = 3;

/// Calls side by side: the origin writes what waits in one go.
const SIDE_BY_SIDE: usize = 256;

const GOAL: Duration = Duration::from_secs(3);

/// How long it may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn measure(binary: &Path, voice: Voice) -> Result<()> {
    let mut town = Town::new(binary, "64 MiB", "")?;
    town.spawn(&["origin"])?;
    town.wait_for(&format!("http://{}/readyz", town.origin)).await?;
    let control = Control::new(format!("http://{}", town.origin), &town.admin_token()?)?;
    let mut edge = town.spawn(&["edge", "e1"])?;
    wait_for_lease(&control, 0).await?;
    let mut samples = Samples::default();
    for round in 0..ROUNDS {
        town.kill(edge)?;
        let head = append(&control, round).await?;
        let begun = Instant::now();
        edge = town.spawn(&["edge", "e1"])?;
        wait_for_lease(&control, head).await?;
        samples.add(begun.elapsed());
    }
    let measured = format!("median {}, worst {}", ms(samples.median()), ms(samples.at(1000)));
    voice.say("catch-up: an edge that missed 36,000 purges holds a lease", &measured, "3 s", samples.at(1000) < GOAL);
    Ok(())
}

/// Appends the purges, one event each, and returns the journal's last seq.
async fn append(control: &Control, round: usize) -> Result<u64> {
    let calls = stream::iter(0..PURGES).map(|number| control.purge(vec![format!("round-{round}-{number}")]));
    let mut answers = calls.buffer_unordered(SIDE_BY_SIDE);
    let mut head = 0;
    while let Some(answer) = answers.next().await {
        head = head.max(answer?.seq);
    }
    Ok(head)
}

/// Waits until the edge holds a lease and has applied all up to `head`.
async fn wait_for_lease(control: &Control, head: u64) -> Result<()> {
    let begun = Instant::now();
    loop {
        let status = control.status().await.context("failed to ask the origin")?;
        let there = status.followers.iter().any(|edge| edge.live && edge.lag == 0 && edge.applied >= head);
        if there {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "no lease with all applied within {PATIENCE:?}: {status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
