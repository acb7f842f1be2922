//! The checker is lied to: receipts for purges that were never sent, and receipts that no origin would write. Each lie must
//! be noticed, or no other drill's verdict is worth anything.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use wire::{FollowerState, ReceiptState};

use super::outcome::Outcome;
use super::purges::purge_and_follow;
use super::readers::read_once;
use super::record::{Call, Reads};
use super::scene::Scene;
use super::stage::Stage;
use super::{FAR, Name, Settings, audit, forged};
use crate::world::tap::Tap;

/// Keys that are read.
const KEYS: usize = 50;

/// An event that the journal does not hold.
const NEVER: u64 = 1_000_000;

pub(super) async fn run(settings: &Settings) -> Result<Outcome> {
    let mut stage = Stage::set(settings, Name::Liar).await?;
    let honest = Arc::clone(&stage.scene);
    let lied_to = Scene::of(&stage.world);
    read_all(&lied_to).await;
    let hits = lied_to.record.reads().hits;

    // The values change, nobody purges them, and a receipt says that all is well.
    let call = lied_to.record.accept(NEVER, lied_to.change(0, KEYS));
    lied_to.record.hear(call, forged::receipt(NEVER, ReceiptState::Complete, &[])?);
    read_all(&lied_to).await;

    // An edge that lost its lease meanwhile asked the upstream, and its answer was no lie.
    let reads = lied_to.record.reads();
    let lies = reads.hits - hits;
    if lies == 0 || reads.faults != lies {
        stage.complaints.push(format!("of {lies} answers from caches that were never purged {} were noticed", reads.faults));
    }
    let name = stage.world.edge(FAR)?.name().to_owned();
    let noticed = notice_each(&stage, &lied_to, &name).await?;
    let unnoticed = noticed.iter().filter(|(_, said)| said.is_empty()).map(|(lie, _)| format!("a lie went unnoticed: {lie}"));
    stage.complaints.extend(unnoticed);
    stage.notes.push(format!("{} stale answers behind a forged receipt noticed, of {lies}", reads.faults));
    stage.notes.extend(noticed.iter().flat_map(|(_, said)| said).map(|said| format!("noticed: {said}")));

    // The same reads with the truth told, for which there is nothing to complain of.
    purge_and_follow(&honest, honest.change(0, KEYS)).await;
    read_all(&honest).await;
    read_all(&honest).await;
    stage.close().await
}

/// Lies that need no process, each with what was said about it.
async fn notice_each(stage: &Stage, lied_to: &Scene, name: &str) -> Result<Vec<(&'static str, Vec<String>)>> {
    let journal = stage.world.control.journal().await?;
    let calls = lied_to.record.calls();
    let call = calls.first().context("a forged call")?;
    let settled = |state: ReceiptState, rows: &[(&str, FollowerState)], after: Duration| -> Result<[Call; 1]> {
        let mut forged = call.clone();
        forged.settled = Some((forged.accepted + after, forged::receipt(NEVER, state, rows)?));
        Ok([forged])
    };
    let bound = lied_to.bound;
    let away = (call.accepted, call.accepted + bound);
    let late = settled(ReceiptState::Complete, &[], bound * 2)?;
    let pending = settled(ReceiptState::Complete, &[(name, FollowerState::Pending)], bound / 2)?;
    let partial = settled(ReceiptState::Partial, &[(name, FollowerState::Fenced)], bound / 2)?;
    let failed = Reads { failed_at: vec![0, 1], slowest: bound * 2, ..Reads::default() };
    let applied = settled(ReceiptState::Complete, &[(name, FollowerState::Applied)], bound / 2)?;
    Ok(vec![
        ("stale answers", audit::of_reads(&lied_to.record.reads())),
        ("a purge that the journal does not hold", audit::of_journal(&calls, &journal)),
        ("a receipt behind the bound", audit::of_receipts(&late, &[], bound)),
        ("a complete receipt in which an edge is pending", audit::of_receipts(&pending, &[], bound)),
        ("a partial receipt", audit::of_receipts(&partial, &[], bound)),
        ("a read that failed, and an answer that took too long", audit::of_answers(&failed, None, bound)),
        ("an answer without a lease", audit::of_leases(&Reads { fenced: 1, ..Reads::default() })),
        ("a receipt that says applied of an edge that was cut off", audit::of_fenced(&applied, away, name).1),
    ])
}

/// Reads some keys at every edge.
async fn read_all(scene: &Scene) {
    for (edge, address) in scene.edges.iter().enumerate() {
        let mut tap = Tap::new(*address);
        for key in 0..KEYS {
            read_once(scene, &mut tap, edge, key).await;
        }
    }
}
