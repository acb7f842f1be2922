//! A town on paper: what runs in it, and what its configuration file says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::Result;

use super::place::{Bundle, Place};
use super::{NAMESERVER, Town};
use crate::{Cable, RedisServer, Upstream};

/// Each region with its place, the network of its clients, and the address that DNS gives out for its edges.
const REGIONS: [(&str, f64, f64, &str, &str); 3] = [
    ("fra", 50.11, 8.68, "192.0.2.0/24", "127.0.0.1"),
    ("iad", 38.94, -77.46, "198.51.100.0/24", "127.0.0.2"),
    ("sin", 1.36, 103.99, "203.0.113.0/24", "127.0.0.3"),
];

/// A town on paper. The site `www` is at `www.test`; with an upstream, the route `api` is at `api.test` and the route
/// `shop` at `www.test/api/`.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub(super) edges: Vec<String>,
    cut: BTreeSet<String>,
    pub(super) has_dns: bool,
    upstream: Option<SocketAddr>,
    route_lines: String,
    edge_lines: String,
    region_lines: BTreeMap<String, String>,
    lease: Option<&'static str>,
    more: String,
    /// How many origins there are; nothing said is one.
    origins: usize,
    /// Where the Redis is that they share.
    pub(super) journal: Option<SocketAddr>,
    origin_lines: String,
    /// Followers with a cable to one origin alone.
    only: BTreeMap<String, usize>,
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

    /// Has so many origins. Only where they share a journal do all of them start; the follower that comes next in order asks
    /// the next of them first.
    #[must_use]
    pub fn origins(mut self, count: usize) -> Self {
        self.origins = count;
        self
    }

    /// Keeps the journal and the lease book of all origins in a Redis.
    #[must_use]
    pub fn journal(mut self, server: &RedisServer) -> Self {
        self.journal = Some(server.address());
        self
    }

    /// Adds a line to the section of every origin, such as `blobs = "s3://bucket"`.
    #[must_use]
    pub fn on_origins(mut self, line: &str) -> Self {
        self.origin_lines.push_str(line);
        self.origin_lines.push('\n');
        self
    }

    /// Starts a follower with its cables to all origins but one cut.
    #[must_use]
    pub fn only(mut self, name: &str, origin: usize) -> Self {
        self.only.insert(name.to_owned(), origin);
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

    /// Writes the file of an origin that has this cable to what all share.
    pub(super) fn text(&self, shared: &Cable) -> String {
        let lease = self.lease.unwrap_or("60s");
        let mut text = format!("data = \"data\"\n[network]\nname = \"town\"\nlease = \"{lease}\"\nheartbeat = \"200ms\"\n");
        text.push_str("[origin]\nlisten = \"127.0.0.1:0\"\n");
        if self.journal.is_some() {
            text.push_str(&format!("journal = \"redis://{}\"\n", shared.address()));
        }
        text.push_str(&self.origin_lines);
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

    fn followers(&self) -> Vec<String> {
        let nameserver = self.has_dns.then(|| NAMESERVER.to_owned());
        self.edges.iter().cloned().chain(nameserver).collect()
    }

    /// Builds the town and waits until every follower that is not cut off holds a lease.
    ///
    /// # Errors
    /// Where a node does not start.
    pub async fn start(self) -> Result<Town> {
        let folder = tempfile::tempdir()?;
        let count = self.origins.max(1);
        let (mut places, mut cables, mut cut) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        for number in 0..count {
            places.push(Place::prepare(&self, folder.path(), number).await?);
        }
        for (number, name) in self.followers().into_iter().enumerate() {
            let first = self.only.get(&name).copied().unwrap_or(number % count);
            let is_cut = |origin: &usize| self.cut.contains(&name) || (self.only.contains_key(&name) && *origin != first);
            cut.extend((0..count).filter(is_cut).map(|origin| (name.clone(), origin)));
            cables.insert(name, Bundle::lay(count, first).await?);
        }
        let client = crate::answer::client()?;
        let (edges, plan) = (BTreeMap::new(), self);
        let mut town = Town { folder, plan, places, client, cables, cut, edges, dns: None };
        // A journal of its own is no other origin's.
        town.start_origins(if town.plan.journal.is_some() { count } else { 1 }).await?;
        for name in town.plan.edges.clone() {
            town.start_edge(&name).await?;
        }
        if town.plan.has_dns {
            town.start_dns().await?;
        }
        town.settled().await?;
        Ok(town)
    }
}
