//! HTTP's caching rules as plain functions: header fields and `now` go in, a decision with its reason comes out.
//!
//! Nothing here reads a clock, a socket or a table, so that a test can live through a week in a
//! millisecond. The rules are those of RFC 9110 (semantics) and RFC 9111 (caching) with RFC 5861
//! (stale-*), RFC 9211 (Cache-Status) and RFC 9213 (targeted control); each file names its sections.

pub(crate) mod list;
pub(crate) mod date;
pub(crate) mod directives;
pub(crate) mod dictionary;
pub(crate) mod targeted;
pub(crate) mod age;
pub(crate) mod freshness;
pub(crate) mod cookies;
pub(crate) mod vary;
pub(crate) mod fields;
pub(crate) mod terms;
pub(crate) mod storable;
pub(crate) mod update;
pub(crate) mod wishes;
pub(crate) mod conditional;
pub(crate) mod ranges;
pub(crate) mod content_range;
pub(crate) mod parts;
pub(crate) mod slices;
pub(crate) mod negotiate;
pub(crate) mod invalidate;
pub(crate) mod groups;
pub(crate) mod cache_status;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod differential;

pub(crate) use cache_status::{CacheStatus, Forward};
pub(crate) use directives::Directives;
pub(crate) use storable::{Policy, RequestFacts};
pub(crate) use terms::{NotStored, StoreTerms};
pub(crate) use wishes::Wishes;
