//! How a node reaches a Redis or Valkey: one connection, within a deadline, and what that server promises to keep.
//!
//! What is asked of it stands with who asks: an edge's second tier, an origin's journal and lease book.

mod trouble;
mod connect;
mod handle;
mod script;
mod breaker;
mod inspection;

pub use breaker::Breaker;
pub use connect::BadAddress;
pub use handle::Redis;
pub use inspection::{Appends, Inspection};
pub use redis;
pub use script::Script;
pub use trouble::Trouble;
