//! The door for the fuzz target of DNS packets in `fuzz/`: takes bytes as a stranger could send them, through all of the
//! answering, and asserts what must hold of a reply whatever they are.
//!
//! In tests the same door sees a few hundred packets from a fixed seed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use config::{Record, RecordKind};

use crate::answer::{self, Transport};
use crate::rank::LastKnown;
use crate::table::Table;
use crate::view::{Prepared, View};
use crate::write::UDP_LIMIT;
use crate::zone::Zone;

/// Answers one packet, by UDP and by TCP.
pub fn packet(bytes: &[u8]) {
    let view = view();
    let from = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 53));
    for (transport, most) in [(Transport::Udp, usize::from(UDP_LIMIT)), (Transport::Tcp, usize::from(u16::MAX))] {
        let Some(reply) = answer::reply(&view, bytes, from, transport, 0) else { continue };
        let is_reply = reply.bytes.get(2).is_some_and(|flags| flags & 0x80 != 0);
        assert!(is_reply && reply.bytes.get(..2) == bytes.get(..2), "a reply to something else");
        assert!((12..=most).contains(&reply.bytes.len()), "{} bytes by {transport:?}", reply.bytes.len());
        // A reply that is taken for a query would be answered for ever.
        assert!(answer::reply(&view, &reply.bytes, from, transport, 0).is_none(), "a reply that gets a reply");
    }
}

/// One zone with a name that is steered, an alias to it, one that leads away, and one that goes round.
fn view() -> View {
    let record = |name: &str, kind| Record { name: name.to_owned(), kind, ttl: Duration::from_secs(60) };
    let alias = |name: &str, target: &str| record(name, RecordKind::Cname(target.to_owned()));
    let written = config::Zone {
        name: "a.test".to_owned(),
        nameservers: BTreeMap::from([("ns.a.test".to_owned(), vec![IpAddr::from([192, 0, 2, 53])])]),
        ttl: Duration::from_secs(20),
        steered: vec!["@".to_owned()],
        records: vec![
            alias("b", "a.test"),
            alias("c", "other.test"),
            alias("d", "d.a.test"),
            record("t", RecordKind::Txt("t".repeat(1100))),
        ],
    };
    let zones = Zone::new(&written, 1).map(|zone| (zone.apex.clone(), zone)).into_iter().collect();
    let network = Prepared { zones, regions: Vec::new(), table: Table::new([]) };
    View { network: Arc::new(network), places: None, live: Vec::new(), last_known: LastKnown::new() }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::test_runner::RngSeed;

    use crate::testing::{option, question, subnet_option, with_opt};

    /// Good queries, to be bent.
    fn whole() -> Vec<Vec<u8>> {
        let names = ["a.test", "B.a.Test", "c.a.test", "d.a.test", "t.a.test", "ns.a.test", "x.a.test", "other.test", ""];
        let options = [vec![], subnet_option(1, 24, 0, &[192, 0, 2]), option(10, &[1; 8]), option(11, &[])];
        let plain = names.iter().flat_map(|name| [1, 2, 5, 6, 16, 28, 255].map(|kind| question(name, kind)));
        plain
            .flat_map(|packet| options.iter().map(move |options| with_opt(packet.clone(), 1232, 0, 0, options)).collect::<Vec<_>>())
            .collect()
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let any_byte = (any::<prop::sample::Index>(), any::<u8>());
        let bent = (select(whole()), vec(any_byte, 0..4), any::<prop::sample::Index>(), any::<bool>()).prop_map(
            |(mut packet, changes, end, is_cut)| {
                for (at, byte) in changes {
                    let at = at.index(packet.len());
                    packet[at] = byte;
                }
                packet.truncate(if is_cut { end.index(packet.len()) } else { packet.len() });
                packet
            },
        );
        prop_oneof![1 => vec(any::<u8>(), 0..64), 4 => bent]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 1024, failure_persistence: None, rng_seed: RngSeed::Fixed(1035), ..ProptestConfig::default()
        })]

        #[test]
        fn no_packet_makes_the_answering_panic(packet in bytes()) {
            super::packet(&packet);
        }
    }

    #[test]
    fn the_zone_that_is_asked_is_there() {
        assert_eq!(super::view().network.zones.len(), 1);
    }
}
