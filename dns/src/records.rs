//! Record sets and their data, and how one is made from a record of the configuration.

use std::{net::IpAddr, time::Duration};

use config::RecordKind;

use crate::name::Name;

pub(crate) const TYPE_A: u16 = 1;
pub(crate) const TYPE_NS: u16 = 2;
pub(crate) const TYPE_CNAME: u16 = 5;
pub(crate) const TYPE_SOA: u16 = 6;
pub(crate) const TYPE_HINFO: u16 = 13;
const TYPE_MX: u16 = 15;
pub(crate) const TYPE_TXT: u16 = 16;
pub(crate) const TYPE_AAAA: u16 = 28;
const TYPE_SRV: u16 = 33;
pub(crate) const TYPE_ANY: u16 = 255;
const TYPE_CAA: u16 = 257;

/// A zone that can't be written in DNS. The configuration's checks come before this one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BadZone {
    /// A name with an empty label, a label over 63 octets, or over 255 in all.
    #[error("`{0}` can't be a name in DNS")]
    Name(String),
    /// A value that does not fit into a record.
    #[error("the {kind} record of `{name}` does not fit into DNS")]
    TooLong {
        /// The record's name.
        name: String,
        /// The record's type.
        kind: &'static str,
    },
}

/// The records of one name and type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RrSet {
    pub(crate) kind: u16,
    pub(crate) ttl: u32,
    pub(crate) data: Vec<Data>,
}

/// One record's data; names stand apart where the wire may compress them (RFC 3597, section 4: the types of RFC 1035 only).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Raw(Vec<u8>),
    Name(Name),
    Mx {
        preference: u16,
        exchange: Name,
    },
    Soa {
        primary: Name,
        contact: Name,
        /// Serial, refresh, retry, expire, minimum.
        numbers: [u32; 5],
    },
}

impl From<IpAddr> for Data {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::Raw(address.octets().to_vec()),
            IpAddr::V6(address) => Self::Raw(address.octets().to_vec()),
        }
    }
}

/// Reads a name that the configuration has written.
pub(crate) fn name(text: &str) -> Result<Name, BadZone> {
    Name::from_text(text).ok_or_else(|| BadZone::Name(text.to_owned()))
}

/// Returns a record's type and data.
pub(crate) fn data(record: &config::Record) -> Result<(u16, Data), BadZone> {
    let too_long = |kind| BadZone::TooLong { name: record.name.clone(), kind };
    Ok(match &record.kind {
        RecordKind::A(address) => (TYPE_A, Data::from(IpAddr::V4(*address))),
        RecordKind::Aaaa(address) => (TYPE_AAAA, Data::from(IpAddr::V6(*address))),
        RecordKind::Cname(target) => (TYPE_CNAME, Data::Name(name(target)?)),
        RecordKind::Mx { preference, exchange } => {
            let exchange = name(exchange)?;
            (TYPE_MX, Data::Mx { preference: *preference, exchange })
        }
        RecordKind::Txt(text) => (TYPE_TXT, txt(text).ok_or_else(|| too_long("TXT"))?),
        RecordKind::Caa { flags, tag, value } => (TYPE_CAA, caa(*flags, tag, value).ok_or_else(|| too_long("CAA"))?),
        RecordKind::Srv { priority, weight, port, target } => {
            let mut bytes = [*priority, *weight, *port].map(u16::to_be_bytes).concat();
            bytes.extend(name(target)?.wire());
            (TYPE_SRV, Data::Raw(bytes))
        }
    })
}

/// Splits a text into the strings of at most 255 octets that a TXT record is made of; readers join them again.
fn txt(text: &str) -> Option<Data> {
    let mut bytes = Vec::with_capacity(text.len() + 1);
    for part in text.as_bytes().chunks(255) {
        bytes.push(u8::try_from(part.len()).ok()?);
        bytes.extend(part);
    }
    if text.is_empty() {
        bytes.push(0);
    }
    sized(bytes)
}

fn caa(flags: u8, tag: &str, value: &str) -> Option<Data> {
    let mut bytes = vec![flags, u8::try_from(tag.len()).ok()?];
    bytes.extend(tag.as_bytes());
    bytes.extend(value.as_bytes());
    sized(bytes)
}

/// Refuses what could not be sent even alone; a whole message has 65535 octets.
fn sized(bytes: Vec<u8>) -> Option<Data> {
    (bytes.len() <= 60_000).then_some(Data::Raw(bytes))
}

/// TTLs have 31 bits (RFC 2181, section 8).
pub(crate) fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).min(u32::MAX >> 1)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::testing::record;

    #[test]
    fn every_kind_becomes_its_wire_form() {
        let target = "a.test".to_owned();
        let caa = RecordKind::Caa { flags: 128, tag: "issue".to_owned(), value: "ca.test".to_owned() };
        let srv = RecordKind::Srv { priority: 1, weight: 2, port: 443, target };
        let cases: [(RecordKind, u16, &[u8]); 5] = [
            (RecordKind::A([192, 0, 2, 1].into()), 1, &[192, 0, 2, 1]),
            (RecordKind::Aaaa(Ipv6Addr::LOCALHOST), 28, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            (RecordKind::Txt("hi".to_owned()), 16, b"\x02hi"),
            (caa, 257, b"\x80\x05issueca.test"),
            (srv, 33, b"\x00\x01\x00\x02\x01\xbb\x01a\x04test\x00"),
        ];
        for (kind, number, bytes) in cases {
            let made = data(&record("x", kind)).unwrap();

            assert_eq!(made, (number, Data::Raw(bytes.to_vec())));
        }
    }

    #[test]
    fn a_long_text_is_split_over_255() {
        let Some(Data::Raw(bytes)) = txt(&"x".repeat(300)) else {
            panic!("data was expected");
        };

        assert_eq!((bytes.len(), bytes[0], bytes[256]), (302, 255, 45));
        assert_eq!(txt(""), Some(Data::Raw(vec![0])));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_name() {
        let complaint = data(&record("x", RecordKind::Txt("t".repeat(70_000)))).unwrap_err();

        assert_eq!(complaint.to_string(), "the TXT record of `x` does not fit into DNS");
    }

    #[test]
    fn ttls_keep_to_31_bits() {
        assert_eq!(seconds(Duration::from_secs(20)), 20);
        assert_eq!(seconds(Duration::MAX), 0x7fff_ffff);
    }
}
