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
mod assets;
mod gateway;
mod memory;
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
