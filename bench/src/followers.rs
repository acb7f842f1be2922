//! 1,000 followers of one origin, each with a feed, acks and a token of its own: what they cost while nothing happens, and
//! how long a purge takes until all of them have acknowledged it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, stream};
use reqwest::Client;
use tokio::task::JoinSet;
use wire::{Ack, AckAnswer, FeedLine, FollowerState, LEASE_NONE, PROTOCOL, Position, RegionName, Role};

use crate::control::Control;
use crate::figures::{Samples, Voice, ms};
use crate::process::{cpu_time, share_of_core};
use crate::town::{Town, client};

const FOLLOWERS: usize = 1000;
const PURGES: usize = 20;

/// How long the origin is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(20);

/// How often a follower is heard of when nothing happens, as a node does by default.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Tokens that are asked for side by side.
const SIDE_BY_SIDE: usize = 64;

const PATIENCE: Duration = Duration::from_secs(60);

/// What all may cost, and how long a purge may take to be everywhere.
const GOAL_SHARE: f64 = 0.1;
const GOAL_SPREAD: Duration = Duration::from_secs(1);

/// One follower.
#[derive(Debug)]
struct Follower {
    number: usize,
    name: String,
    token: String,
    client: Client,
    url: String,
    position: Position,
}

pub(crate) async fn measure(binary: &Path, voice: Voice) -> Result<()> {
    let mut town = Town::new(binary, "64 MiB", "")?;
    let origin = town.spawn(&["origin"])?;
    let url = format!("http://{}", town.origin);
    town.wait_for(&format!("{url}/readyz")).await?;
    let control = Control::new(url.clone(), &town.admin_token()?)?;
    let tokens = tokens(&control).await?;
    let position = control.status().await?.position;
    let client = client()?;
    let mut following = JoinSet::new();
    for (number, (name, token)) in tokens.into_iter().enumerate() {
        let follower = Follower { number, name, token, client: client.clone(), url: url.clone(), position };
        following.spawn(follower.follow());
    }
    wait_until_all_are_live(&control, &mut following).await?;

    let (cpu, begun) = (cpu_time(origin)?, Instant::now());
    tokio::time::sleep(IDLE).await;
    let share = share_of_core(cpu_time(origin)?.saturating_sub(cpu), begun.elapsed());
    let goal = format!("{:.0} %", GOAL_SHARE * 100.0);
    let what = format!("followers: {FOLLOWERS} of them, idle, the origin's share of a core");
    voice.say(&what, &format!("{:.1} %", share * 100.0), &goal, share < GOAL_SHARE);

    let (mut answered, mut last) = (Samples::default(), Samples::default());
    for number in 0..PURGES {
        let begun = Instant::now();
        let receipt = control.purge_and_wait(vec![format!("tag-{number}")], PATIENCE).await?;
        answered.add(begun.elapsed());
        let applied = receipt.followers.iter().filter(|row| row.state == FollowerState::Applied);
        let after: Vec<u64> = applied.filter_map(|row| row.after_ms).collect();
        still_follow(&mut following)?;
        ensure!(after.len() == FOLLOWERS, "only {} of {FOLLOWERS} followers acknowledged purge {}", after.len(), receipt.seq);
        last.add(Duration::from_millis(after.into_iter().max().unwrap_or_default()));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let measured = format!("median {}, worst {}", ms(answered.median()), ms(answered.at(1000)));
    let what = format!("followers: a purge until all {FOLLOWERS} acknowledged it");
    voice.say(&what, &measured, &ms(GOAL_SPREAD), answered.at(1000) <= GOAL_SPREAD);
    let measured = format!("median {}, worst {}", ms(last.median()), ms(last.at(1000)));
    voice.say("followers: the same from the append, by the receipt", &measured, &ms(GOAL_SPREAD), last.at(1000) <= GOAL_SPREAD);
    Ok(())
}

/// Returns every follower's name and token.
async fn tokens(control: &Control) -> Result<Vec<(String, String)>> {
    let issued = stream::iter(0..FOLLOWERS).map(|number| async move {
        let name = format!("follower-{number}");
        let token = control.issue(&name, &format!("follow:edge/{name}")).await?;
        anyhow::Ok((name, token))
    });
    issued.buffer_unordered(SIDE_BY_SIDE).collect::<Vec<_>>().await.into_iter().collect()
}

/// Fails where a follower has.
fn still_follow(following: &mut JoinSet<Result<()>>) -> Result<()> {
    match following.try_join_next() {
        Some(ended) => ended?.context("a follower ended"),
        None => Ok(()),
    }
}

async fn wait_until_all_are_live(control: &Control, following: &mut JoinSet<Result<()>>) -> Result<()> {
    let begun = Instant::now();
    loop {
        still_follow(following)?;
        let live = control.status().await?.followers.iter().filter(|follower| follower.live).count();
        if live == FOLLOWERS {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{live} of {FOLLOWERS} followers hold a lease after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Follower {
    /// Follows as a node does: reads the feed, and acknowledges at once and at each heartbeat.
    async fn follow(mut self) -> Result<()> {
        let region: RegionName = "here".parse()?;
        let feed = format!("{}/v1/feed?after={}&role=edge", self.url, self.position);
        let mut feed = self.client.get(feed).bearer_auth(&self.token).send().await?.error_for_status()?;
        // Not all in the same moment, as no thousand nodes are.
        let share = u32::try_from(self.number)? % 1000;
        let mut beats = tokio::time::interval_at((Instant::now() + HEARTBEAT * share / 1000).into(), HEARTBEAT);
        let mut heard = Vec::new();
        loop {
            tokio::select! {
                chunk = feed.chunk() => {
                    heard.extend_from_slice(&chunk?.context("the feed ended")?);
                    if self.read(&mut heard)? {
                        self.acknowledge(&region).await?;
                        beats.reset();
                    }
                }
                _ = beats.tick() => self.acknowledge(&region).await?,
            }
        }
    }

    /// Takes whole lines in, and tells whether they moved the position.
    fn read(&mut self, heard: &mut Vec<u8>) -> Result<bool> {
        let before = self.position.seq;
        while let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
            let line: FeedLine = serde_json::from_slice(heard.get(..end).unwrap_or_default())?;
            heard.drain(..=end);
            self.position = Position { epoch: line.epoch, seq: line.to, chain: line.chain };
        }
        Ok(self.position.seq > before)
    }

    async fn acknowledge(&self, region: &RegionName) -> Result<()> {
        let ack = Ack {
            follower: self.name.parse()?,
            role: Role::Edge,
            region: region.clone(),
            life: format!("life-{}", self.number),
            protocol: PROTOCOL,
            position: self.position,
            answers: Vec::new(),
            draining: false,
            load: 0.0,
            counts: std::collections::BTreeMap::new(),
        };
        let request = self.client.post(format!("{}/v1/ack", self.url)).bearer_auth(&self.token).json(&ack);
        let answer: AckAnswer = request.send().await?.error_for_status()?.json().await?;
        ensure!(answer.lease_ms != LEASE_NONE, "{} was refused a lease: {answer:?}", self.name);
        Ok(())
    }
}
