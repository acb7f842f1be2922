//! The one configuration file: as written, as meant, checked, explained.
//!
//! [`Tree`] is what people typed, with where each value came from. [`Settings`] is what the program
//! means, with no option that is not a choice. The checker between them reports every complaint at
//! once and remembers every value for `atoll config show`.

mod blobs;
mod choice;
mod complaint;
mod cookies;
mod network;
mod nodes;
mod overlay;
mod query;
mod redis;
mod report;
mod request_headers;
mod route;
mod rules;
mod secret;
mod section;
mod settings;
mod status;
mod tree;
mod units;
mod upstream;
mod zone;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

pub use blobs::{BlobStore, Bucket, BucketKeys};
pub use complaint::{Complaint, Complaints};
pub use cookies::{CookieName, CookiePolicy};
pub use network::{LONGEST_LEASE, Network, Region, RegionRedis, Site, WhenFenced};
pub use nodes::{DnsNode, EdgeNode, JournalEngine, OriginNode, PURGE_RATES, TlsFiles};
pub use query::{ParameterName, QueryChoice, QueryPolicy};
pub use redis::{RedisAddress, RedisUrl};
pub use report::Shown;
pub use route::{Route, SetCookie, UnsafeInvalidates};
pub use rules::Rule;
pub use secret::{SecretError, SecretRef};
pub use settings::{LAPTOP, Settings};
pub use status::StatusLifetimes;
pub use tree::{Source, Tree};
pub use units::ByteSize;
pub use upstream::Upstream;
pub use zone::{Record, RecordKind, Zone};
