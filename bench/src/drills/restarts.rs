//! The origin is restarted four times in a row under load, killed and asked to end in turn, each time before a lease has
//! passed: no restart may forget what the life before had promised.

use std::time::Duration;

use anyhow::Result;

use super::outcome::Outcome;
use super::stage::Stage;
use super::{Name, PAUSE, READERS, Settings, WARM};

const RESTARTS: u32 = 4;

/// How long each life lasts: less than a lease.
const LIFE: Duration = Duration::from_millis(700);

pub(super) async fn run(settings: &Settings) -> Result<Outcome> {
    let mut stage = Stage::set(settings, Name::Restarts).await?;
    stage.read(READERS, PAUSE);
    stage.purge(settings.calls());
    tokio::time::sleep(WARM).await;
    for restart in 0..RESTARTS {
        if restart.is_multiple_of(2) {
            stage.world.origin(0)?.kill()?;
        } else {
            stage.world.origin(0)?.end().await?;
        }
        stage.world.start_origin(0).await?;
        stage.scene.record.restarted();
        tokio::time::sleep(LIFE).await;
    }
    let back = stage.world.wait_until_all_follow().await?;
    stage.notes.push(format!("{RESTARTS} restarts: every edge held a lease with all applied {back:.1?} after the last"));
    tokio::time::sleep(WARM).await;
    stage.close().await
}
