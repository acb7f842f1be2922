//! Routes to upstreams: responses are cached under HTTP's rules, carry tags, and are invalidated by
//! journal position. One fetch per key runs at a time; who waits gets its bytes as they arrive.

mod key;
mod entry;
mod lookup;
mod position;
mod flow;
mod fill_table;
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
mod burials;
mod claim;
mod second;
mod announce;
mod purge;
mod job;
mod slices;
mod parts;
mod fetch;
mod pass;
mod serve;
mod answers;
mod count;

pub use fill_table::{Begun, FillTable, Part};
pub use key::Tombstones;

pub(crate) use count::{Asked, QUESTIONS, answer_questions};
pub(crate) use entry::{Content, Entry, Head, Stored};
pub(crate) use forward::{Client, upstream_headers};
pub(crate) use key::{CacheKey, Scheme, TOMBSTONES_BYTES};
pub(crate) use lookup::{Found, Moment, find};
pub(crate) use position::{Footing, WaitingRoom, settle};
pub(crate) use purge::{Purging, forward_purge, is_purge};
pub(crate) use responses::Responses;
pub(crate) use second::{
    Deposit as SecondDeposit, LANES as SECOND_LANES, Place as SecondPlace, QUEUE as SECOND_QUEUE, Second,
    write_behind as write_second_behind,
};
pub(crate) use serve::{Asker, serve};
