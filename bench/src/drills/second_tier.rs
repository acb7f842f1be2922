//! The Redis that two edges share is killed, held still, paused, emptied, filled, slowed down, or put back to what it held
//! long ago, under load: no request fails, none waits for it for long, and nothing of it is stale.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::outcome::Outcome;
use super::stage::Stage;
use super::{Name, PAUSE, READERS, Settings, audit};
use crate::engines::RedisServer;
use crate::world::{REGIONS, SHARING};

/// The two edges that share it, by their numbers: the second of a region stands behind the first of each.
const SHARERS: [usize; 2] = [SHARING, REGIONS.len()];

/// No answer takes longer, whatever becomes of the Redis. A call of it has 25 ms; the rest is for a machine that is busy
/// with the drill itself.
const MOST: Duration = Duration::from_secs(1);

/// How long an edge that was started again may wait beyond that: its neighbour, or what was put back, may say that somebody
/// fetches what nobody fetches any more.
const CLAIMED: Duration = Duration::from_secs(10);

/// How often it is emptied, and how long it sleeps at a time.
const EMPTIED_EVERY: Duration = Duration::from_millis(500);
const ASLEEP: Duration = Duration::from_millis(50);

/// Bytes that fill it alone.
const BALLAST: u32 = 2_000_000;

/// How long edges may need to use it again: they leave one alone that failed, for 8 s at the most.
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// kill -9.
    Killed,
    /// SIGSTOP.
    Stopped,
    /// CLIENT PAUSE.
    Paused,
    /// FLUSHALL, again and again.
    Flushed,
    /// maxmemory 1mb.
    Full,
    /// DEBUG SLEEP, again and again.
    Slow,
    /// An older dump is put back.
    Restored,
}

pub(super) async fn run(settings: &Settings, drill: Name, harm: Harm) -> Result<Outcome> {
    let (warm, span) = settings.pick((Duration::from_secs(3), Duration::from_secs(20)), (Duration::from_secs(1), Duration::from_secs(3)));
    let mut stage = Stage::set(settings, drill).await?;
    in_use(&stage).await?;
    stage.read(READERS, PAUSE);
    stage.purge(settings.calls());
    tokio::time::sleep(warm).await;
    let before = stage.scene.record.reads();
    if before.second == 0 {
        stage.complaints.push("nothing came from the second tier before it was harmed: nothing was checked".to_owned());
    }

    let begun = Instant::now();
    let done = match harm {
        Harm::Restored => restore(&mut stage, span).await?,
        _ => suffer(stage.world.beside.second_tier()?, harm, span).await?,
    };
    let (took, after) = (begun.elapsed(), stage.scene.record.reads());
    tokio::time::sleep(warm).await;

    let (judged, from_it) = (after.all - before.all, after.second - before.second);
    stage.notes.push(format!("{done} for {took:.1?}: {judged} answers meanwhile, {from_it} of them from it"));
    // Who follows knows what is promised; the edge that was started again is excused for the moment in which it was away.
    let (excused, most) = if harm == Harm::Restored { (Some(SHARERS[1]), CLAIMED + MOST) } else { (None, MOST) };
    stage.end_load().await?;
    stage.complaints.extend(audit::of_answers(&stage.scene.record.reads(), excused, most));
    stage.close().await
}

/// Does the harm for a while, undoes it, and says what was done.
async fn suffer(server: &mut RedisServer, harm: Harm, span: Duration) -> Result<&'static str> {
    let until = Instant::now() + span;
    Ok(match harm {
        Harm::Killed => {
            server.kill()?;
            tokio::time::sleep(span).await;
            server.start_again().await?;
            "killed"
        }
        Harm::Stopped => {
            server.stop_clock()?;
            tokio::time::sleep(span).await;
            server.go_on()?;
            "held still"
        }
        Harm::Paused => {
            server.tell(&format!("CLIENT PAUSE {} ALL", span.as_millis())).await?;
            tokio::time::sleep(span).await;
            "paused"
        }
        Harm::Flushed => {
            again_and_again(server, "FLUSHALL", EMPTIED_EVERY, until).await?;
            "emptied every half second"
        }
        Harm::Slow => {
            let sleep = format!("DEBUG SLEEP {:.3}", ASLEEP.as_secs_f64());
            again_and_again(server, &sleep, ASLEEP, until).await?;
            "asleep for 50 ms of each 100"
        }
        Harm::Full => {
            fill(server).await?;
            tokio::time::sleep(span).await;
            server.tell("CONFIG SET maxmemory 0").await?;
            "full"
        }
        Harm::Restored => "put back",
    })
}

async fn again_and_again(server: &RedisServer, command: &str, pause: Duration, until: Instant) -> Result<()> {
    while Instant::now() < until {
        server.tell(command).await?;
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

async fn fill(server: &RedisServer) -> Result<()> {
    server.tell(&format!("SETRANGE ballast {BALLAST} x")).await?;
    server.tell("CONFIG SET maxmemory 1mb").await?;
    let refused = server.tell("SET probe x").await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("OOM")), "the Redis is not full");
    Ok(())
}

/// Puts back what it held a while ago, most of which was purged since, and starts an edge anew, which then knows nothing but
/// what it finds there.
async fn restore(stage: &mut Stage, span: Duration) -> Result<&'static str> {
    let older = stage.world.beside.second_tier()?.copy().await?;
    tokio::time::sleep(span).await;
    stage.world.beside.second_tier()?.put_back(&older).await?;
    let anew = SHARERS[1];
    stage.world.edge(anew)?.end().await?;
    stage.world.edge(anew)?.start()?;
    stage.world.wait_for_edge(anew).await?;
    in_use(stage).await?;
    tokio::time::sleep(span).await;
    let mut refused = 0.0;
    for edge in SHARERS {
        refused += stage.world.counted(edge, "atoll_edge_second_tier_unusable_total").await?;
    }
    if refused == 0.0 {
        stage.complaints.push("nothing of what was put back had been purged since: nothing was checked".to_owned());
    }
    stage.notes.push(format!("{refused} values of it were read and not used"));
    Ok("put back to an older dump, and one edge started anew,")
}

/// Waits until both edges use it.
async fn in_use(stage: &Stage) -> Result<()> {
    let begun = Instant::now();
    for edge in SHARERS {
        while stage.world.counted(edge, "atoll_edge_second_tier_up").await.context("an edge does not tell how it is")? < 1.0 {
            ensure!(begun.elapsed() < BACK_WITHIN, "edge {edge} does not use its Redis after {BACK_WITHIN:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}
