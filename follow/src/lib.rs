//! How a node follows the journal: it reads the feed, puts events in force, acknowledges them, and
//! holds a lease for as long as the origin knows what it has applied.
//!
//! [`Follower`] is the pure part: positions, lives, what to do with a line of the feed. [`Lease`] is
//! what the hit path asks. [`Kept`] is the fold on disk. [`start`] is the shell around them; [`Trouble`]
//! decides when it says that something fails.

mod clock;
mod lease;
mod follower;
mod kept;
mod causes;
mod origin;
mod trouble;
mod run;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

pub use causes::causes;
pub use clock::boottime;
pub use follower::{Follower, Refusal, drops_all, may_load};
pub use kept::{Kept, KeptError};
pub use lease::{Lease, Sent, Standing};
pub use origin::{Origins, OriginsError, Way};
pub use run::{Apply, Following, NotUnderstood, Settings, Vitals, start};
pub use trouble::Trouble;
