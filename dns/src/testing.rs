//! Packets, edges and views for this crate's tests, built from as little as a test wants to say.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use config::{Record, RecordKind, Zone};
use wire::{LiveEdge, RegionName};

use crate::{
    rank::{Centre, LastKnown},
    table::Table,
    view::{Prepared, View},
};

/// A query with RD set and the identifier 0x1234.
pub(crate) fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend(label.bytes());
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend([0, 1]);
    packet
}

/// Adds an OPT record at the end.
pub(crate) fn with_opt(mut packet: Vec<u8>, payload: u16, version: u8, flags: u16, options: &[u8]) -> Vec<u8> {
    packet[11] += 1;
    packet.extend([0, 0, 41]);
    packet.extend(payload.to_be_bytes());
    packet.extend([0, version]);
    packet.extend(flags.to_be_bytes());
    packet.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
    packet.extend(options);
    packet
}

/// One EDNS option.
pub(crate) fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap();
    [&code.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
}

/// A client-subnet option, however wrong.
pub(crate) fn subnet_option(family: u16, source: u8, scope: u8, address: &[u8]) -> Vec<u8> {
    let head = [&family.to_be_bytes()[..], &[source, scope]].concat();
    option(8, &[&head[..], address].concat())
}

pub(crate) fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

/// A live edge with no load; `addresses` are parted by spaces.
pub(crate) fn edge(name: &str, region_name: &str, addresses: &str) -> LiveEdge {
    LiveEdge {
        edge: name.parse().unwrap(),
        region: region(region_name),
        answers: addresses.split_whitespace().map(|address| address.parse().unwrap()).collect(),
        draining: false,
        load: 0.0,
    }
}

/// Frankfurt, Washington and Singapore.
pub(crate) fn centres() -> Vec<Centre> {
    [("fra", 50.11, 8.68), ("iad", 38.95, -77.45), ("sin", 1.35, 103.99)]
        .map(|(name, latitude, longitude)| Centre { name: region(name), latitude, longitude })
        .to_vec()
}

pub(crate) fn record(name: &str, kind: RecordKind) -> Record {
    Record { name: name.to_owned(), kind, ttl: Duration::from_secs(60) }
}

/// example.test, steered at its apex and at www, with aliases to here and elsewhere.
pub(crate) fn written_zone() -> Zone {
    Zone {
        name: "example.test".to_owned(),
        nameservers: BTreeMap::from([("ns1.example.test".to_owned(), vec![IpAddr::from([192, 0, 2, 53])])]),
        ttl: Duration::from_secs(20),
        steered: vec!["@".to_owned(), "www".to_owned()],
        records: vec![
            record("alias", RecordKind::Cname("www.example.test".to_owned())),
            record("away", RecordKind::Cname("www.other.test".to_owned())),
            record("gone", RecordKind::Cname("nowhere.example.test".to_owned())),
            record("loop", RecordKind::Cname("pool.example.test".to_owned())),
            record("pool", RecordKind::Cname("loop.example.test".to_owned())),
            record("long", RecordKind::Txt("x".repeat(1_100))),
        ],
    }
}

/// A network of three regions, each with its documentation network, example.test, and sub.example.test below it.
pub(crate) fn view(live: Vec<LiveEdge>) -> View {
    let sub = Zone { name: "sub.example.test".to_owned(), steered: Vec::new(), records: Vec::new(), ..written_zone() };
    let zones = [written_zone(), sub].map(|written| {
        let zone = crate::zone::Zone::new(&written, 1).unwrap();
        (zone.apex.clone(), zone)
    });
    let clients = [("192.0.2.0/24", "fra"), ("198.51.100.0/24", "iad"), ("203.0.113.0/24", "sin")];
    let network = Prepared {
        zones: zones.into(),
        regions: centres(),
        table: Table::new(clients.map(|(network, name)| (network.parse().unwrap(), region(name)))),
    };
    let view = View { network: Arc::new(network), places: None, live: Vec::new(), last_known: LastKnown::new() };
    view.with_live(live)
}
