//! A zone prepared for answering: every name that exists, what it holds, and whether it is steered.
//!
//! All that a configuration leaves out is made here once: SOA, the nameservers and their glue, and the names in between
//! (empty non-terminals), which exist because something exists below them.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use crate::{
    name::Name,
    rank::Family,
    records::{BadZone, Data, RrSet, TYPE_A, TYPE_AAAA, TYPE_ANY, TYPE_CNAME, TYPE_HINFO, TYPE_NS, TYPE_SOA, data, name, seconds},
};

/// Refresh, retry and expire matter to secondaries only, and there are none; checkers still want them to be sensible.
const REFRESH: u32 = 14_400;
const RETRY: u32 = 3_600;
const EXPIRE: u32 = 604_800;
/// How long "there is nothing" may be kept.
const MINIMUM: u32 = 300;
/// SOA, NS and glue change with the network's machines, not with its traffic.
const APEX_TTL: u32 = 3_600;

/// What a zone says to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found<'z> {
    /// The nearest live region answers.
    Steered(Family),
    /// These records do.
    Records(&'z RrSet),
    /// The name is another name for this one.
    Alias(&'z RrSet, &'z Name),
    /// The name exists, but not with this type.
    NoData,
    /// There is no such name.
    NxDomain,
}

/// One zone.
#[derive(Debug)]
pub(crate) struct Zone {
    pub(crate) apex: Name,
    /// How long a steered answer may be kept.
    pub(crate) ttl: u32,
    /// The SOA as negative answers carry it, with the TTL that these may be kept for.
    pub(crate) denial: RrSet,
    /// What ANY gets (RFC 8482): cheap to give, and worth nothing to who wants to amplify.
    any: RrSet,
    names: HashMap<Name, Node>,
}

/// What one name holds; nothing at all for one that exists only because of a longer one.
#[derive(Debug, Default)]
struct Node {
    steered: bool,
    sets: BTreeMap<u16, RrSet>,
}

impl Zone {
    /// Prepares a zone. The serial is the configuration's version, so that all nodes show the same.
    pub(crate) fn new(written: &config::Zone, serial: u32) -> Result<Self, BadZone> {
        let apex = name(&written.name)?;
        let soa = soa(written, &apex, serial)?;
        let mut zone = Self {
            ttl: seconds(written.ttl),
            denial: RrSet { ttl: APEX_TTL.min(MINIMUM), ..soa.clone() },
            any: RrSet { kind: TYPE_HINFO, ttl: APEX_TTL, data: vec![Data::Raw(b"\x07RFC8482\x00".to_vec())] },
            names: HashMap::new(),
            apex: apex.clone(),
        };
        zone.node(&apex).sets.insert(TYPE_SOA, soa);
        for (nameserver, addresses) in &written.nameservers {
            zone.add_nameserver(name(nameserver)?, addresses);
        }
        for record in &written.records {
            let owner = absolute(&record.name, &written.name)?;
            let (kind, data) = data(record)?;
            zone.add(owner, kind, seconds(record.ttl), data);
        }
        for steered in &written.steered {
            let owner = absolute(steered, &written.name)?;
            zone.node(&owner).steered = true;
        }
        Ok(zone)
    }

    /// Looks up a name inside this zone.
    pub(crate) fn find(&self, name: &Name, kind: u16) -> Found<'_> {
        let Some(node) = self.names.get(name).or_else(|| self.wildcard(name)) else {
            return Found::NxDomain;
        };
        let alias = node.sets.get(&TYPE_CNAME);
        match (kind, node.sets.get(&kind), alias) {
            (TYPE_A, ..) if node.steered => Found::Steered(Family::V4),
            (TYPE_AAAA, ..) if node.steered => Found::Steered(Family::V6),
            (_, Some(set), _) | (TYPE_ANY, None, Some(set)) => Found::Records(set),
            (TYPE_ANY, None, None) if node.steered || !node.sets.is_empty() => Found::Records(&self.any),
            (_, None, Some(set)) => match set.data.first() {
                Some(Data::Name(target)) => Found::Alias(set, target),
                _ => Found::NoData,
            },
            (_, None, None) => Found::NoData,
        }
    }

    /// Returns what stands for a name that does not exist: the wildcard below its nearest ancestor that does (RFC 4592).
    fn wildcard(&self, name: &Name) -> Option<&Node> {
        let encloser = name.suffixes().skip(1).find(|suffix| self.names.contains_key(*suffix))?;
        let wildcard = [b"\x01*".as_slice(), encloser].concat();
        self.names.get(wildcard.as_slice())
    }

    /// Returns the address records of a nameserver in this zone, to go with its NS record.
    pub(crate) fn glue(&self, nameserver: &Name) -> impl Iterator<Item = &RrSet> {
        let node = self.names.get(nameserver);
        [TYPE_A, TYPE_AAAA].into_iter().filter_map(move |kind| node?.sets.get(&kind))
    }

    fn add_nameserver(&mut self, nameserver: Name, addresses: &[IpAddr]) {
        let apex = self.apex.clone();
        self.add(apex, TYPE_NS, APEX_TTL, Data::Name(nameserver.clone()));
        if !nameserver.is_within(&self.apex) {
            return;
        }
        for address in addresses {
            let kind = if address.is_ipv4() { TYPE_A } else { TYPE_AAAA };
            self.add(nameserver.clone(), kind, APEX_TTL, Data::from(*address));
        }
    }

    fn add(&mut self, owner: Name, kind: u16, ttl: u32, data: Data) {
        let set = self.node(&owner).sets.entry(kind).or_insert_with(|| RrSet { kind, ttl, data: Vec::new() });
        // One set has one TTL (RFC 2181, section 5.2).
        set.ttl = set.ttl.min(ttl);
        if !set.data.contains(&data) {
            set.data.push(data);
        }
    }

    /// Returns a name's node; it and all names between it and the apex come to exist.
    fn node(&mut self, name: &Name) -> &mut Node {
        let above = name.suffixes().skip(1).take_while(|suffix| suffix.len() >= self.apex.wire().len());
        for (parent, _) in above.filter_map(Name::read) {
            self.names.entry(parent).or_default();
        }
        self.names.entry(name.clone()).or_default()
    }
}

fn absolute(relative: &str, zone: &str) -> Result<Name, BadZone> {
    match relative {
        "@" => name(zone),
        _ => name(&format!("{relative}.{zone}")),
    }
}

fn soa(written: &config::Zone, apex: &Name, serial: u32) -> Result<RrSet, BadZone> {
    let primary = match written.nameservers.keys().next() {
        Some(nameserver) => name(nameserver)?,
        None => apex.clone(),
    };
    let soa =
        Data::Soa { primary, contact: name(&format!("hostmaster.{}", written.name))?, numbers: [serial, REFRESH, RETRY, EXPIRE, MINIMUM] };
    Ok(RrSet { kind: TYPE_SOA, ttl: APEX_TTL, data: vec![soa] })
}

#[cfg(test)]
mod tests {
    use config::RecordKind;

    use super::*;
    use crate::{
        records::TYPE_TXT,
        testing::{record, written_zone},
    };

    fn zone() -> Zone {
        let mut written = written_zone();
        written.records.push(record("a.deep", RecordKind::A([192, 0, 2, 9].into())));
        Zone::new(&written, 7).unwrap()
    }

    fn find<'z>(zone: &'z Zone, name: &str, kind: u16) -> Found<'z> {
        zone.find(&Name::from_text(name).unwrap(), kind)
    }

    #[test]
    fn every_name_says_what_it_holds() {
        let zone = zone();
        let cases = [
            ("example.test", TYPE_A, "steered"),
            ("example.test", TYPE_AAAA, "steered"),
            ("www.example.test", TYPE_A, "steered"),
            ("www.example.test", TYPE_TXT, "no data"),
            ("example.test", TYPE_NS, "records"),
            ("example.test", TYPE_SOA, "records"),
            ("ns1.example.test", TYPE_A, "records"),
            ("alias.example.test", TYPE_A, "alias"),
            ("alias.example.test", TYPE_CNAME, "records"),
            ("alias.example.test", TYPE_ANY, "records"),
            ("deep.example.test", TYPE_A, "no data"),
            ("deep.example.test", TYPE_ANY, "no data"),
            ("a.deep.example.test", TYPE_A, "records"),
            ("a.deep.example.test", 65_280, "no data"),
            ("no.example.test", TYPE_A, "no such name"),
            ("a.www.example.test", TYPE_A, "no such name"),
        ];
        for (name, kind, expected) in cases {
            let found = match find(&zone, name, kind) {
                Found::Steered(_) => "steered",
                Found::Records(_) => "records",
                Found::Alias(..) => "alias",
                Found::NoData => "no data",
                Found::NxDomain => "no such name",
            };
            assert_eq!(found, expected, "{name} {kind}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_names_that_do_not_exist_and_only_below_its_parent() {
        let mut written = written_zone();
        written.records.push(record("*.wild", RecordKind::A([192, 0, 2, 9].into())));
        written.records.push(record("a.b.wild", RecordKind::A([192, 0, 2, 8].into())));
        let zone = Zone::new(&written, 1).unwrap();

        assert!(matches!(find(&zone, "x.wild.example.test", TYPE_A), Found::Records(_)));
        assert!(matches!(find(&zone, "x.y.wild.example.test", TYPE_A), Found::Records(_)));
        assert_eq!(find(&zone, "x.wild.example.test", TYPE_TXT), Found::NoData);
        assert_eq!(find(&zone, "b.wild.example.test", TYPE_A), Found::NoData);
        assert_eq!(find(&zone, "x.b.wild.example.test", TYPE_A), Found::NxDomain);
        assert_eq!(find(&zone, "x.example.test", TYPE_A), Found::NxDomain);
    }

    #[test]
    fn any_gets_one_hinfo() {
        let zone = zone();

        let Found::Records(set) = find(&zone, "www.example.test", TYPE_ANY) else {
            panic!("HINFO was expected");
        };

        assert_eq!((set.kind, &set.data[..]), (TYPE_HINFO, &[Data::Raw(b"\x07RFC8482\x00".to_vec())][..]));
    }

    #[test]
    fn the_soa_is_made_up_and_negative_answers_keep_it_shorter() {
        let zone = zone();

        let Found::Records(soa) = find(&zone, "example.test", TYPE_SOA) else {
            panic!("SOA was expected");
        };

        let expected = Data::Soa {
            primary: Name::from_text("ns1.example.test").unwrap(),
            contact: Name::from_text("hostmaster.example.test").unwrap(),
            numbers: [7, 14_400, 3_600, 604_800, 300],
        };
        assert_eq!((soa.ttl, &soa.data[..]), (3_600, &[expected][..]));
        assert_eq!((zone.denial.ttl, &zone.denial.data), (300, &soa.data));
    }

    #[test]
    fn nameservers_elsewhere_have_no_glue_here() {
        let mut written = written_zone();
        written.nameservers.insert("ns.other.test".to_owned(), vec![[192, 0, 2, 3].into()]);

        let zone = Zone::new(&written, 1).unwrap();

        let glue_of = |text| zone.glue(&Name::from_text(text).unwrap()).count();
        assert_eq!((glue_of("ns1.example.test"), glue_of("ns.other.test")), (1, 0));
        assert_eq!(find(&zone, "ns.other.test", TYPE_A), Found::NxDomain);
    }

    #[test]
    fn names_that_dns_can_not_hold_are_refused_with_the_name() {
        let mut written = written_zone();
        written.steered.push("a..b".to_owned());

        let complaint = Zone::new(&written, 1).unwrap_err().to_string();

        assert!(complaint.contains("a..b.example.test"), "{complaint}");
    }
}
