//! The lease book of an origin that is alone: in its memory, and what must outlive a restart in its journal's file.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::LONGEST_LEASE;
use tokio::sync::watch;
use wire::{Ack, AckAnswer, Epoch, NodeName, Position, lease_margin};

use super::leases::standing;
use super::{LeaseBook, Remembered, millis};
use crate::clock::boottime;
use crate::fault::Fault;
use crate::journal::{Fit, Journal};

/// Leases that were given before this process.
#[derive(Clone, Copy, Debug)]
struct FormerLeases {
    longest: Duration,
    /// Until when one may run.
    until: Duration,
}

/// The book, and how much of it is stored.
#[derive(Debug)]
pub(crate) struct Embedded {
    journal: Journal,
    book: Mutex<LeaseBook>,
    /// The epoch that the book is for.
    book_epoch: Mutex<Epoch>,
    pub(super) version: watch::Sender<u64>,
    /// Held while the book's followers are stored, so that an older list never replaces a newer one.
    storing: tokio::sync::Mutex<()>,
    stored_lease_ms: AtomicU64,
    /// The longest lease that this process gave, or was about to.
    given_lease_ms: AtomicU64,
    /// Held while the longest lease is stored.
    storing_lease: tokio::sync::Mutex<()>,
    /// `None` once they have ended, and what is stored tells of this process alone.
    former_leases: Mutex<Option<FormerLeases>>,
}

impl Embedded {
    pub(super) fn new(journal: Journal) -> Self {
        let known = journal.longest_lease();
        if known.is_none() {
            tracing::warn!("nobody knows which leases were given before: nothing is complete until the longest that there may be ends");
        }
        let longest = known.unwrap_or(LONGEST_LEASE);
        let former = FormerLeases { longest, until: boottime() + longest + lease_margin(longest) };
        let head = journal.head();
        let mut book = LeaseBook::after_restart(head.seq, longest, boottime());
        book.remember(journal.take_followers(), head.epoch, boottime());
        Self {
            book: Mutex::new(book),
            book_epoch: Mutex::new(head.epoch),
            version: watch::Sender::new(0),
            storing: tokio::sync::Mutex::new(()),
            // What is only assumed is stored before a lease is given: the next restart may come before it has passed.
            stored_lease_ms: AtomicU64::new(known.map_or(0, millis)),
            given_lease_ms: AtomicU64::new(0),
            storing_lease: tokio::sync::Mutex::new(()),
            former_leases: Mutex::new(Some(former)),
            journal,
        }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, LeaseBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides about a lease. Who is new is stored before it hears of one.
    pub(super) async fn ack(&self, ack: Ack, token: Option<String>, fit: Fit, lease: Duration) -> Result<AckAnswer, Fault> {
        let (answer, is_saved) = {
            let mut book = self.book();
            // Read under the book's lock: an older head would turn the book back.
            let head = self.journal.head();
            self.keep_book_to(&head, &mut book);
            let standing = standing(&self.journal, &head, &ack.position, fit, lease);
            let who = (ack.role, ack.follower.clone());
            let answer = book.ack(ack, &standing);
            book.let_in(&who, token);
            (answer, book.is_saved(&who))
        };
        // Before anything that may fail: what it has applied counts, whatever becomes of the answer.
        self.version.send_modify(|version| *version += 1);
        // P7: who may serve is known also after a restart of this origin. Who is known already has no need of the disk.
        if !is_saved {
            self.store_followers().await?;
        }
        Ok(answer)
    }

    pub(super) async fn drain(&self, edge: &NodeName) -> Result<bool, Fault> {
        let known = self.book().drain(edge);
        self.version.send_modify(|version| *version += 1);
        self.store_followers().await?;
        Ok(known)
    }

    /// Returns the journal's head, and up to where every edge has applied it or is fenced.
    pub(super) fn progress(&self) -> (Position, u64) {
        let mut book = self.book();
        let head = self.journal.head();
        self.keep_book_to(&head, &mut book);
        (head, book.report_progress(head.seq, boottime()))
    }

    /// Tells whether `seq` is complete, and when that may change without any message.
    pub(super) fn judge(&self, seq: u64, now: Duration) -> (bool, Option<Duration>) {
        let mut book = self.book();
        let head = self.journal.head();
        self.keep_book_to(&head, &mut book);
        (book.report_complete(seq, now), book.next_change(seq, now))
    }

    /// Takes in who followed an imported journal; leases up to the `longest` may run.
    pub(super) async fn take_over(&self, followers: &[Remembered], longest: Duration) -> Result<(), Fault> {
        self.journal.store_longest_lease(longest).await?;
        Ok(self.journal.store_followers(followers).await?)
    }

    async fn store_followers(&self) -> Result<(), Fault> {
        let _one_at_a_time = self.storing.lock().await;
        let unsaved = self.book().unsaved();
        if let Some((version, followers)) = unsaved {
            self.journal.store_followers(&followers).await?;
            self.book().stored(version);
        }
        Ok(())
    }

    pub(super) async fn tidy(&self) -> Result<(), Fault> {
        self.book().tidy(boottime());
        self.store_followers().await?;
        self.settle_former_leases().await
    }

    /// L6: the longest lease that may run is stored before it is granted.
    pub(super) async fn ensure_lease_is_stored(&self, lease: Duration) -> Result<(), Fault> {
        let ms = millis(lease);
        self.given_lease_ms.fetch_max(ms, Ordering::SeqCst);
        if self.stored_lease_ms.load(Ordering::SeqCst) >= ms {
            return Ok(());
        }
        let _one_at_a_time = self.storing_lease.lock().await;
        if self.stored_lease_ms.load(Ordering::SeqCst) < ms {
            let longest = self.former_leases().map_or(lease, |former| former.longest.max(lease));
            self.journal.store_longest_lease(longest).await?;
            self.stored_lease_ms.store(millis(longest), Ordering::SeqCst);
        }
        Ok(())
    }

    fn former_leases(&self) -> Option<FormerLeases> {
        *self.former_leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the longest lease that this process gave, once all from before have ended: else an origin that once had to
    /// assume the longest that there may be would wait for it after each restart.
    async fn settle_former_leases(&self) -> Result<(), Fault> {
        let _one_at_a_time = self.storing_lease.lock().await;
        if self.former_leases().is_none_or(|former| boottime() <= former.until) {
            return Ok(());
        }
        // Who is about to give a longer one waits from here on, or has said so before.
        let stored = self.stored_lease_ms.swap(0, Ordering::SeqCst);
        let given = self.given_lease_ms.load(Ordering::SeqCst);
        if given < stored
            && let Err(error) = self.journal.store_longest_lease(Duration::from_millis(given)).await
        {
            self.stored_lease_ms.store(stored, Ordering::SeqCst);
            return Err(error.into());
        }
        self.stored_lease_ms.store(given.min(stored), Ordering::SeqCst);
        *self.former_leases.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    fn keep_book_to(&self, head: &Position, book: &mut LeaseBook) {
        let mut of_book = self.book_epoch.lock().unwrap_or_else(PoisonError::into_inner);
        if *of_book != head.epoch {
            // What others gave before this process is waited for by the book as it is.
            let ms = self.stored_lease_ms.load(Ordering::SeqCst).max(self.given_lease_ms.load(Ordering::SeqCst));
            book.begin_epoch(head.seq, Duration::from_millis(ms), boottime());
            *of_book = head.epoch;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{PROTOCOL, Role};

    fn ack(journal: &Journal) -> Ack {
        Ack {
            follower: "a".parse().unwrap(),
            role: Role::Edge,
            region: "fra".parse().unwrap(),
            life: "1".to_owned(),
            protocol: PROTOCOL,
            position: journal.head(),
            answers: vec![],
            draining: false,
            load: 0.0,
            counts: std::collections::BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn the_longest_lease_that_had_to_be_assumed_is_stored_until_it_has_passed() {
        let folder = tempfile::tempdir().unwrap();
        Journal::open(folder.path(), false).unwrap().close().await;
        std::fs::remove_file(folder.path().join("longest_lease_ms")).unwrap();
        let journal = Journal::open(folder.path(), false).unwrap();
        let book = Embedded::new(journal.clone());
        let lease = Duration::from_secs(5);
        let granted = async || {
            book.ensure_lease_is_stored(lease).await.unwrap();
            book.ack(ack(&journal), None, Fit::Here, lease).await.unwrap();
        };
        granted().await;
        book.tidy().await.unwrap();
        assert_eq!(journal.longest_lease(), Some(LONGEST_LEASE));

        *book.former_leases.lock().unwrap() = Some(FormerLeases { longest: LONGEST_LEASE, until: Duration::ZERO });
        book.tidy().await.unwrap();
        assert_eq!(journal.longest_lease(), Some(lease));
        granted().await;
        assert_eq!(journal.longest_lease(), Some(lease));
    }
}
