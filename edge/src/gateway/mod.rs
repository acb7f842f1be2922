//! Routes to upstreams: responses are cached under HTTP's rules, carry tags, and are invalidated by
//! journal position. One fetch per key runs at a time; who waits gets its bytes as they arrive.

mod key;
mod entry;
mod lookup;
mod flow;
mod fills;
mod meter;
mod upstream;
mod forward;
mod tunnel;
mod compress;
mod coded;
mod codings;
mod health;
mod responses;
mod announce;
mod job;
mod slices;
mod parts;
mod fetch;
mod pass;
mod serve;
mod answers;

pub(crate) use entry::{Content, Entry, Stored};
pub(crate) use forward::{Client, upstream_headers};
pub(crate) use key::{CacheKey, Scheme};
pub(crate) use lookup::{Found, Moment, find};
pub(crate) use responses::Responses;
pub(crate) use serve::{Asker, serve};
