//! A region is cut off from the origin under load, and healed: purges complete all the same, with its edge fenced; who
//! reads there gets nothing stale; and it catches up.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::outcome::Outcome;
use super::stage::Stage;
use super::{FAR, Name, PAUSE, READERS, Settings, WARM, audit};

/// What was on its way when the region was cut off has arrived or is lost by then.
const UNDER_WAY: Duration = Duration::from_secs(1);

pub(super) async fn run(settings: &Settings) -> Result<Outcome> {
    let span = settings.pick(Duration::from_secs(60), Duration::from_secs(10));
    let mut stage = Stage::set(settings, Name::Partition).await?;
    stage.read(READERS, PAUSE);
    stage.purge(settings.calls());
    tokio::time::sleep(WARM).await;

    stage.world.set_cut(FAR, true).await?;
    let cut = Instant::now() + UNDER_WAY;
    let before = stage.scene.record.reads_at(FAR);
    tokio::time::sleep(span).await;
    let while_cut = stage.scene.record.reads_at(FAR) - before;
    let healed = Instant::now();
    stage.world.set_cut(FAR, false).await?;

    let back = stage.world.wait_until_all_follow().await?;
    tokio::time::sleep(WARM).await;
    let calls = stage.end_load().await?;
    let name = stage.world.edge(FAR)?.name().to_owned();
    let (fenced, wrong) = audit::of_fenced(&calls, (cut, healed), &name);
    stage.complaints.extend(wrong);
    if while_cut == 0 {
        stage.complaints.push(format!("{name} answered nothing while it was cut off: nothing was checked"));
    }
    stage.notes.push(format!(
        "{name} cut off for {} s: {fenced} receipts complete without it, {while_cut} reads there meanwhile, all applied {back:.1?} after",
        span.as_secs()
    ));
    stage.close().await
}
