//! The engines that a world's processes share, as real servers: Redis and an S3-compatible store, each on an address of its own.

mod python;
mod redis;
mod relay;
mod store;

pub(crate) use redis::{Keeps, RedisServer};
pub(crate) use relay::Fault;
pub(crate) use store::Store;
