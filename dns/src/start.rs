//! Starts a DNS node and stops it: bind first, report the real addresses, end the doors before the rest.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use config::{DnsNode, Settings};
use follow::{Following, Lease, Origins};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::{NodeName, RegionName, Role, Secret};

use crate::admin::{self, Pages};
use crate::following::Steering;
use crate::metrics::Metrics;
use crate::view::View;
use crate::{tcp, udp};

/// How often a port of the system's choice is tried until it is free for UDP and TCP alike.
const TRIES: usize = 20;

/// A DNS node that is about to start.
#[derive(Debug)]
pub struct Dns {
    settings: Settings,
    node: DnsNode,
    token: Secret,
    urls: Vec<String>,
}

/// A DNS node that runs. [`Running::stop`] ends it.
#[derive(Debug)]
pub struct Running {
    name: NodeName,
    addresses: Vec<SocketAddr>,
    admin: SocketAddr,
    following: Following,
    server: ServerHandle,
    tasks: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Dns {
    /// Prepares the DNS node `name` of these settings, which shows `token` to its origins.
    ///
    /// # Errors
    /// Where the settings have no such node.
    pub fn new(settings: Settings, name: &NodeName, token: Secret) -> Result<Self> {
        let node = settings.dns.get(name).cloned();
        let node = node.with_context(|| {
            let known = settings.dns.keys().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
            format!("there is no DNS node `{name}` in the configuration; there are: {known}")
        })?;
        let urls = settings.origin.urls.clone();
        Ok(Self { settings, node, token, urls })
    }

    /// Follows origins at other URLs than the configuration names.
    #[must_use]
    pub fn with_origins(mut self, urls: Vec<String>) -> Self {
        self.urls = urls;
        self
    }

    /// Binds, begins to follow, and answers.
    ///
    /// # Errors
    /// Where an address is taken, the place file can't be read, or the folder can't be used.
    pub async fn start(self) -> Result<Running> {
        let Self { settings, node, token, urls } = self;
        let mut doors = Vec::new();
        for address in &node.listen {
            doors.push(bind(*address).await.with_context(|| format!("failed to listen on {address} (dns.{}.listen)", node.name))?);
        }
        let admin_listener =
            TcpListener::bind(node.admin).with_context(|| format!("failed to listen on {} (dns.{}.admin)", node.admin, node.name))?;
        let admin_address = admin_listener.local_addr()?;
        let ca = settings.origin.ca.as_ref().map(|ca| ca.read()).transpose().context("failed to get origin.ca")?;
        let origins = Arc::new(Origins::new(urls, token, ca.as_deref())?);
        let view = Arc::new(ArcSwap::from_pointee(first_view(&settings, &node)?));
        let (metrics, lease, stop) = (Arc::new(Metrics::default()), Arc::new(Lease::default()), CancellationToken::new());
        let steering = Arc::new(Steering::new(Arc::clone(&view), Arc::clone(&metrics)));
        let follower = follow::Settings {
            name: node.name.clone(),
            role: Role::Dns,
            region: any_region(&settings)?,
            folder: settings.data.join("dns").join(node.name.as_str()).join("fold"),
            answers: Vec::new(),
        };
        let following = follow::start(follower, origins, Arc::clone(&steering), Arc::clone(&lease)).await?;
        let (mut tasks, mut addresses) = (Vec::new(), Vec::new());
        for (udp_socket, tcp_listener) in doors {
            addresses.push(udp_socket.local_addr()?);
            tasks.push(tokio::spawn(udp::serve(udp_socket, Arc::clone(&view), Arc::clone(&metrics), stop.clone())));
            tasks.push(tokio::spawn(tcp::serve(tcp_listener, Arc::clone(&view), Arc::clone(&metrics), stop.clone())));
        }
        let server = serve_pages(Pages { view, metrics, steering, lease }, admin_listener, &mut tasks)?;
        tracing::info!(node = %node.name, ?addresses, admin = %admin_address, "dns {} started", node.name);
        Ok(Running { name: node.name, addresses, admin: admin_address, following, server, tasks, stop })
    }
}

/// What is answered before the first snapshot: nothing lives yet, and the zones are those of the file.
fn first_view(settings: &Settings, node: &DnsNode) -> Result<View> {
    let places = node.places.as_ref().map(|path| {
        let read =
            maxminddb::Reader::open_readfile(path).with_context(|| format!("failed to read {} (dns.{}.places)", path.display(), node.name));
        read.map(Arc::new)
    });
    Ok(View::new(&settings.network, 0, places.transpose()?)?)
}

/// A DNS node belongs to no region; acks name one all the same, and the origin shows none.
fn any_region(settings: &Settings) -> Result<RegionName> {
    settings.network.regions.keys().next().cloned().context("there is no region in the configuration, so there is nothing to steer to")
}

/// Binds UDP and TCP to one port.
async fn bind(address: SocketAddr) -> std::io::Result<(UdpSocket, tokio::net::TcpListener)> {
    let mut tries = if address.port() == 0 { TRIES } else { 1 };
    loop {
        let udp = UdpSocket::bind(address).await?;
        match tokio::net::TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
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
        &self.name
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

    /// Stops answering, then stops following.
    pub async fn stop(self) {
        self.stop.cancel();
        self.server.stop(true).await;
        self.following.stop().await;
        for task in self.tasks {
            let _ = task.await;
        }
    }
}
