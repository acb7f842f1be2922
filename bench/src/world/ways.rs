//! How far regions are from each other, and how one of them is cut off: by network namespaces, or by cables on loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::cable::Cable;
use super::wan::Wan;
use super::{REGIONS, Region};

/// Where one region's edge stands.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Where it serves.
    pub(crate) listen: SocketAddr,
    /// Its own pages.
    pub(crate) admin: SocketAddr,
    /// How it reaches the origin.
    pub(crate) origin_url: String,
    /// The words before a command that is run there.
    pub(crate) enter: Vec<String>,
}

/// The ways between this program, the origin and the regions.
#[derive(Debug)]
pub(crate) struct Ways {
    kind: Kind,
    /// Where this program can be reached from everywhere.
    pub(crate) host: IpAddr,
    /// Where the origin listens; it stands in the first region.
    pub(crate) origin: SocketAddr,
    /// The regions, in their order.
    pub(crate) places: Vec<Place>,
}

#[derive(Debug)]
enum Kind {
    Wan(Wan),
    /// The cable of each region, but of the origin's own, and why there are only cables.
    Cables(Vec<Option<Cable>>, String),
}

impl Ways {
    /// Opens the ways: those of `wan.py` where its path is given and it can run here, else cables.
    pub(crate) async fn open(wan: Option<&Path>, folder: &Path) -> Result<Self> {
        let Some(script) = wan else { return Self::with_cables("without --wan".to_owned()).await };
        match Wan::start(script, folder).await {
            Ok(wan) => Ok(Self::with_namespaces(wan)),
            Err(error) => Self::with_cables(format!("{error:#}")).await,
        }
    }

    fn with_namespaces(wan: Wan) -> Self {
        let at = |region: usize, port: u16| SocketAddr::new(wan.address(region), port);
        let origin = at(0, 7070);
        let places = REGIONS.iter().enumerate().map(|(number, region)| Place {
            listen: at(number, 8080),
            admin: at(number, 9090),
            origin_url: format!("http://{origin}"),
            enter: wan.enter(region),
        });
        let places = places.collect();
        Self { host: wan.host(), origin, places, kind: Kind::Wan(wan) }
    }

    async fn with_cables(why: String) -> Result<Self> {
        let host = Ipv4Addr::LOCALHOST;
        let mut ports = Ports::new()?;
        let origin = SocketAddr::new(host.into(), ports.next_free()?);
        let (mut cables, mut places) = (Vec::new(), Vec::new());
        for region in &REGIONS {
            let cable = if region.one_way_ms == 0 { None } else { Some(Cable::lay(origin, region.one_way()).await?) };
            places.push(Place {
                listen: SocketAddr::new(host.into(), ports.next_free()?),
                admin: SocketAddr::new(host.into(), ports.next_free()?),
                origin_url: format!("http://{}", cable.as_ref().map_or(origin, Cable::near)),
                enter: Vec::new(),
            });
            cables.push(cable);
        }
        Ok(Self { kind: Kind::Cables(cables, why), host: host.into(), origin, places })
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
                let Some(Some(cable)) = cables.get(region) else { bail!("region {} has no cable", there.name) };
                cable.set_cut(cut);
                Ok(())
            }
        }
    }
}

impl Region {
    /// Returns how far it is from the origin.
    pub(crate) fn one_way(&self) -> Duration {
        Duration::from_millis(self.one_way_ms)
    }
}

/// Ports below those that the system gives to connections: a process that is started again finds its port free.
struct Ports(std::ops::Range<u16>);

impl Ports {
    fn new() -> Result<Self> {
        let begin = 20_000 + u16::try_from(std::process::id() % 10_000)?;
        Ok(Self(begin..32_000))
    }

    fn next_free(&mut self) -> Result<u16> {
        self.0.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).context("no port is free")
    }
}
