//! What a region's Redis that is dead does to hits of an edge's memory: nothing. Three edges take turns: one without a
//! Redis, one whose Redis was killed, and one whose Redis stands still and answers nobody.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::engines::{Keeps, RedisServer};
use crate::figures::{Samples, Voice};
use crate::metrics::Metrics;
use crate::second_tier::{redis_line, wait_until_in_use};
use crate::town::{Town, free_address};
use crate::upstream::Upstream;
use crate::visitor::{HOST, Source, Visitor};

/// Rounds: in each every edge has its turn, every time another one first.
const ROUNDS: usize = 15;

/// Hits of a turn, and those before them that are not measured.
const HITS: usize = 10_000;
const WARM_UP: usize = 2000;

const OBJECT: usize = 10 << 10;

/// The pause between two misses. They are what makes an edge try its Redis, and so few that what is in a hit's way while
/// they are served is not its p99.
const BETWEEN_MISSES: Duration = Duration::from_millis(100);

/// How much slower hits may be.
const GOAL: f64 = 1.10;

/// What became of an edge's Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    None,
    Killed,
    Still,
}

/// An edge, and what was measured at it.
struct Case {
    fate: Fate,
    edge: SocketAddr,
    admin: SocketAddr,
    _town: Town,
    _redis: Option<RedisServer>,
    p99s: Samples,
    misses: Samples,
}

pub(crate) async fn measure(binary: &Path, voice: Voice) -> Result<()> {
    let upstream = Upstream::start(OBJECT).await?;
    let mut cases = Vec::new();
    for fate in [Fate::None, Fate::Killed, Fate::Still] {
        cases.push(Case::start(binary, &upstream, fate).await?);
    }
    let mut order: Vec<_> = (0..cases.len()).collect();
    for round in 0..ROUNDS {
        for &at in &order {
            cases.get_mut(at).context("no such case")?.take_turn(round).await?;
        }
        order.rotate_left(1);
    }
    let without = cases.first().context("no case")?;
    for case in &cases {
        case.tell(voice).await?;
    }
    for case in cases.iter().skip(1) {
        let (p99, base) = (case.p99s.median(), without.p99s.median());
        let ratio = p99.as_secs_f64() / base.as_secs_f64().max(f64::EPSILON);
        let measured = format!("{ratio:.2} times: {} to {}", us(p99), us(base));
        voice.say(
            &format!("second-tier: p99 of hits, {}, to without", case.name()),
            &measured,
            &format!("at most {GOAL:.2} times"),
            ratio <= GOAL,
        );
    }
    Ok(())
}

impl Case {
    /// Starts an edge that has found its Redis, and takes that away.
    async fn start(binary: &Path, upstream: &Upstream, fate: Fate) -> Result<Self> {
        let mut redis = if fate == Fate::None { None } else { Some(RedisServer::start(free_address()?, Keeps::Nothing).await?) };
        let region = redis.as_ref().map(redis_line).unwrap_or_default();
        let mut town = Town::in_region(binary, "64 MiB", &region, &upstream.routes(HOST, "/*"))?;
        let (_, edge, admin) = town.start_one_edge().await?;
        if let Some(redis) = &mut redis {
            wait_until_in_use(admin).await?;
            match fate {
                Fate::Still => redis.stop_clock()?,
                Fate::None | Fate::Killed => redis.kill()?,
            }
        }
        Ok(Self { fate, edge, admin, _town: town, _redis: redis, p99s: Samples::default(), misses: Samples::default() })
    }

    /// Measures hits for a while, and misses beside them.
    async fn take_turn(&mut self, round: usize) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let missing = tokio::spawn(misses(self.edge, round, Arc::clone(&stop)));
        let hits = tokio::spawn(hits(self.edge)).await?;
        stop.store(true, Ordering::Release);
        self.misses.add_all(&missing.await??);
        self.p99s.add(hits?.at(990));
        Ok(())
    }

    fn name(&self) -> &'static str {
        match self.fate {
            Fate::None => "no Redis",
            Fate::Killed => "Redis killed",
            Fate::Still => "Redis stopped",
        }
    }

    /// Tells what was measured, and fails where the dead Redis was never tried.
    async fn tell(&self, voice: Voice) -> Result<()> {
        let looks = Metrics::read(self.admin).await?.by_label("atoll_edge_second_tier_reads_total");
        let failed = ["away", "slow"].iter().filter_map(|how| looks.get(*how)).sum::<u64>();
        ensure!(self.fate == Fate::None || failed > 0, "the dead Redis was never tried: {looks:?}");
        let [least, middle, most] = [0, 500, 1000].map(|share| self.p99s.at(share));
        let words = format!(
            "  hits, {}: p99 {} ({} to {} in {ROUNDS} rounds); {} misses beside them: p50 {}, worst {}; looks: {looks:?}",
            self.name(),
            us(middle),
            us(least),
            us(most),
            self.misses.count(),
            us(self.misses.median()),
            us(self.misses.at(1000)),
        );
        let [least, middle, most, miss, worst] = [least, middle, most, self.misses.median(), self.misses.at(1000)]
            .map(|span| u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
        let value = json!({
            "what": format!("hits, {}", self.name()), "rounds": ROUNDS, "p99_us": [least, middle, most],
            "misses": self.misses.count(), "miss_p50_us": miss, "miss_worst_us": worst, "looks": looks,
        });
        voice.tell(&words, &value);
        Ok(())
    }
}

/// Asks for one URL again and again.
async fn hits(edge: SocketAddr) -> Result<Samples> {
    let (mut visitor, mut samples) = (Visitor::connect(edge).await?, Samples::default());
    for _ in 0..WARM_UP {
        visitor.get("/hot").await?;
    }
    for _ in 0..HITS {
        let answer = visitor.get("/hot").await?;
        ensure!(answer.source == Source::Memory, "not a hit of the memory tier: {answer:?}");
        samples.add(answer.took);
    }
    Ok(samples)
}

/// Asks for what nobody has asked for, now and then, until it is told to stop.
async fn misses(edge: SocketAddr, round: usize, stop: Arc<AtomicBool>) -> Result<Samples> {
    let (mut visitor, mut samples) = (Visitor::connect(edge).await?, Samples::default());
    while !stop.load(Ordering::Acquire) {
        let answer = visitor.get(&format!("/miss/{round}/{}", samples.count())).await?;
        ensure!(answer.source == Source::Upstream, "not a miss: {answer:?}");
        samples.add(answer.took);
        tokio::time::sleep(BETWEEN_MISSES).await;
    }
    Ok(samples)
}

/// Whole microseconds: hits on loopback take less than a tenth of a millisecond.
fn us(span: Duration) -> String {
    format!("{} us", span.as_micros())
}
