//! The origin's handles in one place, and what several parts of its API need of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use config::{Network, Settings};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::{Ack, AckAnswer, Digest, Epoch, Fact, NodeName, Position, Receipt, ReceiptState, Refused, SiteName, Timestamp};

use crate::announce::announce;
use crate::blobs::Blobs;
use crate::clock::boottime;
use crate::decide;
use crate::fault::Fault;
use crate::journal::{Append, Fit, Journal};
use crate::lease_book::{LeaseBook, Standing};
use crate::metrics::Metrics;
use crate::questions::Questions;
use crate::rate::Rates;
use crate::variants::Variants;
use crate::views;

/// A publish between its manifest and its commit.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    pub(crate) site: SiteName,
    pub(crate) version: Digest,
}

/// An event whose completion somebody waits for.
struct AwaitedEvent {
    position: Position,
    appended_at: Duration,
    /// When it is purged once more.
    again_at: Option<Timestamp>,
    fact: Fact,
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
    /// What each token may still purge.
    pub(crate) rates: Mutex<Rates>,
    pub(crate) stop: CancellationToken,
    /// Held while a commit checks its blobs, and while the collector deletes some.
    pub(crate) collecting: tokio::sync::Mutex<()>,
    /// The hash of `follow_token`, where the file names one.
    pub(crate) follow_token: Option<Digest>,
    book: Mutex<LeaseBook>,
    /// The epoch that the book is for.
    book_epoch: Mutex<Epoch>,
    book_version: watch::Sender<u64>,
    /// Held while the book's followers are stored, so that an older list never replaces a newer one.
    storing: tokio::sync::Mutex<()>,
    stored_lease_ms: AtomicU64,
    network: Mutex<Option<(u64, Arc<Network>)>>,
    publishes: Mutex<(BTreeMap<u64, Publish>, u64)>,
}

impl Core {
    pub(crate) fn new(settings: Settings, journal: Journal, blobs: Arc<Blobs>, variants: Variants, follow_token: Option<Digest>) -> Self {
        let longest = journal.longest_lease();
        let head = journal.head();
        let mut book = LeaseBook::after_restart(head.seq, longest, boottime());
        book.remember(journal.followers(), head.epoch, boottime());
        Self {
            settings,
            blobs,
            variants,
            metrics: Metrics::new(),
            questions: Questions::new(),
            rates: Mutex::default(),
            stop: CancellationToken::new(),
            collecting: tokio::sync::Mutex::new(()),
            follow_token,
            book: Mutex::new(book),
            book_epoch: Mutex::new(head.epoch),
            book_version: watch::Sender::new(0),
            storing: tokio::sync::Mutex::new(()),
            stored_lease_ms: AtomicU64::new(u64::try_from(longest.as_millis()).unwrap_or(u64::MAX)),
            network: Mutex::new(None),
            publishes: Mutex::default(),
            journal,
        }
    }

    /// Returns the configuration in force.
    pub(crate) fn network(&self) -> Arc<Network> {
        let current = self.journal.state().config.clone();
        let mut cached = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        let number = current.as_ref().map(|version| version.number);
        if let Some((known, network)) = cached.as_ref()
            && number.is_none_or(|number| number == *known)
        {
            return Arc::clone(network);
        }
        let network = current.as_ref().and_then(views::network).unwrap_or_else(|| Arc::new(self.settings.network.clone()));
        *cached = number.map(|number| (number, Arc::clone(&network)));
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
        let network = self.network();
        self.ensure_lease_is_stored(network.lease).await?;
        let position = ack.position;
        let fit = self.journal.fit(&position);
        self.note_lost_history(fit, position.epoch).await?;
        let fits = matches!(fit, Fit::Here | Fit::Cut);
        let head = self.journal.head();
        let unapplied = (position.seq < head.seq).then(|| self.journal.appended_at(position.seq + 1).unwrap_or_default());
        let standing = Standing { now: boottime(), head: head.seq, fits, first_unapplied_at: unapplied, lease: network.lease };
        let answer = {
            let mut book = self.book();
            self.keep_book_to(head.epoch, head.seq, &mut book);
            // An epoch may have begun since the position was judged: then it is of another history.
            let standing = Standing { fits: fits && position.epoch == head.epoch, ..standing };
            let who = (ack.role, ack.follower.clone());
            let answer = book.ack(ack, &standing);
            book.let_in(&who, token);
            answer
        };
        // P7: who may serve is known also after a restart of this origin.
        self.store_followers().await?;
        if answer.reason == Some(Refused::OtherHistory) {
            tracing::info!(%position, "an ack of another history was refused");
        }
        self.book_version.send_modify(|version| *version += 1);
        Ok(answer)
    }

    /// Takes an edge out of service; tells whether there is such an edge.
    pub(crate) async fn drain(&self, edge: &NodeName) -> Result<bool, Fault> {
        let known = self.book().drain(edge);
        self.store_followers().await?;
        self.book_version.send_modify(|version| *version += 1);
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
        let unsaved = self.book().take_unsaved();
        if let Some(followers) = unsaved
            && let Err(error) = self.journal.store_followers(&followers).await
        {
            self.book().still_unsaved();
            return Err(error.into());
        }
        Ok(())
    }

    /// L6: the longest lease that may run is stored before it is granted.
    async fn ensure_lease_is_stored(&self, lease: Duration) -> Result<(), Fault> {
        let ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        if self.stored_lease_ms.load(Ordering::Acquire) < ms {
            self.journal.store_longest_lease(lease).await?;
            self.stored_lease_ms.fetch_max(ms, Ordering::AcqRel);
        }
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
            let longest = Duration::from_millis(self.stored_lease_ms.load(Ordering::Acquire));
            book.begin_epoch(head, longest, boottime());
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
        Ok(AwaitedEvent { position, appended_at: stored.appended_at, again_at, fact: event.fact })
    }

    fn write_receipt(&self, event: &AwaitedEvent, complete: bool, notes: Vec<String>) -> Receipt {
        let seq = event.position.seq;
        let now = boottime();
        let (followers, fenced) = {
            let book = self.book();
            (book.receipt(seq, Some(event.appended_at), now, Timestamp::now()), book.fenced_at(seq, now))
        };
        let fact = &event.fact;
        let named = |(applied, until): &(u64, Duration)| {
            let fenced_for = now.saturating_sub(*until);
            views::configs_since(&self.journal, *applied).into_iter().flat_map(move |network| decide::may_serve(fact, &network, fenced_for))
        };
        let may_serve: std::collections::BTreeSet<String> = fenced.iter().flat_map(named).collect();
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
