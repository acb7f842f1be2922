//! The data plane: serves sites and caches upstreams.
//!
//! The `mod` lines read as the way of a request: a door takes it in, it is normalised, routed, admitted
//! and looked up, joins or leads a fetch, is stored and answered. Beside it stands what the follower
//! applies, and what the edge tells about itself.

mod door;
mod message;
mod edge;
mod normalise;
mod applied;
mod validity;
mod assets;
mod gateway;
mod memory;
mod tier;
mod rules;
mod represent;
mod refuse;
mod outcome;
mod metrics;
mod explain;
mod admin;
mod start;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

pub use start::{Edge, Running};

/// The parts that decide, without any clock, disk or socket: what the simulation drives.
pub mod cores {
    pub use crate::gateway::{Begun, FillTable, Part, Tombstones};
    pub use crate::validity::{
        Arrival, Buried, InForce, Place, Proof, Provenance, Said, Shared, Validity, may_join, may_rely, may_renew, may_share, may_store,
        may_take, of_shared, renewed_at,
    };
}
