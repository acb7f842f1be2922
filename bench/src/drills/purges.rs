//! Those who purge: calls at a steady rate, each of tags whose values were changed before, and each followed until its
//! receipt says no longer `pending`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use wire::ReceiptState;

use super::record::Demand;
use super::scene::Scene;
use crate::chance::Chance;
use crate::world::truth::tag;

/// Scopes of one call.
pub(crate) const SCOPES: usize = 100;

/// Calls that are followed at a time: at 50 a second more than a partition lets come together.
const FOLLOWED: usize = 2000;

/// How long one question about a receipt waits. What single edges have applied is heard that often.
const LOOK: Duration = Duration::from_secs(1);

/// The pause behind a question that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Purges until the scene is over, and then follows what is still under way.
pub(crate) async fn purge(scene: Arc<Scene>, calls_per_second: u32, seed: u64) {
    let mut chance = Chance::new(seed);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / calls_per_second.max(1));
    let mut calls = JoinSet::new();
    while !scene.is_over() {
        ticks.tick().await;
        while calls.try_join_next().is_some() {}
        if calls.len() < FOLLOWED {
            let demands = scene.change(chance.place(scene.truth.keys()), SCOPES);
            let scene = Arc::clone(&scene);
            calls.spawn(async move { purge_and_follow(&scene, demands).await });
        }
    }
    while calls.join_next().await.is_some() {}
}

/// Purges what was changed, and follows the call for some bounds at the most.
pub(crate) async fn purge_and_follow(scene: &Scene, demands: Vec<Demand>) {
    let tags = demands.iter().map(|(key, _)| tag(*key)).collect();
    let Ok(receipt) = scene.control.purge(tags).await else {
        scene.record.refuse();
        return;
    };
    let position = receipt.position;
    let number = scene.record.accept(receipt.seq, demands);
    let begun = Instant::now();
    while begun.elapsed() < scene.bound * 4 {
        match scene.control.receipt(&position, LOOK).await {
            Ok(receipt) => {
                let is_settled = receipt.state != ReceiptState::Pending;
                scene.record.hear(number, receipt);
                if is_settled {
                    return;
                }
            }
            Err(_) => tokio::time::sleep(AFTER_FAILURE).await,
        }
    }
}
