//! The lease book as the rest of the origin uses it, wherever it is kept: alone in this process, or shared by many origins.

use std::ops::Deref;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use wire::{Ack, AckAnswer, NodeName, Position};

use super::embedded::Embedded;
use super::mirror::Mirror;
use super::shared::Shared;
use super::{LeaseBook, Remembered, Standing};
use crate::clock::boottime;
use crate::fault::Fault;
use crate::journal::{Fit, Journal};

/// Who decides about leases and completion.
#[derive(Debug)]
pub(crate) enum Leases {
    /// This process alone.
    Embedded(Box<Embedded>),
    /// A book on Redis, of which this origin has a mirror.
    Shared(Arc<Shared>),
}

/// What this origin knows of followers and their leases. Hold it briefly.
pub(crate) enum Book<'a> {
    Embedded(MutexGuard<'a, LeaseBook>),
    Shared(MutexGuard<'a, Mirror>),
}

impl Deref for Book<'_> {
    type Target = LeaseBook;

    fn deref(&self) -> &LeaseBook {
        match self {
            Self::Embedded(book) => book,
            Self::Shared(mirror) => mirror,
        }
    }
}

/// What was found out about the position of an ack.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) fit: Fit,
    /// The life of the shared engine's process by which it was, as far as that was sure before.
    pub(crate) server: Option<String>,
}

/// What an ack is judged by. An epoch may have begun since its position was judged: then it is of another history. Of one epoch it
/// stays judged, since nothing that was appended changes.
pub(super) fn standing(journal: &Journal, head: &Position, position: &Position, fit: Fit, lease: Duration) -> Standing {
    let fits = matches!(fit, Fit::Here | Fit::Cut) && position.epoch == head.epoch;
    let unapplied = (position.seq < head.seq).then(|| journal.appended_at(position.seq + 1).unwrap_or_default());
    Standing { now: boottime(), head: head.seq, fits, first_unapplied_at: unapplied, lease }
}

impl Leases {
    /// Returns the book of an origin that is alone.
    pub(crate) fn embedded(journal: Journal) -> Self {
        Self::Embedded(Box::new(Embedded::new(journal)))
    }

    pub(crate) fn book(&self) -> Book<'_> {
        match self {
            Self::Embedded(embedded) => Book::Embedded(embedded.book()),
            Self::Shared(shared) => Book::Shared(shared.mirror()),
        }
    }

    /// Tells of every ack, so that whoever waits for completion looks again.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        match self {
            Self::Embedded(embedded) => embedded.version.subscribe(),
            Self::Shared(shared) => shared.version.subscribe(),
        }
    }

    /// L6: before a lease of this length is given, everybody knows that one may run. The shared book raises it with each grant.
    pub(crate) async fn expect(&self, lease: Duration) -> Result<(), Fault> {
        match self {
            Self::Embedded(embedded) => embedded.ensure_lease_is_stored(lease).await,
            Self::Shared(shared) => shared.assume(lease).await,
        }
    }

    /// Takes in an ack that came with `token`, whose position was judged, and decides about a lease.
    pub(crate) async fn ack(&self, ack: Ack, token: Option<String>, judged: Judged, lease: Duration) -> Result<AckAnswer, Fault> {
        match self {
            Self::Embedded(embedded) => embedded.ack(ack, token, judged.fit, lease).await,
            Self::Shared(shared) => shared.ack(ack, token, judged, lease).await,
        }
    }

    /// Tells whether other origins decide about them too.
    pub(crate) fn are_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }

    /// Returns who follows, for another book to remember.
    pub(crate) fn remembered(&self) -> Vec<Remembered> {
        self.book().remembered()
    }

    /// Takes in who followed an imported journal; leases up to the `longest` may run.
    pub(crate) async fn take_over(&self, followers: Vec<Remembered>, longest: Duration) -> Result<(), Fault> {
        match self {
            Self::Embedded(embedded) => embedded.take_over(&followers, longest).await,
            Self::Shared(shared) => shared.take_over(&followers, longest).await,
        }
    }

    /// Takes an edge out of service; tells whether there is such an edge.
    pub(crate) async fn drain(&self, edge: &NodeName) -> Result<bool, Fault> {
        match self {
            Self::Embedded(embedded) => embedded.drain(edge).await,
            Self::Shared(shared) => shared.drain(edge).await,
        }
    }

    /// Returns the journal's head, and up to where every edge has applied it or is fenced.
    pub(crate) async fn progress(&self) -> (Position, u64) {
        match self {
            Self::Embedded(embedded) => embedded.progress(),
            Self::Shared(shared) => shared.progress().await,
        }
    }

    /// Tells whether `seq` is complete, and when that may change without any message.
    pub(crate) fn judge(&self, seq: u64, now: Duration) -> (bool, Option<Duration>) {
        match self {
            Self::Embedded(embedded) => embedded.judge(seq, now),
            Self::Shared(shared) => shared.judge(seq, now),
        }
    }

    /// Forgets followers that nothing was heard of for long, and keeps what is known of the others.
    pub(crate) async fn tidy(&self) -> Result<(), Fault> {
        match self {
            Self::Embedded(embedded) => embedded.tidy().await,
            Self::Shared(shared) => shared.tidy().await,
        }
    }
}
