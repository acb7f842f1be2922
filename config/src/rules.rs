//! Which rule answers a request: the most specific host, then a site before the routes of the same
//! host unless a route's path is longer than `/*`, then the longest path.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use wire::{Host, HostPattern, RouteName, SiteName};

use crate::section::Section;
use crate::{Network, Route, Site};

/// The rule that answers a request.
#[derive(Clone, Copy, Debug)]
pub enum Rule<'a> {
    /// A static site.
    Site(&'a Site),
    /// A gateway route.
    Route(&'a Route),
}

/// One host of one rule.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    host: HostPattern,
    path: String,
    target: Name,
}

#[derive(Clone, Debug)]
enum Name {
    Site(SiteName),
    Route(RouteName),
}

/// Returns all rules, the one that is asked first at the front.
pub(crate) fn order(sites: &BTreeMap<SiteName, Site>, routes: &BTreeMap<RouteName, Route>) -> Vec<Entry> {
    let of_sites = sites.values().flat_map(|site| {
        site.hosts.iter().map(|host| Entry { host: host.clone(), path: "/*".to_owned(), target: Name::Site(site.name.clone()) })
    });
    let of_routes = routes.values().flat_map(|route| {
        route.hosts.iter().map(|host| Entry { host: host.clone(), path: route.path.clone(), target: Name::Route(route.name.clone()) })
    });
    let mut entries: Vec<_> = of_sites.chain(of_routes).collect();
    // Stable, and sites come first: so a site stands before a route of the same host and `/*`.
    entries.sort_by_key(|entry| Reverse((entry.host.specificity(), path_rank(&entry.path))));
    entries
}

/// An exact path is more specific than a beginning of the same length.
fn path_rank(path: &str) -> (usize, bool) {
    let stem = path.strip_suffix('*').unwrap_or(path);
    (stem.len(), stem.len() == path.len())
}

fn path_matches(pattern: &str, path: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == path, |stem| path.starts_with(stem))
}

pub(crate) fn find<'a>(entries: &[Entry], network: &'a Network, host: &Host, path: &str) -> Option<Rule<'a>> {
    let entry = entries.iter().find(|entry| entry.host.matches(host) && path_matches(&entry.path, path))?;
    match &entry.target {
        Name::Site(name) => network.sites.get(name).map(Rule::Site),
        Name::Route(name) => network.routes.get(name).map(Rule::Route),
    }
}

/// Two rules that are equal in host and path would leave one of them without a request, for ever.
pub(crate) fn complain_of_twins(entries: &[Entry], root: &Section<'_>) {
    for (i, entry) in entries.iter().enumerate() {
        let same_kind = |other: &&Entry| {
            other.host == entry.host
                && other.path == entry.path
                && matches!((&other.target, &entry.target), (Name::Site(_), Name::Site(_)) | (Name::Route(_), Name::Route(_)))
        };
        if let Some(first) = entries[..i].iter().find(same_kind) {
            let section = if matches!(entry.target, Name::Site(_)) { "sites" } else { "routes" };
            let said = format!("{} and {} are both for host `{}` and path `{}`", first.target, entry.target, entry.host, entry.path);
            root.complain(section, said);
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Site(name) => write!(f, "site `{name}`"),
            Self::Route(name) => write!(f, "route `{name}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_rule_answers() {
        let json = serde_json::json!({
            "sites": { "all": { "hosts": ["*"] }, "docs": { "hosts": ["docs.example", "*.pages.example"] } },
            "upstreams": { "u": { "servers": ["http://127.0.0.1:1"] } },
            "routes": {
                "everything": { "hosts": ["docs.example"], "path": "/*", "upstream": "u" },
                "api": { "hosts": ["*"], "path": "/api/*", "upstream": "u" },
                "v2": { "hosts": ["*"], "path": "/api/v2/*", "upstream": "u" },
                "health": { "hosts": ["*"], "path": "/api/v2/", "upstream": "u" },
                "docs_api": { "hosts": ["docs.example"], "path": "/api/*", "upstream": "u" },
            },
        });
        let network = Network::from_json(&json).unwrap();
        let cases = [
            ("docs.example", "/", "docs"),
            ("docs.example", "/api", "docs"),
            ("docs.example", "/api/", "docs_api"),
            ("docs.example", "/api/v2/x", "docs_api"),
            ("a.pages.example", "/api/x", "docs"),
            ("other", "/api/x", "api"),
            ("other", "/api/v2/x", "v2"),
            ("other", "/api/v2/", "health"),
            ("other", "/apix", "all"),
        ];
        for (host, path, name) in cases {
            let found = match network.rule_for(&host.parse().unwrap(), path).unwrap() {
                Rule::Site(site) => site.name.to_string(),
                Rule::Route(route) => route.name.to_string(),
            };
            assert_eq!(found, name, "{host}{path}");
        }
    }
}
