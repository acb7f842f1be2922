//! All that answers are made of, as one value that never changes: a new one takes its place when the configuration or the live set do.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use maxminddb::Reader;
use wire::{LiveEdge, RegionName};

use crate::{
    locate::Places,
    name::Name,
    rank::{Centre, LastKnown, takes_clients},
    records::BadZone,
    table::Table,
    zone::Zone,
};

/// What a DNS node knows at one moment.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// What the configuration says; shared by all the views between two configurations.
    pub(crate) network: Arc<Prepared>,
    /// The place file, if this node has one.
    pub(crate) places: Option<Arc<Places>>,
    /// The edges that the origin counts as live, by name.
    pub(crate) live: Vec<LiveEdge>,
    /// What each region last answered with.
    pub(crate) last_known: LastKnown,
}

/// The network's configuration, prepared for answering.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) zones: HashMap<Name, Zone>,
    pub(crate) regions: Vec<Centre>,
    pub(crate) table: Table,
}

impl View {
    /// Builds the first view, with no edge alive yet. The serial is the configuration's version.
    ///
    /// # Errors
    /// When a zone holds what DNS can't say.
    pub(crate) fn new(network: &config::Network, serial: u32, places: Option<Arc<Reader<Vec<u8>>>>) -> Result<Self, BadZone> {
        Ok(Self { network: Arc::new(Prepared::new(network, serial)?), places, live: Vec::new(), last_known: LastKnown::new() })
    }

    /// Returns this view with another configuration; what lives, and what last did, stays.
    ///
    /// # Errors
    /// When a zone holds what DNS can't say.
    pub(crate) fn with_network(&self, network: &config::Network, serial: u32) -> Result<Self, BadZone> {
        Ok(Self { network: Arc::new(Prepared::new(network, serial)?), ..self.clone() })
    }

    /// Returns this view with another place file.
    #[must_use]
    pub(crate) fn with_places(&self, places: Option<Arc<Places>>) -> Self {
        Self { places, ..self.clone() }
    }

    /// Returns this view with another live set.
    #[must_use]
    pub(crate) fn with_live(&self, mut live: Vec<LiveEdge>) -> Self {
        live.sort_by(|one, other| one.edge.cmp(&other.edge));
        let mut last_known = self.last_known.clone();
        last_known.extend(serving(&live));
        Self { network: Arc::clone(&self.network), places: self.places.clone(), live, last_known }
    }

    /// Returns the zone that a name belongs to: the longest one that it is in.
    pub(crate) fn zone_of(&self, name: &Name) -> Option<&Zone> {
        name.suffixes().find_map(|suffix| self.network.zones.get(suffix))
    }
}

/// Returns the addresses of each region that takes clients; one that drains as a whole keeps what it had.
fn serving(live: &[LiveEdge]) -> BTreeMap<RegionName, Vec<IpAddr>> {
    let mut serving: BTreeMap<RegionName, Vec<IpAddr>> = BTreeMap::new();
    for edge in live.iter().filter(|edge| takes_clients(edge)) {
        serving.entry(edge.region.clone()).or_default().extend(&edge.answers);
    }
    serving
}

impl Prepared {
    fn new(network: &config::Network, serial: u32) -> Result<Self, BadZone> {
        let centres = network.regions.iter().map(|(name, region)| Centre {
            name: name.clone(),
            latitude: region.latitude,
            longitude: region.longitude,
        });
        let clients = network.regions.iter().flat_map(|(name, region)| {
            let clients: &[IpNet] = &region.clients;
            clients.iter().map(move |client| (*client, name.clone()))
        });
        let zones = network.zones.values().map(|written| {
            let zone = Zone::new(written, serial);
            zone.map(|zone| (zone.apex.clone(), zone))
        });
        Ok(Self { zones: zones.collect::<Result<_, BadZone>>()?, regions: centres.collect(), table: Table::new(clients) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{edge, region, view};

    #[test]
    fn a_region_that_died_keeps_the_addresses_that_it_had() {
        let both = vec![edge("iad-1", "iad", "198.51.100.1"), edge("fra-1", "fra", "192.0.2.1")];
        let draining = LiveEdge { draining: true, ..edge("fra-2", "fra", "192.0.2.2") };

        let view = view(both).with_live(vec![draining]).with_live(Vec::new());

        let expected = [("fra", [192, 0, 2, 1]), ("iad", [198, 51, 100, 1])];
        let expected = expected.map(|(name, address)| (region(name), vec![IpAddr::from(address)]));
        assert_eq!(view.last_known, LastKnown::from(expected));
        assert!(view.live.is_empty());
    }

    #[test]
    fn a_name_belongs_to_the_longest_zone_that_it_is_in() {
        let view = view(Vec::new());
        let zone_of = |text| view.zone_of(&Name::from_text(text).unwrap()).map(|zone| zone.apex.clone());

        assert_eq!(zone_of("a.b.example.test"), Name::from_text("example.test"));
        assert_eq!(zone_of("a.sub.example.test"), Name::from_text("sub.example.test"));
        assert_eq!(zone_of("test"), None);
        assert_eq!(zone_of("badexample.test"), None);
    }
}
