//! Starts an edge and stops it: bind first, report the real addresses, drain before leaving.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use anyhow::{Context as _, Result, bail};
use arc_swap::ArcSwap;
use config::{EdgeNode, Settings};
use follow::{Following, Lease, Origins, Way};
use listen::Sockets;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::{NodeName, PurgeTable, Role, Secret};

use crate::applied::Applied;
use crate::assets::{Assets, Folder, Manifests};
use crate::door::GRACE_S;
use crate::gateway::{
    Asked, Purging, QUESTIONS, Responses, SECOND_LANES, SECOND_QUEUE, Second, SecondDeposit, SecondPlace, TOMBSTONES_BYTES, WaitingRoom,
    answer_questions, write_second_behind,
};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::{admin, door};

/// How long a connection may be on its way from where it is accepted to where it is served.
const ACCEPTED: Duration = Duration::from_millis(50);

/// How often the memory tier is tidied.
const TIDY: Duration = Duration::from_millis(500);

/// Of the memory that an edge may take, what is left for requests.
const REQUESTS: u64 = 4 << 20;

/// Of the memory that an edge may take, what its cache does not get: it is for requests, for the tombstones and for two
/// purge tables at their fullest, the one in force and the one in the follower's fold.
const RESERVED: u64 = REQUESTS + TOMBSTONES_BYTES + 2 * PurgeTable::MOST_BYTES;

/// Bytes of bodies that may be on their way at the least, whatever the memory.
const FLOWING_LEAST: usize = 32 << 20;

/// An edge that is about to start.
#[derive(Debug)]
pub struct Edge {
    settings: Settings,
    node: EdgeNode,
    token: Secret,
    urls: Vec<String>,
    sockets: Sockets,
}

/// An edge that runs. [`Running::stop`] ends it.
#[derive(Debug)]
pub struct Running {
    name: NodeName,
    addresses: Vec<SocketAddr>,
    admin: SocketAddr,
    edge: Arc<crate::edge::Edge>,
    following: Following,
    servers: Vec<ServerHandle>,
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Edge {
    /// Prepares the edge `name` of these settings, which shows `token` to its origins.
    ///
    /// # Errors
    /// Where the settings have no such edge.
    pub fn new(settings: Settings, name: &NodeName, token: Secret) -> Result<Self> {
        let node = find(&settings, name)?;
        let urls = settings.origin.urls.clone();
        Ok(Self { settings, node, token, urls, sockets: Sockets::default() })
    }

    /// Follows origins at other URLs than the configuration names.
    #[must_use]
    pub fn with_origins(mut self, urls: Vec<String>) -> Self {
        self.urls = urls;
        self
    }

    /// Serves on sockets that were handed over, where they are bound to its addresses.
    #[must_use]
    pub fn with_sockets(mut self, sockets: Sockets) -> Self {
        self.sockets = sockets;
        self
    }

    /// Binds, begins to follow, and serves.
    ///
    /// # Errors
    /// Where an address is taken or the folder can't be used.
    pub async fn start(self) -> Result<Running> {
        let Self { settings, node, token, urls, mut sockets } = self;
        let listeners = bind(&node, &mut sockets)?;
        let admin_listener =
            sockets.listen(node.admin).with_context(|| format!("failed to listen on {} (edges.{}.admin)", node.admin, node.name))?;
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
        let admin_address = admin_listener.local_addr()?;
        let root = settings.data.join("edges").join(node.name.as_str());
        let origins = Arc::new(Origins::new(way(&settings, urls, token)?));
        let folder =
            Folder::open(&root.join("assets"), node.disk.0 / 4 * 3).with_context(|| format!("failed to open {}", root.display()))?;
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let (second, waiting) = second(&settings, &node, &root);
        let edge = Arc::new(build(node, folder, origins, questions, second));
        let node = edge.node();
        let settings = follow::Settings {
            name: node.name.clone(),
            role: Role::Edge,
            region: node.region.clone(),
            folder: root.join("fold"),
            answers: node.answers.clone(),
        };
        let following = follow::start(settings, Arc::clone(&edge.origins), Arc::clone(&edge.applied), Arc::clone(&edge.lease)).await?;
        let stop = CancellationToken::new();
        let announcing = Arc::clone(&edge);
        let stopped = stop.clone();
        let mut tasks = vec![
            tokio::spawn(tidy(Arc::clone(&edge.memory), stop.clone())),
            tokio::spawn(answer_questions(Arc::clone(&edge), asked, stop.clone())),
            tokio::spawn(async move { announcing.responses.announcer.run(Arc::clone(&announcing.origins), stopped).await }),
        ];
        tasks.extend(waiting.into_iter().map(|waiting| tokio::spawn(write_second_behind(Arc::clone(&edge), waiting, stop.clone()))));
        let servers = serve(&edge, listeners, admin_listener, &mut tasks)?;
        tracing::info!(node = %node.name, ?addresses, admin = %admin_address, "edge {} started", node.name);
        Ok(Running { name: node.name.clone(), addresses, admin: admin_address, edge, following, servers, tasks, stop })
    }
}

fn find(settings: &Settings, name: &NodeName) -> Result<EdgeNode> {
    let node = settings.edges.get(name).cloned();
    node.with_context(|| {
        let known = settings.edges.keys().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
        format!("there is no edge `{name}` in the configuration; there are: {known}")
    })
}

fn way(settings: &Settings, urls: Vec<String>, token: Secret) -> Result<Way> {
    let ca = settings.origin.ca.as_ref().map(|ca| ca.read()).transpose().context("failed to get origin.ca")?;
    Ok(Way::new(urls, token, ca.as_deref())?)
}

fn bind(node: &EdgeNode, sockets: &mut Sockets) -> Result<Vec<TcpListener>> {
    let bind = |address: &SocketAddr| {
        sockets.listen(*address).with_context(|| format!("failed to listen on {address} (edges.{}.listen)", node.name))
    };
    node.listen.iter().map(bind).collect()
}

fn build(node: EdgeNode, folder: Folder, origins: Arc<Origins>, questions: mpsc::Sender<Asked>, second: SecondHalf) -> crate::edge::Edge {
    // What flows is given a quarter, and no less than the largest objects need.
    let flowing = usize::try_from(node.memory.0 / 4).unwrap_or(usize::MAX).max(FLOWING_LEAST);
    let memory = Arc::new(Memory::new(of_cache(node.memory.0)));
    let (folder, metrics) = (Arc::new(folder), Arc::new(Metrics::new()));
    let assets = Arc::new(Assets::new(Arc::clone(&memory), Arc::clone(&folder), Arc::clone(&origins)));
    let manifests = Arc::new(Manifests::new(Arc::clone(&assets)));
    let second = Arc::new(Second::new(second.0, Arc::clone(&metrics), second.1));
    let responses = Arc::new(Responses::new(Arc::clone(&memory), flowing, second));
    let applied = Arc::new(Applied::new(Arc::clone(&manifests), Arc::clone(&responses), Arc::clone(&metrics), questions));
    crate::edge::Edge {
        node: ArcSwap::from_pointee(node),
        applied,
        lease: Arc::new(Lease::default()),
        memory,
        folder,
        assets,
        manifests,
        responses,
        origins,
        metrics,
        waiting_room: WaitingRoom::default(),
        purging: Purging::default(),
        runtime: tokio::runtime::Handle::current(),
    }
}

/// Where the second tier of responses is, and the lanes into which what is written there goes.
type SecondHalf = (SecondPlace, Vec<mpsc::Sender<SecondDeposit>>);

/// Prepares the second tier of responses, and returns what waits in its lanes too. Of the disk that an edge may take,
/// assets have three quarters.
fn second(settings: &Settings, node: &EdgeNode, root: &Path) -> (SecondHalf, Vec<mpsc::Receiver<SecondDeposit>>) {
    let place = SecondPlace {
        region: node.region.clone(),
        settings: settings.folder.clone(),
        folder: root.join("responses"),
        disk: node.disk.0 / 4,
        memory: node.memory.0,
    };
    let (lanes, waiting) = (0..SECOND_LANES).map(|_| mpsc::channel(SECOND_QUEUE)).unzip();
    ((place, lanes), waiting)
}

/// Returns how much of an edge's memory its cache gets: all but what is reserved, and half of it at the least.
fn of_cache(memory: u64) -> u64 {
    memory.saturating_sub(RESERVED).max(memory / 2)
}

/// moka evicts when it is used; a cache that nobody uses is tidied all the same.
async fn tidy(memory: Arc<Memory>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(TIDY);
    loop {
        tokio::select! {
            _ = ticks.tick() => memory.tidy(),
            () = stop.cancelled() => return,
        }
    }
}

fn serve(
    edge: &Arc<crate::edge::Edge>,
    listeners: Vec<TcpListener>,
    admin: TcpListener,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Result<Vec<ServerHandle>> {
    let data = web::Data::from(Arc::clone(edge));
    let public = door::serve(edge, listeners)?;
    let private = HttpServer::new(move || App::new().app_data(data.clone()).configure(admin::mount));
    let private = private.workers(1).tcp_nodelay(true).shutdown_timeout(1).disable_signals().listen(admin)?.run();
    let mut handles = Vec::new();
    for server in [public, private] {
        handles.push(server.handle());
        tasks.push(tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "an edge's listener ended");
            }
        }));
    }
    Ok(handles)
}

impl Running {
    /// Returns the edge's name.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Returns the addresses that it serves on.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the address of its admin pages.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Tells whether the edge has a fold to answer from.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.following.is_loaded()
    }

    /// Tells whether all that has to run until it is stopped does; else something panicked, and it can't go on as it is.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.following.is_whole() && !self.tasks.iter().any(JoinHandle::is_finished)
    }

    /// Takes in what may be changed while it runs, of a configuration that was read anew, and follows origins at these
    /// URLs with this token from now on. All of it or nothing.
    ///
    /// # Errors
    /// Where there is no such edge any more, something can't be read, or needs a restart to be changed.
    pub fn reload(&self, settings: &Settings, urls: Vec<String>, token: Secret) -> Result<()> {
        let node = find(settings, &self.name)?;
        let fixed = self.edge.node().needs_restart(&node);
        if !fixed.is_empty() {
            bail!("a restart is needed to change {}", fixed.join(", "));
        }
        self.edge.origins.renew(way(settings, urls, token)?);
        self.following.set_answers(node.answers.clone());
        self.edge.node.store(Arc::new(node));
        self.edge.responses.second.renew();
        Ok(())
    }

    /// Begins to leave: /readyz says so, the DNS leaves it out, and each answer is the last one of its connection. It
    /// goes on answering whoever still comes.
    pub fn drain(&self) {
        self.edge.applied.drain();
        self.following.ack_now();
    }

    /// Leaves, finishes what is in hand, stops.
    pub async fn stop(self) {
        self.drain();
        // Who was accepted already is on its way to a worker, and would be left standing there.
        for server in &self.servers {
            server.pause().await;
        }
        tokio::time::sleep(ACCEPTED).await;
        for server in &self.servers {
            if tokio::time::timeout(Duration::from_secs(GRACE_S + 1), server.stop(true)).await.is_err() {
                tracing::warn!(node = %self.name, "requests in hand were cut off");
            }
        }
        self.stop.cancel();
        self.following.stop().await;
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_gets_what_tables_and_requests_leave_and_half_of_the_memory_at_the_least() {
        assert_eq!(of_cache(256 << 20), (256 << 20) - RESERVED);
        assert_eq!(of_cache(8 << 20), 4 << 20);
        assert!((12 << 20..14 << 20).contains(&RESERVED), "docs/configuration.md says 13 MiB: {RESERVED}");
    }
}
