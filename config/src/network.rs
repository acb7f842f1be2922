//! The sections that the whole network shares and that live in the journal: regions, sites, and those
//! that have files of their own (zones, upstreams, routes).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ipnet::IpNet;
use wire::{HostPattern, Owner, RegionName, RouteName, SiteName, UpstreamName};

use crate::choice::Choice;
use crate::report::{Report, Shown};
use crate::section::Section;
use crate::tree::Tree;
use crate::zone::DnsName;
use crate::{ByteSize, Complaints, RedisAddress, Route, Rule, Upstream, Zone, rules};

/// The longest lease that a network may have: every restart of an origin waits for it.
pub const LONGEST_LEASE: Duration = Duration::from_secs(300);

/// The network's configuration.
#[derive(Clone, Debug)]
pub struct Network {
    /// Its name, which begins every key in shared stores.
    pub name: String,
    /// How long a follower may rely on what it has applied.
    pub lease: Duration,
    /// How often followers and origin hear of each other when nothing happens.
    pub heartbeat: Duration,
    /// Places with edges.
    pub regions: BTreeMap<RegionName, Region>,
    /// What the DNS is authoritative for, by name in lower case without a dot at the end.
    pub zones: BTreeMap<String, Zone>,
    /// Static sites.
    pub sites: BTreeMap<SiteName, Site>,
    /// Services behind routes.
    pub upstreams: BTreeMap<UpstreamName, Upstream>,
    /// Gateway rules.
    pub routes: BTreeMap<RouteName, Route>,
    rules: Vec<rules::Entry>,
}

/// A place with edges.
#[derive(Clone, Debug)]
pub struct Region {
    /// Its name.
    pub name: RegionName,
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Networks whose clients belong here, whatever their place.
    pub clients: Vec<IpNet>,
    /// What its edges share as their second tier (L2); without it each has a folder of its own.
    pub redis: Option<RegionRedis>,
}

/// The Redis of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionRedis {
    /// How it is reached. Secrets in files are relative to the file of the node that reads them: [`RedisAddress::within`].
    pub address: RedisAddress,
    /// The largest entry that is stored there, in bytes.
    pub max_entry: ByteSize,
}

/// What one command carries without holding up the others on its connection.
const MAX_ENTRY: ByteSize = ByteSize(1 << 20);

/// The bounds of `max_entry`: what waits to be written has 32 MiB for all, and a larger value would hold up all others.
const MAX_ENTRIES: RangeInclusive<ByteSize> = ByteSize(1 << 10)..=ByteSize(16 << 20);

/// What a fenced edge does with cached content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFenced {
    /// Ask the upstream before each answer.
    Revalidate,
    /// Answer 503.
    Refuse,
    /// Go on serving for so long.
    ServeFor(Duration),
    /// Go on serving.
    Serve,
}

/// A static site.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its name.
    pub name: SiteName,
    /// Whose it is.
    pub owner: Owner,
    /// The hosts that serve it.
    pub hosts: Vec<HostPattern>,
    /// Paths that never change their bytes, beside those with a hash in their name.
    pub immutable: GlobSet,
    /// What a fenced edge does.
    pub when_fenced: WhenFenced,
    /// The largest file.
    pub max_file: ByteSize,
    /// The most files in one version.
    pub max_files: u64,
    /// How many versions are kept; older ones that no alias points to are retired after a day.
    pub keep_versions: u64,
}

impl Network {
    /// Reads the network's configuration as the journal keeps it.
    ///
    /// # Errors
    /// Returns every complaint.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, Complaints> {
        Self::from_json_shown(json).map(|(network, _)| network)
    }

    /// Reads the network's configuration as the journal keeps it, and returns every value of it too.
    ///
    /// # Errors
    /// Returns every complaint.
    pub fn from_json_shown(json: &serde_json::Value) -> Result<(Self, Vec<Shown>), Complaints> {
        let tree = Tree::from_json(json).only_network();
        let report = Report::default();
        let network = Self::read(&Section::root(&tree, &report), &tree);
        report.finish().map(|shown| (network, shown))
    }

    pub(crate) fn read(root: &Section<'_>, tree: &Tree) -> Self {
        let (name, lease, heartbeat) = read_timing(root);
        let regions: BTreeMap<_, _> = root
            .tables::<RegionName>("regions")
            .iter()
            .filter_map(|(name, section)| Region::read(name, section))
            .map(|r| (r.name.clone(), r))
            .collect();
        let zones =
            root.tables::<DnsName>("zones").iter().map(|(name, section)| Zone::read(name, section)).map(|z| (z.name.clone(), z)).collect();
        let sites: BTreeMap<SiteName, Site> =
            root.tables::<SiteName>("sites").iter().map(|(name, section)| (name.clone(), Site::read(name, section))).collect();
        let upstreams: BTreeMap<UpstreamName, Upstream> =
            root.tables::<UpstreamName>("upstreams").iter().map(|(name, section)| (name.clone(), Upstream::read(name, section))).collect();
        let routes: BTreeMap<_, _> = root
            .tables::<RouteName>("routes")
            .iter()
            .filter_map(|(name, section)| Route::read(name, section, &upstreams, tree))
            .map(|route| (route.name.clone(), route))
            .collect();
        let rules = rules::order(&sites, &routes);
        rules::complain_of_twins(&rules, root);
        Self { name, lease, heartbeat, regions, zones, sites, upstreams, routes, rules }
    }

    /// Returns the rule that answers a request for `host` and `path`, both canonical.
    #[must_use]
    pub fn rule_for(&self, host: &wire::Host, path: &str) -> Option<Rule<'_>> {
        rules::find(&self.rules, self, host, path)
    }

    /// Returns how long after a purge it is complete at the worst (P2): two leases and the margins.
    #[must_use]
    pub fn purge_bound(&self) -> Duration {
        2 * (self.lease + self.margin())
    }

    /// Returns what the origin adds to a lease before it counts it as ended (L1).
    #[must_use]
    pub fn margin(&self) -> Duration {
        wire::lease_margin(self.lease)
    }
}

fn read_timing(root: &Section<'_>) -> (String, Duration, Duration) {
    let (lease_default, heartbeat_default) = (Duration::from_secs(5), Duration::from_secs(1));
    let Some(section) = root.table("network") else { return ("atoll".to_owned(), lease_default, heartbeat_default) };
    let name = section.parsed_or("name", "a name", "atoll".to_owned());
    let lease = section.duration_or("lease", lease_default);
    let heartbeat = section.duration_or("heartbeat", heartbeat_default);
    if lease < Duration::from_millis(500) || lease > LONGEST_LEASE {
        section.complain("lease", "expected 500ms to 5m");
    }
    if heartbeat * 2 > lease {
        section.complain("heartbeat", "expected at most half a lease, so that a lost heartbeat does not end it");
    }
    (name, lease, heartbeat)
}

impl Region {
    fn read(name: &RegionName, section: &Section<'_>) -> Option<Self> {
        let latitude = section.required_number("latitude", -90.0, 90.0);
        let longitude = section.required_number("longitude", -180.0, 180.0);
        let clients = section.networks("clients", "a network such as \"192.0.2.0/24\"");
        let redis = RedisAddress::read(section, "redis", "", |own| {
            own.map_or(MAX_ENTRY, |own| own.bytes_within("max_entry", MAX_ENTRY, &MAX_ENTRIES))
        });
        let redis = redis.map(|(address, max_entry)| RegionRedis { address, max_entry });
        Some(Self { name: name.clone(), latitude: latitude?, longitude: longitude?, clients, redis })
    }
}

pub(crate) fn read_owner(section: &Section<'_>) -> Owner {
    section.parsed_or("owner", "a name", Owner::default())
}

pub(crate) const HOSTS: &str = "a host, `*.suffix` or `*`, without a port";

pub(crate) fn read_when_fenced(section: &Section<'_>, default: WhenFenced, shown: &str) -> WhenFenced {
    let expected = "\"revalidate\", \"refuse\", \"serve\" or { serve_for = \"1h\" }";
    section.either("when_fenced", expected, default, shown, |choice| match choice {
        Choice::Word("revalidate") => Some(WhenFenced::Revalidate),
        Choice::Word("refuse") => Some(WhenFenced::Refuse),
        Choice::Word("serve") => Some(WhenFenced::Serve),
        Choice::With("serve_for", [span]) => humantime::parse_duration(span).ok().map(WhenFenced::ServeFor),
        _ => None,
    })
}

impl Site {
    fn read(name: &SiteName, section: &Section<'_>) -> Self {
        Self {
            name: name.clone(),
            owner: read_owner(section),
            hosts: section.required_list("hosts", HOSTS),
            immutable: read_globs(section),
            when_fenced: read_when_fenced(section, WhenFenced::Serve, "\"serve\""),
            max_file: section.bytes_or("max_file", ByteSize(100 << 20)),
            max_files: section.count_or("max_files", wire::MAX_FILES as u64),
            keep_versions: section.count_or("keep_versions", 100),
        }
    }
}

fn read_globs(section: &Section<'_>) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for pattern in section.list::<String>("immutable", "a pattern such as \"assets/**\"") {
        match GlobBuilder::new(&pattern).literal_separator(true).build() {
            Ok(glob) => {
                set.add(glob);
            }
            Err(error) => section.complain("immutable", format!("expected a pattern such as \"assets/**\": {error}")),
        }
    }
    set.build().unwrap_or_default()
}
