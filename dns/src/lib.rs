//! Atoll's steering: answers DNS questions for the configured zones with the nearest region that lives.
//!
//! The modules stand in the order in which a question meets them. All that decides is in plain functions over a `View`,
//! a value that never changes: `answer` takes a packet and returns one, without socket, clock or lock. The doors only carry
//! packets to it, and whoever follows the journal puts a new view in place when the configuration or the live set changes.

mod query;
mod packet;
mod name;
mod subnet;
mod view;
mod zone;
mod records;
mod locate;
mod table;
mod countries;
mod rank;
mod answer;
mod write;
mod explain;
mod metrics;
mod tcp;
mod udp;
mod following;
mod admin;
mod start;

#[cfg(test)]
mod testing;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

pub use start::{Dns, Running};
