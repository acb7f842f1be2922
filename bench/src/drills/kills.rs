//! Each process is killed in turn under load, the origin first: what was accepted is in the journal, each edge applies it,
//! and nobody reads what is stale.

use std::time::Duration;

use anyhow::Result;

use super::outcome::Outcome;
use super::stage::Stage;
use super::{Name, PAUSE, READERS, Settings, WARM};

/// How long a process stays dead.
const DEAD: Duration = Duration::from_millis(500);

pub(super) async fn run(settings: &Settings) -> Result<Outcome> {
    let between = settings.pick(Duration::from_secs(10), WARM);
    let mut stage = Stage::set(settings, Name::Kill).await?;
    stage.read(READERS, PAUSE);
    stage.purge(settings.calls());
    tokio::time::sleep(between).await;

    stage.world.origin(0)?.kill()?;
    tokio::time::sleep(DEAD).await;
    stage.world.start_origin(0).await?;
    stage.scene.record.restarted();
    note_back(&mut stage, "origin").await?;
    tokio::time::sleep(between).await;

    for number in 0..stage.world.edges.len() {
        let edge = stage.world.edge(number)?;
        let name = edge.name().to_owned();
        edge.kill()?;
        tokio::time::sleep(DEAD).await;
        edge.start()?;
        stage.world.wait_for_edge(number).await?;
        note_back(&mut stage, &name).await?;
        tokio::time::sleep(between).await;
    }
    stage.close().await
}

async fn note_back(stage: &mut Stage, name: &str) -> Result<()> {
    let back = stage.world.wait_until_all_follow().await?;
    stage.notes.push(format!("{name} killed: every edge held a lease with all applied {back:.1?} after it was ready again"));
    Ok(())
}
