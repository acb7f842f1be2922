//! A DNS zone: its name servers, its steered names, and its static records.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::section::Section;

/// A zone that our DNS nodes are authoritative for.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Its name, in lower case and without a dot at the end.
    pub name: String,
    /// Its name servers and their addresses.
    pub nameservers: BTreeMap<String, Vec<IpAddr>>,
    /// How long answers may be kept.
    pub ttl: Duration,
    /// Names that get the nearest region's live edges, relative to the zone; `@` is the zone itself.
    pub steered: Vec<String>,
    /// Records that are the same for everybody.
    pub records: Vec<Record>,
}

/// One static record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Relative to the zone; `@` is the zone itself.
    pub name: String,
    /// Its type and value.
    pub kind: RecordKind,
    /// How long it may be kept.
    pub ttl: Duration,
}

/// A record's type and value; names are absolute, in lower case and without a dot at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the RFCs")]
pub enum RecordKind {
    /// RFC 1035, 3.4.1
    A(Ipv4Addr),
    /// RFC 3596
    Aaaa(Ipv6Addr),
    /// RFC 1035, 3.3.1
    Cname(String),
    /// RFC 1035, 3.3.14
    Txt(String),
    /// RFC 8659
    Caa { flags: u8, tag: String, value: String },
    /// RFC 1035, 3.3.9
    Mx { preference: u16, exchange: String },
    /// RFC 2782
    Srv { priority: u16, weight: u16, port: u16, target: String },
}

/// A DNS name as people write it, absolute and in lower case.
pub(crate) struct DnsName(String);

impl std::str::FromStr for DnsName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label =
            |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_*".contains(&b));
        if name.len() <= 253 && name.split('.').all(label) { Ok(Self(name)) } else { Err(format!("`{text}` is not a DNS name")) }
    }
}

impl PartialEq for DnsName {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for DnsName {}
impl PartialOrd for DnsName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for DnsName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// A name relative to a zone, `@` for the zone itself.
struct RelativeName(String);

impl std::str::FromStr for RelativeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "@" { Ok(Self(text.to_owned())) } else { text.parse::<DnsName>().map(|name| Self(name.0)) }
    }
}

impl Zone {
    pub(crate) fn read(name: &DnsName, section: &Section<'_>) -> Self {
        let ttl = section.duration_or("ttl", Duration::from_secs(20));
        if ttl.as_secs() == 0 || ttl > Duration::from_secs(7 * 24 * 3600) {
            section.complain("ttl", "expected 1s to 7d");
        }
        let steered: Vec<RelativeName> = section.list("steered", "a name relative to the zone, or `@`");
        let records = section.table_list("records").iter().filter_map(|record| Record::read(record, ttl)).collect();
        let zone = Self {
            name: name.0.clone(),
            nameservers: read_nameservers(section),
            ttl,
            steered: steered.into_iter().map(|name| name.0).collect(),
            records,
        };
        zone.complain_of_conflicts(section);
        zone
    }

    /// A CNAME stands alone (RFC 1034, 3.6.2), and a steered name has no other addresses.
    fn complain_of_conflicts(&self, section: &Section<'_>) {
        for record in &self.records {
            let name = &record.name;
            let steered = self.steered.contains(name);
            let others = self.records.iter().filter(|other| other.name == *name).count();
            match record.kind {
                RecordKind::Cname(_) if name == "@" => section.complain("records", "a CNAME can't stand at the apex (`@`)"),
                RecordKind::Cname(_) if others > 1 || steered => {
                    section.complain("records", format!("the CNAME `{name}` can't stand beside other data"));
                }
                RecordKind::A(_) | RecordKind::Aaaa(_) if steered => {
                    section.complain("records", format!("`{name}` is steered, so it can't have addresses of its own"));
                }
                _ => {}
            }
        }
    }
}

fn read_nameservers(section: &Section<'_>) -> BTreeMap<String, Vec<IpAddr>> {
    if !section.has("nameservers") {
        section.complain("nameservers", "is missing; expected { \"ns1.example.test\" = [\"192.0.2.1\"] }");
    }
    let rows: Vec<(String, Vec<IpAddr>)> = section.named_lists("nameservers", "an IP address");
    let mut servers = BTreeMap::new();
    for (name, addresses) in rows {
        match name.parse::<DnsName>() {
            Ok(name) => {
                servers.insert(name.0, addresses);
            }
            Err(said) => section.complain("nameservers", said),
        }
    }
    servers
}

const TYPES: [&str; 7] = ["A", "AAAA", "CNAME", "TXT", "CAA", "MX", "SRV"];

impl Record {
    fn read(section: &Section<'_>, zone_ttl: Duration) -> Option<Self> {
        let name = section.required::<RelativeName>("name", "a name relative to the zone, or `@`");
        let kind = section.required::<String>("type", "a record type");
        let value = section.required::<String>("value", "the record's value");
        let ttl = section.duration_or("ttl", zone_ttl);
        let (name, kind, value) = (name?.0, kind?, value?);
        if !TYPES.contains(&kind.as_str()) {
            section.complain_unknown("type", &kind, "record type", TYPES);
            return None;
        }
        let Some(kind) = read_kind(&kind, &value) else {
            section.complain("value", format!("expected {}", sample(&kind)));
            return None;
        };
        Some(Self { name, kind, ttl })
    }
}

fn sample(kind: &str) -> &'static str {
    match kind {
        "A" => "an address such as \"192.0.2.1\"",
        "AAAA" => "an address such as \"2001:db8::1\"",
        "CNAME" => "a name such as \"www.example.net.\"",
        "CAA" => "flags, tag and value such as \"0 issue letsencrypt.org\"",
        "MX" => "preference and name such as \"10 mail.example.net.\"",
        "SRV" => "priority, weight, port and name such as \"0 5 5060 sip.example.net.\"",
        _ => "at most 65000 bytes",
    }
}

fn read_kind(kind: &str, value: &str) -> Option<RecordKind> {
    let words: Vec<_> = value.split_whitespace().collect();
    let name = |text: &str| text.parse::<DnsName>().ok().map(|name| name.0);
    match (kind, words.as_slice()) {
        ("A", [address]) => address.parse().ok().map(RecordKind::A),
        ("AAAA", [address]) => address.parse().ok().map(RecordKind::Aaaa),
        ("CNAME", [target]) => name(target).map(RecordKind::Cname),
        ("TXT", _) => (value.len() <= 65_000).then(|| RecordKind::Txt(value.to_owned())),
        ("CAA", [flags, tag, value @ ..]) if !value.is_empty() && tag.bytes().all(|b| b.is_ascii_alphanumeric()) && tag.len() <= 15 => {
            Some(RecordKind::Caa {
                flags: flags.parse().ok()?,
                tag: (*tag).to_owned(),
                value: value.join(" ").trim_matches('"').to_owned(),
            })
        }
        ("MX", [preference, exchange]) => Some(RecordKind::Mx { preference: preference.parse().ok()?, exchange: name(exchange)? }),
        ("SRV", [priority, weight, port, target]) => Some(RecordKind::Srv {
            priority: priority.parse().ok()?,
            weight: weight.parse().ok()?,
            port: port.parse().ok()?,
            target: name(target)?,
        }),
        _ => None,
    }
}
