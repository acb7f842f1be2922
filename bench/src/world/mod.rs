//! Three regions of real processes: an origin or two and one edge in the first, one edge each in two that are farther away,
//! the engines that they share, and an upstream in this program that knows what is true.

pub(crate) mod line;
mod cable;
mod wan;
mod plan;
mod ways;
pub(crate) mod node;
mod beside;
mod file;
pub(crate) mod truth;
pub(crate) mod tap;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use wire::Status;

use crate::control::Control;
use crate::town::client;
use file::Files;
use node::Node;
use truth::Truth;
use ways::{Place, Ways};

pub(crate) use beside::Beside;
pub(crate) use plan::{Plan, REGIONS, SHARING, Shared};

/// How long anything may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// The processes, and what they run on. Dropping it ends them all, the ways last.
#[derive(Debug)]
pub(crate) struct World {
    /// The control plane: one process, or several on one journal.
    pub(crate) origins: Vec<Node>,
    /// The edges, in the order of the regions.
    pub(crate) edges: Vec<Node>,
    /// What is true.
    pub(crate) truth: Arc<Truth>,
    /// Speaks with the origins.
    pub(crate) control: Control,
    /// What it was made by.
    pub(crate) plan: Plan,
    /// The engines that they share.
    pub(crate) beside: Beside,
    ways: Ways,
    folder: TempDir,
    binary: PathBuf,
}

impl World {
    /// Starts everything, and waits until each edge holds a lease.
    pub(crate) async fn start(binary: &Path, wan: Option<&Path>, plan: Plan) -> Result<Self> {
        let folder = TempDir::new()?;
        let mut ways = Ways::open(wan, folder.path(), &plan).await?;
        let truth = Arc::new(Truth::start(ways.host, plan.keys).await?);
        let beside = Beside::start(&plan, &mut ways).await?;
        let secret = folder.path().join("follow.secret");
        std::fs::write(&secret, format!("a secret of process {}\n", std::process::id()))?;
        let files = Files { plan: &plan, ways: &ways, truth: &truth, beside: &beside, secret: &secret };
        let writer = Writer { files, folder: folder.path(), binary };
        let first = ways.places.first().context("a region")?;
        let urls: Vec<String> = ways.origins.iter().map(|origin| format!("http://{origin}")).collect();
        let mut origins = Vec::new();
        for (number, listen) in ways.origins.iter().enumerate() {
            let mut origin = writer.node(&origin_name(number), &["origin"], first, *listen, &urls)?;
            origin.start()?;
            wait_for(&format!("http://{listen}/readyz"), &origin).await?;
            origins.push(origin);
        }
        let token = std::fs::read_to_string(folder.path().join(origin_name(0)).join("admin.token"))?;
        let control = Control::of(urls, &token)?;
        let listen = *ways.origins.first().context("an origin")?;
        let mut edges = Vec::new();
        for (seat, place) in plan.edges().iter().zip(&ways.places) {
            let mut edge = writer.node(&seat.name, &["edge", &seat.name], place, listen, &place.origin_urls)?;
            edge.start()?;
            edges.push(edge);
        }
        let world = Self { origins, edges, truth, control, plan, beside, ways, folder, binary: binary.to_owned() };
        for number in 0..world.edges.len() {
            world.wait_for_edge(number).await?;
        }
        world.wait_until_all_follow().await?;
        Ok(world)
    }

    /// Returns the program and the file of the first origin, for commands that are run beside it.
    pub(crate) fn command_line(&self) -> (PathBuf, PathBuf) {
        (self.binary.clone(), self.folder.path().join(format!("{}.toml", origin_name(0))))
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
        let text = self.metrics(number).await?;
        let buckets = text.lines().filter_map(|line| {
            let (upper, count) = line.strip_prefix("atoll_edge_purge_seconds_bucket{le=\"")?.split_once("\"} ")?;
            Some((upper.parse::<f64>().unwrap_or(f64::INFINITY), count.parse::<f64>().ok()?))
        });
        let buckets: Vec<_> = buckets.collect();
        let all = buckets.last().context("no purge was counted")?.1;
        let upper = buckets.iter().find(|(_, count)| *count >= all * share / 1000.0).context("an empty histogram")?.0;
        Ok(Duration::try_from_secs_f64(upper).unwrap_or(Duration::MAX))
    }

    async fn metrics(&self, number: usize) -> Result<String> {
        let admin = self.ways.places.get(number).context("no such edge")?.admin;
        Ok(client()?.get(format!("http://{admin}/metrics")).send().await?.error_for_status()?.text().await?)
    }

    /// Returns what an edge counts under a name, all labels together; 0 where it has counted nothing.
    pub(crate) async fn counted(&self, number: usize, name: &str) -> Result<f64> {
        Ok(sum(&self.metrics(number).await?, name))
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

    /// Returns one origin's process.
    pub(crate) fn origin(&mut self, number: usize) -> Result<&mut Node> {
        self.origins.get_mut(number).context("there is no such origin")
    }

    /// Starts an origin again, and waits until it takes calls.
    pub(crate) async fn start_origin(&mut self, number: usize) -> Result<()> {
        let listen = *self.ways.origins.get(number).context("there is no such origin")?;
        let origin = self.origin(number)?;
        origin.start()?;
        wait_for(&format!("http://{listen}/readyz"), origin).await
    }

    /// Waits until an edge has something to answer from.
    pub(crate) async fn wait_for_edge(&self, number: usize) -> Result<()> {
        let (place, edge) = (self.ways.places.get(number).context("a region")?, self.edges.get(number).context("an edge")?);
        wait_for(&format!("http://{}/readyz", place.admin), edge).await
    }

    /// Waits until every edge has applied what the journal holds now, and has heard that it holds a lease, and returns how long that
    /// took.
    pub(crate) async fn wait_until_all_follow(&self) -> Result<Duration> {
        let begun = Instant::now();
        let mut head = None;
        loop {
            // An origin that was killed a moment ago refuses a call or two.
            let status = self.control.status().await;
            if let Ok(status) = &status {
                let head = *head.get_or_insert(status.position.seq);
                if self.edges.iter().all(|edge| follows(status, edge.name(), head)) && self.all_know_of_their_lease().await? {
                    return Ok(begun.elapsed());
                }
            }
            ensure!(begun.elapsed() < PATIENCE, "not every edge follows after {PATIENCE:?}: {status:?}\n{}", self.said());
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn all_know_of_their_lease(&self) -> Result<bool> {
        for number in 0..self.edges.len() {
            if self.counted(number, "atoll_edge_leased").await? == 0.0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the end of what each process said.
    fn said(&self) -> String {
        let all = self.origins.iter().chain(&self.edges);
        all.map(|node| format!("{} said:\n{}", node.name(), node.said())).collect::<Vec<_>>().join("\n")
    }
}

fn follows(status: &Status, name: &str, head: u64) -> bool {
    status.followers.iter().any(|follower| follower.name.as_str() == name && follower.live && follower.applied >= head)
}

fn origin_name(number: usize) -> String {
    format!("origin-{}", number + 1)
}

/// Adds up what a page of metrics says under a name.
fn sum(page: &str, name: &str) -> f64 {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = if rest.starts_with('{') { rest.rsplit_once("} ")?.1 } else { rest.strip_prefix(' ')? };
        value.trim().parse::<f64>().ok()
    });
    values.sum()
}

/// Writes the files of nodes, and prepares their processes.
struct Writer<'a> {
    files: Files<'a>,
    folder: &'a Path,
    binary: &'a Path,
}

impl Writer<'_> {
    fn node(&self, name: &str, words: &[&str], place: &Place, listen: SocketAddr, origin_urls: &[String]) -> Result<Node> {
        let file = self.folder.join(format!("{name}.toml"));
        std::fs::write(&file, self.files.text(&self.folder.join(name), listen, origin_urls))?;
        let mut call = place.enter.clone();
        let (binary, file) = (self.binary.display().to_string(), file.display().to_string());
        call.extend([binary.as_str(), "-c", file.as_str(), "--log", "warn"].map(str::to_owned));
        call.extend(words.iter().map(|&word| word.to_owned()));
        Ok(Node::new(name, call, self.folder))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_under_several_labels_is_added_up_and_a_longer_name_is_another() {
        let page = "# TYPE a counter\na_total{result=\"x y\"} 3\na_total{result=\"z\"} 4\na_total_more 9\nb 2\n";
        assert_eq!((sum(page, "a_total"), sum(page, "b"), sum(page, "c")), (7.0, 2.0, 0.0));
    }
}
