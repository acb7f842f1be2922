//! What a journal adds up to: the fold of its events that every node keeps a copy of.
//!
//! The origin keeps all of it, followers the part that their role needs. A snapshot is this value
//! written down; it lets the journal be cut and a new follower begin.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Alias, Digest, Epoch, Event, Fact, FilePath, Grant, PendingRepeat, PendingRepeats, Position, PurgeTable, Role, SiteName, Timestamp,
    UsedKey, UsedKeys,
};

/// How long files with a hash in their name stay reachable after their version was replaced.
pub const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// The fold of a journal up to a position.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// How far the fold has come.
    pub position: Position,
    /// The configuration in force.
    pub config: Option<ConfigVersion>,
    /// The sites that were ever published.
    pub sites: BTreeMap<SiteName, SiteState>,
    /// What was purged.
    pub purges: PurgeTable,
    /// What only origins know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
}

/// One version of the network's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigVersion {
    /// Counted from 1.
    pub number: u64,
    /// The seq of the event that brought it.
    pub seq: u64,
    /// When it came.
    pub at: Timestamp,
    /// Who brought it.
    pub actor: String,
    /// The network's sections, as they were written.
    pub network: Value,
}

/// The versions and aliases of one site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteState {
    /// All versions that can be served.
    pub versions: BTreeMap<Digest, VersionState>,
    /// Where each alias points and came from.
    pub aliases: BTreeMap<Alias, AliasState>,
}

/// What is known of one version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionState {
    /// When it was (last) published.
    pub published_at: Timestamp,
    /// When an alias last left it; `None` where none ever did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_at: Option<Timestamp>,
    /// How many files it has.
    pub files: u64,
    /// How many bytes they have together.
    pub bytes: u64,
    /// Paths with a hash in their name whose bytes changed all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewritten: Vec<FilePath>,
}

/// Where an alias points, and the versions that a rollback returns to, the oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AliasState {
    /// The version that it points to.
    pub version: Digest,
    /// The seq of the event that moved it there.
    pub seq: u64,
    /// When it was moved there.
    pub at: Timestamp,
    /// The versions before this one, the nearest last. Going back takes from it, so that a rollback
    /// never leads to what was rolled back.
    pub before: Vec<Digest>,
}

/// What only origins know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// The seq of the last event per stream, for conditional appends.
    pub streams: BTreeMap<String, u64>,
    /// Tokens in force by id.
    pub tokens: BTreeMap<String, StoredToken>,
    /// Blobs that will be deleted, and since when.
    pub condemned: BTreeMap<Digest, Timestamp>,
    /// All configurations that there were, the oldest first, bounded.
    pub configs: Vec<ConfigVersion>,
    /// The keys under which something was asked for, bounded.
    #[serde(default, skip_serializing_if = "UsedKeys::is_empty")]
    pub keys: UsedKeys,
    /// The purges that are still to be repeated, bounded by what is accepted.
    #[serde(default, skip_serializing_if = "PendingRepeats::is_empty")]
    pub repeats: PendingRepeats,
}

/// A token as the origin keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredToken {
    /// What people call it.
    pub name: String,
    /// SHA-256 of the secret.
    pub hash: Digest,
    /// What its bearer may do.
    pub can: Vec<Grant>,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// How many scopes it may purge per second, where it has a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge_rate: Option<u64>,
}

/// Rollbacks that are remembered per alias.
const MAX_BEFORE: usize = 100;

/// Configurations that can be restored.
const MAX_CONFIGS: usize = 200;

impl State {
    /// Returns the fold of an empty journal. `purge_key` chooses the purge table's slots.
    #[must_use]
    pub fn new(epoch: Epoch, purge_key: [u8; 16]) -> Self {
        Self {
            position: Position::start(epoch),
            config: None,
            sites: BTreeMap::new(),
            purges: PurgeTable::new(purge_key),
            control: Some(Control::default()),
        }
    }

    /// Takes in the next event and moves to `position`, its place.
    pub fn apply(&mut self, event: &Event, position: Position) {
        self.fold(event);
        self.position = position;
    }

    fn fold(&mut self, event: &Event) {
        let seq = event.seq;
        if let Some(control) = &mut self.control {
            control.move_streams(event);
            control.fold(event);
        }
        self.purges.hear(event);
        match &event.fact {
            Fact::VersionPublished { site, version, files, bytes, rewritten } => {
                let left_at = self.sites.get(site).and_then(|known| known.versions.get(version)).and_then(|known| known.left_at);
                let published =
                    VersionState { published_at: event.at, left_at, files: *files, bytes: *bytes, rewritten: rewritten.clone() };
                self.sites.entry(site.clone()).or_default().versions.insert(*version, published);
            }
            Fact::AliasMoved { site, alias, version, back } => {
                self.sites.entry(site.clone()).or_default().move_alias(alias, *version, *back, event);
            }
            Fact::VersionRetired { site, version } => {
                if let Some(site) = self.sites.get_mut(site) {
                    site.retire(version);
                }
            }
            Fact::ConfigChanged { number, network } => {
                self.config =
                    Some(ConfigVersion { number: *number, seq, at: event.at, actor: event.actor.clone(), network: network.clone() });
            }
            _ => {}
        }
    }

    /// Returns the part that followers of `role` get.
    #[must_use]
    pub fn for_role(&self, role: Role) -> Self {
        // Part by part: what only origins know is the most of it, and DNS nodes need neither sites nor purges.
        let (sites, purges) = match role {
            Role::Dns => (BTreeMap::new(), PurgeTable::new([0; 16])),
            Role::Edge => (self.sites.clone(), self.purges.clone()),
        };
        Self { position: self.position, config: self.config.clone(), sites, purges, control: None }
    }

    /// Returns the blobs' roots: the manifests of all versions that can be served.
    #[must_use]
    pub fn manifests(&self) -> BTreeSet<Digest> {
        self.sites.values().flat_map(|site| site.versions.keys().copied()).collect()
    }
}

impl SiteState {
    fn move_alias(&mut self, alias: &Alias, version: Digest, back: bool, event: &Event) {
        let mut before = match self.aliases.remove(alias) {
            None => Vec::new(),
            Some(old) => {
                if let Some(left) = self.versions.get_mut(&old.version) {
                    left.left_at = Some(event.at);
                }
                let mut before = old.before;
                before.push(old.version);
                before
            }
        };
        if back && let Some(at) = before.iter().rposition(|known| *known == version) {
            before.truncate(at);
        }
        if before.len() > MAX_BEFORE {
            before.drain(..before.len() - MAX_BEFORE);
        }
        self.aliases.insert(alias.clone(), AliasState { version, seq: event.seq, at: event.at, before });
    }

    /// What an alias points to stays, whatever was decided before it came to point there.
    fn retire(&mut self, version: &Digest) {
        if self.aliases.values().any(|alias| alias.version == *version) {
            return;
        }
        self.versions.remove(version);
        for alias in self.aliases.values_mut() {
            alias.before.retain(|known| known != version);
        }
    }

    /// Returns the versions whose hashed files are still reachable at `now` besides `current`, the
    /// most recently replaced first.
    #[must_use]
    pub fn recent(&self, current: &Digest, now: Timestamp) -> Vec<Digest> {
        let mut recent: Vec<_> = self
            .versions
            .iter()
            .filter(|(version, _)| *version != current)
            .map(|(version, known)| (known.left_at.unwrap_or(known.published_at), *version))
            .filter(|(at, _)| now.since(*at) < KEPT_FOR)
            .collect();
        recent.sort_unstable_by(|a, b| b.cmp(a));
        recent.into_iter().map(|(_, version)| version).collect()
    }
}

impl Control {
    /// Returns the last seq of a stream, 0 where there is none: what an append may be conditional on.
    #[must_use]
    pub fn head_of(&self, stream: &str) -> u64 {
        self.remembered_head_of(stream).or_else(|| self.streams.get(stream).copied()).unwrap_or(0)
    }

    /// Streams that come and go by the thousand have a memory of their own, which is bounded.
    fn remembered_head_of(&self, stream: &str) -> Option<u64> {
        self.keys.head_of(stream).or_else(|| self.repeats.head_of(stream))
    }

    fn move_streams(&mut self, event: &Event) {
        for stream in event.fact.streams() {
            if self.remembered_head_of(&stream).is_none() {
                self.streams.insert(stream, event.seq);
            }
        }
    }

    fn fold(&mut self, event: &Event) {
        match &event.fact {
            Fact::Purged { owner, mode, scopes, once, repeats, .. } => {
                if let Some(once) = once {
                    self.keys.remember(UsedKey { once: *once, seq: event.seq, at: event.at });
                }
                if let Some(seq) = repeats {
                    self.repeats.forget(*seq);
                }
                if let Some(due) = event.again_at() {
                    let scopes = scopes.as_slice().into();
                    self.repeats.put_off(PendingRepeat { seq: event.seq, due, owner: owner.clone(), mode: *mode, scopes });
                }
            }
            Fact::TokenIssued { id, name, hash, can, purge_rate } => {
                let (name, can) = (name.clone(), can.clone());
                let token = StoredToken { name, hash: *hash, can, issued_at: event.at, purge_rate: *purge_rate };
                self.tokens.insert(id.clone(), token);
            }
            Fact::TokenRevoked { id } => {
                self.tokens.remove(id);
            }
            Fact::BlobsCondemned { digests } => self.condemned.extend(digests.iter().map(|digest| (*digest, event.at))),
            Fact::BlobsLifted { digests } | Fact::BlobsDeleted { digests } => {
                for digest in digests {
                    self.condemned.remove(digest);
                }
            }
            Fact::ConfigChanged { number, network } => {
                let network = network.clone();
                self.configs.push(ConfigVersion { number: *number, seq: event.seq, at: event.at, actor: event.actor.clone(), network });
                if self.configs.len() > MAX_CONFIGS {
                    self.configs.remove(0);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Class, Mode, Once, Owner, Scope};

    struct Journal(State);

    impl Journal {
        fn new() -> Self {
            Self(State::new(Epoch::from_bytes([1; 8]), [2; 16]))
        }

        fn append(&mut self, fact: Fact) {
            let seq = self.0.position.seq + 1;
            let event = Event { seq, at: Timestamp::from_millis(seq * 1000), actor: "test".to_owned(), fact };
            let chain = self.0.position.chain.then(&serde_json::to_vec(&event).unwrap());
            self.0.apply(&event, Position { seq, chain, ..self.0.position });
        }

        fn publish(&mut self, name: &str) {
            let version = Digest::of(name.as_bytes());
            self.append(Fact::VersionPublished { site: site(), version, files: 1, bytes: 1, rewritten: vec![] });
            self.go(name, false);
        }

        fn go(&mut self, name: &str, back: bool) {
            self.append(Fact::AliasMoved { site: site(), alias: Alias::production(), version: Digest::of(name.as_bytes()), back });
        }

        fn alias(&self) -> &AliasState {
            &self.0.sites[&site()].aliases[&Alias::production()]
        }
    }

    fn site() -> SiteName {
        "www".parse().unwrap()
    }

    fn versions(names: &[&str]) -> Vec<Digest> {
        names.iter().map(|name| Digest::of(name.as_bytes())).collect()
    }

    #[test]
    fn rollbacks_lead_back_through_publishes_and_never_to_what_was_rolled_back() {
        let mut journal = Journal::new();
        for name in ["a", "b", "c"] {
            journal.publish(name);
        }
        journal.go("b", true);
        assert_eq!((journal.alias().version, journal.alias().before.clone()), (Digest::of(b"b"), versions(&["a"])));
        journal.publish("d");
        assert_eq!(journal.alias().before, versions(&["a", "b"]));
    }

    #[test]
    fn a_replaced_version_is_recent_for_a_day_after_it_was_left() {
        let mut journal = Journal::new();
        journal.publish("a");
        journal.publish("b");
        let current = Digest::of(b"b");
        let left = journal.alias().at.as_millis();
        let recent = |ms| journal.0.sites[&site()].recent(&current, Timestamp::from_millis(ms));
        assert_eq!(recent(left + 1000), versions(&["a"]));
        assert_eq!(recent(left + 24 * 3600 * 1000), vec![]);
    }

    fn purge(once: Option<Once>, again_after_ms: Option<u64>, repeats: Option<u64>) -> Fact {
        Fact::Purged { owner: Owner::default(), mode: Mode::Hard, scopes: vec![Scope::All], once, again_after_ms, repeats }
    }

    #[test]
    fn keys_and_repeats_move_their_streams_without_filling_the_list_of_streams() {
        let mut journal = Journal::new();
        let once = Once { key: Digest::of(b"key"), request: Digest::of(b"request") };
        journal.append(purge(Some(once), Some(500), None));
        let control = |journal: &Journal| journal.0.control.clone().unwrap();
        assert_eq!((control(&journal).head_of(&once.stream()), control(&journal).head_of("again:1")), (1, 1));
        let due: Vec<_> = control(&journal).repeats.in_order().map(|repeat| (repeat.seq, repeat.due.as_millis())).collect();
        assert_eq!(due, [(1, 1500)]);

        journal.append(purge(None, None, Some(1)));
        assert_eq!((control(&journal).head_of(&once.stream()), control(&journal).head_of("again:1")), (1, 0));
        assert!(control(&journal).repeats.is_empty() && control(&journal).streams.is_empty());
    }

    #[test]
    fn keys_and_repeats_survive_a_snapshot_and_no_follower_gets_them() {
        let mut journal = Journal::new();
        let once = Once { key: Digest::of(b"key"), request: Digest::of(b"request") };
        journal.append(purge(Some(once), Some(500), None));
        let back: State = serde_json::from_str(&serde_json::to_string(&journal.0).unwrap()).unwrap();
        assert_eq!(back.control, journal.0.control);
        assert!(!serde_json::to_string(&journal.0.for_role(Role::Edge)).unwrap().contains(&once.key.to_string()));
        // As an origin wrote it that knew neither.
        let old: Control = serde_json::from_str(r#"{"streams":{"tokens":3},"tokens":{},"condemned":{},"configs":[]}"#).unwrap();
        assert_eq!((old.head_of("tokens"), old.keys.len(), old.repeats.len()), (3, 0, 0));
    }

    #[test]
    fn an_unknown_purge_purges_everything() {
        let mut journal = Journal::new();
        journal.append(Fact::Unknown { kind: "Sunk".to_owned(), class: Class::Purge, v: 1, rest: serde_json::Map::new() });
        assert_eq!(journal.0.purges.newest(), 1);
    }

    #[test]
    fn a_follower_gets_no_secrets_and_a_snapshot_reads_back() {
        let mut journal = Journal::new();
        journal.publish("a");
        let (id, name) = ("1".to_owned(), "n".to_owned());
        journal.append(Fact::TokenIssued { id, name, hash: Digest::of(b"s"), can: vec![Grant::Admin], purge_rate: None });
        let edge = serde_json::to_string(&journal.0.for_role(Role::Edge)).unwrap();
        assert!(!edge.contains(&Digest::of(b"s").to_string()));
        let back: State = serde_json::from_str(&edge).unwrap();
        assert_eq!((back.position, back.sites), (journal.0.position, journal.0.sites.clone()));
        let dns = journal.0.for_role(Role::Dns);
        assert!(dns.control.is_none() && dns.sites.is_empty() && dns.position == journal.0.position && dns.purges.newest() == 0);
        assert_eq!(journal.0.control.as_ref().unwrap().streams["tokens"], 3);
    }
}
