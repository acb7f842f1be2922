//! An edge is held still for two leases while all that it holds is purged, and questions gather at its door. Then it wakes
//! up, and does not know that it slept: its first answers must not be stale.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::{join, join_all};

use super::outcome::Outcome;
use super::purges::{SCOPES, purge_and_follow};
use super::readers::read_once;
use super::scene::{HOT, Scene};
use super::stage::Stage;
use super::{FAR, Name, PAUSE, READERS, Settings, WARM, audit};
use crate::world::tap::Tap;

/// What had reached the edge before it was held still is acknowledged by then.
const UNDER_WAY: Duration = Duration::from_millis(300);

/// New connections: fewer than a system's queue of those that nobody accepts.
const NEW: usize = 50;

/// A question that waits for its answer: over which connection, for which key, and what was promised when it was sent.
type Asked = (Tap, usize, u64);

pub(super) async fn run(settings: &Settings) -> Result<Outcome> {
    let lease = settings.lease();
    let mut stage = Stage::set(settings, Name::Pause).await?;
    let scene = Arc::clone(&stage.scene);
    stage.read(READERS, PAUSE);
    stage.purge(settings.calls());
    tokio::time::sleep(WARM).await;
    let taps = open_taps(&scene).await;

    stage.world.edge(FAR)?.pause()?;
    let paused = Instant::now();
    tokio::time::sleep(UNDER_WAY).await;
    let away = Instant::now();
    join(purge_and_follow(&scene, scene.change(0, SCOPES)), purge_and_follow(&scene, scene.change(SCOPES, HOT - SCOPES))).await;
    let purged_after = paused.elapsed();
    tokio::time::sleep_until((paused + lease * 3 / 2).into()).await;
    let asked = ask_all(&scene, taps).await;
    tokio::time::sleep_until((paused + lease * 2).into()).await;
    let woken = Instant::now();
    stage.world.edge(FAR)?.resume()?;

    let answers = hear_all(&scene, asked).await;
    let back = stage.world.wait_until_all_follow().await?;
    tokio::time::sleep(WARM).await;
    let name = stage.world.edge(FAR)?.name().to_owned();
    let calls = stage.end_load().await?;
    let (fenced, wrong) = audit::of_fenced(&calls, (away, woken), &name);
    stage.complaints.extend(wrong);
    if answers < HOT {
        stage.complaints.push(format!("only {answers} of {} questions were answered when {name} woke up", HOT + NEW));
    }
    if purged_after > lease * 3 / 2 {
        stage.complaints.push(format!("what {name} held was purged only {purged_after:.1?} after it was held still"));
    }
    let still = woken - paused;
    stage.notes.push(format!(
        "{name} held still for {still:.1?}: {fenced} receipts without it, {answers} answers when it woke up, all applied {back:.1?} later"
    ));
    stage.close().await
}

/// Opens connections, each with a read behind it: they know the edge from before.
async fn open_taps(scene: &Scene) -> Vec<Tap> {
    let mut taps = Vec::new();
    for key in 0..HOT {
        let Some(address) = scene.edges.get(FAR) else { break };
        let mut tap = Tap::new(*address);
        read_once(scene, &mut tap, FAR, key).await;
        taps.push(tap);
    }
    taps
}

/// Asks for every hot key over the connections of before, and for some over new ones, all at once.
async fn ask_all(scene: &Scene, taps: Vec<Tap>) -> Vec<Asked> {
    let address = scene.edges.get(FAR).copied();
    let new = address.into_iter().flat_map(|address| (0..NEW).map(move |_| Tap::new(address)));
    let asked = taps.into_iter().chain(new).enumerate().map(|(number, mut tap)| async move {
        let key = number % HOT;
        let floor = scene.record.floor(FAR, key);
        tap.ask(key).await.inspect_err(|_| scene.record.fail(FAR)).ok().map(|()| (tap, key, floor))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Judges every answer, and returns how many came.
async fn hear_all(scene: &Scene, asked: Vec<Asked>) -> usize {
    let heard = asked.into_iter().map(|(mut tap, key, floor)| async move {
        let seen = tap.hear().await;
        match &seen {
            Ok(seen) => scene.record.judge(FAR, key, floor, seen),
            Err(_) => scene.record.fail(FAR),
        }
        seen.is_ok()
    });
    join_all(heard).await.into_iter().filter(|answered| *answered).count()
}
