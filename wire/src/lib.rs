//! What Atoll's nodes say to each other: every noun that crosses from one room to another, checked
//! once where it is born and trusted after. No I/O, no runtime, no opinions about who sends what.

mod again;
mod api;
mod digest;
mod event;
mod host;
mod manifest;
pub mod mistake;
mod name;
mod once;
mod pack;
mod position;
mod purge;
mod question;
mod scope;
mod state;
mod target;
mod time;
mod token;
#[cfg(test)]
mod upgrade;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

pub use again::{LONGEST_AGAIN, PendingRepeat, PendingRepeats, Room};
pub use api::{
    Ack, AckAnswer, AliasAnswer, AliasMove, ApplyAnswer, CommitAnswer, EngineStatus, FeedLine, FollowerReceipt, FollowerState,
    FollowerStatus, LEASE_NONE, LOST, LiveEdge, MAX_SCOPES, PROTOCOL, PlannedEdge, Problem, PublishStarted, PurgePlan, PurgeRequest,
    Receipt, ReceiptState, Refused, Role, SiteStatus, Status, TokenInfo, TokenIssued, TokenRequest, VersionList, VersionRow, Wait,
    at_most_a_purge, lease_margin,
};
pub use digest::{BadDigest, Digest, Hasher};
pub use event::{Class, Event, Fact, VERSIONS};
pub use host::{BadHost, Host, HostPattern};
pub use manifest::{BadManifest, FileEntry, FilePath, MAX_FILES, Manifest};
pub use name::{Alias, BadName, NodeName, Owner, RegionName, RouteName, SiteName, Tag, UpstreamName};
pub use once::{BadKey, IdempotencyKey, Once, UsedKey, UsedKeys};
pub use pack::{BadPack, MAX_PACKED, PACK_TYPE, Unpacker, pack};
pub use position::{BadPosition, Chain, Epoch, Position};
pub use purge::{Matched, PurgeProbe, PurgeTable, Slots, Subject};
pub use question::{Counted, Question, QuestionAnswer};
pub use scope::{BadScope, Mode, PrefixScope, Scope, UrlScope};
pub use state::{AliasState, ConfigVersion, Control, KEPT_FOR, SiteState, State, StoredToken, VersionState};
pub use target::{BadTarget, Target};
pub use time::Timestamp;
pub use token::{BadGrant, Grant, Secret};
