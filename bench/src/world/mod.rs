//! Three regions of real processes: an origin and one edge in the first, one edge each in two that are farther away, and
//! an upstream in this program that knows what is true.

mod line;
mod cable;
mod wan;
mod ways;
mod node;
pub(crate) mod truth;
pub(crate) mod tap;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use wire::Status;

use crate::control::Control;
use crate::town::client;
use node::Node;
use truth::{HOST, Truth};
use ways::Ways;

/// How long anything may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// A place with an edge.
#[derive(Debug)]
pub(crate) struct Region {
    /// Its name; its edge has a `-1` behind it.
    pub(crate) name: &'static str,
    /// Milliseconds to the origin.
    pub(crate) one_way_ms: u64,
}

/// The regions. The origin stands in the first.
pub(crate) const REGIONS: [Region; 3] =
    [Region { name: "fra", one_way_ms: 0 }, Region { name: "iad", one_way_ms: 40 }, Region { name: "sin", one_way_ms: 75 }];

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// The length of a lease; a fifth of it passes between heartbeats.
    pub(crate) lease: Duration,
    /// How many keys the truth has.
    pub(crate) keys: usize,
}

impl Plan {
    /// Returns what the origin adds to a lease (L1), reckoned here once more: a checker takes nobody's word.
    pub(crate) fn margin(&self) -> Duration {
        self.lease / 100 + Duration::from_millis(50)
    }

    /// Returns the time within which every purge completes, whatever is broken (P2).
    pub(crate) fn bound(&self) -> Duration {
        (self.lease + self.margin()) * 2
    }
}

/// The processes, and what they run on. Dropping it ends them all, the ways last.
#[derive(Debug)]
pub(crate) struct World {
    /// The control plane.
    pub(crate) origin: Node,
    /// The edges, in the order of the regions.
    pub(crate) edges: Vec<Node>,
    /// What is true.
    pub(crate) truth: Arc<Truth>,
    /// Speaks with the origin.
    pub(crate) control: Control,
    /// What it was made by.
    pub(crate) plan: Plan,
    ways: Ways,
    folder: TempDir,
}

impl World {
    /// Starts everything, and waits until each edge holds a lease.
    pub(crate) async fn start(binary: &Path, wan: Option<&Path>, plan: Plan) -> Result<Self> {
        let folder = TempDir::new()?;
        let ways = Ways::open(wan, folder.path()).await?;
        let truth = Arc::new(Truth::start(ways.host, plan.keys).await?);
        let secret = folder.path().join("follow.secret");
        std::fs::write(&secret, format!("a secret of process {}\n", std::process::id()))?;
        let node = |name: &str, words: &[&str], place: &ways::Place| -> Result<Node> {
            let data = folder.path().join(name);
            let text = format!("data = \"{}\"\n{}", data.display(), network(&plan, &ways, &truth, place, &secret));
            let file = folder.path().join(format!("{name}.toml"));
            std::fs::write(&file, text)?;
            let mut call = place.enter.clone();
            let (binary, file) = (binary.display().to_string(), file.display().to_string());
            call.extend([binary.as_str(), "-c", file.as_str(), "--log", "warn"].map(str::to_owned));
            call.extend(words.iter().map(|&word| word.to_owned()));
            Ok(Node::new(name, call, folder.path()))
        };
        let mut origin = node("origin", &["origin"], ways.places.first().context("a region")?)?;
        origin.start()?;
        wait_for(&format!("http://{}/readyz", ways.origin), &origin).await?;
        let token = std::fs::read_to_string(folder.path().join("origin/admin.token"))?;
        let control = Control::new(format!("http://{}", ways.origin), &token)?;
        let mut edges = Vec::new();
        for (region, place) in REGIONS.iter().zip(&ways.places) {
            let name = format!("{}-1", region.name);
            let mut edge = node(&name, &["edge", &name], place)?;
            edge.start()?;
            edges.push(edge);
        }
        let world = Self { origin, edges, truth, control, plan, ways, folder };
        for number in 0..world.edges.len() {
            world.wait_for_edge(number).await?;
        }
        world.wait_until_all_follow().await?;
        Ok(world)
    }

    /// Returns the folder in which everything is kept.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Says how the regions are held apart.
    pub(crate) fn ways(&self) -> String {
        self.ways.described()
    }

    /// Returns where each edge serves.
    pub(crate) fn listen(&self) -> Vec<SocketAddr> {
        self.ways.places.iter().map(|place| place.listen).collect()
    }

    /// Returns within which time so many of a thousand purges were in force at an edge, counted from their append: the
    /// upper end of the histogram's bucket.
    pub(crate) async fn in_force_within(&self, number: usize, share: f64) -> Result<Duration> {
        let admin = self.ways.places.get(number).context("no such edge")?.admin;
        let text = client()?.get(format!("http://{admin}/metrics")).send().await?.text().await?;
        let buckets = text.lines().filter_map(|line| {
            let (upper, count) = line.strip_prefix("atoll_edge_purge_seconds_bucket{le=\"")?.split_once("\"} ")?;
            Some((upper.parse::<f64>().unwrap_or(f64::INFINITY), count.parse::<f64>().ok()?))
        });
        let buckets: Vec<_> = buckets.collect();
        let all = buckets.last().context("no purge was counted")?.1;
        let upper = buckets.iter().find(|(_, count)| *count >= all * share / 1000.0).context("an empty histogram")?.0;
        Ok(Duration::try_from_secs_f64(upper).unwrap_or(Duration::MAX))
    }

    /// Returns the names of the edges.
    pub(crate) fn names(&self) -> Vec<String> {
        self.edges.iter().map(|edge| edge.name().to_owned()).collect()
    }

    /// Returns one edge's process.
    pub(crate) fn edge(&mut self, number: usize) -> Result<&mut Node> {
        self.edges.get_mut(number).context("there is no such edge")
    }

    /// Cuts a region off from the origin, or heals that.
    pub(crate) async fn set_cut(&self, region: usize, cut: bool) -> Result<()> {
        self.ways.set_cut(region, cut).await
    }

    /// Starts the origin again, and waits until it takes calls.
    pub(crate) async fn start_origin(&mut self) -> Result<()> {
        self.origin.start()?;
        wait_for(&format!("http://{}/readyz", self.ways.origin), &self.origin).await
    }

    /// Waits until an edge has something to answer from.
    pub(crate) async fn wait_for_edge(&self, number: usize) -> Result<()> {
        let (place, edge) = (self.ways.places.get(number).context("a region")?, self.edges.get(number).context("an edge")?);
        wait_for(&format!("http://{}/readyz", place.admin), edge).await
    }

    /// Waits until every edge holds a lease and has applied what the journal holds now, and returns how long that took.
    pub(crate) async fn wait_until_all_follow(&self) -> Result<Duration> {
        let begun = Instant::now();
        let mut head = None;
        loop {
            // An origin that was killed a moment ago refuses a call or two.
            let status = self.control.status().await;
            if let Ok(status) = &status {
                let head = *head.get_or_insert(status.position.seq);
                if self.edges.iter().all(|edge| follows(status, edge.name(), head)) {
                    return Ok(begun.elapsed());
                }
            }
            ensure!(begun.elapsed() < PATIENCE, "not every edge follows after {PATIENCE:?}: {status:?}\n{}", self.said());
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Returns the end of what each process said.
    fn said(&self) -> String {
        let all = [&self.origin].into_iter().chain(&self.edges);
        all.map(|node| format!("{} said:\n{}", node.name(), node.said())).collect::<Vec<_>>().join("\n")
    }
}

fn follows(status: &Status, name: &str, head: u64) -> bool {
    status.followers.iter().any(|follower| follower.name.as_str() == name && follower.live && follower.applied >= head)
}

/// Writes all of a node's file but where it keeps its data.
fn network(plan: &Plan, ways: &Ways, truth: &Truth, place: &ways::Place, secret: &Path) -> String {
    let lease_ms = plan.lease.as_millis();
    let mut text = format!(
        "[network]\nname = \"drill\"\nlease = \"{lease_ms}ms\"\nheartbeat = \"{}ms\"\n\
         [origin]\nlisten = \"{}\"\nurl = \"{}\"\nfollow_token = \"file:{}\"\n\
         [upstreams.truth]\nservers = [\"http://{}\"]\n[routes.truth]\nhosts = [\"{HOST}\"]\nupstream = \"truth\"\n",
        lease_ms / 5,
        ways.origin,
        place.origin_url,
        secret.display(),
        truth.address(),
    );
    for (region, place) in REGIONS.iter().zip(&ways.places) {
        let (name, listen, admin) = (region.name, place.listen, place.admin);
        text += &format!("[regions.{name}]\nlatitude = 0\nlongitude = 0\n");
        text += &format!("[edges.{name}-1]\nregion = \"{name}\"\nlisten = \"{listen}\"\nadmin = \"{admin}\"\nmemory = \"64 MiB\"\n");
    }
    text
}

/// Waits until a page answers 200.
async fn wait_for(url: &str, node: &Node) -> Result<()> {
    let client = client()?;
    let begun = Instant::now();
    loop {
        let answer = client.get(url).timeout(Duration::from_secs(2)).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{url} did not answer within {PATIENCE:?}; {} said:\n{}", node.name(), node.said());
        tokio::time::sleep(PAUSE).await;
    }
}
