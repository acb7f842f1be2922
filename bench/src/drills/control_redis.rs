//! The Redis under two origins is killed and started again with what it kept, paused, or put back to what it held a while
//! ago while both origins live: what was accepted stays accepted, receipts come within the bound, and nothing is stale.
//!
//! While it is away nothing can be accepted, granted or reported complete. So edges are fenced when it lasts longer than a
//! lease, ask the upstream, and answer all the same; and the bound begins anew when it is back (P2).

use std::time::{Duration, Instant};

use anyhow::Result;

use super::outcome::Outcome;
use super::stage::Stage;
use super::{Name, PAUSE, READERS, Settings, audit};

/// No answer takes longer: an edge that lost its lease asks an upstream that is well.
const MOST: Duration = Duration::from_secs(2);

/// Less than any lease.
const BLINK: Duration = Duration::from_millis(300);

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// kill -9, for less than a lease and then for two.
    Killed,
    /// CLIENT PAUSE, for less than a lease and then for two.
    Paused,
    /// Older files are put back.
    Restored,
}

pub(super) async fn run(settings: &Settings, drill: Name, harm: Harm) -> Result<Outcome> {
    let warm = settings.pick(Duration::from_secs(5), Duration::from_secs(1));
    let mut stage = Stage::set(settings, drill).await?;
    stage.read(READERS, PAUSE);
    stage.purge(settings.calls());
    tokio::time::sleep(warm).await;
    match harm {
        Harm::Killed | Harm::Paused => {
            for away in [BLINK, settings.lease() * 2] {
                take_away(&mut stage, harm, away).await?;
                back(&mut stage, &format!("{} for {away:.1?}", if harm == Harm::Killed { "killed" } else { "paused" })).await?;
                tokio::time::sleep(warm).await;
            }
        }
        Harm::Restored => {
            let older = stage.world.beside.control()?.copy().await?;
            let before = stage.scene.record.calls().len();
            tokio::time::sleep(settings.pick(Duration::from_secs(5), Duration::from_secs(2))).await;
            stage.world.beside.control()?.put_back(&older).await?;
            let lost = stage.scene.record.calls().len().saturating_sub(before);
            if lost == 0 {
                stage.complaints.push("no purge was accepted since the files that were put back: nothing was checked".to_owned());
            }
            back(&mut stage, &format!("put back to files from before {lost} accepted calls")).await?;
            tokio::time::sleep(warm).await;
        }
    }
    stage.end_load().await?;
    let reads = stage.scene.record.reads();
    stage.complaints.extend(audit::of_answers(&reads, None, MOST));
    stage.notes.push(format!("{} of {} answers came from edges without a lease", reads.fenced, reads.all));
    stage.close().await
}

async fn take_away(stage: &mut Stage, harm: Harm, away: Duration) -> Result<()> {
    let server = stage.world.beside.control()?;
    if harm == Harm::Killed {
        server.kill()?;
        tokio::time::sleep(away).await;
        return server.start_again().await;
    }
    server.tell(&format!("CLIENT PAUSE {} ALL", away.as_millis())).await?;
    tokio::time::sleep(away).await;
    Ok(())
}

/// From here the bound begins anew; waits until every edge follows again.
async fn back(stage: &mut Stage, done: &str) -> Result<()> {
    stage.scene.record.restarted();
    let begun = Instant::now();
    stage.world.wait_until_all_follow().await?;
    stage.notes.push(format!("control Redis {done}: every edge held a lease with all applied {:.1?} after it was back", begun.elapsed()));
    Ok(())
}
