//! The bodies of the control API, for both of its sides. Golden files hold each one's JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    Alias, Chain, Counted, Digest, Epoch, Event, Grant, Mode, NodeName, Owner, Position, Question, RegionName, SiteName, Timestamp,
};

/// The oldest and the newest protocol that this program speaks with its peers.
pub const PROTOCOL: [u32; 2] = [1, 1];

/// The lease of somebody who gets none.
pub const LEASE_NONE: u64 = 0;

/// What an origin adds to a lease before it counts it as ended, and how far a follower's two clocks may move against
/// each other before it gives its lease up: one hundredth and 50 ms.
#[must_use]
pub fn lease_margin(lease: Duration) -> Duration {
    lease / 100 + Duration::from_millis(50)
}

/// The member of a problem that says that a position is of this epoch and not in this journal.
pub const LOST: &str = "lost";

/// What a follower does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves content.
    Edge,
    /// Answers DNS questions.
    Dns,
}

impl Role {
    /// Returns the role as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Dns => "dns",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "edge" => Ok(Self::Edge),
            "dns" => Ok(Self::Dns),
            _ => Err(()),
        }
    }
}

/// An error as the API tells it (RFC 9457, `application/problem+json`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// A URI for this kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// What kind of problem it is, in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong this time, with the value in question.
    pub detail: String,
    /// Members of this kind of problem alone, such as `snapshot` or `complaints`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub more: BTreeMap<String, serde_json::Value>,
}

/// The answer to a manifest: what the origin still lacks of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PublishStarted {
    /// Names this publish in the calls that follow.
    pub id: String,
    /// The version that it will be.
    #[schema(value_type = String)]
    pub version: Digest,
    /// The blobs to send.
    #[schema(value_type = Vec<String>)]
    pub missing: Vec<Digest>,
}

/// The answer to a commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CommitAnswer {
    /// The version, which may now be served.
    #[schema(value_type = String)]
    pub version: Digest,
    /// The place of the event in the journal.
    #[schema(value_type = String)]
    pub position: Position,
    /// What its publisher should know: hashed paths that got other bytes, paths that differ by case alone.
    pub warnings: Vec<String>,
}

/// Moves an alias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AliasMove {
    /// The version to point to.
    #[schema(value_type = String)]
    pub version: Digest,
    /// Whether this goes back through history.
    #[serde(default)]
    pub back: bool,
}

/// The answer to a moved alias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AliasAnswer {
    /// The version that it points to.
    #[schema(value_type = String)]
    pub version: Digest,
    /// The one before, where there was one.
    #[schema(value_type = Option<String>)]
    pub previous: Option<Digest>,
    /// The place of the event in the journal, to wait for with `GET /v1/purges/{seq}`.
    #[schema(value_type = String)]
    pub position: Position,
}

/// The versions of a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VersionList {
    /// The site.
    #[schema(value_type = String)]
    pub site: SiteName,
    /// The newest first.
    pub versions: Vec<VersionRow>,
    /// Where each alias points, and which versions a rollback leads to, the nearest last.
    #[schema(value_type = Object)]
    pub aliases: BTreeMap<Alias, crate::AliasState>,
}

/// One version of a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VersionRow {
    /// Its name.
    #[schema(value_type = String)]
    pub version: Digest,
    /// When it was published.
    #[schema(value_type = String)]
    pub published_at: Timestamp,
    /// How many files it has.
    pub files: u64,
    /// How many bytes they have together.
    pub bytes: u64,
    /// The aliases that point to it.
    #[schema(value_type = Vec<String>)]
    pub aliases: Vec<Alias>,
}

/// Whether an answer waits for every edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// Until every edge has applied it or is fenced.
    #[default]
    All,
    /// Not at all.
    None,
}

/// Scopes in one purge.
pub const MAX_SCOPES: usize = 1000;

/// Reads a list of what one purge may have; one that is longer is not read to its end.
///
/// # Errors
/// Where it is longer, is no list, or has an element that can't be read.
pub fn at_most_a_purge<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    struct List<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut read = Vec::new();
            while let Some(element) = elements.next_element()? {
                if read.len() == MAX_SCOPES {
                    let said = format!("a list has more than the {MAX_SCOPES} scopes that one purge may have; send several purges");
                    return Err(A::Error::custom(said));
                }
                read.push(element);
            }
            Ok(read)
        }
    }

    deserializer.deserialize_seq(List(PhantomData))
}

/// Purges cached responses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PurgeRequest {
    /// The owner within which tags, sites and `all` are matched.
    #[schema(value_type = String)]
    pub owner: Owner,
    /// URLs: every variant, coding and slice of each.
    #[serde(deserialize_with = "at_most_a_purge")]
    pub urls: Vec<String>,
    /// Surrogate keys.
    #[serde(deserialize_with = "at_most_a_purge")]
    pub tags: Vec<String>,
    /// Beginnings of URLs, each with its whole host.
    #[serde(deserialize_with = "at_most_a_purge")]
    pub prefixes: Vec<String>,
    /// Sites: all responses on their hosts.
    #[serde(deserialize_with = "at_most_a_purge")]
    pub sites: Vec<String>,
    /// Everything of the owner.
    pub all: bool,
    /// Gone, or stale.
    pub mode: Mode,
    /// Whether to wait for every edge.
    pub wait: Wait,
    /// How long to wait, in milliseconds; by default the bound of a purge plus one second, for a dry run two
    /// seconds.
    pub timeout_ms: Option<u64>,
    /// Purges once more, so many milliseconds after it was accepted: for upstreams whose replicas lag, from which a cache
    /// may be filled with what was just purged. An hour at the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub again_after_ms: Option<u64>,
    /// Says what would be purged and how much of it each edge holds, and purges nothing. With `wait` none no edge
    /// is asked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What a purge would take away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PurgePlan {
    /// The scopes, with hosts and URLs resolved.
    #[schema(value_type = Vec<Object>)]
    pub scopes: Vec<crate::Scope>,
    /// Each edge that was asked, and what it holds of them.
    #[serde(default)]
    pub edges: Vec<PlannedEdge>,
    /// What all that answered hold together.
    #[serde(default)]
    pub total: Counted,
    /// What the sender should know.
    pub notes: Vec<String>,
}

/// What one edge holds of what a purge would take away; nothing is known of one that is fenced, older than the
/// question, or too slow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PlannedEdge {
    /// Its name.
    #[schema(value_type = String)]
    pub name: NodeName,
    /// Its region.
    #[schema(value_type = String)]
    pub region: RegionName,
    /// URLs with at least one such response.
    pub urls: Option<u64>,
    /// Stored responses: each variant of a URL is one.
    pub entries: Option<u64>,
    /// The memory that they take.
    pub bytes: Option<u64>,
}

impl PlannedEdge {
    /// Returns an edge that answered, or did not.
    #[must_use]
    pub fn new(name: NodeName, region: RegionName, counted: Option<Counted>) -> Self {
        let of = |count: fn(Counted) -> u64| counted.map(count);
        Self { name, region, urls: of(|counted| counted.urls), entries: of(|counted| counted.entries), bytes: of(|counted| counted.bytes) }
    }
}

/// How far a purge has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptState {
    /// No edge answers from what it purged.
    Complete,
    /// Some edge has neither applied it nor lost its lease yet.
    Pending,
    /// Every edge applied it or is fenced, but a fenced one may go on serving by its routes' choice.
    Partial,
}

/// What became of a purge, or of any other event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Receipt {
    /// Its place in the journal.
    #[schema(value_type = String)]
    pub position: Position,
    /// Its number.
    pub seq: u64,
    /// How far it has come.
    pub state: ReceiptState,
    /// The routes by whose `when_fenced` a fenced edge may go on serving what was purged.
    pub may_serve: Vec<String>,
    /// Each edge.
    pub followers: Vec<FollowerReceipt>,
    /// When it is, or was, purged once more, where the purge asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub again_at: Option<Timestamp>,
    /// What the sender should know, such as a purge that can touch nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How far one follower is with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FollowerState {
    /// It has acknowledged the event.
    Applied,
    /// Its lease ran out before it did.
    Fenced,
    /// Neither.
    Pending,
}

/// One follower's line of a receipt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FollowerReceipt {
    /// Its name.
    #[schema(value_type = String)]
    pub name: NodeName,
    /// Its region.
    #[schema(value_type = String)]
    pub region: RegionName,
    /// How far it is.
    pub state: FollowerState,
    /// Milliseconds from the append to its acknowledgement, where that is still known.
    pub after_ms: Option<u64>,
    /// When its lease ran out.
    #[schema(value_type = Option<String>)]
    pub since: Option<Timestamp>,
}

/// One line of the feed; a heartbeat where it has no events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FeedLine {
    /// The journal's life.
    #[schema(value_type = String)]
    pub epoch: Epoch,
    /// The seq before the first event that this line covers.
    pub from: u64,
    /// The seq of the last event that it covers, sent to this role or not.
    pub to: u64,
    /// The chain at `to`.
    #[schema(value_type = String)]
    pub chain: Chain,
    /// The journal's last seq.
    pub head: u64,
    /// The events for this role.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<Event>,
    /// For DNS nodes: the edges that may be answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Vec<LiveEdge>>,
    /// For edges: what they are asked beside the journal. It is no part of the fold.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "crate::question::understood")]
    pub questions: Vec<Question>,
}

/// An edge that holds a lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LiveEdge {
    /// Its name.
    #[schema(value_type = String)]
    pub edge: NodeName,
    /// Its region.
    #[schema(value_type = String)]
    pub region: RegionName,
    /// The addresses to answer with.
    #[schema(value_type = Vec<String>)]
    pub answers: Vec<IpAddr>,
    /// Whether it asks to be left out.
    pub draining: bool,
    /// How busy it is, from 0 to 1; 1 spills over to the next region.
    pub load: f64,
}

/// "All up to this position is in force here."
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Ack {
    /// Who.
    #[schema(value_type = String)]
    pub follower: NodeName,
    /// As what.
    pub role: Role,
    /// Where.
    #[schema(value_type = String)]
    pub region: RegionName,
    /// A random id of this start of the follower.
    pub life: String,
    /// The oldest and the newest protocol that it speaks.
    pub protocol: [u32; 2],
    /// How far it has come.
    #[schema(value_type = String)]
    pub position: Position,
    /// The addresses that DNS may give out for it.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub answers: Vec<IpAddr>,
    /// Whether it asks DNS to leave it out.
    #[serde(default)]
    pub draining: bool,
    /// How busy it is, from 0 to 1.
    #[serde(default)]
    pub load: f64,
    /// What it counts, for `atoll status`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, u64>,
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// The follower has not applied what was reported complete (L2).
    BelowComplete,
    /// It has left an event unapplied for longer than one lease (L3).
    Laggard,
    /// Its position is of another journal or another life of it.
    OtherHistory,
    /// It was taken out of service, or another life of it is newer.
    Retired,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

/// The answer to an ack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AckAnswer {
    /// The journal's last seq.
    pub head: u64,
    /// How long the lease runs from when the ack was sent; 0 for none.
    pub lease_ms: u64,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Refused>,
    /// Whether a new life of the follower would be heard: this one was not taken out of service, but another one was
    /// heard after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
}

/// The answer to a new configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ApplyAnswer {
    /// The number of the configuration in force.
    pub number: u64,
    /// Whether this call changed it.
    pub changed: bool,
}

/// Asks for a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// What its bearer may do.
    #[schema(value_type = Vec<String>)]
    pub can: Vec<Grant>,
    /// How many scopes it may purge per second; without it `origin.purge_rate` counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge_rate: Option<u64>,
}

/// A new token, whose secret is shown this once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenIssued {
    /// Its id.
    pub id: String,
    /// The secret.
    pub token: String,
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenInfo {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What its bearer may do.
    #[schema(value_type = Vec<String>)]
    pub can: Vec<Grant>,
    /// When it was issued.
    #[schema(value_type = String)]
    pub issued_at: Timestamp,
    /// How many scopes it may purge per second, where it has a limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge_rate: Option<u64>,
}

/// The network as the origin sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// The network's name.
    pub network: String,
    /// The journal's head.
    #[schema(value_type = String)]
    pub position: Position,
    /// The number of the configuration in force.
    pub config: Option<u64>,
    /// Up to where every edge has applied all events or is fenced; 0 while leases that the origin gave
    /// before it was restarted may still run.
    pub complete: u64,
    /// Every follower of this epoch.
    pub followers: Vec<FollowerStatus>,
    /// Every site.
    pub sites: Vec<SiteStatus>,
    /// What the origin that answers keeps everything in. Older origins did not tell.
    #[serde(default)]
    pub engines: Vec<EngineStatus>,
}

/// What an origin keeps something in, and how that is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EngineStatus {
    /// What is kept there: `journal`, `blobs`.
    pub name: String,
    /// Where it is: `embedded`, or a URL without a password.
    pub at: String,
    /// Whether it answers, and keeps what it must.
    pub well: bool,
    /// What is wrong with it, or worth knowing.
    pub notes: Vec<String>,
}

/// One follower as the origin sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FollowerStatus {
    /// Its name.
    #[schema(value_type = String)]
    pub name: NodeName,
    /// What it does.
    pub role: Role,
    /// Its region; empty for a DNS node, which belongs to none.
    pub region: String,
    /// Whether its lease runs.
    pub live: bool,
    /// Milliseconds that are left of its lease.
    pub lease_ms: u64,
    /// The last seq that it acknowledged.
    pub applied: u64,
    /// How many events it is behind.
    pub lag: u64,
    /// Whether it asks DNS to leave it out, or was drained.
    pub draining: bool,
    /// What it counts: hits, misses, ...
    pub counts: BTreeMap<String, u64>,
}

/// One site as the origin sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SiteStatus {
    /// Its name.
    #[schema(value_type = String)]
    pub site: SiteName,
    /// Where its aliases point.
    #[schema(value_type = Object)]
    pub aliases: BTreeMap<Alias, Digest>,
    /// How many versions it has.
    pub versions: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::QuestionAnswer;
    use serde::de::DeserializeOwned;

    fn golden<T: Serialize + DeserializeOwned>(name: &str, json: &str) {
        let read: T = serde_json::from_str(json).unwrap_or_else(|error| panic!("{name}: {error}"));
        let again = serde_json::to_value(&read).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(json).unwrap(), "{name}");
    }

    #[test]
    fn golden_bodies_read_and_write_as_they_stand() {
        golden::<Receipt>("receipt", include_str!("../golden/receipt.json"));
        golden::<FeedLine>("feed line", include_str!("../golden/feed_line.json"));
        golden::<FeedLine>("heartbeat for DNS", include_str!("../golden/heartbeat_dns.json"));
        golden::<Ack>("ack", include_str!("../golden/ack.json"));
        golden::<AckAnswer>("ack answer", include_str!("../golden/ack_answer.json"));
        golden::<PublishStarted>("publish started", include_str!("../golden/publish_started.json"));
        golden::<Problem>("problem", include_str!("../golden/problem.json"));
        golden::<PurgeRequest>("purge request", include_str!("../golden/purge_request.json"));
        golden::<PurgeRequest>("purge request with a repeat", include_str!("../golden/purge_request_again.json"));
        golden::<Receipt>("receipt with a repeat", include_str!("../golden/receipt_again.json"));
        golden::<TokenRequest>("token request", include_str!("../golden/token_request.json"));
        golden::<PurgePlan>("purge plan", include_str!("../golden/purge_plan.json"));
        golden::<FeedLine>("heartbeat with a question", include_str!("../golden/heartbeat_question.json"));
        golden::<QuestionAnswer>("question answer", include_str!("../golden/question_answer.json"));
    }

    #[test]
    fn a_purge_request_needs_only_what_it_means() {
        let read: PurgeRequest = serde_json::from_str(r#"{"tags":["a"]}"#).unwrap();
        assert_eq!((read.owner.as_str(), read.mode, read.wait, read.all), ("default", Mode::Hard, Wait::All, false));
        assert!(serde_json::from_str::<PurgeRequest>(r#"{"tag":"a"}"#).is_err());
    }

    #[test]
    fn a_list_that_is_too_long_for_a_purge_is_not_read_to_its_end() {
        for list in ["urls", "tags", "prefixes", "sites"] {
            let texts = |count: usize| vec!["\"t\""; count].join(",");
            let whole = format!(r#"{{"{list}":[{}]}}"#, texts(MAX_SCOPES));
            assert!(serde_json::from_str::<PurgeRequest>(&whole).is_ok(), "{list}");
            // What comes behind the first that is too much is not even JSON.
            let too_long = format!(r#"{{"{list}":[{},?"#, texts(MAX_SCOPES + 1));
            let said = serde_json::from_str::<PurgeRequest>(&too_long).unwrap_err().to_string();
            assert!(said.contains("more than the 1000"), "{list}: {said}");
        }
    }
}
