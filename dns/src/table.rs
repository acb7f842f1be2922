//! The table of CIDR -> region as a tree of bits, which also knows for which network its answer is right.
//!
//! A resolver keeps an answer for the SCOPE that comes with it, so that two scopes may never overlap: 10/8 with 10.1/16 inside
//! answers 10.2 with /15, the largest network around it that 10.1/16 is not in. In a tree of bits that is simply how far one
//! can go down. Networks that say nothing about a place (private ones), and those that carry an IPv4 address inside, are
//! answered differently from what is around them: hence they stand in the same tree.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use wire::RegionName;

/// Networks that no client on the internet has (IANA's special-purpose registries).
const BOGONS: [&str; 26] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/8",
    "100::/64",
    "2001:2::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2001:db8::/32",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// What a network of the table means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The operator gave it to a region.
    Region(RegionName),
    /// Its addresses say nothing about where a client is.
    Bogon,
    /// Its addresses carry an IPv4 address, which says it.
    Embeds(Embedding),
}

/// A way to carry an IPv4 address inside an IPv6 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Embedding {
    Mapped,
    SixToFour,
    Teredo,
}

impl Embedding {
    const ALL: [(Self, &'static str); 3] = [(Self::Mapped, "::ffff:0:0/96"), (Self::SixToFour, "2002::/16"), (Self::Teredo, "2001::/32")];

    /// Returns how many bits stand before the IPv4 address.
    pub(crate) fn offset(self) -> u8 {
        match self {
            Self::SixToFour => 16,
            Self::Mapped | Self::Teredo => 96,
        }
    }

    /// Takes the IPv4 address out. Teredo keeps the client's with every bit inverted (RFC 4380, section 4).
    pub(crate) fn inner(self, address: Ipv6Addr) -> Ipv4Addr {
        let octets = address.octets();
        let [_, _, e, f, g, h, ..] = octets;
        let [.., a, b, c, d] = octets;
        match self {
            Self::SixToFour => Ipv4Addr::new(e, f, g, h),
            Self::Mapped => Ipv4Addr::new(a, b, c, d),
            Self::Teredo => Ipv4Addr::new(!a, !b, !c, !d),
        }
    }
}

/// What the table says about one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell<'t> {
    /// The longest network that matches.
    pub(crate) entry: Option<&'t Entry>,
    /// The longest of the operator's own that matches, be it a bogon inside it that came first.
    pub(crate) region: Option<&'t RegionName>,
    /// The length of the largest network around the address in which all of this is the same.
    pub(crate) scope: u8,
}

/// The whole table, a tree for each family.
#[derive(Debug, Default)]
pub(crate) struct Table {
    v4: Node,
    v6: Node,
}

impl Table {
    /// Builds the table; the operator's networks replace bogons of the same length.
    pub(crate) fn new(clients: impl IntoIterator<Item = (IpNet, RegionName)>) -> Self {
        let mut table = Self::default();
        for bogon in BOGONS {
            table.insert_constant(bogon, Entry::Bogon);
        }
        for (embedding, network) in Embedding::ALL {
            table.insert_constant(network, Entry::Embeds(embedding));
        }
        for (network, region) in clients {
            table.insert(network, Entry::Region(region));
        }
        table
    }

    fn insert_constant(&mut self, network: &str, entry: Entry) {
        match network.parse() {
            Ok(network) => self.insert(network, entry),
            Err(error) => debug_assert!(false, "{network}: {error}"),
        }
    }

    fn insert(&mut self, network: IpNet, entry: Entry) {
        let (bits, _) = bits_of(network.addr());
        let mut node = match network {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        };
        for depth in 0..network.prefix_len() {
            let branch = if bit(bits, depth) { &mut node.one } else { &mut node.zero };
            node = branch.get_or_insert_default();
        }
        node.entry = Some(entry);
    }

    /// Looks an address up.
    pub(crate) fn find(&self, address: IpAddr) -> Cell<'_> {
        let (bits, width) = bits_of(address);
        let mut node = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let mut cell = Cell { entry: None, region: None, scope: 0 };
        loop {
            if let Some(entry) = &node.entry {
                cell.entry = Some(entry);
            }
            if let Some(Entry::Region(region)) = &node.entry {
                cell.region = Some(region);
            }
            if cell.scope == width || node.is_leaf() {
                return cell;
            }
            let branch = if bit(bits, cell.scope) { &node.one } else { &node.zero };
            cell.scope += 1;
            match branch {
                Some(next) => node = next,
                // Nothing is longer on this side: the gap begins right here, beside what is on the other side.
                None => return cell,
            }
        }
    }
}

#[derive(Debug, Default)]
struct Node {
    zero: Option<Box<Self>>,
    one: Option<Box<Self>>,
    entry: Option<Entry>,
}

impl Node {
    fn is_leaf(&self) -> bool {
        self.zero.is_none() && self.one.is_none()
    }
}

/// Returns an address's bits from the left, and how many there are.
fn bits_of(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn bit(bits: u128, depth: u8) -> bool {
    (bits << depth) >> 127 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::region;

    fn table(clients: &[(&str, &str)]) -> Table {
        Table::new(clients.iter().map(|(network, name)| (network.parse().unwrap(), region(name))))
    }

    #[test]
    fn every_constant_network_can_be_read_and_is_its_own_first_address() {
        for text in BOGONS.into_iter().chain(Embedding::ALL.map(|(_, network)| network)) {
            let network: IpNet = text.parse().unwrap();
            assert_eq!(network, network.trunc());
        }
    }

    #[test]
    fn nested_networks_are_deaggregated_and_gaps_have_a_scope() {
        let table = table(&[("10.0.0.0/8", "fra"), ("10.1.0.0/16", "iad"), ("8.8.8.0/24", "sin"), ("2a00::/16", "fra")]);
        let cases = [
            ("10.1.2.3", Some("iad"), 16),
            ("10.2.0.0", Some("fra"), 15),
            ("10.0.0.1", Some("fra"), 16),
            ("10.128.0.1", Some("fra"), 9),
            ("8.8.8.8", Some("sin"), 24),
            ("8.8.9.1", None, 24),
            ("64.0.0.1", None, 3),
            ("2a00:1::", Some("fra"), 16),
            ("2a01::", None, 16),
            ("4000::", None, 4),
        ];
        for (address, name, scope) in cases {
            let cell = table.find(address.parse().unwrap());

            assert_eq!((cell.region, cell.scope), (name.map(region).as_ref(), scope), "{address}");
        }
    }

    #[test]
    fn the_operator_may_give_a_bogon_to_a_region_and_a_longer_bogon_stays() {
        let table = table(&[("192.0.2.0/24", "fra"), ("0.0.0.0/0", "iad")]);

        let given = table.find("192.0.2.77".parse().unwrap());
        let private = table.find("192.168.7.7".parse().unwrap());

        assert_eq!((given.entry, given.scope), (Some(&Entry::Region(region("fra"))), 24));
        assert_eq!((private.entry, private.scope), (Some(&Entry::Bogon), 16));
        assert_eq!(private.region, Some(&region("iad")));
    }

    #[test]
    fn scopes_never_overlap() {
        let table = table(&[("10.0.0.0/8", "fra"), ("10.1.0.0/16", "iad"), ("10.1.128.0/18", "sin"), ("9.255.255.255/32", "sin")]);
        let seeds = (0..20_000_u32).map(|n| Ipv4Addr::from_bits((9 << 24) + n.wrapping_mul(2_654_435_761) % (2 << 24)));
        for address in seeds {
            let cell = table.find(address.into());
            let network = IpNet::new(address.into(), cell.scope).unwrap();
            for edge in [network.network(), network.broadcast()] {
                assert_eq!(table.find(edge), cell, "{address} and {edge}");
            }
        }
    }

    #[test]
    fn embedded_addresses_are_taken_out() {
        let cases = [
            ("::ffff:192.0.2.1", Embedding::Mapped),
            ("2002:c000:201::1", Embedding::SixToFour),
            ("2001:0:1:2:3:4:3fff:fdfe", Embedding::Teredo),
        ];
        for (address, embedding) in cases {
            let address: Ipv6Addr = address.parse().unwrap();

            assert_eq!(table(&[]).find(address.into()).entry, Some(&Entry::Embeds(embedding)));
            assert_eq!(embedding.inner(address), Ipv4Addr::new(192, 0, 2, 1));
        }
    }
}
