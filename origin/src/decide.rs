//! Decides what a command means: values in, facts or a refusal out. No clock, no disk, no socket.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use config::{Network, Route, Rule, WhenFenced};
use wire::mistake::{Mistake, makes};
use wire::{
    Alias, AliasMove, Class, Digest, Fact, FilePath, Grant, Host, HostPattern, LONGEST_AGAIN, MAX_SCOPES, Manifest, NodeName, Owner,
    PrefixScope, PurgeRequest, Room, Scope, SiteName, SiteState, State, StoredToken, Tag, UrlScope, lease_margin,
};

use crate::fault::Fault;

/// Notes that a sender gets: each may be as long as a URL.
const MAX_NOTES: usize = 20;

/// Bytes that cost as much as one scope: what is purged goes to the disk and to every edge.
const BYTES_OF_A_SCOPE: usize = 1024;

/// A purge with its hosts and URLs resolved, and what its sender should know.
#[derive(Debug)]
pub(crate) struct ResolvedPurge {
    pub(crate) fact: Fact,
    pub(crate) notes: Vec<String>,
}

/// What a sender should know, as far as it will be read.
#[derive(Debug, Default)]
struct Notes {
    said: Vec<String>,
    more: usize,
}

impl Notes {
    fn add(&mut self, note: impl FnOnce() -> String) {
        if self.said.len() < MAX_NOTES {
            self.said.push(note());
        } else {
            self.more += 1;
        }
    }

    fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            self.said.push(format!("... and {} more", self.more));
        }
        self.said
    }
}

/// Returns what a request costs its token: as many scopes as it names, and one more for each KiB that they have together.
pub(crate) fn cost(request: &PurgeRequest) -> u64 {
    (count(request) + usize::from(request.all) + bytes(request) / BYTES_OF_A_SCOPE) as u64
}

/// Returns about how much room the repeat of a request takes, before it is resolved.
pub(crate) fn room(request: &PurgeRequest) -> Room {
    Room { repeats: 1, bytes: 64 * count(request) + bytes(request) }
}

fn lists(request: &PurgeRequest) -> [&[String]; 4] {
    [&request.urls, &request.tags, &request.prefixes, &request.sites]
}

fn count(request: &PurgeRequest) -> usize {
    lists(request).into_iter().map(<[String]>::len).sum()
}

fn bytes(request: &PurgeRequest) -> usize {
    lists(request).into_iter().flatten().map(String::len).sum()
}

/// Resolves a purge request against the configuration.
pub(crate) fn purge(request: &PurgeRequest, network: &Network) -> Result<ResolvedPurge, Fault> {
    let count = count(request);
    if count == 0 && !request.all {
        return Err(Fault::bad("nothing to purge: give urls, tags, prefixes, sites, or all"));
    }
    if count > MAX_SCOPES {
        return Err(Fault::bad(format!("{count} scopes are more than the {MAX_SCOPES} that one purge may have; send several purges")));
    }
    check_again(request.again_after_ms)?;
    let mut notes = Notes::default();
    let mut scopes = Vec::with_capacity(count + 1);
    if request.all {
        scopes.push(Scope::All);
    }
    for url in &request.urls {
        let url: UrlScope = url.parse().map_err(Fault::bad)?;
        check_owner(network, &request.owner, &url.host, url.target.path(), &mut notes)?;
        // Where parts of the query do not count, it is stored under what does, and so for all that differ in the rest.
        if let Some(Rule::Route(route)) = network.rule_for(&url.host, url.target.path()) {
            scopes.push(Scope::Url(UrlScope { host: url.host.clone(), target: route.keyed(&url.target) }));
        }
        scopes.push(Scope::Url(url));
    }
    for tag in &request.tags {
        scopes.push(Scope::Tag(tag.parse::<Tag>().map_err(Fault::bad)?));
    }
    for prefix in &request.prefixes {
        let prefix: PrefixScope = prefix.parse().map_err(Fault::bad)?;
        check_prefix(network, &request.owner, &prefix, &mut notes)?;
        // Edges remember few prefixes, and all of a host takes no place among them.
        scopes.push(if prefix.path.as_str() == "/" { Scope::Host(prefix.host) } else { Scope::Prefix(prefix) });
    }
    for site in &request.sites {
        scopes.extend(site_scopes(network, &request.owner, site)?);
    }
    let mut seen = std::collections::HashSet::new();
    scopes.retain(|scope| seen.insert(scope.clone()));
    let (owner, mode, again_after_ms) = (request.owner.clone(), request.mode, request.again_after_ms);
    let fact = Fact::Purged { owner, mode, scopes, once: None, again_after_ms, repeats: None };
    Ok(ResolvedPurge { fact, notes: notes.finish() })
}

fn check_again(after_ms: Option<u64>) -> Result<(), Fault> {
    let most_ms = LONGEST_AGAIN.as_millis();
    match after_ms {
        Some(ms) if ms == 0 || u128::from(ms) > most_ms => {
            Err(Fault::bad(format!("again_after_ms is {ms}, and may be 1 to {most_ms}: a purge is repeated within an hour")))
        }
        _ => Ok(()),
    }
}

fn check_owner(network: &Network, owner: &Owner, host: &Host, path: &str, notes: &mut Notes) -> Result<(), Fault> {
    let found = match network.rule_for(host, path) {
        None => {
            notes.add(|| format!("no site or route answers for {host}{path}: there is nothing to purge"));
            return Ok(());
        }
        Some(Rule::Site(site)) => {
            notes.add(|| format!("{host}{path} is an asset of site `{}`: it changes by publishing, there is nothing to purge", site.name));
            &site.owner
        }
        Some(Rule::Route(route)) => &route.owner,
    };
    if found == owner {
        return Ok(());
    }
    Err(Fault::Forbidden(format!("{host}{path} belongs to owner `{found}`, not to `{owner}`")))
}

/// A prefix takes whatever any route stored below it, so none of them may be another owner's. Whose site is there does not
/// matter: purges take no assets.
fn check_prefix(network: &Network, owner: &Owner, prefix: &PrefixScope, notes: &mut Notes) -> Result<(), Fault> {
    let below = network.routes.values().filter(|route| answers_below(network, route, prefix));
    let mut is_own = false;
    for route in below {
        if &route.owner != owner {
            return Err(Fault::Forbidden(format!(
                "{prefix} would take what route `{}` has, which belongs to owner `{}`, not to `{owner}`",
                route.name, route.owner
            )));
        }
        is_own = true;
    }
    if !is_own {
        notes.add(|| format!("no route answers below {prefix}: there is nothing to purge"));
    }
    Ok(())
}

/// Tells whether a route answers any request that a prefix matches. Where several rules together leave it none of them, it is
/// taken to answer all the same.
fn answers_below(network: &Network, route: &Route, prefix: &PrefixScope) -> bool {
    if !has_host(&route.hosts, &prefix.host) {
        return false;
    }
    let (begin, stem) = (prefix.path.path(), route.path.strip_suffix('*'));
    let answers = |path: &str| matches!(network.rule_for(&prefix.host, path), Some(Rule::Route(found)) if found.name == route.name);
    match stem {
        // With a query a prefix is of one path alone.
        _ if prefix.path.query().is_some() => answers(begin),
        None => route.path.starts_with(begin) && answers(&route.path),
        Some(stem) if stem.starts_with(begin) => answers(&any_below(stem)),
        Some(stem) => begin.starts_with(stem) && answers(&any_below(begin)),
    }
}

/// Returns a path below this one that no rule is for in particular: a path in a rule has no NUL.
fn any_below(path: &str) -> String {
    format!("{path}\0")
}

/// A site means all responses on its hosts, whoever's routes they came from; a pattern of hosts means all of its owner.
fn site_scopes(network: &Network, owner: &Owner, name: &str) -> Result<Vec<Scope>, Fault> {
    let name: SiteName = name.parse().map_err(Fault::bad)?;
    let site = network.sites.get(&name).ok_or_else(|| unknown_site(network, &name))?;
    if &site.owner != owner {
        return Err(Fault::Forbidden(format!("site `{name}` belongs to owner `{}`, not to `{owner}`", site.owner)));
    }
    let scope = |host: &HostPattern| match host {
        HostPattern::Exact(host) => Scope::Host(host.clone()),
        HostPattern::Below(_) | HostPattern::Any => Scope::All,
    };
    Ok(site.hosts.iter().map(scope).collect())
}

/// Names the sites that there are, so that a slip of the finger is seen at once.
pub(crate) fn unknown_site(network: &Network, name: &SiteName) -> Fault {
    let known: Vec<_> = network.sites.keys().map(SiteName::as_str).collect();
    Fault::NotFound(format!("there is no site `{name}` in the configuration; there are: {}", known.join(", ")))
}

/// Returns the routes by whose `when_fenced` an edge that has been fenced for `fenced_for` may go on
/// serving what the purge matches, or by the configuration before (P7).
#[must_use]
pub fn may_serve(fact: &Fact, network: &Network, fenced_for: Duration) -> BTreeSet<String> {
    if makes(Mistake::PartialIsComplete) {
        return BTreeSet::new();
    }
    let goes_on = |when| match when {
        WhenFenced::Serve => true,
        // Its clock may be slower than ours.
        WhenFenced::ServeFor(span) => fenced_for < span.saturating_add(lease_margin(span)),
        WhenFenced::Revalidate | WhenFenced::Refuse => false,
    };
    let touches = |route: &Route| match fact {
        Fact::Purged { owner, scopes, .. } => scopes.iter().any(|scope| match scope {
            Scope::Unknown(_) => true,
            Scope::All | Scope::Tag(_) => &route.owner == owner,
            Scope::Host(host) => has_host(&route.hosts, host),
            Scope::Url(url) => has_host(&route.hosts, &url.host),
            Scope::Prefix(prefix) => has_host(&route.hosts, &prefix.host),
        }),
        Fact::ConfigChanged { .. } | Fact::Unknown { class: Class::Purge | Class::Config, .. } => true,
        _ => false,
    };
    let serving = network.routes.values().filter(|route| goes_on(route.when_fenced) && touches(route));
    serving.map(|route| route.name.to_string()).collect()
}

fn has_host(patterns: &[HostPattern], host: &Host) -> bool {
    patterns.iter().any(|pattern| pattern.matches(host))
}

/// Decides whether a token may be revoked; `relying` are the followers that hold a lease by it. Nobody
/// locks everybody out, and nobody fences a network by a slip of the finger: who means to has to say so (`force`), as where
/// one of those followers is a thief.
pub(crate) fn revoke(tokens: &BTreeMap<String, StoredToken>, id: &str, relying: &[NodeName], force: bool) -> Result<Fact, Fault> {
    let Some(token) = tokens.get(id) else {
        return Err(Fault::NotFound(format!("there is no token `{id}`; see `atoll token list`")));
    };
    let is_admin = |token: &StoredToken| token.can.contains(&Grant::Admin);
    if is_admin(token) && !tokens.iter().any(|(other, token)| other != id && is_admin(token)) {
        return Err(Fault::StillNeeded(format!(
            "`{id}` is the only token with scope admin: without one nobody could issue tokens any more. Issue another \
             (`atoll token create --can admin`), keep it in admin.token or ATOLL_TOKEN, and revoke `{id}` with that"
        )));
    }
    // A token for one follower or one role may have been stolen with its machine: it goes at once.
    let for_any = token.can.iter().any(|held| held.covers(&Grant::Follow(None, None)));
    if for_any && !relying.is_empty() && !force {
        return Err(Fault::StillNeeded(format!(
            "{} of the followers rely on `{id}` and would be fenced without it ({}). Give each a token of its own \
             (`atoll token create --can follow:ROLE/NAME`, in ATOLL_FOLLOW_TOKEN or origin.follow_token of its machine), \
             start it anew, and revoke `{id}` then; `--force` (`?force=true`) revokes it now and fences them",
            relying.len(),
            relying.iter().take(5).map(NodeName::as_str).collect::<Vec<_>>().join(", ")
        )));
    }
    Ok(Fact::TokenRevoked { id: id.to_owned() })
}

/// Checks a manifest against the site's limits.
pub(crate) fn manifest(manifest: Manifest, site: &config::Site) -> Result<Manifest, Fault> {
    let manifest = Manifest::new(manifest.files).map_err(Fault::bad)?;
    if manifest.files.len() as u64 > site.max_files {
        return Err(Fault::TooLarge(format!(
            "{} files are more than the {} that site `{}` may have",
            manifest.files.len(),
            site.max_files,
            site.name
        )));
    }
    if let Some(file) = manifest.files.iter().find(|file| file.size > site.max_file.0) {
        return Err(Fault::TooLarge(format!(
            "`{}` has {} bytes, more than the {} that a file of site `{}` may have",
            file.path, file.size, site.max_file, site.name
        )));
    }
    Ok(manifest)
}

/// Returns the paths whose name says that their bytes never change, and whose bytes changed.
pub(crate) fn rewritten<'a>(new: &Manifest, recent: impl IntoIterator<Item = &'a Manifest>) -> Vec<FilePath> {
    let mut paths = BTreeSet::new();
    for old in recent {
        for file in new.files.iter().filter(|file| file.path.has_hash()) {
            if old.get(file.path.as_str()).is_some_and(|before| before.digest != file.digest) {
                paths.insert(file.path.clone());
            }
        }
    }
    paths.into_iter().collect()
}

/// Paths that a file system without case would lay over each other.
pub(crate) fn case_twins(manifest: &Manifest) -> Vec<String> {
    let mut seen = std::collections::HashMap::new();
    let mut twins = Vec::new();
    for file in &manifest.files {
        if let Some(first) = seen.insert(file.path.as_str().to_lowercase(), &file.path) {
            twins.push(format!("`{first}` and `{}` differ by case alone", file.path));
        }
    }
    twins
}

/// What moving an alias comes to.
#[derive(Debug)]
pub(crate) enum Moved {
    /// It points there already.
    Already,
    /// This fact moves it, if these streams still stand at these seqs.
    By { fact: Box<Fact>, if_unchanged: Vec<(String, u64)>, previous: Option<Digest> },
}

/// Decides a move of an alias. `if_match` is the version that the sender believes it to point to.
pub(crate) fn move_alias(state: &State, site: &SiteName, alias: &Alias, to: &AliasMove, if_match: Option<&Digest>) -> Result<Moved, Fault> {
    let empty = SiteState::default();
    let known = state.sites.get(site).unwrap_or(&empty);
    if !known.versions.contains_key(&to.version) {
        return Err(Fault::NotFound(format!("site `{site}` has no version {}", to.version)));
    }
    let current = known.aliases.get(alias);
    if let Some(expected) = if_match
        && current.map(|alias| &alias.version) != Some(expected)
    {
        let points = current.map_or_else(|| "nothing".to_owned(), |alias| alias.version.to_string());
        return Err(Fault::Precondition(format!("`{alias}` of site `{site}` points to {points}, not to {expected}")));
    }
    if current.is_some_and(|alias| alias.version == to.version) {
        return Ok(Moved::Already);
    }
    let fact = Fact::AliasMoved { site: site.clone(), alias: alias.clone(), version: to.version, back: to.back };
    // Nor may the version be retired meanwhile.
    let retired = format!("retired:{site}");
    let retired_at = state.control.as_ref().and_then(|control| control.streams.get(&retired).copied()).unwrap_or(0);
    let if_unchanged = vec![(format!("alias:{site}/{alias}"), current.map_or(0, |alias| alias.seq)), (retired, retired_at)];
    Ok(Moved::By { fact: Box::new(fact), if_unchanged, previous: current.map(|alias| alias.version) })
}

/// Returns the versions of a site that may be retired: beyond the newest `keep`, and neither pointed
/// to, nor what a rollback would lead to next, nor left within the last day.
pub(crate) fn retirable(site: &SiteState, keep: u64, now: wire::Timestamp) -> Vec<Digest> {
    let mut by_age: Vec<_> = site.versions.iter().collect();
    by_age.sort_by_key(|(version, known)| (std::cmp::Reverse(known.published_at), **version));
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let pointed = |version: &Digest| site.aliases.values().any(|alias| alias.version == *version || alias.before.last() == Some(version));
    let old = by_age.into_iter().skip(keep).filter(|(version, known)| {
        let last = known.left_at.unwrap_or(known.published_at).max(known.published_at);
        !pointed(version) && now.since(last) >= wire::KEPT_FOR
    });
    old.map(|(version, _)| *version).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn network() -> Network {
        Network::from_json(&json!({
            "sites": { "www": { "hosts": ["www.test"] }, "any": { "hosts": ["*"], "owner": "other" } },
            "upstreams": { "u": { "servers": ["http://127.0.0.1:1"] } },
            "routes": {
                "api": { "hosts": ["api.test"], "upstream": "u" },
                "lazy": { "hosts": ["lazy.test"], "upstream": "u", "when_fenced": { "serve_for": "1h" } },
                "shop": { "hosts": ["any.test", "mixed.test"], "path": "/api/*", "upstream": "u", "owner": "shop" },
                "pay": { "hosts": ["mixed.test"], "path": "/api/pay/*", "upstream": "u", "owner": "bank" },
                "health": { "hosts": ["mixed.test"], "path": "/health", "upstream": "u", "owner": "ops" },
                "general": { "hosts": ["*.test"], "path": "/wide/*", "upstream": "u", "owner": "ops" },
                "covered": { "hosts": ["covered.test"], "upstream": "u", "owner": "shop" },
            },
        }))
        .unwrap()
    }

    fn decide(request: serde_json::Value) -> Result<ResolvedPurge, Fault> {
        purge(&serde_json::from_value(request).unwrap(), &network())
    }

    fn scopes(request: serde_json::Value) -> Vec<String> {
        match decide(request).unwrap().fact {
            Fact::Purged { scopes, .. } => scopes.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_purge_is_resolved_to_canonical_scopes() {
        assert_eq!(scopes(json!({ "urls": ["https://api.test:8081/a/../b?x"], "tags": ["t"] })), ["url api.test/b?x", "tag t"]);
        assert_eq!(scopes(json!({ "sites": ["www"] })), ["host www.test"]);
        assert_eq!(scopes(json!({ "sites": ["any"], "owner": "other" })), ["all"]);
    }

    #[test]
    fn a_purge_that_means_nothing_or_something_of_others_is_refused() {
        assert!(matches!(decide(json!({})), Err(Fault::Bad(said)) if said.contains("nothing to purge")));
        assert!(matches!(decide(json!({ "urls": ["/a"] })), Err(Fault::Bad(_))));
        assert!(matches!(decide(json!({ "tags": ["a b"] })), Err(Fault::Bad(_))));
        assert!(matches!(decide(json!({ "sites": ["wwww"] })), Err(Fault::NotFound(said)) if said.contains("www")));
        assert!(matches!(decide(json!({ "sites": ["any"] })), Err(Fault::Forbidden(_))));
        assert!(matches!(decide(json!({ "urls": ["elsewhere.test/"] })), Err(Fault::Forbidden(_))));
    }

    #[test]
    fn a_thousand_scopes_are_one_purge_and_one_more_is_too_many() {
        let tags = |count: usize| json!({ "tags": (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>() });
        assert_eq!(scopes(tags(1000)).len(), 1000);
        let one_more = json!({ "tags": tags(1000)["tags"], "urls": ["api.test/"] });
        assert!(matches!(decide(one_more), Err(Fault::Bad(said)) if said.contains("1001") && said.contains("1000")));
    }

    #[test]
    fn a_purge_is_repeated_within_an_hour_or_refused() {
        let again = |ms: u64| decide(json!({ "tags": ["t"], "again_after_ms": ms })).map(|resolved| resolved.fact);
        for ms in [1, 5000, 3_600_000] {
            assert!(matches!(again(ms), Ok(Fact::Purged { again_after_ms: Some(kept), .. }) if kept == ms), "{ms}");
        }
        for ms in [0, 3_600_001, u64::MAX] {
            assert!(matches!(again(ms), Err(Fault::Bad(said)) if said.contains(&ms.to_string()) && said.contains("3600000")), "{ms}");
        }
    }

    #[test]
    fn a_request_costs_what_it_names() {
        for (request, scopes) in [
            (json!({ "all": true }), 1),
            (json!({ "urls": ["a", "b"], "tags": ["t"], "prefixes": ["p"], "sites": ["s"] }), 5),
            (json!({ "tags": ["t", "t"], "all": true }), 3),
            (json!({ "urls": ["u".repeat(1023)] }), 1),
            (json!({ "urls": ["u".repeat(512)], "tags": ["t".repeat(512)] }), 3),
            (json!({ "prefixes": ["p".repeat(10 << 10)], "sites": ["s".repeat(2 << 10)] }), 14),
            (json!({ "urls": vec!["u".repeat(8 << 10); 1000] }), 9000),
        ] {
            assert_eq!(cost(&serde_json::from_value(request).unwrap()), scopes);
        }
    }

    #[test]
    fn a_token_without_which_nobody_gets_in_is_not_revoked() {
        let token = |can: &str| {
            let can = vec![can.parse().unwrap()];
            let (name, hash, issued_at) = ("t".to_owned(), Digest::of(b"t"), wire::Timestamp::from_millis(0));
            StoredToken { name, hash, can, issued_at, purge_rate: None }
        };
        let rows = [("admin", "admin"), ("follow", "follow:*"), ("one", "follow:edge/fra-1"), ("ci", "publish:www")];
        let mut tokens: BTreeMap<_, _> = rows.iter().map(|(id, can)| ((*id).to_owned(), token(can))).collect();
        let relying: Vec<NodeName> = vec!["fra-1".parse().unwrap()];

        assert!(matches!(revoke(&tokens, "nobody", &[], false), Err(Fault::NotFound(_))));
        assert!(matches!(revoke(&tokens, "admin", &[], true), Err(Fault::StillNeeded(said)) if said.contains("token create --can admin")));
        assert!(matches!(revoke(&tokens, "follow", &relying, false), Err(Fault::StillNeeded(said)) if said.contains("fra-1")));
        assert!(revoke(&tokens, "follow", &[], false).is_ok(), "nobody relies on it");
        assert!(revoke(&tokens, "follow", &relying, true).is_ok(), "one of them may be a thief");
        assert!(revoke(&tokens, "one", &relying, false).is_ok(), "it may have been stolen");
        assert!(revoke(&tokens, "ci", &[], false).is_ok());
        tokens.insert("second".to_owned(), token("admin"));
        assert!(revoke(&tokens, "admin", &[], false).is_ok());
    }

    fn by(owner: &str, prefix: &str) -> Result<Vec<String>, Fault> {
        decide(json!({ "owner": owner, "prefixes": [prefix] })).map(|resolved| resolved.notes)
    }

    #[test]
    fn a_prefix_that_would_take_what_a_route_of_another_owner_has_is_refused() {
        for (owner, prefix, route) in [
            ("shop", "mixed.test/", "`general`"),
            ("shop", "mixed.test/a", "`pay`"),
            ("shop", "mixed.test/api/", "`pay`"),
            ("shop", "mixed.test/api/pay/42", "`pay`"),
            ("bank", "mixed.test/api/p", "`shop`"),
            ("shop", "mixed.test/health", "`health`"),
            ("other", "mixed.test/h", "`health`"),
            ("shop", "elsewhere.test/", "`general`"),
            ("shop", "elsewhere.test/wide/a?b", "`general`"),
            ("other", "any.test/api", "`shop`"),
        ] {
            let refused = by(owner, prefix);
            assert!(matches!(&refused, Err(Fault::Forbidden(said)) if said.contains(route)), "{owner} {prefix}: {refused:?}");
        }
    }

    #[test]
    fn a_prefix_may_reach_over_sites_of_others_and_over_routes_that_do_not_answer_there() {
        for (owner, prefix) in [
            ("shop", "any.test/api/"),
            // The site of another owner, whose assets no purge takes, begins at its slash.
            ("shop", "any.test/a"),
            ("bank", "mixed.test/api/pay/"),
            ("bank", "mixed.test/api/pay/42"),
            ("ops", "mixed.test/health"),
            ("ops", "mixed.test/healthy"),
            // The route of all of `*.test` is never asked here.
            ("shop", "covered.test/"),
            ("shop", "covered.test/wide/a"),
            ("shop", "mixed.test/api/q"),
            ("shop", "mixed.test/api?p"),
        ] {
            assert!(by(owner, prefix).is_ok(), "{owner} {prefix}: {:?}", by(owner, prefix));
        }
        assert!(by("shop", "any.test/api/").unwrap().is_empty());
        assert!(by("shop", "any.test/docs/").unwrap()[0].contains("nothing to purge"));
    }

    #[test]
    fn all_that_a_host_has_is_purged_as_a_host() {
        assert_eq!(scopes(json!({ "prefixes": ["api.test/", "API.test:81/", "api.test/a"] })), ["host api.test", "prefix api.test/a"]);
    }

    #[test]
    fn of_many_notes_the_first_are_said_and_the_others_counted() {
        let notes = |count: usize| {
            let urls: Vec<_> = (0..count).map(|n| format!("www.test/{n}")).collect();
            decide(json!({ "urls": urls })).unwrap().notes
        };
        assert_eq!(notes(20).len(), 20);
        let many = notes(1000);
        assert!(many.len() == 21 && many[0].contains("www.test/0") && many[20] == "... and 980 more", "{many:?}");
    }

    #[test]
    fn an_edge_that_may_serve_for_ever_and_a_day_is_named() {
        let mut network = network();
        for route in network.routes.values_mut() {
            route.when_fenced = WhenFenced::ServeFor(Duration::MAX);
        }
        let fact = Fact::purged(Owner::default(), wire::Mode::Hard, vec![Scope::All]);
        assert!(may_serve(&fact, &network, Duration::from_secs(1)).contains("lazy"));
    }

    #[test]
    fn a_purge_of_assets_says_that_it_touches_nothing() {
        let notes = decide(json!({ "urls": ["www.test/index.html"] })).unwrap().notes;
        assert!(notes[0].contains("publishing"), "{notes:?}");
    }

    #[test]
    fn p7_routes_that_go_on_serving_are_named_where_the_purge_touches_them() {
        let fact = |request| decide(request).unwrap().fact;
        let named =
            |request, fenced_for| may_serve(&fact(request), &network(), Duration::from_secs(fenced_for)).into_iter().collect::<Vec<_>>();
        assert_eq!(named(json!({ "tags": ["t"] }), 10), ["lazy"]);
        assert_eq!(named(json!({ "tags": ["t"] }), 3636), ["lazy"], "its clock may be slower");
        assert_eq!(named(json!({ "tags": ["t"] }), 3637), Vec::<String>::new());
        assert_eq!(named(json!({ "urls": ["api.test/"] }), 10), Vec::<String>::new());
        assert_eq!(named(json!({ "prefixes": ["lazy.test/a"] }), 10), ["lazy"]);
    }
}
