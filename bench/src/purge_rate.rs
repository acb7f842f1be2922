//! 10,000 scopes a second accepted by one origin with an edge in each of three regions: how long until a call is on the
//! disk, and until each region has applied it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::task::JoinSet;
use wire::{FollowerState, Receipt, ReceiptState};

use crate::control::Control;
use crate::disk::syncs;
use crate::figures::{Samples, Voice, ms};
use crate::process::{cpu_time, share_of_core};
use crate::world::{Plan, REGIONS, Shared, World};

/// Scopes of one call, and calls of one second.
const SCOPES: usize = 100;
const CALLS: u32 = 100;

/// Syncs before the run and behind it.
const SYNCS: usize = 500;

/// What the figures may take beyond the disk and the way.
const BESIDE_THE_DISK: Duration = Duration::from_millis(10);
const BESIDE_THE_WAY: Duration = Duration::from_millis(50);

/// A call that was accepted and applied.
#[derive(Debug)]
struct Done {
    took: Duration,
    accepted: Instant,
    receipt: Receipt,
}

/// What came of all calls.
#[derive(Debug, Default)]
struct Seen {
    accepted: Samples,
    applied: BTreeMap<String, Samples>,
    /// Rows of receipts that do not tell how long it took: such an edge had lost its lease.
    fenced: usize,
}

pub(crate) async fn measure(binary: &Path, wan: Option<&Path>, seconds: u32, voice: Voice) -> Result<()> {
    let world = World::start(binary, wan, Plan { lease: Duration::from_secs(5), keys: 1, shared: Shared::Nothing }).await?;
    let ways = world.ways();
    voice.tell(&format!("purge-rate: {ways}"), &json!({ "what": "purge-rate: ways", "measured": ways }));
    let mut disk = syncs(world.folder(), SYNCS)?;
    let origin = world.origins.first().context("an origin")?.id()?;
    let (cpu, begun) = (cpu_time(origin)?, Instant::now());
    let (calls, span) = call_all(&world.control, CALLS * seconds).await?;
    let share = share_of_core(cpu_time(origin)?.saturating_sub(cpu), begun.elapsed());
    disk.add_all(&syncs(world.folder(), SYNCS)?);

    let seen = sort(calls);
    let rate = f64::from(u32::try_from(seen.accepted.count() * SCOPES)?) / span.as_secs_f64();
    let measured = format!("{rate:.0}/s, p50 {}, p99 {}", ms(seen.accepted.median()), ms(seen.accepted.at(990)));
    let in_time = seen.accepted.at(990) <= disk.at(990) + BESIDE_THE_DISK;
    let wanted = f64::from(CALLS * u32::try_from(SCOPES)?);
    let goal = format!("{wanted:.0}/s, p99 {} (disk) + 10 ms", ms(disk.at(990)));
    voice.say(&format!("purge-rate: scopes accepted for {seconds} s, {SCOPES} a call"), &measured, &goal, rate >= wanted * 0.99 && in_time);
    for (number, region) in REGIONS.iter().enumerate() {
        let name = format!("{}-1", region.name);
        let (median, most) = (world.in_force_within(number, 500.0).await?, world.in_force_within(number, 990.0).await?);
        let goal = region.one_way() + BESIDE_THE_WAY;
        let what = format!("purge-rate: in force at {name}, {} ms one way", region.one_way_ms);
        voice.say(&what, &format!("p50 up to {}, p99 up to {}", ms(median), ms(most)), &format!("p99 {}", ms(goal)), most <= goal);
        let applied = seen.applied.get(&name).with_context(|| format!("{name} applied nothing"))?;
        let (p50, p99, worst) = (ms(applied.median()), ms(applied.at(990)), ms(applied.at(1000)));
        // An ack that is under way when a purge comes is waited for, then the next one goes: two round trips.
        let most = region.one_way() * 4 + BESIDE_THE_WAY;
        let what = format!("purge-rate: acknowledged by {name}, by the receipts");
        voice.say(&what, &format!("p50 {p50}, p99 {p99}, worst {worst}"), &format!("p99 {}", ms(most)), applied.at(990) <= most);
    }
    voice.say("purge-rate: the origin's share of a core", &format!("{:.1} %", share * 100.0), "100 %", share <= 1.0);
    voice.say("purge-rate: receipts in which an edge was fenced", &seen.fenced.to_string(), "0", seen.fenced == 0);
    Ok(())
}

/// Sends calls at the rate, and returns them with the time until the last was accepted.
async fn call_all(control: &Control, count: u32) -> Result<(Vec<Done>, Duration)> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CALLS);
    let mut calls = JoinSet::new();
    let mut done = Vec::new();
    let begun = Instant::now();
    for number in 0..count {
        ticks.tick().await;
        let control = control.clone();
        calls.spawn(async move { call(&control, number).await });
        while let Some(ended) = calls.try_join_next() {
            done.push(ended??);
        }
    }
    while let Some(ended) = calls.join_next().await {
        done.push(ended??);
    }
    let last = done.iter().map(|done| done.accepted).max().context("a call")?;
    Ok((done, (last - begun).max(Duration::from_secs(1) * count / CALLS)))
}

async fn call(control: &Control, number: u32) -> Result<Done> {
    let tags = (0..SCOPES).map(|scope| format!("call-{number}-{scope}")).collect();
    let begun = Instant::now();
    let accepted_as = control.purge(tags).await?;
    let seq = accepted_as.seq;
    let (took, accepted) = (begun.elapsed(), Instant::now());
    let receipt = control.receipt(&accepted_as.position, Duration::from_secs(15)).await?;
    ensure!(receipt.state == ReceiptState::Complete, "purge {seq} is {:?}", receipt.state);
    Ok(Done { took, accepted, receipt })
}

fn sort(calls: Vec<Done>) -> Seen {
    let mut seen = Seen::default();
    for Done { took, receipt, .. } in calls {
        seen.accepted.add(took);
        for row in receipt.followers {
            match (row.state, row.after_ms) {
                (FollowerState::Applied, Some(after)) => {
                    seen.applied.entry(row.name.to_string()).or_default().add(Duration::from_millis(after));
                }
                _ => seen.fenced += 1,
            }
        }
    }
    seen
}
