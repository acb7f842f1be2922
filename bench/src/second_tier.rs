//! What the second tier saves: answers of an edge that never fetched them, from the Redis of its region, and of one that
//! was started again, from its own folder; beside them, what it costs to ask an upstream.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::json;

use crate::dead_redis;
use crate::engines::{Keeps, RedisServer};
use crate::figures::{Samples, Voice, ms};
use crate::metrics::Metrics;
use crate::town::{Town, free_address};
use crate::upstream::Upstream;
use crate::visitor::{HOST, Source, Visitor};

/// What is asked for, and how large each is.
const URLS: usize = 2000;
const OBJECT: usize = 10 << 10;

/// How many are fetched before all of them are waited for: no more than what may wait to be written.
const BATCH: usize = 250;

/// Batches that are fetched at the most: on a busy machine a write may take longer than it may.
const MOST_BATCHES: usize = 4 * URLS / BATCH;

const GOAL: Duration = Duration::from_millis(1);

/// How long writes, or a Redis, may take until they are there.
const PATIENCE: Duration = Duration::from_secs(30);

/// Room for all of it in each edge.
const MEMORY: &str = "128 MiB";

pub(crate) async fn measure(binary: &Path, voice: Voice) -> Result<()> {
    shared(binary, voice).await?;
    own_folder(binary, voice).await?;
    dead_redis::measure(binary, voice).await
}

/// One edge fetches, and its neighbour is asked.
async fn shared(binary: &Path, voice: Voice) -> Result<()> {
    let (redis, upstream) = (RedisServer::start(free_address()?, Keeps::Nothing).await?, Upstream::start(OBJECT).await?);
    let mut town = Town::in_region(binary, MEMORY, &redis_line(&redis), &upstream.routes(HOST, "/*"))?;
    let (_, listen, admin) = town.start_one_edge().await?;
    let (_, neighbour, its_admin) = town.start_edge(2).await?;
    wait_until_in_use(admin).await?;
    wait_until_in_use(its_admin).await?;
    let filled = fill(listen, admin).await?;

    let asked_before = upstream.asked();
    let answered = ask(neighbour, &filled.paths).await?;
    let asked = upstream.asked() - asked_before;
    let sent = Metrics::read(its_admin).await?.value("atoll_edge_upstream_requests_total")?;

    let from_tier = answered.count();
    voice.say("second-tier: 10 KiB that a neighbour fetched, from Redis", &spread(&answered), "p50 under 1 ms", is_met(&answered));
    let measured = format!("{from_tier} from L2, {asked} of the upstream");
    let costs_nothing = from_tier == URLS && asked == 0 && sent == 0;
    voice.say(&format!("second-tier: what {URLS} of them ask of the upstream"), &measured, "all from L2, 0", costs_nothing);
    tell(voice, "a miss, Redis asked first, upstream on loopback", &filled.misses);
    Ok(())
}

/// An edge without a Redis fetches, is killed, and is asked when it is back.
async fn own_folder(binary: &Path, voice: Voice) -> Result<()> {
    let upstream = Upstream::start(OBJECT).await?;
    let mut town = Town::in_region(binary, MEMORY, "", &upstream.routes(HOST, "/*"))?;
    let (edge, listen, admin) = town.start_one_edge().await?;
    let filled = fill(listen, admin).await?;
    town.kill(edge)?;
    let (_, listen, _) = town.start_edge(1).await?;
    let asked_before = upstream.asked();
    let answered = ask(listen, &filled.paths).await?;
    let asked = upstream.asked() - asked_before;
    tell(voice, "a miss, the folder asked first, upstream on loopback", &filled.misses);
    tell(voice, &format!("an edge that was killed, {} from its folder, {asked} of the upstream", answered.count()), &answered);
    Ok(())
}

/// Returns the line of a region's table that names its Redis.
pub(crate) fn redis_line(redis: &RedisServer) -> String {
    format!("redis = \"{}\"", redis.url())
}

/// Waits until an edge has found its Redis.
pub(crate) async fn wait_until_in_use(admin: SocketAddr) -> Result<()> {
    let begun = Instant::now();
    while Metrics::read(admin).await?.value("atoll_edge_second_tier_up")? == 0 {
        ensure!(begun.elapsed() < PATIENCE, "the edge at {admin} has not found its Redis within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// What is in the second tier, and what it took to fetch it.
struct Filled {
    paths: Vec<String>,
    misses: Samples,
}

/// Fetches through an edge until so many URLs are in the second tier.
async fn fill(edge: SocketAddr, admin: SocketAddr) -> Result<Filled> {
    let mut filled = Filled { paths: Vec::new(), misses: Samples::default() };
    let mut visitor = Visitor::connect(edge).await?;
    for batch in 0..MOST_BATCHES {
        let before = writes(admin).await?;
        let paths: Vec<_> = (0..BATCH).map(|number| format!("/{batch}/{number}")).collect();
        for path in &paths {
            let answer = visitor.get(path).await?;
            ensure!(answer.source == Source::Upstream, "{path} was there before it was fetched: {answer:?}");
            filled.misses.add(answer.took);
        }
        // Where some were not written, nobody knows which: none of this batch is asked for.
        if all_are_written(admin, &before).await? {
            filled.paths.extend(paths);
        }
        if filled.paths.len() >= URLS {
            return Ok(filled);
        }
    }
    bail!("only {} of {URLS} URLs could be written to the second tier: {:?}", filled.paths.len(), writes(admin).await?)
}

/// Returns how many writes to the second tier ended how.
async fn writes(admin: SocketAddr) -> Result<BTreeMap<String, u64>> {
    Ok(Metrics::read(admin).await?.by_label("atoll_edge_second_tier_writes_total"))
}

/// Waits until as many writes have ended as a batch has, and tells whether each stored something.
async fn all_are_written(admin: SocketAddr, before: &BTreeMap<String, u64>) -> Result<bool> {
    let (begun, batch) = (Instant::now(), u64::try_from(BATCH)?);
    loop {
        let now = writes(admin).await?;
        let ended = now.values().sum::<u64>() - before.values().sum::<u64>();
        if ended >= batch {
            let stored = |counts: &BTreeMap<String, u64>| counts.get("stored").copied().unwrap_or(0);
            return Ok(stored(&now) - stored(before) == batch);
        }
        ensure!(begun.elapsed() < PATIENCE, "{ended} of {batch} writes have ended within {PATIENCE:?}: {now:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Asks for each once, and returns how long those took that came from the second tier.
async fn ask(edge: SocketAddr, paths: &[String]) -> Result<Samples> {
    let (mut visitor, mut samples) = (Visitor::connect(edge).await?, Samples::default());
    for path in paths {
        let answer = visitor.get(path).await?;
        if answer.source == Source::SecondTier {
            samples.add(answer.took);
        }
    }
    Ok(samples)
}

fn is_met(answered: &Samples) -> bool {
    answered.count() > 0 && answered.median() < GOAL
}

fn spread(samples: &Samples) -> String {
    format!("p50 {}, p99 {}, worst {}", ms(samples.median()), ms(samples.at(990)), ms(samples.at(1000)))
}

/// Tells figures of which nothing was promised.
fn tell(voice: Voice, what: &str, samples: &Samples) {
    let us = |share| u64::try_from(samples.at(share).as_micros()).unwrap_or(u64::MAX);
    let value = json!({ "what": what, "count": samples.count(), "p50_us": us(500), "p99_us": us(990), "worst_us": us(1000) });
    voice.tell(&format!("  {what}: {}", spread(samples)), &value);
}
