//! The one configuration file: as written, as meant, checked, explained.
//!
//! [`Tree`] is what people typed, with where each value came from. [`Settings`] is what the program
//! means, with no option that is not a choice. The checker between them reports every complaint at
//! once and remembers every value for `atoll config show`.

mod complaint;
mod network;
mod nodes;
mod rules;
mod secret;
mod section;
mod settings;
mod tree;
mod units;
mod zone;

pub use complaint::{Complaint, Complaints};
pub use network::{LONGEST_LEASE, Network, Region, Route, SetCookie, Site, Upstream, WhenFenced};
pub use nodes::{DnsNode, EdgeNode, OriginNode, TlsFiles};
pub use rules::Rule;
pub use secret::{SecretError, SecretRef};
pub use section::Shown;
pub use settings::{LAPTOP, Settings};
pub use tree::{Source, Tree};
pub use units::ByteSize;
pub use zone::{Record, RecordKind, Zone};
