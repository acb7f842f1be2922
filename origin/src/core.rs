//! The origin's handles in one place, and what several parts of its API need of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use config::{Network, OriginNode, SecretError, Settings};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use wire::{Ack, AckAnswer, Digest, Epoch, Fact, NodeName, Position, Receipt, ReceiptState, Refused, Secret, Timestamp};

use crate::announce::announce;
use crate::auth::TokensByHash;
use crate::blobs::Blobs;
use crate::clock::boottime;
use crate::custody::Custody;
use crate::decide;
use crate::fault::Fault;
use crate::journal::{Append, Fit, Journal};
use crate::lease_book::{Book, Judged, Leases, is_life};
use crate::metrics::Metrics;
use crate::questions::Questions;
use crate::rate::Limits;
use crate::variants::Variants;
use crate::views::{self, Networks};

/// For how long an origin may go by what it knows, however short leases are: it looks once a second.
const CURRENT_AT_LEAST: Duration = Duration::from_millis(2500);

/// An event whose completion somebody waits for.
struct AwaitedEvent {
    position: Position,
    /// `None` where this origin did not append it, or no longer knows when it did.
    appended_at: Option<Duration>,
    /// When it is purged once more.
    again_at: Option<Timestamp>,
    fact: Fact,
}

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
    /// Held while a commit checks its blobs, and while the collector deletes some: in a folder, where no event is waited for.
    pub(crate) collecting: tokio::sync::Mutex<()>,
    /// What of its file may be read anew while it runs.
    own: ArcSwap<Own>,
    pub(crate) tokens: TokensByHash,
    pub(crate) leases: Leases,
    /// Whether what is acknowledged outlives what it is kept in.
    pub(crate) custody: Custody,
    network: Mutex<Option<((Epoch, u64), Arc<Network>)>>,
    networks: Networks,
}

/// What of an origin's file may be read anew while it runs.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// The hash of `follow_token`, where the file names one.
    pub(crate) follow_token: Option<Digest>,
    /// How many scopes a token may purge per second that has no limit of its own.
    pub(crate) purge_rate: u64,
}

impl Own {
    /// Reads what the settings point to.
    ///
    /// # Errors
    /// Where a secret can't be had.
    pub(crate) fn read(origin: &OriginNode) -> Result<Self, SecretError> {
        let follow_token = origin.follow_token.as_ref().map(|secret| secret.read()).transpose()?;
        Ok(Self { follow_token: follow_token.map(|text| Secret::from_text(&text).hash()), purge_rate: origin.purge_rate })
    }
}

impl Core {
    pub(crate) fn new(
        settings: Settings,
        (journal, leases, custody): (Journal, Leases, Custody),
        blobs: Arc<Blobs>,
        variants: Variants,
        own: Own,
        stop: CancellationToken,
    ) -> Self {
        Self {
            settings,
            blobs,
            variants,
            metrics: Metrics::new(),
            questions: Questions::new(),
            limits: Limits::default(),
            stop,
            collecting: tokio::sync::Mutex::new(()),
            own: ArcSwap::from_pointee(own),
            tokens: TokensByHash::default(),
            leases,
            custody,
            network: Mutex::new(None),
            networks: Networks::default(),
            journal,
        }
    }

    /// Returns its own part of the file, as it was read last.
    pub(crate) fn own(&self) -> Guard<Arc<Own>> {
        self.own.load()
    }

    /// Goes by another reading of its file from now on.
    pub(crate) fn set_own(&self, own: Own) {
        self.own.store(Arc::new(own));
    }

    /// Returns the configuration in force.
    pub(crate) fn network(&self) -> Arc<Network> {
        // By the event that brought it: another life of the journal may have another configuration of the same number.
        let of = |state: &wire::State| state.config.as_ref().map(|version| (state.position.epoch, version.seq));
        let number = of(&self.journal.state());
        let cached = self.network.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((known, network)) = cached
            && number.is_none_or(|number| number == known)
        {
            return network;
        }
        let (current, epoch) = {
            let state = self.journal.state();
            (state.config.clone(), state.position.epoch)
        };
        let read = current.as_ref().and_then(|version| self.networks.network(epoch, version));
        let network = read.unwrap_or_else(|| Arc::new(self.settings.network.clone()));
        let cached = current.map(|version| ((epoch, version.seq), Arc::clone(&network)));
        *self.network.lock().unwrap_or_else(PoisonError::into_inner) = cached;
        network
    }

    /// Tells whether what this origin knows may be relied upon: where it has not reached the journal's engine for a while,
    /// others may have revoked tokens, purged and applied meanwhile.
    ///
    /// # Errors
    /// Where it must not.
    pub(crate) fn must_be_current(&self) -> Result<(), Fault> {
        let old = self.journal.unconfirmed_for(boottime());
        if old <= self.network().lease.mul_f64(0.5).max(CURRENT_AT_LEAST) {
            return Ok(());
        }
        let seconds = old.as_secs();
        Err(Fault::Away(format!(
            "this origin has not reached the journal's Redis for {seconds} s; ask another origin, or look at that Redis"
        )))
    }

    /// Waits until this origin knows all that others had appended when this was called: what is asked of it may rest on that,
    /// and an answer that needs no append, such as that it is so already, would be wrong without.
    ///
    /// # Errors
    /// Where the journal's engine does not answer.
    pub(crate) async fn know_all(&self) -> Result<(), Fault> {
        if self.leases.are_shared() { Ok(self.journal.catch_up().await?) } else { Ok(()) }
    }

    /// Decides something by what is known here. An answer that appends nothing and is no is decided once more when all is
    /// known that other origins appended before: what would be appended is judged again by then anyway.
    ///
    /// # Errors
    /// Those of the decision.
    pub(crate) async fn decide<T>(&self, decide: impl Fn() -> Result<T, Fault>) -> Result<T, Fault> {
        match decide() {
            Err(Fault::UnknownToken | Fault::NotFound(_) | Fault::Precondition(_) | Fault::Conflict(_)) if self.leases.are_shared() => {
                self.journal.catch_up().await?;
                decide()
            }
            decided => decided,
        }
    }

    /// Returns what this origin knows of followers and their leases. Hold it briefly.
    pub(crate) fn book(&self) -> Book<'_> {
        self.leases.book()
    }

    /// Tells of every ack, so that whoever waits for completion looks again.
    pub(crate) fn watch_book(&self) -> watch::Receiver<u64> {
        self.leases.watch()
    }

    /// Appends facts and returns the place of the last one, durable.
    pub(crate) async fn append(&self, actor: &str, facts: Vec<Fact>, if_unchanged: Vec<(String, u64)>) -> Result<Position, Fault> {
        let begun = Instant::now();
        let said: Vec<_> = facts.iter().map(announce).collect();
        let append = self.journal.append(Append { actor: actor.to_owned(), facts, if_unchanged });
        let position = append.instrument(trace::stage!("append")).await?;
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
        self.leases.expect(network.lease).await?;
        let position = ack.position;
        let server = self.journal.proven_run();
        let fit = self.fit(&position).await?;
        self.note_lost_history(fit, position.epoch).await?;
        let answer = self.leases.ack(ack, token, Judged { fit, server }, network.lease).await?;
        if answer.reason == Some(Refused::OtherHistory) {
            tracing::info!(%position, "an ack of another history was refused");
        }
        Ok(answer)
    }

    /// Takes an edge out of service; tells whether there is such an edge.
    pub(crate) async fn drain(&self, edge: &NodeName) -> Result<bool, Fault> {
        self.leases.drain(edge).await
    }

    /// Returns the journal's head, and up to where every edge has applied it or is fenced.
    pub(crate) async fn progress(&self) -> (Position, u64) {
        self.leases.progress().await
    }

    /// Forgets followers that nothing was heard of for long, and stores what is known of the others.
    pub(crate) async fn tidy(&self) -> Result<(), Fault> {
        self.leases.tidy().await
    }

    /// Judges a position that a follower or a client shows. One that is further than this origin may have been told by
    /// another one: it is judged once more when all is shown here that the journal holds.
    pub(crate) async fn fit(&self, position: &Position) -> Result<Fit, Fault> {
        let fit = self.journal.fit(position).await?;
        if fit == Fit::Here || fit == Fit::Cut {
            return Ok(fit);
        }
        self.journal.catch_up().await?;
        Ok(self.journal.fit(position).await?)
    }

    /// A follower that has seen more of this history than we hold proves that the journal lost its end.
    pub(crate) async fn note_lost_history(&self, fit: Fit, epoch: Epoch) -> Result<(), Fault> {
        if fit == Fit::Lost {
            tracing::warn!("a follower knows events that this journal does not hold: it lost its end");
            self.journal.begin_epoch(epoch).await?;
        }
        Ok(())
    }

    /// Returns what became of the event at `seq`, or waits for its completion until `timeout`.
    pub(crate) async fn receipt(&self, seq: u64, timeout: Duration, notes: Vec<String>) -> Result<Receipt, Fault> {
        let deadline = boottime() + timeout;
        let mut changes = self.watch_book();
        let event = self.stored_event(seq).await?;
        loop {
            let now = boottime();
            // In another life of a journal that others share this event may be another one.
            if self.leases.are_shared() && self.journal.head().epoch != event.position.epoch {
                return Err(Fault::Gone(format!(
                    "{} is of a life of the journal that has ended: purge what it purged again",
                    event.position
                )));
            }
            let (complete, next) = self.leases.judge(seq, now);
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
        let notes = [notes, self.custody.losses()].concat();
        Receipt { position: event.position, seq, state, may_serve, followers, again_at: event.again_at, notes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;
    use wire::{Mode, Owner, PROTOCOL, Role, Scope};

    async fn core(folder: &Path) -> Core {
        let settings = Settings::from_text("[sites.www]\nhosts = [\"*\"]\n", &folder.join("atoll.toml"), [], []).unwrap();
        let blobs = Arc::new(Blobs::open(&folder.join("blobs")).await.unwrap());
        let variants = Variants::open(&folder.join("variants")).unwrap();
        let journal = Journal::open(folder, false).unwrap();
        let leases = Leases::embedded(journal.clone());
        Core::new(settings, (journal, leases, Custody::own()), blobs, variants, Own::default(), CancellationToken::new())
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
}
