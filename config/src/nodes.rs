//! The sections that belong to single nodes: the origin, each edge, each DNS node.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use wire::{NodeName, RegionName};

use crate::section::Section;
use crate::tree::key_text;
use crate::{BlobStore, ByteSize, Network, RedisAddress, SecretRef};

/// The origin's part of the file.
#[derive(Clone, Debug)]
pub struct OriginNode {
    /// Where the control API listens.
    pub listen: SocketAddr,
    /// How followers and the command line reach it, the preferred one first.
    pub urls: Vec<String>,
    /// Where the journal and the lease book are kept.
    pub journal: JournalEngine,
    /// The certificate and key of its listener, where it speaks TLS.
    pub tls: Option<TlsFiles>,
    /// The certificates that followers and the command line trust for it.
    pub ca: Option<SecretRef>,
    /// What followers show it.
    pub follow_token: Option<SecretRef>,
    /// How many scopes a token may purge per second that has no limit of its own.
    pub purge_rate: u64,
    /// Where it stores blobs.
    pub blobs: BlobStore,
}

/// Where an origin keeps its journal and its lease book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalEngine {
    /// In a file of its own; the lease book is in memory.
    Embedded,
    /// In a Redis that several origins share.
    Redis {
        /// How it is reached.
        address: RedisAddress,
        /// How many of its replicas have each event before it is acknowledged.
        replicas: u64,
    },
}

/// The most replicas that anybody waits for.
const REPLICAS_MOST: u64 = 16;

impl JournalEngine {
    fn read(section: &Section<'_>) -> Self {
        if !section.has("journal") || section.says("journal", "embedded") {
            section.parsed_or("journal", "\"embedded\"", "embedded".to_owned());
            return Self::Embedded;
        }
        let replicas = |own: Option<&Section<'_>>| own.map_or(0, |own| own.count_within("replicas", 0, &(0..=REPLICAS_MOST)));
        let Some((address, replicas)) = RedisAddress::read(section, "journal", "\"embedded\", ", replicas) else { return Self::Embedded };
        if address.cluster {
            section.complain("journal", "a journal needs one server, which may have replicas, and no cluster");
        }
        Self::Redis { address, replicas }
    }
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The chain, the listener's own certificate first.
    pub certificate: SecretRef,
    /// The private key.
    pub key: SecretRef,
}

/// One edge's part of the file.
#[derive(Clone, Debug)]
pub struct EdgeNode {
    /// Its name.
    pub name: NodeName,
    /// Its region.
    pub region: RegionName,
    /// Where it serves.
    pub listen: Vec<SocketAddr>,
    /// Where it tells about itself.
    pub admin: SocketAddr,
    /// The addresses that DNS gives out for it.
    pub answers: Vec<IpAddr>,
    /// How much memory its cache may take (L1).
    pub memory: ByteSize,
    /// How much disk its folder may take (L2).
    pub disk: ByteSize,
    /// Whose `X-Forwarded-For` and `-Proto` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The most connections of clients.
    pub max_connections: u64,
    /// The most connections of clients from one address.
    pub max_connections_per_address: u64,
    /// How long the head of a request may take.
    pub head_timeout: Duration,
    /// How long a connection is kept on which nothing is asked.
    pub idle_timeout: Duration,
    /// How many bytes per second a request's body or the reader of an answer has to move at the least; 0 is off.
    pub min_rate: ByteSize,
}

/// One DNS node's part of the file.
#[derive(Clone, Debug)]
pub struct DnsNode {
    /// Its name.
    pub name: NodeName,
    /// Where it answers, on UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Where it tells about itself.
    pub admin: SocketAddr,
    /// A MaxMind database that gives clients a place.
    pub places: Option<PathBuf>,
}

/// Which of some keys differ.
fn changed(section: &str, keys: impl IntoIterator<Item = (&'static str, bool)>) -> Vec<String> {
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| format!("{section}.{key}")).collect()
}

const ADDRESS: &str = "an address with a port such as \"127.0.0.1:8081\"";

impl OriginNode {
    /// Returns the keys that differ and are read at the start alone.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<String> {
        let keys = [
            ("listen", self.listen != new.listen),
            ("journal", self.journal != new.journal),
            ("blobs", self.blobs != new.blobs),
            ("tls", self.tls.is_some() != new.tls.is_some()),
        ];
        changed("origin", keys)
    }

    pub(crate) fn read(root: &Section<'_>) -> Self {
        let default_listen = SocketAddr::from(([127, 0, 0, 1], 7070));
        let Some(section) = root.table("origin") else {
            return Self {
                listen: default_listen,
                urls: vec![format!("http://{default_listen}")],
                journal: JournalEngine::Embedded,
                tls: None,
                ca: None,
                follow_token: None,
                purge_rate: PURGE_RATE,
                blobs: BlobStore::Folder,
            };
        };
        let listen = section.parsed_or("listen", ADDRESS, default_listen);
        let tls = section.table("tls").and_then(|tls| {
            for needed in ["certificate", "key"] {
                if !tls.has(needed) {
                    tls.complain(needed, "is missing; expected file:PATH or env:NAME");
                }
            }
            Some(TlsFiles { certificate: tls.secret("certificate")?, key: tls.secret("key")? })
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut urls: Vec<OriginUrl> = section.list("url", "a URL such as \"http://127.0.0.1:7070\"");
        if urls.is_empty() {
            urls.push(OriginUrl(format!("{scheme}://{listen}")));
        }
        let journal = JournalEngine::read(&section);
        let blobs = BlobStore::read(&section);
        let urls = urls.into_iter().map(|url| url.0).collect();
        let purge_rate = section.count_within("purge_rate", PURGE_RATE, &PURGE_RATES);
        Self { listen, urls, journal, tls, ca: section.secret("ca"), follow_token: section.secret("follow_token"), purge_rate, blobs }
    }
}

/// What a busy site's own purges stay far below, and an origin's disk and feeds carry.
const PURGE_RATE: u64 = 20_000;

/// How many scopes per second any token may be allowed to purge.
pub const PURGE_RATES: RangeInclusive<u64> = 1..=1_000_000;

/// An origin's base URL, without a slash at its end.
struct OriginUrl(String);

impl std::str::FromStr for OriginUrl {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).ok_or(())?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        wire::Host::of_authority(authority).map_err(|_| ())?;
        Ok(Self(text.strip_suffix('/').unwrap_or(text).to_owned()))
    }
}

impl EdgeNode {
    /// Returns the keys that differ and are read at the start alone.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<String> {
        let keys = [
            ("region", self.region != new.region),
            ("listen", self.listen != new.listen),
            ("admin", self.admin != new.admin),
            ("memory", self.memory != new.memory),
            ("disk", self.disk != new.disk),
        ];
        changed(&format!("edges.{}", key_text(self.name.as_str())), keys)
    }

    pub(crate) fn read_all(root: &Section<'_>, network: &Network) -> Vec<Self> {
        root.tables::<NodeName>("edges").iter().filter_map(|(name, section)| Self::read(name, section, network)).collect()
    }

    fn read(name: &NodeName, section: &Section<'_>, network: &Network) -> Option<Self> {
        let region = section.required::<RegionName>("region", "the name of a region");
        if let Some(region) = region.as_ref().filter(|region| !network.regions.contains_key(*region)) {
            section.complain_unknown("region", region.as_str(), "region", network.regions.keys().map(RegionName::as_str));
        }
        let listen = section.required_list("listen", ADDRESS);
        let admin = section.required("admin", ADDRESS);
        let memory = section.bytes_or("memory", ByteSize(256 << 20));
        if memory.0 < MEMORY_LEAST {
            section.complain("memory", format!("expected at least {}", ByteSize(MEMORY_LEAST)));
        }
        Some(Self {
            name: name.clone(),
            listen,
            answers: section.list("answers", "an IP address"),
            memory,
            disk: section.bytes_or("disk", ByteSize(10 << 30)),
            trusted_proxies: section.networks("trusted_proxies", "a network such as \"10.0.0.0/8\""),
            max_connections: section.count_within("max_connections", 20_000, &CONNECTIONS),
            max_connections_per_address: section.count_within("max_connections_per_address", 512, &CONNECTIONS),
            head_timeout: section.duration_or("head_timeout", Duration::from_secs(10)),
            idle_timeout: section.duration_or("idle_timeout", Duration::from_secs(75)),
            min_rate: section.bytes_within("min_rate", ByteSize(1 << 10), &(ByteSize(0)..=MIN_RATE_MOST)),
            // Last, so that all its keys were asked for.
            region: region?,
            admin: admin?,
        })
    }
}

/// Below this the purge table and one object would not fit.
const MEMORY_LEAST: u64 = 8 << 20;

/// A process has no more file descriptors than about a million, unless its system was told otherwise.
const CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;

/// Above this, an ordinary line would be cut off.
const MIN_RATE_MOST: ByteSize = ByteSize(1 << 20);

impl DnsNode {
    /// Returns the keys that differ and are read at the start alone.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<String> {
        let keys = [("listen", self.listen != new.listen), ("admin", self.admin != new.admin)];
        changed(&format!("dns.{}", key_text(self.name.as_str())), keys)
    }

    pub(crate) fn read_all(root: &Section<'_>) -> Vec<Self> {
        root.tables::<NodeName>("dns").iter().filter_map(|(name, section)| Self::read(name, section)).collect()
    }

    fn read(name: &NodeName, section: &Section<'_>) -> Option<Self> {
        let listen = section.required_list("listen", ADDRESS);
        let admin = section.required("admin", ADDRESS);
        let places = section.file_path("places");
        Some(Self { name: name.clone(), listen, admin: admin?, places })
    }
}
