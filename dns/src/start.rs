//! Starts a DNS node and stops it: bind first, report the real addresses, end the doors before the rest.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use anyhow::{Context as _, Result, bail};
use arc_swap::ArcSwap;
use config::{DnsNode, Settings};
use follow::{Following, Lease, Origins, Way};
use listen::Sockets;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::{NodeName, RegionName, Role, Secret};

use crate::admin::{self, Pages};
use crate::following::Steering;
use crate::locate::Places;
use crate::metrics::Metrics;
use crate::view::View;
use crate::{tcp, udp};

/// How often a port of the system's choice is tried until it is free for UDP and TCP alike.
const TRIES: usize = 20;

/// How long a node that starts waits for its first live set before it answers all the same: no resolver gives up sooner.
const FIRST_LIVE: Duration = Duration::from_millis(1500);

/// A DNS node that is about to start.
#[derive(Debug)]
pub struct Dns {
    settings: Settings,
    node: DnsNode,
    token: Secret,
    urls: Vec<String>,
    sockets: Sockets,
}

/// A DNS node that runs. [`Running::stop`] ends it.
#[derive(Debug)]
pub struct Running {
    node: DnsNode,
    origins: Arc<Origins>,
    steering: Arc<Steering>,
    addresses: Vec<SocketAddr>,
    admin: SocketAddr,
    following: Following,
    server: ServerHandle,
    tasks: Vec<JoinHandle<()>>,
    draining: Arc<AtomicBool>,
    stop: CancellationToken,
}

impl Dns {
    /// Prepares the DNS node `name` of these settings, which shows `token` to its origins.
    ///
    /// # Errors
    /// Where the settings have no such node.
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

    /// Answers on sockets that were handed over, where they are bound to its addresses.
    #[must_use]
    pub fn with_sockets(mut self, sockets: Sockets) -> Self {
        self.sockets = sockets;
        self
    }

    /// Binds, begins to follow, and answers.
    ///
    /// # Errors
    /// Where an address is taken, the place file can't be read, or the folder can't be used.
    pub async fn start(self) -> Result<Running> {
        let Self { settings, node, token, urls, mut sockets } = self;
        let mut doors = Vec::new();
        for address in &node.listen {
            doors.push(bind(*address, &mut sockets).with_context(|| format!("failed to listen on {address} (dns.{}.listen)", node.name))?);
        }
        let admin_listener =
            sockets.listen(node.admin).with_context(|| format!("failed to listen on {} (dns.{}.admin)", node.admin, node.name))?;
        let admin_address = admin_listener.local_addr()?;
        let origins = Arc::new(Origins::new(way(&settings, urls, token)?));
        // What is answered before the first snapshot: nothing lives yet, and the zones are those of the file.
        let view = Arc::new(ArcSwap::from_pointee(View::new(&settings.network, 0, read_places(&node)?)?));
        let (metrics, lease, stop) = (Arc::new(Metrics::default()), Arc::new(Lease::default()), CancellationToken::new());
        let steering = Arc::new(Steering::new(Arc::clone(&view), Arc::clone(&metrics)));
        let follower = follow::Settings {
            name: node.name.clone(),
            role: Role::Dns,
            region: any_region(&settings)?,
            folder: settings.data.join("dns").join(node.name.as_str()).join("fold"),
            answers: Vec::new(),
        };
        let following = follow::start(follower, Arc::clone(&origins), Arc::clone(&steering), Arc::clone(&lease)).await?;
        let (mut tasks, mut addresses) = (Vec::new(), Vec::new());
        for (udp_socket, tcp_listener) in doors {
            addresses.push(udp_socket.local_addr()?);
            let (begun, stopped) = (Arc::clone(&steering), stop.clone());
            let udp = udp::serve(udp_socket, Arc::clone(&view), Arc::clone(&metrics), stop.clone());
            let tcp = tcp::serve(tcp_listener, Arc::clone(&view), Arc::clone(&metrics), stop.clone());
            tasks.push(tokio::spawn(async move {
                // Until it has heard who lives it could only say that nobody does; what comes meanwhile waits in the sockets.
                tokio::select! {
                    () = begun.has_heard_who_lives() => {}
                    () = tokio::time::sleep(FIRST_LIVE) => {}
                    () = stopped.cancelled() => {}
                }
                tokio::join!(udp, tcp);
            }));
        }
        let draining = Arc::new(AtomicBool::new(false));
        let pages = Pages { view, metrics, steering: Arc::clone(&steering), lease, draining: Arc::clone(&draining) };
        let server = serve_pages(pages, admin_listener, &mut tasks)?;
        tracing::info!(node = %node.name, ?addresses, admin = %admin_address, "dns {} started", node.name);
        Ok(Running { node, origins, steering, addresses, admin: admin_address, following, server, tasks, draining, stop })
    }
}

fn find(settings: &Settings, name: &NodeName) -> Result<DnsNode> {
    let node = settings.dns.get(name).cloned();
    node.with_context(|| {
        let known = settings.dns.keys().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
        format!("there is no DNS node `{name}` in the configuration; there are: {known}")
    })
}

fn way(settings: &Settings, urls: Vec<String>, token: Secret) -> Result<Way> {
    let ca = settings.origin.ca.as_ref().map(|ca| ca.read()).transpose().context("failed to get origin.ca")?;
    Ok(Way::new(urls, token, ca.as_deref())?)
}

/// Reads the database that gives clients a place, where the node has one.
fn read_places(node: &DnsNode) -> Result<Option<Arc<Places>>> {
    let read = |path: &PathBuf| {
        maxminddb::Reader::open_readfile(path).with_context(|| format!("failed to read {} (dns.{}.places)", path.display(), node.name))
    };
    Ok(node.places.as_ref().map(read).transpose()?.map(Arc::new))
}

/// A DNS node belongs to no region; acks name one all the same, and the origin shows none.
fn any_region(settings: &Settings) -> Result<RegionName> {
    settings.network.regions.keys().next().cloned().context("there is no region in the configuration, so there is nothing to steer to")
}

/// Takes UDP and TCP of one port.
fn bind(address: SocketAddr, sockets: &mut Sockets) -> io::Result<(UdpSocket, tokio::net::TcpListener)> {
    let mut tries = if address.port() == 0 { TRIES } else { 1 };
    loop {
        let udp = sockets.datagrams(address)?;
        match sockets.listen(udp.local_addr()?) {
            Ok(tcp) => {
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                return Ok((UdpSocket::from_std(udp)?, tokio::net::TcpListener::from_std(tcp)?));
            }
            Err(error) if tries == 1 => return Err(error),
            Err(_) => tries -= 1,
        }
    }
}

fn serve_pages(pages: Pages, listener: TcpListener, tasks: &mut Vec<JoinHandle<()>>) -> Result<ServerHandle> {
    let data = web::Data::new(pages);
    let server = HttpServer::new(move || App::new().app_data(data.clone()).configure(admin::mount));
    let server = server.workers(1).tcp_nodelay(true).shutdown_timeout(1).disable_signals().listen(listener)?.run();
    let handle = server.handle();
    tasks.push(tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(%error, "a DNS node's admin listener ended");
        }
    }));
    Ok(handle)
}

impl Running {
    /// Returns the node's name.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.node.name
    }

    /// Returns the addresses that it answers on, UDP and TCP alike.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the address of its admin pages.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Tells whether the node has a fold to answer from.
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
    /// Where there is no such node any more, something can't be read, or needs a restart to be changed.
    pub fn reload(&self, settings: &Settings, urls: Vec<String>, token: Secret) -> Result<()> {
        let node = find(settings, &self.node.name)?;
        let fixed = self.node.needs_restart(&node);
        if !fixed.is_empty() {
            bail!("a restart is needed to change {}", fixed.join(", "));
        }
        let places = read_places(&node)?;
        self.origins.renew(way(settings, urls, token)?);
        self.steering.set_places(places);
        Ok(())
    }

    /// Begins to leave: /readyz says so. It goes on answering whoever still asks.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Stops answering, then stops following.
    pub async fn stop(self) {
        self.drain();
        self.stop.cancel();
        self.server.stop(true).await;
        self.following.stop().await;
        for task in self.tasks {
            let _ = task.await;
        }
    }
}
