//! What the program means by a configuration, and the way from what was written to it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wire::NodeName;

use crate::report::Report;
use crate::section::Section;
use crate::tree::key_text;
use crate::{Complaint, Complaints, DnsNode, EdgeNode, Network, OriginNode, SecretRef, Shown, Source, Tree};

/// The configuration that `atoll up` runs without a file: three regions on loopback.
pub const LAPTOP: &str = include_str!("../examples/laptop.toml");

/// Long enough for the DNS and for load balancers that ask /readyz each second or two, and short enough for what waits
/// ten seconds before it kills.
const DRAIN: Duration = Duration::from_secs(5);

/// Longer than anybody keeps an answer of a zone that steers.
const LONGEST_DRAIN: Duration = Duration::from_secs(3600);

/// A whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of the file, which paths in it are relative to.
    pub folder: PathBuf,
    /// Where this machine's nodes keep their files.
    pub data: PathBuf,
    /// How long this machine's edges and DNS nodes go on answering once they were told to stop.
    pub drain: Duration,
    /// What the whole network shares.
    pub network: Network,
    /// The same, as the journal keeps it.
    pub network_json: serde_json::Value,
    /// The origin's part.
    pub origin: OriginNode,
    /// Each edge's part.
    pub edges: BTreeMap<NodeName, EdgeNode>,
    /// Each DNS node's part.
    pub dns: BTreeMap<NodeName, DnsNode>,
    /// Every value and where it came from.
    pub shown: Vec<Shown>,
}

impl Settings {
    /// Reads and checks a file, with the environment and `KEY=VALUE` flags on top.
    ///
    /// # Errors
    /// Returns every complaint at once.
    pub fn load<'a>(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Complaints> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            let source = Source::WholeFile(file.to_owned());
            Complaints::new([Complaint::syntax(source, &format!("failed to read the file: {error}"))])
        })?;
        Self::from_text(&text, file, environment, flags)
    }

    /// Reads and checks a text that stood in `file`.
    ///
    /// # Errors
    /// Returns every complaint at once.
    pub fn from_text<'a>(
        text: &str,
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Complaints> {
        let mut tree = Tree::from_toml(text, file)?;
        tree.lay_environment(environment);
        tree.lay_flags(flags)?;
        Self::check(&tree)
    }

    /// Returns what differs and is read at the start alone, of all nodes together.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<String> {
        let mut keys = self.origin.needs_restart(&new.origin);
        keys.extend((self.data != new.data).then(|| "data".to_owned()));
        for (name, node) in &self.edges {
            keys.extend(new.edges.get(name).map_or_else(|| vec![format!("edges.{name}")], |new| node.needs_restart(new)));
        }
        for (name, node) in &self.dns {
            keys.extend(new.dns.get(name).map_or_else(|| vec![format!("dns.{name}")], |new| node.needs_restart(new)));
        }
        keys.extend(new.edges.keys().filter(|name| !self.edges.contains_key(*name)).map(|name| format!("edges.{name}")));
        keys.extend(new.dns.keys().filter(|name| !self.dns.contains_key(*name)).map(|name| format!("dns.{name}")));
        keys
    }

    /// Returns the files besides the configuration itself that its nodes read, and read again when it is reloaded.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let tls = self.origin.tls.iter().flat_map(|tls| [&tls.certificate, &tls.key]);
        let tiers = self.network.regions.values().filter_map(|region| region.redis.as_ref());
        let tiers = tiers.flat_map(|redis| redis.address.password.iter().chain(&redis.address.ca));
        let secrets = tls.chain(&self.origin.ca).chain(&self.origin.follow_token).chain(tiers);
        let secrets = secrets.filter_map(|secret| if let SecretRef::File(path) = secret { Some(self.folder.join(path)) } else { None });
        secrets.chain(self.dns.values().filter_map(|node| node.places.clone())).collect()
    }

    /// Decides what a written configuration means.
    ///
    /// # Errors
    /// Returns every complaint at once.
    pub fn check(tree: &Tree) -> Result<Self, Complaints> {
        let report = Report::default();
        let (data, drain, network, origin, edges, dns) = {
            let root = Section::root(tree, &report);
            let data = root.parsed_or("data", "a path", "atoll-data".to_owned());
            let drain = root.pause_or("drain", DRAIN);
            if drain > LONGEST_DRAIN {
                root.complain("drain", format!("expected at most {}", humantime::format_duration(LONGEST_DRAIN)));
            }
            let network = Network::read(&root, tree);
            let origin = OriginNode::read(&root);
            let edges = EdgeNode::read_all(&root, &network);
            let dns = DnsNode::read_all(&root);
            complain_of_shared_addresses(&root, &origin, &edges, &dns);
            (data, drain, network, origin, edges, dns)
        };
        Ok(Self {
            folder: tree.folder.clone(),
            data: tree.folder.join(data),
            drain,
            network,
            network_json: tree.network_json(),
            origin,
            edges: edges.into_iter().map(|edge| (edge.name.clone(), edge)).collect(),
            dns: dns.into_iter().map(|node| (node.name.clone(), node)).collect(),
            shown: report.finish()?,
        })
    }
}

/// Two listeners on one TCP address can't both start. Port 0 is the system's choice, so never shared; and on every address
/// of its own each of several machines may listen.
fn complain_of_shared_addresses(root: &Section<'_>, origin: &OriginNode, edges: &[EdgeNode], dns: &[DnsNode]) {
    let mut taken: HashMap<SocketAddr, String> = HashMap::new();
    let mut take = |address: SocketAddr, section: &'static str, who: String| {
        if address.port() == 0 || address.ip().is_unspecified() {
            return;
        }
        if let Some(first) = taken.insert(address, who.clone()) {
            root.complain(section, format!("{who} and {first} both listen on {address}"));
        }
    };
    take(origin.listen, "origin", "origin.listen".to_owned());
    for edge in edges {
        let name = key_text(edge.name.as_str());
        edge.listen.iter().for_each(|&address| take(address, "edges", format!("edges.{name}.listen")));
        take(edge.admin, "edges", format!("edges.{name}.admin"));
    }
    for node in dns {
        let name = key_text(node.name.as_str());
        node.listen.iter().for_each(|&address| take(address, "dns", format!("dns.{name}.listen")));
        take(node.admin, "dns", format!("dns.{name}.admin"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Settings, Complaints> {
        Settings::from_text(text, Path::new("atoll.toml"), [], [])
    }

    #[test]
    fn every_sample_is_good() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            Settings::load(&path, [], []).unwrap_or_else(|complaints| panic!("{}:\n{complaints}", path.display()));
            count += 1;
        }
        assert!(count >= 2);
    }

    #[test]
    fn every_wrong_file_gets_exactly_its_complaints() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bad");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                let text = std::fs::read_to_string(&path).unwrap();
                let name = Path::new(path.file_name().unwrap());
                let said = Settings::from_text(&text, name, [], []).unwrap_err().to_string();
                let expected = std::fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
                assert_eq!(said.trim_end(), expected.trim_end(), "{}", path.display());
                count += 1;
            }
        }
        assert!(count >= 8);
    }

    #[test]
    fn the_laptop_has_three_regions() {
        let settings = load(LAPTOP).unwrap();
        assert_eq!((settings.edges.len(), settings.dns.len(), settings.network.regions.len()), (3, 1, 3));
    }

    #[test]
    fn the_journals_copy_of_the_network_means_the_same() {
        let settings = load(LAPTOP).unwrap();
        let network = Network::from_json(&settings.network_json).unwrap();
        assert_eq!(format!("{network:?}"), format!("{:?}", settings.network));
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let environment = [("ATOLL_NETWORK__LEASE", "7s"), ("ATOLL_EDGES__FRA_1__MEMORY", "64 MiB"), ("ATOLL_TOKEN", "x")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = Settings::from_text(LAPTOP, Path::new("f"), environment, ["network.lease=9s", "data=elsewhere"]).unwrap();
        assert_eq!(settings.network.lease.as_secs(), 9);
        assert_eq!(settings.edges[&"fra-1".parse().unwrap()].memory.0, 64 << 20);
        assert_eq!(settings.data, Path::new("elsewhere"));
        let shown = |key: &str| settings.shown.iter().find(|row| row.key == key).map(|row| row.source.to_string());
        assert_eq!(shown("network.lease").unwrap(), "--set network.lease");
        assert_eq!(shown("edges.fra-1.memory").unwrap(), "$ATOLL_EDGES__FRA_1__MEMORY");
        assert_eq!(shown("edges.fra-1.disk").unwrap(), "default");
        assert!(shown("edges.fra-1.region").unwrap().starts_with("f:"));
    }

    #[test]
    fn what_is_shown_can_be_typed_and_has_its_type_in_json() {
        let flags = ["zones.\"example.test\".ttl=77s", "origin.follow_token=file:follow"];
        let settings = Settings::from_text(LAPTOP, Path::new("f"), [], flags).unwrap();
        let shown = |key: &str| settings.shown.iter().find(|row| row.key == key).unwrap();
        let ttl = shown("zones.\"example.test\".ttl");
        assert_eq!((ttl.value.as_str(), ttl.json.as_str()), ("\"77s\"", Some("77s")));
        assert_eq!(ttl.source.to_string(), "--set zones.\"example.test\".ttl");
        assert_eq!(settings.network.zones["example.test"].ttl.as_secs(), 77);
        assert_eq!(shown("edges.fra-1.max_connections").json.as_u64(), Some(20_000));
        assert_eq!(shown("routes.demo.compress").json.as_bool(), Some(true));
        assert_eq!(shown("edges.fra-1.answers").json, serde_json::json!(["127.0.0.1"]));
        assert_eq!(shown("origin.follow_token").value, "\"file:follow\" •••");
    }

    #[test]
    fn a_file_that_can_not_be_read_is_named_without_a_line() {
        let said = Settings::load(Path::new("nowhere/atoll.toml"), [], []).unwrap_err().to_string();
        assert!(said.starts_with("nowhere/atoll.toml: failed to read the file: "), "{said}");
    }

    #[test]
    fn no_text_makes_the_checker_panic() {
        for text in
            ["[", "a", "a = ", "[[edges]]", "edges = 1", "[edges]\nx = 1", "[edges.\"\"]", "data = []", "[regions.a]\nlatitude = nan"]
        {
            assert!(load(text).is_err(), "{text}");
        }
    }
}
