//! A town of real nodes: an origin, edges in three regions, a DNS node, each follower on a cable of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use config::Settings;
use dns::Dns;
use edge::Edge;
use futures_util::future::join_all;
use origin::Origin;
use reqwest::Client;
use tempfile::TempDir;
use wire::{NodeName, Secret};

use crate::{Answer, Cable, Control, Upstream, Visitor, eventually};

/// Each region with its place, the network of its clients, and the address that DNS gives out for its edges.
const REGIONS: [(&str, f64, f64, &str, &str); 3] = [
    ("fra", 50.11, 8.68, "192.0.2.0/24", "127.0.0.1"),
    ("iad", 38.94, -77.46, "198.51.100.0/24", "127.0.0.2"),
    ("sin", 1.36, 103.99, "203.0.113.0/24", "127.0.0.3"),
];

/// The DNS node's name.
const NAMESERVER: &str = "ns-1";

/// A town on paper. The site `www` is at `www.test`; with an upstream, the route `api` is at `api.test` and the route
/// `shop` at `www.test/api/`.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    edges: Vec<String>,
    cut: BTreeSet<String>,
    has_dns: bool,
    upstream: Option<SocketAddr>,
    route_lines: String,
    edge_lines: String,
    region_lines: BTreeMap<String, String>,
    lease: Option<&'static str>,
    more: String,
}

impl Plan {
    /// Adds edges; an edge's name begins with its region: `fra-1`, `iad-1`, `sin-1`.
    #[must_use]
    pub fn edges(mut self, names: &[&str]) -> Self {
        self.edges.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// Starts a follower with its cable cut.
    #[must_use]
    pub fn cut(mut self, name: &str) -> Self {
        self.cut.insert(name.to_owned());
        self
    }

    /// Adds a DNS node for `example.test`.
    #[must_use]
    pub fn dns(mut self) -> Self {
        self.has_dns = true;
        self
    }

    /// Adds the routes to an upstream.
    #[must_use]
    pub fn upstream(mut self, upstream: &Upstream) -> Self {
        self.upstream = Some(upstream.address());
        self
    }

    /// Adds the routes to an upstream that is none of the harness's.
    #[must_use]
    pub fn upstream_at(mut self, address: SocketAddr) -> Self {
        self.upstream = Some(address);
        self
    }

    /// Adds a line to both routes, such as `when_fenced = "refuse"`.
    #[must_use]
    pub fn on_routes(mut self, line: &str) -> Self {
        self.route_lines.push_str(line);
        self.route_lines.push('\n');
        self
    }

    /// Adds a line to all edges, such as `head_timeout = "1s"`.
    #[must_use]
    pub fn on_edges(mut self, line: &str) -> Self {
        self.edge_lines.push_str(line);
        self.edge_lines.push('\n');
        self
    }

    /// Adds a line to a region, such as `redis = "redis://127.0.0.1:6379"`.
    #[must_use]
    pub fn on_region(mut self, region: &str, line: &str) -> Self {
        let lines = self.region_lines.entry(region.to_owned()).or_default();
        lines.push_str(line);
        lines.push('\n');
        self
    }

    /// Gives leases of another length than a minute, which none outlives however busy the machine is.
    #[must_use]
    pub fn lease(mut self, lease: &'static str) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Adds a route of its own at `api.test`, to an upstream of its own, with these lines.
    #[must_use]
    pub fn route(mut self, name: &str, path: &str, upstream: &Upstream, lines: &str) -> Self {
        let address = upstream.address();
        self.more.push_str(&format!("[upstreams.{name}]\nservers = [\"http://{address}\"]\n"));
        self.more.push_str(&format!("[routes.{name}]\nhosts = [\"api.test\"]\npath = \"{path}\"\nupstream = \"{name}\"\n{lines}\n"));
        self
    }

    fn text(&self) -> String {
        let lease = self.lease.unwrap_or("60s");
        let mut text = format!("data = \"data\"\n[network]\nname = \"town\"\nlease = \"{lease}\"\nheartbeat = \"200ms\"\n");
        text.push_str("[origin]\nlisten = \"127.0.0.1:0\"\n");
        for (region, latitude, longitude, clients, _) in REGIONS {
            text.push_str(&format!("[regions.{region}]\nlatitude = {latitude}\nlongitude = {longitude}\nclients = [\"{clients}\"]\n"));
            text.push_str(self.region_lines.get(region).map_or("", String::as_str));
        }
        for name in &self.edges {
            let region = name.split('-').next().unwrap_or_default();
            let answers = REGIONS.iter().find(|known| known.0 == region).map_or("127.0.0.9", |known| known.4);
            text.push_str(&format!("[edges.{name}]\nregion = \"{region}\"\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n"));
            text.push_str(&format!("answers = [\"{answers}\"]\nmemory = \"32 MiB\"\n{}", self.edge_lines));
        }
        if self.has_dns {
            text.push_str(&format!("[dns.{NAMESERVER}]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n"));
            text.push_str("[zones.\"example.test\"]\nnameservers = { \"ns1.example.test\" = [\"127.0.0.1\"] }\n");
            text.push_str("ttl = \"20s\"\nsteered = [\"@\", \"www\"]\n");
        }
        text.push_str("[sites.www]\nhosts = [\"www.test\"]\nmax_file = \"2 MiB\"\n");
        if let Some(upstream) = self.upstream {
            text.push_str(&format!("[upstreams.api]\nservers = [\"http://{upstream}\"]\n"));
            for (name, host, path) in [("api", "api.test", "/*"), ("shop", "www.test", "/api/*")] {
                text.push_str(&format!("[routes.{name}]\nhosts = [\"{host}\"]\npath = \"{path}\"\nupstream = \"api\"\n"));
                text.push_str(&self.route_lines);
            }
        }
        text.push_str(&self.more);
        text
    }

    /// Builds the town and waits until every follower that is not cut off holds a lease.
    ///
    /// # Errors
    /// Where a node does not start.
    pub async fn start(self) -> Result<Town> {
        let folder = tempfile::tempdir()?;
        let text = self.text();
        let file = folder.path().join("atoll.toml");
        std::fs::write(&file, &text)?;
        let settings = Settings::from_text(&text, &file, [], [])?;
        let mut cables = BTreeMap::new();
        let nameserver = self.has_dns.then(|| NAMESERVER.to_owned());
        for name in self.edges.iter().cloned().chain(nameserver) {
            cables.insert(name, Cable::lay().await?);
        }
        let client = crate::answer::client()?;
        let (edges, cut) = (BTreeMap::new(), self.cut);
        let mut town = Town { folder, text, settings, client, cables, cut, origin: None, edges, dns: None };
        town.start_origin().await?;
        for name in &self.edges {
            town.start_edge(name).await?;
        }
        if self.has_dns {
            town.start_dns().await?;
        }
        town.settled().await?;
        Ok(town)
    }
}

/// A town that runs.
#[derive(Debug)]
pub struct Town {
    folder: TempDir,
    text: String,
    settings: Settings,
    client: Client,
    cables: BTreeMap<String, Cable>,
    cut: BTreeSet<String>,
    origin: Option<origin::Running>,
    edges: BTreeMap<String, edge::Running>,
    dns: Option<dns::Running>,
}

impl Town {
    /// Begins to plan a town.
    #[must_use]
    pub fn plan() -> Plan {
        Plan::default()
    }

    /// Returns a town of one edge in each region, with the routes to an upstream.
    ///
    /// # Errors
    /// Where a node does not start.
    pub async fn of_three(upstream: &Upstream) -> Result<Self> {
        Self::plan().edges(&["fra-1", "iad-1", "sin-1"]).upstream(upstream).start().await
    }

    /// Returns the configuration as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the folder in which all nodes keep their files.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Returns the names of the edges that run.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.edges.keys().cloned().collect()
    }

    fn running_origin(&self) -> Result<&origin::Running> {
        self.origin.as_ref().context("the origin does not run")
    }

    fn edge(&self, name: &str) -> Result<&edge::Running> {
        self.edges.get(name).with_context(|| format!("the edge {name} does not run"))
    }

    fn cable(&self, name: &str) -> Result<&Cable> {
        self.cables.get(name).with_context(|| format!("there is no follower {name}"))
    }

    /// Returns the origin's address.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn origin_address(&self) -> Result<SocketAddr> {
        Ok(self.running_origin()?.address())
    }

    /// Returns the admin's calls to the origin.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn control(&self) -> Result<Control> {
        let origin = self.running_origin()?;
        Control::new(format!("http://{}", origin.address()), &std::fs::read_to_string(origin.admin_token())?)
    }

    /// Returns somebody who asks an edge.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn visit(&self, name: &str) -> Result<Visitor> {
        let address = *self.edge(name)?.addresses().first().context("the edge listens nowhere")?;
        Ok(Visitor::new(self.client.clone(), address))
    }

    /// Returns somebody for each edge, in the order of their names.
    ///
    /// # Errors
    /// Where none can be had.
    pub fn visitors(&self) -> Result<Vec<Visitor>> {
        self.edges.keys().map(|name| self.visit(name)).collect()
    }

    /// Asks for a page of an edge's admin listener.
    ///
    /// # Errors
    /// Where no whole answer came.
    pub async fn admin(&self, name: &str, path: &str) -> Result<Answer> {
        let address = self.edge(name)?.admin();
        Visitor::new(self.client.clone(), address).get("admin.test", path).await
    }

    /// Returns what an edge's metrics say of a counter or gauge without labels.
    ///
    /// # Errors
    /// Where there is none of this name.
    pub async fn metric(&self, name: &str, metric: &str) -> Result<f64> {
        let text = self.admin(name, "/metrics").await?.with_status(200)?.text();
        let found = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' ')?.parse().ok());
        found.with_context(|| format!("there is no {metric} in:\n{text}"))
    }

    /// Tells whether an edge has something to answer from.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn is_ready(&self, name: &str) -> Result<bool> {
        Ok(self.edge(name)?.is_ready())
    }

    /// Returns the DNS node's address.
    ///
    /// # Errors
    /// Where there is none.
    pub fn nameserver(&self) -> Result<SocketAddr> {
        let dns = self.dns.as_ref().context("there is no DNS node")?;
        dns.addresses().first().copied().context("the DNS node listens nowhere")
    }

    /// Waits until every follower that is not cut off holds a lease and has applied all there is.
    ///
    /// # Errors
    /// Where one never does.
    pub async fn settled(&self) -> Result<()> {
        let control = self.control()?;
        let nameserver = self.dns.is_some().then(|| NAMESERVER.to_owned());
        let names: Vec<_> = self.edges.keys().cloned().chain(nameserver).filter(|name| !self.cut.contains(name)).collect();
        eventually("every follower to hold a lease", || async {
            let status = control.status().await?;
            let settled = |name: &String| {
                status.followers.iter().any(|follower| follower.name.as_str() == name && follower.live && follower.lag == 0)
            };
            ensure!(names.iter().all(settled), "{status:?}");
            // The origin has granted them; the edges must have heard of it too.
            for name in names.iter().filter(|name| self.edges.contains_key(*name)) {
                ensure!(self.metric(name, "atoll_edge_leased").await? > 0.0, "{name} has not heard of its lease");
            }
            Ok(())
        })
        .await
    }

    /// Starts the origin on what it has kept.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn start_origin(&mut self) -> Result<()> {
        // The origin before lets go of its journal a moment after it was stopped.
        let running = eventually("the origin to start", || Box::pin(Origin::new(self.settings.clone()).start())).await?;
        for (_, cable) in self.cables.iter().filter(|(name, _)| !self.cut.contains(*name)) {
            cable.plug(running.address());
        }
        self.origin = Some(running);
        Ok(())
    }

    /// Stops the origin; followers see their connections break off.
    ///
    /// # Errors
    /// Where it does not run.
    pub async fn stop_origin(&mut self) -> Result<()> {
        self.cables.values().for_each(Cable::cut);
        Box::pin(self.origin.take().context("the origin does not run")?.stop()).await;
        Ok(())
    }

    /// Starts an edge on what it has kept.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn start_edge(&mut self, name: &str) -> Result<()> {
        let node: NodeName = name.parse()?;
        let edge = Edge::new(self.settings.clone(), &node, self.follow_token()?)?.with_origins(vec![self.cable(name)?.url()]);
        let running = Box::pin(edge.start()).await?;
        self.edges.insert(name.to_owned(), running);
        Ok(())
    }

    /// Stops an edge well: it tells DNS, and finishes what is in hand.
    ///
    /// # Errors
    /// Where it does not run.
    pub async fn stop_edge(&mut self, name: &str) -> Result<()> {
        let running = self.edges.remove(name).with_context(|| format!("the edge {name} does not run"))?;
        Box::pin(running.stop()).await;
        Ok(())
    }

    async fn start_dns(&mut self) -> Result<()> {
        let node: NodeName = NAMESERVER.parse()?;
        let dns = Dns::new(self.settings.clone(), &node, self.follow_token()?)?.with_origins(vec![self.cable(NAMESERVER)?.url()]);
        self.dns = Some(Box::pin(dns.start()).await?);
        Ok(())
    }

    fn follow_token(&self) -> Result<Secret> {
        let path = self.settings.data.join("follow.token");
        Ok(Secret::from_text(&std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?))
    }

    /// Cuts a follower off from the origin, without a word.
    ///
    /// # Errors
    /// Where there is no such follower.
    pub fn cut(&mut self, name: &str) -> Result<()> {
        self.cable(name)?.cut();
        self.cut.insert(name.to_owned());
        Ok(())
    }

    /// Mends a cable that was cut.
    ///
    /// # Errors
    /// Where there is no such follower.
    pub fn mend(&mut self, name: &str) -> Result<()> {
        self.cut.remove(name);
        if let Some(origin) = &self.origin {
            self.cable(name)?.plug(origin.address());
        }
        Ok(())
    }

    /// Stops everything, the followers first.
    pub async fn stop(mut self) {
        let edges = std::mem::take(&mut self.edges).into_values().map(|edge| Box::pin(edge.stop()));
        let edges: Vec<_> = edges.collect();
        join_all(edges).await;
        if let Some(dns) = self.dns.take() {
            Box::pin(dns.stop()).await;
        }
        self.cables.values().for_each(Cable::cut);
        if let Some(origin) = self.origin.take() {
            Box::pin(origin.stop()).await;
        }
    }
}
