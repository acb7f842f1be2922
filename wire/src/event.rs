//! The journal's events: facts that need no configuration to be understood.
//!
//! Every event names its class and version beside its kind, so that a node that is older than the
//! event still knows what it must do: an unknown purge purges everything, an unknown configuration
//! is not acknowledged, anything else unknown is skipped. What is not understood is kept as it was.

use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Alias, Digest, FilePath, Grant, Mode, Once, Owner, Role, Scope, SiteName, Timestamp, again};

/// One numbered fact of the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its number, counted from 1 without gaps.
    pub seq: u64,
    /// When the origin wrote it.
    pub at: Timestamp,
    /// Who caused it: a token's name, or the origin itself.
    pub actor: String,
    /// What happened.
    pub fact: Fact,
}

/// What an event is about, which decides who gets it and what an older node does with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Takes entries out of caches.
    Purge,
    /// Changes the network's configuration.
    Config,
    /// Publishes, moves or retires versions of sites.
    Site,
    /// Issues or revokes tokens; for origins alone.
    Token,
    /// Condemns or deletes blobs; for origins alone.
    Blob,
    /// A class of a newer version.
    Other(String),
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Fact {
    /// A version of a site is complete and may be served by its digest.
    VersionPublished {
        /// The site.
        site: SiteName,
        /// The digest of its manifest.
        version: Digest,
        /// How many files it has.
        files: u64,
        /// How many bytes they have together.
        bytes: u64,
        /// Paths with a hash in their name whose bytes changed all the same: not immutable.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        rewritten: Vec<FilePath>,
    },
    /// An alias points to another version, for the whole site at once.
    AliasMoved {
        /// The site.
        site: SiteName,
        /// The alias.
        alias: Alias,
        /// The version that it points to from now on.
        version: Digest,
        /// Whether this went back through history.
        #[serde(default)]
        back: bool,
    },
    /// A version is forgotten; no alias points to it.
    VersionRetired {
        /// The site.
        site: SiteName,
        /// The version.
        version: Digest,
    },
    /// Cached responses were purged.
    Purged {
        /// The owner within which tags and `all` are matched.
        owner: Owner,
        /// Gone, or stale.
        mode: Mode,
        /// What, with hosts and URLs resolved.
        scopes: Vec<Scope>,
        /// The key under which it was sent, so that sending it again purges nothing again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        once: Option<Once>,
        /// After how many milliseconds it is repeated, once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again_after_ms: Option<u64>,
        /// The seq of the purge that this one repeats.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        repeats: Option<u64>,
    },
    /// The network's configuration was replaced.
    ConfigChanged {
        /// The number of this configuration, counted from 1.
        number: u64,
        /// The network's sections, as they were written.
        network: Value,
    },
    /// A token was issued.
    TokenIssued {
        /// Its id, which may be shown.
        id: String,
        /// What people call it.
        name: String,
        /// SHA-256 of the secret.
        hash: Digest,
        /// What its bearer may do.
        can: Vec<Grant>,
        /// How many scopes per second its bearer may purge, where it has a limit of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        purge_rate: Option<u64>,
    },
    /// A token was revoked.
    TokenRevoked {
        /// Its id.
        id: String,
    },
    /// Blobs that no version needs will be deleted after a grace.
    BlobsCondemned {
        /// Their names.
        digests: Vec<Digest>,
    },
    /// Condemned blobs are needed again.
    BlobsLifted {
        /// Their names.
        digests: Vec<Digest>,
    },
    /// Condemned blobs were deleted.
    BlobsDeleted {
        /// Their names.
        digests: Vec<Digest>,
    },
    /// Something that a newer version wrote.
    #[serde(skip)]
    Unknown {
        /// Its kind.
        kind: String,
        /// Its class.
        class: Class,
        /// Its version.
        v: u64,
        /// All else that it says.
        rest: Map<String, Value>,
    },
}

/// The stream that every published version moves.
pub const VERSIONS: &str = "versions";

/// The version that this program writes of every kind.
const VERSION: u64 = 1;

impl Fact {
    /// Returns a purge that is neither tied to a key nor repeated.
    #[must_use]
    pub fn purged(owner: Owner, mode: Mode, scopes: Vec<Scope>) -> Self {
        Self::Purged { owner, mode, scopes, once: None, again_after_ms: None, repeats: None }
    }

    /// Returns what the fact is about.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::VersionPublished { .. } | Self::AliasMoved { .. } | Self::VersionRetired { .. } => Class::Site,
            Self::Purged { .. } => Class::Purge,
            Self::ConfigChanged { .. } => Class::Config,
            Self::TokenIssued { .. } | Self::TokenRevoked { .. } => Class::Token,
            Self::BlobsCondemned { .. } | Self::BlobsLifted { .. } | Self::BlobsDeleted { .. } => Class::Blob,
            Self::Unknown { class, .. } => class.clone(),
        }
    }

    /// Returns the streams whose last seq this fact moves; appends may be conditional on them.
    #[must_use]
    pub fn streams(&self) -> Vec<String> {
        match self {
            Self::AliasMoved { site, alias, .. } => vec![format!("alias:{site}/{alias}")],
            // The second one is for whoever collects: what no version needs must not be needed by one that comes meanwhile.
            Self::VersionPublished { site, .. } => vec![format!("site:{site}"), VERSIONS.to_owned()],
            Self::VersionRetired { site, .. } => vec![format!("retired:{site}")],
            Self::ConfigChanged { .. } => vec!["config".to_owned()],
            Self::TokenIssued { .. } | Self::TokenRevoked { .. } => vec!["tokens".to_owned()],
            Self::BlobsCondemned { .. } | Self::BlobsLifted { .. } | Self::BlobsDeleted { .. } => vec!["blobs".to_owned()],
            Self::Purged { once, repeats, .. } => once.iter().map(Once::stream).chain(repeats.map(again::stream)).collect(),
            Self::Unknown { .. } => Vec::new(),
        }
    }
}

impl Event {
    /// Returns when it is repeated, where it is a purge that asks for that.
    #[must_use]
    pub fn again_at(&self) -> Option<Timestamp> {
        match self.fact {
            Fact::Purged { again_after_ms, .. } => again_after_ms.map(|ms| self.at.plus_millis(ms)),
            _ => None,
        }
    }
}

impl Class {
    /// Tells whether a follower of this role gets events of this class.
    #[must_use]
    pub fn is_for(&self, role: Role) -> bool {
        match self {
            Self::Token | Self::Blob => false,
            Self::Purge | Self::Site => role == Role::Edge,
            Self::Config | Self::Other(_) => true,
        }
    }

    /// Returns the class as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Purge => "purge",
            Self::Config => "config",
            Self::Site => "site",
            Self::Token => "token",
            Self::Blob => "blob",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for Class {
    fn from(text: String) -> Self {
        match text.as_str() {
            "purge" => Self::Purge,
            "config" => Self::Config,
            "site" => Self::Site,
            "token" => Self::Token,
            "blob" => Self::Blob,
            _ => Self::Other(text),
        }
    }
}

/// An event's JSON: the envelope and the fact's own fields in one object.
#[derive(Serialize, Deserialize)]
struct Envelope {
    seq: u64,
    at: Timestamp,
    actor: String,
    kind: String,
    class: String,
    v: u64,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, v, rest) = match &self.fact {
            Fact::Unknown { kind, v, rest, .. } => (kind.clone(), *v, rest.clone()),
            known => {
                let Value::Object(mut fields) = serde_json::to_value(known).map_err(serde::ser::Error::custom)? else {
                    return Err(serde::ser::Error::custom("a fact is an object"));
                };
                let kind = fields.remove("kind").and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default();
                (kind, VERSION, fields)
            }
        };
        let class = self.fact.class().as_str().to_owned();
        Envelope { seq: self.seq, at: self.at, actor: self.actor.clone(), kind, class, v, rest }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Envelope { seq, at, actor, kind, class, v, mut rest } = Envelope::deserialize(deserializer)?;
        if seq == 0 {
            return Err(D::Error::custom("events are numbered from 1"));
        }
        let known = (v <= VERSION).then(|| {
            let mut fields = rest.clone();
            fields.insert("kind".to_owned(), Value::String(kind.clone()));
            serde_json::from_value::<Fact>(Value::Object(fields)).ok()
        });
        let fact = known.flatten().unwrap_or_else(|| Fact::Unknown { kind, class: class.into(), v, rest: std::mem::take(&mut rest) });
        Ok(Self { seq, at, actor, fact })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> Event {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn golden_events_read_and_write_as_they_stand() {
        for line in include_str!("../golden/events.jsonl").lines() {
            let read = event(line);
            assert!(!matches!(read.fact, Fact::Unknown { .. }), "{line}");
            let again: Value = serde_json::to_value(&read).unwrap();
            assert_eq!(again, serde_json::from_str::<Value>(line).unwrap());
        }
    }

    #[test]
    fn an_event_of_a_newer_kind_or_version_is_kept_as_it_was() {
        let cases = [
            (r#"{"seq":1,"at":"2026-01-01T00:00:00.000Z","actor":"a","kind":"Moonrise","class":"purge","v":1,"x":[1]}"#, Class::Purge),
            (
                r#"{"seq":2,"at":"2026-01-01T00:00:00.000Z","actor":"a","kind":"Purged","class":"purge","v":2,"owner":"default","mode":"hard","scopes":[]}"#,
                Class::Purge,
            ),
            (
                r#"{"seq":3,"at":"2026-01-01T00:00:00.000Z","actor":"a","kind":"Tide","class":"lagoon","v":1}"#,
                Class::Other("lagoon".to_owned()),
            ),
        ];
        for (json, class) in cases {
            let read = event(json);
            assert!(matches!(&read.fact, Fact::Unknown { .. }), "{json}");
            assert_eq!(read.fact.class(), class);
            assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::from_str::<Value>(json).unwrap());
        }
    }

    /// An event as a node reads it that knows nothing of keys and repeats: all fields but those that it knows are skipped.
    #[derive(Deserialize)]
    struct OldPurged {
        owner: Owner,
        mode: Mode,
        scopes: Vec<Scope>,
    }

    #[test]
    fn a_purge_with_a_key_and_a_repeat_is_an_ordinary_purge_for_an_older_node() {
        let golden = include_str!("../golden/events.jsonl").lines().filter(|line| line.contains("\"Purged\""));
        for line in golden {
            let old: OldPurged = serde_json::from_str(line).unwrap();
            let Fact::Purged { owner, mode, scopes, .. } = event(line).fact else { panic!("{line}") };
            assert_eq!((old.owner, old.mode, old.scopes), (owner, mode, scopes), "{line}");
        }
    }

    #[test]
    fn a_purge_moves_the_streams_of_its_key_and_of_what_it_repeats() {
        let once = Once { key: Digest::of(b"key"), request: Digest::of(b"request") };
        let (owner, mode, again_after_ms) = (Owner::default(), Mode::Hard, None);
        let purge = |once, repeats| Fact::Purged { owner: owner.clone(), mode, scopes: vec![], once, again_after_ms, repeats };
        assert_eq!(purge(None, None).streams(), Vec::<String>::new());
        assert_eq!(purge(Some(once), None).streams(), [format!("once:{}", Digest::of(b"key"))]);
        assert_eq!(purge(None, Some(42)).streams(), ["again:42"]);
    }

    #[test]
    fn tokens_never_travel_to_followers() {
        assert!(!Class::Token.is_for(Role::Edge) && !Class::Token.is_for(Role::Dns));
        assert!(Class::Config.is_for(Role::Dns) && !Class::Purge.is_for(Role::Dns) && Class::Purge.is_for(Role::Edge));
    }
}
