//! A town of real nodes: an origin, edges in three regions, a DNS node, each follower on a cable of its own. Or several
//! origins that share a journal: then each follower has a cable to each of them, and each of them one to what they share.

mod plan;
mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use config::Settings;
use dns::Dns;
use edge::Edge;
use futures_util::future::{join_all, try_join_all};
use reqwest::Client;
use tempfile::TempDir;
use wire::{NodeName, Secret};

use crate::{Answer, Cable, Control, RedisServer, Upstream, Visitor, eventually};

pub use plan::Plan;

use place::{Bundle, Place, run_origin};

/// The DNS node's name.
const NAMESERVER: &str = "ns-1";

/// A town that runs.
#[derive(Debug)]
pub struct Town {
    folder: TempDir,
    plan: Plan,
    places: Vec<Place>,
    client: Client,
    cables: BTreeMap<String, Bundle>,
    /// Followers, each with an origin that it does not reach.
    cut: BTreeSet<(String, usize)>,
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
        self.places.first().map_or("", |place| place.text.as_str())
    }

    /// Returns the folder in which all nodes keep their files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the names of the edges that run.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.edges.keys().cloned().collect()
    }

    fn place(&self, origin: usize) -> Result<&Place> {
        self.places.get(origin).with_context(|| format!("there is no origin {origin}"))
    }

    fn place_mut(&mut self, origin: usize) -> Result<&mut Place> {
        self.places.get_mut(origin).with_context(|| format!("there is no origin {origin}"))
    }

    fn running_origin(&self, origin: usize) -> Result<&origin::Running> {
        self.place(origin)?.running.as_ref().context("the origin does not run")
    }

    fn edge(&self, name: &str) -> Result<&edge::Running> {
        self.edges.get(name).with_context(|| format!("the edge {name} does not run"))
    }

    fn bundle(&self, name: &str) -> Result<&Bundle> {
        self.cables.get(name).with_context(|| format!("there is no follower {name}"))
    }

    fn cable(&self, name: &str, origin: usize) -> Result<&Cable> {
        self.bundle(name)?.cables.get(origin).with_context(|| format!("there is no origin {origin}"))
    }

    /// Returns the first origin's address.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn origin_address(&self) -> Result<SocketAddr> {
        Ok(self.running_origin(0)?.address())
    }

    /// Returns the admin's calls to the first origin.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn control(&self) -> Result<Control> {
        self.control_of(0)
    }

    /// Returns the calls to an origin of an admin who has its own token.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn control_of(&self, origin: usize) -> Result<Control> {
        let origin = self.running_origin(origin)?;
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

    /// Tells whether there is an origin that a follower reaches.
    fn is_connected(&self, name: &str) -> bool {
        let reaches = |origin: usize| !self.cut.contains(&(name.to_owned(), origin));
        self.places.iter().enumerate().any(|(origin, place)| place.running.is_some() && !place.is_lost && reaches(origin))
    }

    /// Waits until every follower that is not cut off holds a lease and has applied all there is.
    ///
    /// # Errors
    /// Where one never does.
    pub async fn settled(&self) -> Result<()> {
        let heard = self.places.iter().position(|place| place.running.is_some() && !place.is_lost);
        let control = self.control_of(heard.context("the origin does not run")?)?;
        let nameserver = self.dns.is_some().then(|| NAMESERVER.to_owned());
        let names: Vec<_> = self.edges.keys().cloned().chain(nameserver).filter(|name| self.is_connected(name)).collect();
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

    /// Starts the first origin on what it has kept.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn start_origin(&mut self) -> Result<()> {
        self.start_origin_at(0).await
    }

    /// Starts an origin on what it has kept.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn start_origin_at(&mut self, origin: usize) -> Result<()> {
        let running = run_origin(self.place(origin)?.settings.clone()).await?;
        self.take_in(origin, running)
    }

    /// Starts the first so many origins at the same moment.
    ///
    /// # Errors
    /// Where one does not start.
    pub async fn start_origins(&mut self, count: usize) -> Result<()> {
        let starting = self.places.iter().take(count).map(|place| Box::pin(run_origin(place.settings.clone())));
        let running = try_join_all(starting).await?;
        running.into_iter().enumerate().try_for_each(|(origin, running)| self.take_in(origin, running))
    }

    /// Lets followers reach an origin that was started.
    fn take_in(&mut self, origin: usize, running: origin::Running) -> Result<()> {
        let address = running.address();
        self.place_mut(origin)?.running = Some(running);
        for name in self.cables.keys().filter(|name| !self.cut.contains(&((*name).clone(), origin))) {
            self.cable(name, origin)?.plug(address);
        }
        Ok(())
    }

    /// Stops the first origin; followers see their connections break off.
    ///
    /// # Errors
    /// Where it does not run.
    pub async fn stop_origin(&mut self) -> Result<()> {
        self.stop_origin_at(0).await
    }

    /// Stops an origin; followers see their connections break off.
    ///
    /// # Errors
    /// Where it does not run.
    pub async fn stop_origin_at(&mut self, origin: usize) -> Result<()> {
        self.each_cable_to(origin, Cable::cut);
        let running = self.place_mut(origin)?.running.take();
        Box::pin(running.context("the origin does not run")?.stop()).await;
        Ok(())
    }

    fn each_cable_to(&self, origin: usize, act: impl Fn(&Cable)) {
        self.cables.values().filter_map(|bundle| bundle.cables.get(origin)).for_each(act);
    }

    /// Takes an origin away from everybody at once, as when its process is killed: connections break off, also those to what
    /// it shares with others. It runs on where nobody hears of it, for the rest of the town's days.
    ///
    /// # Errors
    /// Where there is no such origin.
    pub fn lose_origin(&mut self, origin: usize) -> Result<()> {
        self.each_cable_to(origin, Cable::cut);
        let place = self.place_mut(origin)?;
        place.shared.cut();
        place.is_lost = true;
        Ok(())
    }

    /// The same without a word, as when its machine loses power: connections stay, and nothing passes.
    ///
    /// # Errors
    /// Where there is no such origin.
    pub fn silence_origin(&mut self, origin: usize) -> Result<()> {
        self.each_cable_to(origin, Cable::fall_silent);
        let place = self.place_mut(origin)?;
        place.shared.fall_silent();
        place.is_lost = true;
        Ok(())
    }

    /// Cuts an origin off from what it shares with others; its followers reach it still.
    ///
    /// # Errors
    /// Where there is no such origin.
    pub fn cut_from_shared(&mut self, origin: usize) -> Result<()> {
        let place = self.place_mut(origin)?;
        place.shared.cut();
        place.is_lost = true;
        Ok(())
    }

    /// Mends that.
    ///
    /// # Errors
    /// Where there is no such origin.
    pub fn mend_to_shared(&mut self, origin: usize) -> Result<()> {
        let server = self.plan.journal.context("nothing is shared")?;
        let place = self.place_mut(origin)?;
        place.shared.plug(server);
        place.is_lost = false;
        Ok(())
    }

    /// Names another engine in the files of all origins, none of which may run: a Redis that they share, or a file of the
    /// first one's own.
    ///
    /// # Errors
    /// Where one runs.
    pub fn keep_journal_in(&mut self, server: Option<&RedisServer>) -> Result<()> {
        ensure!(self.places.iter().all(|place| place.running.is_none()), "an origin runs");
        self.plan.journal = server.map(RedisServer::address);
        for place in &mut self.places {
            if let Some(server) = self.plan.journal {
                place.shared.plug(server);
            }
            place.text = self.plan.text(&place.shared);
            std::fs::write(&place.file, &place.text)?;
            place.settings = Settings::from_text(&place.text, &place.file, [], [])?;
        }
        Ok(())
    }

    /// Starts an edge on what it has kept.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn start_edge(&mut self, name: &str) -> Result<()> {
        let node: NodeName = name.parse()?;
        let settings = self.place(0)?.settings.clone();
        let edge = Edge::new(settings, &node, self.follow_token()?)?.with_origins(self.bundle(name)?.urls());
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
        let settings = self.place(0)?.settings.clone();
        let dns = Dns::new(settings, &node, self.follow_token()?)?.with_origins(self.bundle(NAMESERVER)?.urls());
        self.dns = Some(Box::pin(dns.start()).await?);
        Ok(())
    }

    fn follow_token(&self) -> Result<Secret> {
        let path = self.place(0)?.settings.data.join("follow.token");
        Ok(Secret::from_text(&std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?))
    }

    /// Cuts a follower off from all origins, without a word.
    ///
    /// # Errors
    /// Where there is no such follower.
    pub fn cut(&mut self, name: &str) -> Result<()> {
        (0..self.places.len()).try_for_each(|origin| self.cut_from(name, origin))
    }

    /// Cuts a follower off from one origin.
    ///
    /// # Errors
    /// Where there is no such follower or origin.
    pub fn cut_from(&mut self, name: &str, origin: usize) -> Result<()> {
        self.cable(name, origin)?.cut();
        self.cut.insert((name.to_owned(), origin));
        Ok(())
    }

    /// Mends all cables of a follower that were cut.
    ///
    /// # Errors
    /// Where there is no such follower.
    pub fn mend(&mut self, name: &str) -> Result<()> {
        (0..self.places.len()).try_for_each(|origin| self.mend_to(name, origin))
    }

    /// Mends a follower's cable to one origin.
    ///
    /// # Errors
    /// Where there is no such follower or origin.
    pub fn mend_to(&mut self, name: &str, origin: usize) -> Result<()> {
        self.cut.remove(&(name.to_owned(), origin));
        if let Some(running) = &self.place(origin)?.running {
            self.cable(name, origin)?.plug(running.address());
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
        self.cables.values().flat_map(|bundle| &bundle.cables).for_each(Cable::cut);
        let origins = self.places.iter_mut().filter_map(|place| place.running.take()).map(|origin| Box::pin(origin.stop()));
        let origins: Vec<_> = origins.collect();
        join_all(origins).await;
    }
}
