//! The sections that the whole network shares and that live in the journal: regions, zones, sites,
//! upstreams and routes.

use std::collections::BTreeMap;
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ipnet::IpNet;
use wire::{Digest, HostPattern, Owner, RegionName, RouteName, SiteName, Target, UpstreamName};

use crate::section::{Choice, Report, Section};
use crate::tree::Tree;
use crate::zone::DnsName;
use crate::{ByteSize, Complaints, Rule, Zone, rules};

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
}

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

/// What becomes of responses with Set-Cookie. The RFC lets them be stored; users get hurt when they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetCookie {
    /// Stored where the response says that shared caches may: public, s-maxage or a targeted field.
    #[default]
    Shared,
    /// Stored like any other, which is what the RFC says.
    Store,
    /// Stored without it.
    Strip,
    /// Not stored.
    Refuse,
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

/// A user's own service.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name.
    pub name: UpstreamName,
    /// `http://host:port`, taken in turn.
    pub servers: Vec<String>,
    /// The Host that it is sent; without one the client's goes through.
    pub host: Option<String>,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long the head of an answer may take, and how long a body may stand still.
    pub timeout: Duration,
}

/// A gateway rule.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name.
    pub name: RouteName,
    /// Whose it is.
    pub owner: Owner,
    /// The hosts that it is for.
    pub hosts: Vec<HostPattern>,
    /// `/*`, `/api/*` or an exact path.
    pub path: String,
    /// Where its requests go.
    pub upstream: UpstreamName,
    /// What a fenced edge does.
    pub when_fenced: WhenFenced,
    /// The largest response that is stored.
    pub max_object: ByteSize,
    /// The largest body that a request may have.
    pub max_request_body: ByteSize,
    /// The lifetime of responses that name none.
    pub default_lifetime: Option<Duration>,
    /// What becomes of responses with Set-Cookie.
    pub set_cookie: SetCookie,
    /// Whether errors that one unusual request may have provoked are stored where they say so.
    pub cache_request_errors: bool,
    /// Whether clients see the upstream's tag fields.
    pub keep_tags: bool,
    /// A digest of all settings of the route and its upstream: entries of other settings are not valid.
    pub settings: u64,
}

impl Network {
    /// Reads the network's configuration as the journal keeps it.
    ///
    /// # Errors
    /// Returns every complaint.
    pub fn from_json(json: &serde_json::Value) -> Result<Self, Complaints> {
        let tree = Tree::from_json(json).only_network();
        let report = Report::default();
        let network = Self::read(&Section::root(&tree, &report), &tree);
        report.finish().map(|_| network)
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
        self.lease / 100 + Duration::from_millis(50)
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
        let clients = section.list("clients", "a network such as \"192.0.2.0/24\"");
        Some(Self { name: name.clone(), latitude: latitude?, longitude: longitude?, clients })
    }
}

fn read_owner(section: &Section<'_>) -> Owner {
    section.parsed_or("owner", "a name", Owner::default())
}

const HOSTS: &str = "a host, `*.suffix` or `*`, without a port";

fn read_when_fenced(section: &Section<'_>, default: WhenFenced, shown: &str) -> WhenFenced {
    let expected = "\"revalidate\", \"refuse\", \"serve\" or { serve_for = \"1h\" }";
    section.either("when_fenced", expected, default, shown, |choice| match choice {
        Choice::Word("revalidate") => Some(WhenFenced::Revalidate),
        Choice::Word("refuse") => Some(WhenFenced::Refuse),
        Choice::Word("serve") => Some(WhenFenced::Serve),
        Choice::With("serve_for", span) => humantime::parse_duration(span).ok().map(WhenFenced::ServeFor),
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

impl Upstream {
    fn read(name: &UpstreamName, section: &Section<'_>) -> Self {
        let servers: Vec<ServerUrl> = section.required_list("servers", "a URL such as \"http://127.0.0.1:9000\", without a path");
        Self {
            name: name.clone(),
            servers: servers.into_iter().map(|server| server.0).collect(),
            host: section.parsed::<wire::Host>("host", "a host").map(String::from),
            connect_timeout: section.duration_or("connect_timeout", Duration::from_secs(3)),
            timeout: section.duration_or("timeout", Duration::from_secs(30)),
        }
    }
}

/// `http://host:port`, the only thing that a server of an upstream may be.
struct ServerUrl(String);

impl std::str::FromStr for ServerUrl {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let rest = text.strip_prefix("http://").ok_or(())?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        wire::Host::of_authority(authority).map_err(|_| ())?;
        Ok(Self(format!("http://{authority}")))
    }
}

impl Route {
    fn read(name: &RouteName, section: &Section<'_>, upstreams: &BTreeMap<UpstreamName, Upstream>, tree: &Tree) -> Option<Self> {
        let upstream = section.required::<UpstreamName>("upstream", "the name of an upstream");
        if let Some(upstream) = upstream.as_ref().filter(|upstream| !upstreams.contains_key(*upstream)) {
            section.complain_unknown("upstream", upstream.as_str(), "upstream", upstreams.keys().map(UpstreamName::as_str));
        }
        let path = section.parsed_or("path", "`/*`, `/api/*` or a path such as `/health`", RoutePath("/*".to_owned())).0;
        Some(Self {
            name: name.clone(),
            owner: read_owner(section),
            hosts: section.required_list("hosts", HOSTS),
            path,
            settings: settings_digest(tree, name, upstream.as_ref()),
            when_fenced: read_when_fenced(section, WhenFenced::Revalidate, "\"revalidate\""),
            max_object: section.bytes_or("max_object", ByteSize(16 << 20)),
            max_request_body: section.bytes_or("max_request_body", ByteSize(64 << 20)),
            default_lifetime: section.duration("default_lifetime"),
            set_cookie: read_set_cookie(section),
            cache_request_errors: section.bool_or("cache_request_errors", true),
            keep_tags: section.bool_or("keep_tags", false),
            // Last, so that all its keys were asked for.
            upstream: upstream?,
        })
    }
}

fn read_set_cookie(section: &Section<'_>) -> SetCookie {
    section.either("set_cookie", "\"shared\", \"store\", \"strip\" or \"refuse\"", SetCookie::Shared, "\"shared\"", |choice| match choice {
        Choice::Word("shared") => Some(SetCookie::Shared),
        Choice::Word("store") => Some(SetCookie::Store),
        Choice::Word("strip") => Some(SetCookie::Strip),
        Choice::Word("refuse") => Some(SetCookie::Refuse),
        _ => None,
    })
}

/// A canonical path that may end in `/*`.
struct RoutePath(String);

impl std::str::FromStr for RoutePath {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let stem = text.strip_suffix('*').unwrap_or(text);
        let starred = stem.len() < text.len();
        let target: Target = stem.parse().map_err(|_| ())?;
        let valid = !stem.contains('*') && target.as_str() == stem && target.query().is_none() && (!starred || stem.ends_with('/'));
        if valid { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

impl std::fmt::Display for RoutePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that was written about a route and its upstream decides how its entries came to be.
fn settings_digest(tree: &Tree, name: &RouteName, upstream: Option<&UpstreamName>) -> u64 {
    let json = tree.network_json();
    let part = |section: &str, name: &str| json.get(section).and_then(|s| s.get(name)).map(ToString::to_string).unwrap_or_default();
    let upstream = upstream.map(|upstream| part("upstreams", upstream.as_str())).unwrap_or_default();
    let digest = Digest::of(format!("{}\n{upstream}", part("routes", name.as_str())).as_bytes());
    let (first, _) = digest.as_bytes().split_at(8);
    first.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
