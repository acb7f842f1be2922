//! Purges accepted through two origins on one control Redis that syncs every write: single purges and calls of many, at a
//! steady rate, and how long until each was accepted.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::task::JoinSet;
use wire::{Position, Receipt, ReceiptState};

use crate::control::Control;
use crate::disk::syncs;
use crate::figures::{Samples, Voice, ms};
use crate::process::{cpu_time, share_of_core};
use crate::world::{Plan, Shared, World};

/// Scopes of one call, and calls of one second: 5,000 scopes a second both times.
const SHAPES: [(usize, u32); 2] = [(100, 50), (1, 5000)];

/// What the 99th of a hundred calls may take.
const GOAL: Duration = Duration::from_millis(30);

/// Syncs before the runs: the measure beside which they are seen.
const SYNCS: usize = 500;

/// Calls under way beyond which it does not keep up, and is not worth measuring.
const UNDER_WAY: usize = 20_000;

/// How long the last receipt may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of all calls of a run.
#[derive(Debug)]
struct Run {
    accepted: Samples,
    failed: usize,
    span: Duration,
    last: Option<Position>,
}

pub(crate) async fn measure(binary: &Path, wan: Option<&Path>, seconds: u32, voice: Voice) -> Result<()> {
    let plan = Plan { lease: Duration::from_secs(5), keys: 1, shared: Shared::Control };
    let world = World::start(binary, wan, plan).await?;
    let (ways, disk) = (world.ways(), syncs(world.folder(), SYNCS)?);
    let beside =
        format!("purge-rate, two origins: {ways}; a sync of this disk takes {} at p50, {} at p99", ms(disk.median()), ms(disk.at(990)));
    voice.tell(&beside, &json!({ "what": "purge-rate, two origins: ways", "measured": beside }));
    for (scopes, calls) in SHAPES {
        let before = cpu(&world)?;
        let head = world.control.status().await?.position.seq;
        let run = call_all(&world.control, scopes, calls, seconds).await?;
        tell(&world, &run, (scopes, calls, seconds), voice)?;
        let share = share_of_core(cpu(&world)?.saturating_sub(before), run.span);
        voice.say(
            "purge-rate, two origins: their share of a core, both together",
            &format!("{:.1} %", share * 100.0),
            "200 %",
            share <= 2.0,
        );
        settle(&world, &run, head).await?;
    }
    Ok(())
}

fn tell(world: &World, run: &Run, (scopes, calls, seconds): (usize, u32, u32), voice: Voice) -> Result<()> {
    let rate = f64::from(u32::try_from(run.accepted.count() * scopes)?) / run.span.as_secs_f64();
    let wanted = f64::from(calls * u32::try_from(scopes)?);
    let (p50, p99, worst) = (ms(run.accepted.median()), ms(run.accepted.at(990)), ms(run.accepted.at(1000)));
    let measured = format!("{rate:.0}/s, p50 {p50}, p99 {p99}, worst {worst}, {} failed", run.failed);
    let what = format!("purge-rate: {} origins, {seconds} s, {scopes} a call", world.origins.len());
    let holds = rate >= wanted * 0.99 && run.accepted.at(990) < GOAL && run.failed == 0;
    voice.say(&what, &measured, &format!("{wanted:.0}/s, p99 {}", ms(GOAL)), holds);
    Ok(())
}

/// Waits until the last of it is complete, and makes sure that the journal has grown by all of it.
async fn settle(world: &World, run: &Run, head: u64) -> Result<()> {
    let last = run.last.context("no purge was accepted")?;
    let receipt = world.control.receipt(&last, PATIENCE).await?;
    ensure!(receipt.state == ReceiptState::Complete, "purge {} is {:?}", last.seq, receipt.state);
    let grown = world.control.status().await?.position.seq.saturating_sub(head);
    ensure!(grown >= run.accepted.count() as u64, "{} calls were accepted, and the journal has grown by {grown}", run.accepted.count());
    Ok(())
}

fn cpu(world: &World) -> Result<Duration> {
    world.origins.iter().map(|origin| cpu_time(origin.id()?)).sum()
}

/// Sends calls at a rate, each to another origin than the one before.
async fn call_all(control: &Control, scopes: usize, calls: u32, seconds: u32) -> Result<Run> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / calls);
    let mut under_way = JoinSet::new();
    let mut run = Run { accepted: Samples::default(), failed: 0, span: Duration::ZERO, last: None };
    let begun = Instant::now();
    let mut end = begun;
    for number in 0..calls * seconds {
        ticks.tick().await;
        let control = control.clone();
        under_way.spawn(async move { call(&control, scopes, number).await });
        ensure!(under_way.len() < UNDER_WAY, "{UNDER_WAY} calls are under way after {number}: it does not keep up");
        while let Some(ended) = under_way.try_join_next() {
            end = end.max(run.take(ended?));
        }
    }
    while let Some(ended) = under_way.join_next().await {
        end = end.max(run.take(ended?));
    }
    run.span = end.saturating_duration_since(begun).max(Duration::from_secs(u64::from(seconds)));
    Ok(run)
}

/// Purges, and returns when it was accepted and how long that took.
async fn call(control: &Control, scopes: usize, number: u32) -> Result<(Receipt, Instant, Duration)> {
    let tags = (0..scopes).map(|scope| format!("of-two-{number}-{scope}")).collect();
    let begun = Instant::now();
    let receipt = control.purge(tags).await?;
    Ok((receipt, Instant::now(), begun.elapsed()))
}

impl Run {
    /// Takes in what came of a call, and returns when it ended.
    fn take(&mut self, called: Result<(Receipt, Instant, Duration)>) -> Instant {
        let Ok((receipt, at, took)) = called else {
            self.failed += 1;
            return Instant::now();
        };
        self.accepted.add(took);
        if self.last.is_none_or(|last| last.seq < receipt.seq) {
            self.last = Some(receipt.position);
        }
        at
    }
}
