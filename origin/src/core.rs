//! The origin's handles in one place, and what several parts of its API need of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use config::{LONGEST_LEASE, Network, Settings};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::{Ack, AckAnswer, Digest, Epoch, Fact, NodeName, Position, Receipt, ReceiptState, Refused, SiteName, Timestamp, lease_margin};

use crate::announce::announce;
use crate::auth::TokensByHash;
use crate::blobs::Blobs;
use crate::clock::boottime;
use crate::decide;
use crate::fault::Fault;
use crate::journal::{Append, Fit, Journal};
use crate::lease_book::{LeaseBook, Standing, is_life};
use crate::metrics::Metrics;
use crate::questions::Questions;
use crate::rate::Limits;
use crate::variants::Variants;
use crate::views::{self, Networks};

/// A publish between its manifest and its commit.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    pub(crate) site: SiteName,
    pub(crate) version: Digest,
}

/// An event whose completion somebody waits for.
struct AwaitedEvent {
    position: Position,
    /// `None` where this origin did not append it, or no longer knows when it did.
    appended_at: Option<Duration>,
    /// When it is purged once more.
    again_at: Option<Timestamp>,
    fact: Fact,
}

/// Leases that were given before this process.
#[derive(Clone, Copy, Debug)]
struct FormerLeases {
    longest: Duration,
    /// Until when one may run.
    until: Duration,
}

/// Publishes that are under way. Beyond it the oldest is forgotten; its publisher begins again.
const PUBLISHES: usize = 1024;

/// Everything that the origin's handlers work with.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) settings: Settings,
    pub(crate) journal: Journal,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) variants: Variants,
    pub(crate) metrics: Metrics,
    /// What edges are asked at the moment.
    pub(crate) questions: Questions,
    /// What callers may still ask for.
    pub(crate) limits: Limits,
    pub(crate) stop: CancellationToken,
    /// Held while a commit checks its blobs, and while the collector deletes some.
    pub(crate) collecting: tokio::sync::Mutex<()>,
    /// The hash of `follow_token`, where the file names one.
    pub(crate) follow_token: Option<Digest>,
    pub(crate) tokens: TokensByHash,
    book: Mutex<LeaseBook>,
    /// The epoch that the book is for.
    book_epoch: Mutex<Epoch>,
    book_version: watch::Sender<u64>,
    /// Held while the book's followers are stored, so that an older list never replaces a newer one.
    storing: tokio::sync::Mutex<()>,
    stored_lease_ms: AtomicU64,
    /// The longest lease that this process gave, or was about to.
    given_lease_ms: AtomicU64,
    /// Held while the longest lease is stored.
    storing_lease: tokio::sync::Mutex<()>,
    /// `None` once they have ended, and what is stored tells of this process alone.
    former_leases: Mutex<Option<FormerLeases>>,
    network: Mutex<Option<(u64, Arc<Network>)>>,
    networks: Networks,
    publishes: Mutex<(BTreeMap<u64, Publish>, u64)>,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Core {
    pub(crate) fn new(settings: Settings, journal: Journal, blobs: Arc<Blobs>, variants: Variants, follow_token: Option<Digest>) -> Self {
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
            settings,
            blobs,
            variants,
            metrics: Metrics::new(),
            questions: Questions::new(),
            limits: Limits::default(),
            stop: CancellationToken::new(),
            collecting: tokio::sync::Mutex::new(()),
            follow_token,
            tokens: TokensByHash::default(),
            book: Mutex::new(book),
            book_epoch: Mutex::new(head.epoch),
            book_version: watch::Sender::new(0),
            storing: tokio::sync::Mutex::new(()),
            // What is only assumed is stored before a lease is given: the next restart may come before it has passed.
            stored_lease_ms: AtomicU64::new(known.map_or(0, millis)),
            given_lease_ms: AtomicU64::new(0),
            storing_lease: tokio::sync::Mutex::new(()),
            former_leases: Mutex::new(Some(former)),
            network: Mutex::new(None),
            networks: Networks::default(),
            publishes: Mutex::default(),
            journal,
        }
    }

    /// Returns the configuration in force.
    pub(crate) fn network(&self) -> Arc<Network> {
        let number = self.journal.state().config.as_ref().map(|version| version.number);
        let cached = self.network.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((known, network)) = cached
            && number.is_none_or(|number| number == known)
        {
            return network;
        }
        let current = self.journal.state().config.clone();
        let read = current.as_ref().and_then(|version| self.networks.network(version));
        let network = read.unwrap_or_else(|| Arc::new(self.settings.network.clone()));
        let cached = current.map(|version| (version.number, Arc::clone(&network)));
        *self.network.lock().unwrap_or_else(PoisonError::into_inner) = cached;
        network
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, LeaseBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every ack, so that whoever waits for completion looks again.
    pub(crate) fn watch_book(&self) -> watch::Receiver<u64> {
        self.book_version.subscribe()
    }

    /// Appends facts and returns the place of the last one, durable.
    pub(crate) async fn append(&self, actor: &str, facts: Vec<Fact>, if_unchanged: Vec<(String, u64)>) -> Result<Position, Fault> {
        let begun = Instant::now();
        let said: Vec<_> = facts.iter().map(announce).collect();
        let position = self.journal.append(Append { actor: actor.to_owned(), facts, if_unchanged }).await?;
        self.metrics.append_seconds.observe(begun.elapsed().as_secs_f64());
        let first = (position.seq + 1).saturating_sub(said.len() as u64);
        for (seq, said) in (first..).zip(said) {
            if let Some(said) = said {
                tracing::info!(actor, seq, "{actor}: {said}");
            }
        }
        Ok(position)
    }

    /// Takes in an ack that came with `token`: judges its position, and decides about a lease.
    pub(crate) async fn ack(&self, ack: Ack, token: Option<String>) -> Result<AckAnswer, Fault> {
        if !is_life(&ack.life) {
            return Err(Fault::bad("the `life` of a follower is 1 to 64 visible ASCII characters, chosen anew at each of its starts"));
        }
        let network = self.network();
        self.ensure_lease_is_stored(network.lease).await?;
        let position = ack.position;
        let fit = self.journal.fit(&position);
        self.note_lost_history(fit, position.epoch).await?;
        let (answer, is_saved) = {
            let mut book = self.book();
            // Read under the book's lock: an older head would turn the book back.
            let head = self.journal.head();
            self.keep_book_to(head.epoch, head.seq, &mut book);
            // An epoch may have begun since the position was judged: then it is of another history. Of one epoch it stays
            // judged, since nothing that was appended changes.
            let fits = matches!(fit, Fit::Here | Fit::Cut) && position.epoch == head.epoch;
            let unapplied = (position.seq < head.seq).then(|| self.journal.appended_at(position.seq + 1).unwrap_or_default());
            let standing = Standing { now: boottime(), head: head.seq, fits, first_unapplied_at: unapplied, lease: network.lease };
            let who = (ack.role, ack.follower.clone());
            let answer = book.ack(ack, &standing);
            book.let_in(&who, token);
            (answer, book.is_saved(&who))
        };
        // Before anything that may fail: what it has applied counts, whatever becomes of the answer.
        self.book_version.send_modify(|version| *version += 1);
        // P7: who may serve is known also after a restart of this origin. Who is known already has no need of the disk.
        if !is_saved {
            self.store_followers().await?;
        }
        if answer.reason == Some(Refused::OtherHistory) {
            tracing::info!(%position, "an ack of another history was refused");
        }
        Ok(answer)
    }

    /// Takes an edge out of service; tells whether there is such an edge.
    pub(crate) async fn drain(&self, edge: &NodeName) -> Result<bool, Fault> {
        let known = self.book().drain(edge);
        self.book_version.send_modify(|version| *version += 1);
        self.store_followers().await?;
        Ok(known)
    }

    /// Returns the journal's head, and up to where every edge has applied it or is fenced.
    pub(crate) fn progress(&self) -> (Position, u64) {
        let mut book = self.book();
        let head = self.journal.head();
        self.keep_book_to(head.epoch, head.seq, &mut book);
        (head, book.report_progress(head.seq, boottime()))
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

    /// Forgets followers that nothing was heard of for long, and stores what is known of the others.
    pub(crate) async fn tidy(&self) -> Result<(), Fault> {
        self.book().tidy(boottime());
        self.store_followers().await?;
        self.settle_former_leases().await
    }

    /// L6: the longest lease that may run is stored before it is granted.
    async fn ensure_lease_is_stored(&self, lease: Duration) -> Result<(), Fault> {
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

    /// A follower that has seen more of this history than we hold proves that the journal lost its end.
    pub(crate) async fn note_lost_history(&self, fit: Fit, epoch: Epoch) -> Result<(), Fault> {
        if fit == Fit::Lost {
            tracing::warn!("a follower knows events that this journal does not hold: it lost its end");
            self.journal.begin_epoch(epoch).await?;
        }
        Ok(())
    }

    fn keep_book_to(&self, epoch: Epoch, head: u64, book: &mut LeaseBook) {
        let mut of_book = self.book_epoch.lock().unwrap_or_else(PoisonError::into_inner);
        if *of_book != epoch {
            // What others gave before this process is waited for by the book as it is.
            let ms = self.stored_lease_ms.load(Ordering::SeqCst).max(self.given_lease_ms.load(Ordering::SeqCst));
            book.begin_epoch(head, Duration::from_millis(ms), boottime());
            *of_book = epoch;
        }
    }

    /// Returns what became of the event at `seq`, or waits for its completion until `timeout`.
    pub(crate) async fn receipt(&self, seq: u64, timeout: Duration, notes: Vec<String>) -> Result<Receipt, Fault> {
        let deadline = boottime() + timeout;
        let mut changes = self.watch_book();
        let event = self.stored_event(seq).await?;
        loop {
            let now = boottime();
            let (complete, next) = {
                let mut book = self.book();
                let head = self.journal.head();
                self.keep_book_to(head.epoch, head.seq, &mut book);
                (book.report_complete(seq, now), book.next_change(seq, now))
            };
            if complete || now >= deadline || self.stop.is_cancelled() {
                return Ok(self.write_receipt(&event, complete, notes));
            }
            let wait = next.map_or(deadline, |next| next.min(deadline)).saturating_sub(now);
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(wait + Duration::from_millis(1)) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    async fn stored_event(&self, seq: u64) -> Result<AwaitedEvent, Fault> {
        let epoch = self.journal.head().epoch;
        let stored = self.journal.read_after(seq.saturating_sub(1), 1).await?;
        let Some(stored) = stored.into_iter().next().filter(|stored| stored.seq == seq) else {
            return Err(Fault::NotFound(format!("the journal holds no event {seq}")));
        };
        let event: wire::Event = serde_json::from_str(&stored.json).map_err(|error| Fault::Storage(error.to_string()))?;
        let (position, again_at) = (Position { epoch, seq, chain: stored.chain }, event.again_at());
        Ok(AwaitedEvent { position, appended_at: self.journal.appended_at(seq), again_at, fact: event.fact })
    }

    fn write_receipt(&self, event: &AwaitedEvent, complete: bool, notes: Vec<String>) -> Receipt {
        let seq = event.position.seq;
        let now = boottime();
        let (followers, fenced) = {
            let book = self.book();
            (book.receipt(seq, event.appended_at, now, Timestamp::now()), book.fenced_at(seq, now))
        };
        let fenced: Vec<_> = fenced.into_iter().map(|(applied, until)| (applied, now.saturating_sub(until))).collect();
        let mut may_serve = BTreeSet::new();
        for config in self.networks.gone_by(&self.journal, &fenced) {
            match config.network {
                Some(network) => may_serve.extend(decide::may_serve(&event.fact, &network, config.fenced_for)),
                // Nobody knows its routes, so nobody may say that none of them serves (P7).
                None if views::takes_away(&event.fact) => {
                    may_serve.insert(format!("any of configuration {}, which this origin does not understand", config.number));
                }
                None => {}
            }
        }
        let state = match (complete, may_serve.is_empty()) {
            (false, _) => ReceiptState::Pending,
            (true, true) => ReceiptState::Complete,
            (true, false) => ReceiptState::Partial,
        };
        let may_serve = may_serve.into_iter().collect();
        Receipt { position: event.position, seq, state, may_serve, followers, again_at: event.again_at, notes }
    }

    /// Remembers a publish and returns its id.
    pub(crate) fn begin_publish(&self, publish: Publish) -> String {
        let mut publishes = self.publishes.lock().unwrap_or_else(PoisonError::into_inner);
        publishes.1 += 1;
        let number = publishes.1;
        publishes.0.insert(number, publish);
        if publishes.0.len() > PUBLISHES {
            publishes.0.pop_first();
        }
        format!("p{number}")
    }

    /// Returns a publish that is under way.
    pub(crate) fn publish(&self, site: &SiteName, id: &str) -> Result<Publish, Fault> {
        let number = id.strip_prefix('p').and_then(|number| number.parse().ok());
        let publishes = self.publishes.lock().unwrap_or_else(PoisonError::into_inner);
        let found = number.and_then(|number: u64| publishes.0.get(&number)).filter(|publish| &publish.site == site);
        found.cloned().ok_or_else(|| Fault::NotFound(format!("there is no publish `{id}` of site `{site}`; send the manifest again")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use wire::{Mode, Owner, PROTOCOL, Role, Scope};

    async fn core(folder: &Path) -> Core {
        let settings = Settings::from_text("[sites.www]\nhosts = [\"*\"]\n", &folder.join("atoll.toml"), [], []).unwrap();
        let blobs = Arc::new(Blobs::open(&folder.join("blobs")).await.unwrap());
        let variants = Variants::open(&folder.join("variants")).unwrap();
        Core::new(settings, Journal::open(folder, false).unwrap(), blobs, variants, None)
    }

    fn ack(core: &Core, name: &str, life: &str) -> Ack {
        Ack {
            follower: name.parse().unwrap(),
            role: Role::Edge,
            region: "fra".parse().unwrap(),
            life: life.to_owned(),
            protocol: PROTOCOL,
            position: core.journal.head(),
            answers: vec![],
            draining: false,
            load: 0.0,
            counts: BTreeMap::new(),
        }
    }

    async fn purge(core: &Core) -> u64 {
        core.append("test", vec![Fact::purged(Owner::default(), Mode::Hard, vec![Scope::All])], vec![]).await.unwrap().seq
    }

    #[tokio::test]
    async fn where_nothing_can_be_written_who_is_new_gets_no_answer_and_who_is_known_keeps_its_lease() {
        let folder = tempfile::tempdir().unwrap();
        let core = core(folder.path()).await;
        assert_eq!(core.ack(ack(&core, "a", "1"), None).await.unwrap().reason, None);
        core.journal.close().await;
        for (name, life) in [("b", "1"), ("b", "1"), ("a", "2")] {
            assert!(core.ack(ack(&core, name, life), None).await.is_err(), "{name} {life}");
            let known = core.ack(ack(&core, "a", "1"), None).await;
            assert!(name == "a" || known.is_ok_and(|answer| answer.lease_ms > 0), "{name} {life}");
        }
    }

    #[tokio::test]
    async fn nobody_follows_under_a_life_without_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let core = core(folder.path()).await;
        for life in ["", "a b", "\u{e4}", &"x".repeat(65)] {
            assert!(matches!(core.ack(ack(&core, "a", life), None).await, Err(Fault::Bad(_))), "{life}");
        }
        assert!(core.ack(ack(&core, "a", &"x".repeat(64)), None).await.is_ok());
    }

    #[tokio::test]
    async fn a_receipt_of_an_event_from_before_this_process_does_not_say_after_how_long_it_was_applied() {
        let folder = tempfile::tempdir().unwrap();
        let before = core(folder.path()).await;
        let old = purge(&before).await;
        before.journal.close().await;
        let core = core(folder.path()).await;
        assert_eq!(core.stored_event(old).await.unwrap().appended_at, None);
        let new = purge(&core).await;
        assert!(core.stored_event(new).await.unwrap().appended_at.is_some());
    }

    #[tokio::test]
    async fn the_longest_lease_that_had_to_be_assumed_is_stored_until_it_has_passed() {
        let folder = tempfile::tempdir().unwrap();
        core(folder.path()).await.journal.close().await;
        std::fs::remove_file(folder.path().join("longest_lease_ms")).unwrap();
        let core = core(folder.path()).await;
        let lease = core.network().lease;
        core.ack(ack(&core, "a", "1"), None).await.unwrap();
        core.tidy().await.unwrap();
        assert_eq!(core.journal.longest_lease(), Some(LONGEST_LEASE));

        *core.former_leases.lock().unwrap() = Some(FormerLeases { longest: LONGEST_LEASE, until: Duration::ZERO });
        core.tidy().await.unwrap();
        assert_eq!(core.journal.longest_lease(), Some(lease));
        core.ack(ack(&core, "a", "1"), None).await.unwrap();
        assert_eq!(core.journal.longest_lease(), Some(lease));
    }
}
