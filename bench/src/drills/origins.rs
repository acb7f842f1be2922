//! One of two origins is killed while purges go through both, and then the other: their followers move over before a lease
//! has ended, receipts go on, and nobody is fenced.

use std::time::Duration;

use anyhow::Result;

use super::outcome::Outcome;
use super::stage::Stage;
use super::{Name, PAUSE, READERS, Settings, audit};

/// No answer takes longer.
const MOST: Duration = Duration::from_secs(1);

pub(super) async fn run(settings: &Settings) -> Result<Outcome> {
    let (warm, lease) = (settings.pick(Duration::from_secs(5), Duration::from_secs(1)), settings.lease());
    let mut stage = Stage::set(settings, Name::OriginKilled).await?;
    stage.read(READERS, PAUSE);
    stage.purge(settings.calls());
    tokio::time::sleep(warm).await;
    for number in 0..stage.world.origins.len() {
        let before = stage.scene.record.calls().len();
        stage.world.origin(number)?.kill()?;
        // Whoever did not move over in time would have lost its lease by then.
        tokio::time::sleep(lease * 3 / 2).await;
        let accepted = stage.scene.record.calls().len() - before;
        if accepted == 0 {
            stage.complaints.push("the other origin accepted nothing: nothing was checked".to_owned());
        }
        stage.world.start_origin(number).await?;
        let back = stage.world.wait_until_all_follow().await?;
        stage.notes.push(format!(
            "origin {} killed for {:.1?}: {accepted} calls accepted by the other, every edge with it {back:.1?} after that",
            number + 1,
            lease * 3 / 2
        ));
        tokio::time::sleep(warm).await;
    }
    stage.end_load().await?;
    // It begins with no bound anew: the other origin has seen all leases, and waits for none that it does not know.
    let reads = stage.scene.record.reads();
    stage.complaints.extend(audit::of_answers(&reads, None, MOST));
    stage.complaints.extend(audit::of_leases(&reads));
    stage.close().await
}
