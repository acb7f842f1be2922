//! A figure: origins are killed in turn while edges answer readers. How long until every edge follows the other one, and how
//! many answers came from an edge without a lease.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::task::JoinSet;
use wire::{FollowerState, Receipt, ReceiptState};

use super::PAUSE;
use super::readers::read;
use super::scene::Scene;
use crate::figures::{Samples, Voice, ms};
use crate::world::{Plan, Shared, World};

const LEASE: Duration = Duration::from_secs(5);
const KEYS: usize = 400;
const READERS: usize = 4;
const ROUNDS: usize = 6;

/// How long a purge through the other origin may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn measure(binary: &Path, wan: Option<&Path>, voice: Voice) -> Result<()> {
    let mut world = World::start(binary, wan, Plan { lease: LEASE, keys: KEYS, shared: Shared::Control }).await?;
    let ways = world.ways();
    voice.tell(&format!("failover: {ways}"), &json!({ "what": "failover: ways", "measured": ways }));
    let (scene, mut readers) = (Arc::new(Scene::of(&world)), JoinSet::new());
    for edge in 0..scene.edges.len() {
        for reader in 0..READERS {
            readers.spawn(read(Arc::clone(&scene), edge, u64::try_from(reader)?, PAUSE));
        }
    }
    let mut moved = Samples::default();
    for round in 0..ROUNDS {
        // An origin that was just started reports nothing complete for a lease: that is no part of this.
        tokio::time::sleep(LEASE + world.plan.margin()).await;
        let number = round % world.origins.len().max(1);
        world.origin(number)?.kill()?;
        let begun = Instant::now();
        moved.add(until_all_applied(&world, round, begun).await?);
        // Whoever has lost its lease by now shows it by its answers.
        tokio::time::sleep_until((begun + LEASE * 3 / 2).into()).await;
        world.start_origin(number).await?;
        world.wait_until_all_follow().await?;
    }
    scene.end();
    while readers.join_next().await.is_some() {}
    let reads = scene.record.reads();
    ensure!(reads.all > 0, "nobody read anything");
    let measured = format!("median {}, worst {}", ms(moved.median()), ms(moved.at(1000)));
    voice.say(
        "failover: an origin dies, every edge follows the other",
        &measured,
        &format!("a lease, {}", ms(LEASE)),
        moved.at(1000) < LEASE,
    );
    let measured = format!("{} of {} answers, {ROUNDS} times", reads.fenced, reads.all);
    voice.say("failover: answers of edges without a lease meanwhile", &measured, "0", reads.fenced == 0);
    voice.say("failover: reads that failed meanwhile", &reads.failed.to_string(), "0", reads.failed == 0);
    Ok(())
}

/// Purges until a purge was applied by every edge, which each tells the origin that is left.
async fn until_all_applied(world: &World, round: usize, begun: Instant) -> Result<Duration> {
    loop {
        let receipt = world.control.purge_and_wait(vec![format!("round-{round}")], PATIENCE).await;
        if receipt.as_ref().is_ok_and(applied_by_all) {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < PATIENCE, "not every edge applied a purge within {PATIENCE:?}: {receipt:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn applied_by_all(receipt: &Receipt) -> bool {
    receipt.state == ReceiptState::Complete && receipt.followers.iter().all(|row| row.state == FollowerState::Applied)
}
