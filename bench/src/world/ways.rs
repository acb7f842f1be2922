//! How far regions are from each other, and how one of them is cut off: by network namespaces, or by cables on loopback.
//! Each region has a way of its own to each origin.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::cable::Cable;
use super::plan::{Plan, REGIONS};
use super::wan::Wan;

/// Where one edge stands.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Where it serves.
    pub(crate) listen: SocketAddr,
    /// Its own pages.
    pub(crate) admin: SocketAddr,
    /// How it reaches the origins. Of two edges side by side each asks another one first.
    pub(crate) origin_urls: Vec<String>,
    /// The words before a command that is run there.
    pub(crate) enter: Vec<String>,
}

/// The ways between this program, the origin and the regions.
#[derive(Debug)]
pub(crate) struct Ways {
    kind: Kind,
    /// Where this program can be reached from everywhere.
    pub(crate) host: IpAddr,
    /// Where the origins listen; they stand in the first region.
    pub(crate) origins: Vec<SocketAddr>,
    /// The edges, in their order.
    pub(crate) places: Vec<Place>,
    ports: Ports,
}

#[derive(Debug)]
enum Kind {
    Wan(Wan),
    /// The cables of each region, one to each origin; the origins' own has none. And why there are only cables.
    Cables(Vec<Vec<Cable>>, String),
}

impl Ways {
    /// Opens the ways: those of `wan.py` where its path is given and it can run here, else cables.
    pub(crate) async fn open(wan: Option<&Path>, folder: &Path, plan: &Plan) -> Result<Self> {
        let Some(script) = wan else { return Self::with_cables("without --wan".to_owned(), plan).await };
        match Wan::start(script, folder).await {
            Ok(wan) => Self::with_namespaces(wan, plan),
            Err(error) => Self::with_cables(format!("{error:#}"), plan).await,
        }
    }

    fn with_namespaces(wan: Wan, plan: &Plan) -> Result<Self> {
        let at = |region: usize, port: u16, number: usize| -> Result<SocketAddr> {
            Ok(SocketAddr::new(wan.address(region), port + u16::try_from(number)?))
        };
        let origins = (0..plan.origins()).map(|number| at(0, 7070, number)).collect::<Result<Vec<_>>>()?;
        let mut places = Vec::new();
        for (number, seat) in plan.edges().into_iter().enumerate() {
            let region = REGIONS.get(seat.region).context("there is no such region")?;
            places.push(Place {
                listen: at(seat.region, 8080, number)?,
                admin: at(seat.region, 9090, number)?,
                origin_urls: in_turn(&origins, number),
                enter: wan.enter(region),
            });
        }
        let host = wan.host();
        Ok(Self { host, origins, places, ports: Ports::new(host)?, kind: Kind::Wan(wan) })
    }

    async fn with_cables(why: String, plan: &Plan) -> Result<Self> {
        let host = IpAddr::from(Ipv4Addr::LOCALHOST);
        let mut ports = Ports::new(host)?;
        let origins = (0..plan.origins()).map(|_| ports.next_free()).collect::<Result<Vec<_>>>()?;
        let mut cables = Vec::new();
        for region in &REGIONS {
            let mut to_each = Vec::new();
            for origin in origins.iter().filter(|_| region.one_way_ms > 0) {
                to_each.push(Cable::lay(*origin, region.one_way()).await?);
            }
            cables.push(to_each);
        }
        let mut places = Vec::new();
        for (number, seat) in plan.edges().into_iter().enumerate() {
            let near: Vec<SocketAddr> = cables.get(seat.region).into_iter().flatten().map(Cable::near).collect();
            places.push(Place {
                listen: ports.next_free()?,
                admin: ports.next_free()?,
                origin_urls: in_turn(if near.is_empty() { &origins } else { &near }, number),
                enter: Vec::new(),
            });
        }
        Ok(Self { kind: Kind::Cables(cables, why), host, origins, places, ports })
    }

    /// Returns an address on which nobody listens, for what runs beside this program.
    pub(crate) fn free(&mut self) -> Result<SocketAddr> {
        self.ports.next_free()
    }

    /// Says which ways these are.
    pub(crate) fn described(&self) -> String {
        let regions: Vec<_> = REGIONS.iter().map(|region| format!("{} {} ms", region.name, region.one_way_ms)).collect();
        let regions = regions.join(", ");
        match &self.kind {
            Kind::Wan(_) => format!("network namespaces by wan.py ({regions} one way)"),
            Kind::Cables(_, why) => format!("cables on loopback, {why} ({regions} one way)"),
        }
    }

    /// Cuts a region off from the origin, or heals that.
    pub(crate) async fn set_cut(&self, region: usize, cut: bool) -> Result<()> {
        let there = REGIONS.get(region).context("there is no such region")?;
        match &self.kind {
            Kind::Wan(wan) => wan.set_cut(&REGIONS[0], there, cut).await,
            Kind::Cables(cables, _) => {
                let cables = cables.get(region).map(Vec::as_slice).unwrap_or_default();
                ensure!(!cables.is_empty(), "region {} has no cable", there.name);
                cables.iter().for_each(|cable| cable.set_cut(cut));
                Ok(())
            }
        }
    }
}

/// Writes the URLs of addresses, another one first for each number.
fn in_turn(addresses: &[SocketAddr], number: usize) -> Vec<String> {
    let count = addresses.len();
    addresses.iter().cycle().skip(number % count.max(1)).take(count).map(|address| format!("http://{address}")).collect()
}

/// Ports below those that the system gives to connections: a process that is started again finds its port free.
#[derive(Debug)]
struct Ports {
    host: IpAddr,
    left: std::ops::Range<u16>,
}

impl Ports {
    fn new(host: IpAddr) -> Result<Self> {
        let begin = 20_000 + u16::try_from(std::process::id() % 10_000)?;
        Ok(Self { host, left: begin..32_000 })
    }

    fn next_free(&mut self) -> Result<SocketAddr> {
        let host = self.host;
        let port = self.left.find(|port| TcpListener::bind((host, *port)).is_ok()).context("no port is free")?;
        Ok(SocketAddr::new(host, port))
    }
}
