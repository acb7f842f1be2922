//! The control plane: takes writes, keeps the journal and the blobs, and fans out to followers.
//!
//! The `mod` lines read as the way of a write: a command comes in through the API, is decided,
//! appended to the journal, folded into views, judged by the lease book, and pushed to the feeds.

mod api;
mod auth;
mod decide;
mod ticket;
mod once;
mod rate;
mod fault;
mod announce;
mod sole;
mod journal;
mod views;
mod lease_book;
mod core;
mod blobs;
mod variants;
mod collect;
mod again;
mod questions;
mod feed;
mod clock;
mod metrics;
mod custody;
mod engines;
mod certificate;
mod start;
mod transport;

pub use start::{Origin, Running};
pub use transport::{Moved, export_journal, import_journal};

/// The parts that decide, without any clock, disk or socket: what the simulation drives.
pub mod cores {
    pub use crate::decide::may_serve;
    pub use crate::journal::{Fit, Known, Step, Told, Word, fit, judge};
    pub use crate::lease_book::{
        Acked, Arbiter, Asked, Candidate, Completed, Distrust, Elsewhere, Entry, Grant, Held, LeaseBook, Line, Mirror, Named, Recalled,
        Remembered, Standing, Table, Verdict, Who,
    };
}
