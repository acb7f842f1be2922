//! Decides where a client is: by the operator's table, else by a place file, and for which network that is right.
//!
//! What the resolver told about its client (the client subnet) comes first. Where it told nothing, or an address that
//! no client on the internet has, the resolver's own address stands in.

use std::net::IpAddr;

use maxminddb::{LookupResult, PathElement, Reader};
use wire::RegionName;

use crate::{
    countries,
    subnet::Subnet,
    table::{Entry, Table},
};

/// A place file (`.mmdb`) in memory.
pub(crate) type Places = Reader<Vec<u8>>;

/// Where a client is, as far as it is known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Place {
    /// The operator's table says: this region.
    Listed(RegionName),
    /// A place file says: these coordinates.
    At {
        latitude: f64,
        longitude: f64,
    },
    /// A place file says: somewhere in this country, whose middle is here.
    Country {
        code: String,
        latitude: f64,
        longitude: f64,
    },
    Unknown,
}

/// Whose address led to the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Client,
    Resolver,
}

/// A place, and how far it is right.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Located {
    pub(crate) place: Place,
    pub(crate) whose: Whose,
    /// The length of the network around the client subnet for which the answer is right; 0 where no subnet was used.
    pub(crate) scope: u8,
}

/// Finds the place of the client behind a question.
pub(crate) fn locate(table: &Table, places: Option<&Places>, subnet: Option<&Subnet>, resolver: IpAddr) -> Located {
    let told = subnet.filter(|subnet| subnet.source() > 0);
    let seen = told.map(|subnet| look(table, places, subnet.address()));
    let scope = seen.as_ref().map_or(0, |seen| seen.scope);
    match seen.and_then(|seen| seen.place) {
        Some(place) => Located { place, whose: Whose::Client, scope },
        None => Located { place: place_of_resolver(table, places, resolver), whose: Whose::Resolver, scope },
    }
}

/// A resolver on a private network is where the operator's table says, be it only by a network that covers far more.
fn place_of_resolver(table: &Table, places: Option<&Places>, resolver: IpAddr) -> Place {
    let resolver = resolver.to_canonical();
    look(table, places, resolver).place.unwrap_or_else(|| {
        let covering = table.find(resolver).region.cloned();
        covering.map_or(Place::Unknown, Place::Listed)
    })
}

/// What one address says.
struct Seen {
    /// `None` for a bogon.
    place: Option<Place>,
    scope: u8,
}

fn look(table: &Table, places: Option<&Places>, address: IpAddr) -> Seen {
    let cell = table.find(address);
    match (cell.entry, address) {
        (Some(Entry::Region(region)), _) => Seen { place: Some(Place::Listed(region.clone())), scope: cell.scope },
        (Some(Entry::Embeds(embedding)), IpAddr::V6(outer)) => {
            let inner = look(table, places, IpAddr::V4(embedding.inner(outer)));
            Seen { place: inner.place, scope: cell.scope.max(embedding.offset().saturating_add(inner.scope)) }
        }
        (Some(Entry::Bogon | Entry::Embeds(_)), _) => Seen { place: None, scope: cell.scope },
        (None, _) => {
            let (place, length) = look_up_place(places, address);
            // Both the gap in the table and the place file's network have to hold, so the longer one does.
            Seen { place: Some(place), scope: cell.scope.max(length) }
        }
    }
}

/// Asks the place file: the place, and the length of the file's network around it.
fn look_up_place(places: Option<&Places>, address: IpAddr) -> (Place, u8) {
    // A file of IPv4 only refuses other addresses, a damaged one some records: then the place is unknown, and the reply goes out.
    let Some(found) = places.and_then(|places| places.lookup(address).ok()) else {
        return (Place::Unknown, 0);
    };
    let network = found.network().ok();
    let length = network.filter(|network| network.is_ipv4() == address.is_ipv4()).map_or(0, |network| network.prefix());
    let place = coordinates(&found).or_else(|| country(&found)).unwrap_or(Place::Unknown);
    (place, length)
}

fn coordinates(found: &LookupResult<'_, Vec<u8>>) -> Option<Place> {
    let degrees = |which| {
        let path = [PathElement::Key("location"), PathElement::Key(which)];
        found.decode_path::<f64>(&path).ok().flatten()
    };
    let (latitude, longitude) = (degrees("latitude")?, degrees("longitude")?);
    let is_on_earth = latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
    is_on_earth.then_some(Place::At { latitude, longitude })
}

fn country(found: &LookupResult<'_, Vec<u8>>) -> Option<Place> {
    let path = [PathElement::Key("country"), PathElement::Key("iso_code")];
    let code: String = found.decode_path(&path).ok().flatten()?;
    let (latitude, longitude) = countries::centre_of(&code)?;
    Some(Place::Country { code, latitude, longitude })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::region;

    fn table() -> Table {
        let clients = [("192.0.2.0/24", "fra"), ("198.51.100.0/24", "iad"), ("2a00::/16", "sin")];
        Table::new(clients.map(|(network, name)| (network.parse().unwrap(), region(name))))
    }

    fn subnet(network: &str) -> Subnet {
        let network: ipnet::IpNet = network.parse().unwrap();
        let (family, octets) = match network.addr() {
            IpAddr::V4(address) => (1, address.octets().to_vec()),
            IpAddr::V6(address) => (2, address.octets().to_vec()),
        };
        let mut value = vec![0, family, network.prefix_len(), 0];
        value.extend(&octets[..usize::from(network.prefix_len().div_ceil(8))]);
        Subnet::read(&value).unwrap()
    }

    /// Locates a client subnet as (region or none, whose address it was, scope); the resolver is in iad.
    fn located(network: &str) -> (Option<RegionName>, Whose, u8) {
        let located = locate(&table(), None, Some(&subnet(network)), "198.51.100.1".parse().unwrap());
        let region = match located.place {
            Place::Listed(region) => Some(region),
            _ => None,
        };
        (region, located.whose, located.scope)
    }

    #[test]
    fn a_client_is_where_its_subnet_is_and_only_else_where_its_resolver_is() {
        use Whose::{Client, Resolver};
        let cases = [
            ("listed", "192.0.2.0/24", Some("fra"), Client, 24),
            ("listed, told shortly", "2a00::/12", Some("sin"), Client, 16),
            ("in a gap", "8.0.0.0/8", None, Client, 7),
            ("source 0", "0.0.0.0/0", Some("iad"), Resolver, 0),
            ("private", "10.1.2.0/24", Some("iad"), Resolver, 8),
            ("documentation", "203.0.113.0/24", Some("iad"), Resolver, 24),
            ("unique local", "fd00:1::/32", Some("iad"), Resolver, 7),
            ("mapped", "::ffff:192.0.2.0/120", Some("fra"), Client, 120),
            ("6to4", "2002:c000:200::/40", Some("fra"), Client, 40),
            ("Teredo", "2001:0:1:2:3:4:3fff:fdfe/128", Some("fra"), Client, 120),
            ("mapped private", "::ffff:10.1.2.0/120", Some("iad"), Resolver, 104),
        ];
        for (what, network, name, whose, scope) in cases {
            assert_eq!(located(network), (name.map(region), whose, scope), "{what}");
        }
    }

    fn places(file: &str) -> Places {
        Reader::open_readfile(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(file)).unwrap()
    }

    /// Locates a client subnet with a place file and no table.
    fn placed(file: &str, network: &str) -> (Place, u8) {
        let located = locate(&Table::new([]), Some(&places(file)), Some(&subnet(network)), "192.0.2.1".parse().unwrap());
        (located.place, located.scope)
    }

    #[test]
    fn a_place_file_gives_coordinates_and_the_network_that_they_are_for() {
        let (place, scope) = placed("GeoIP2-City-Test.mmdb", "2001:218::/56");
        assert_eq!((place, scope), (Place::At { latitude: 35.68536, longitude: 139.75309 }, 32));
        assert_eq!(placed("GeoIP2-City-Test.mmdb", "89.160.20.112/28").0, Place::At { latitude: 58.4167, longitude: 15.6167 });
        let (place, scope) = placed("GeoIP2-City-Test.mmdb", "1.2.3.0/24");
        assert_eq!(place, Place::Unknown);
        assert!(scope > 0, "who is in no network of the file gets the scope of the gap");
    }

    #[test]
    fn a_place_file_of_countries_gives_the_middle_of_one() {
        let (place, _) = placed("GeoIP2-Country-Test.mmdb", "89.160.20.112/28");
        assert!(matches!(place, Place::Country { code, .. } if code == "SE"));
    }

    #[test]
    fn a_place_file_that_is_damaged_leaves_the_place_unknown() {
        for network in ["2001:218::/56", "89.160.20.112/28", "81.2.69.0/24", "1.2.3.0/24"] {
            let (place, _) = placed("GeoIP2-City-Test-Broken-Double-Format.mmdb", network);
            assert!(!matches!(place, Place::At { .. }), "{network}");
        }
    }

    #[test]
    fn without_a_subnet_the_resolver_stands_in_with_scope_0() {
        let located = locate(&table(), None, None, "::ffff:192.0.2.1".parse().unwrap());

        assert_eq!((located.place, located.scope), (Place::Listed(region("fra")), 0));
    }

    #[test]
    fn a_resolver_on_a_private_network_is_found_by_a_network_that_covers_it() {
        let table = Table::new([("0.0.0.0/0".parse().unwrap(), region("fra"))]);

        let located = locate(&table, None, None, "127.0.0.1".parse().unwrap());

        assert_eq!(located.place, Place::Listed(region("fra")));
    }
}
