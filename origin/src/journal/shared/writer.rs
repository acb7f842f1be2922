//! The one writer of the shared engine: decides what waits as one batch, appends it if nobody else did meanwhile, and shows
//! what is durable, its own events and those of others, in order and without gaps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use engine::Trouble;
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire::{Epoch, Position, State, Timestamp};

use super::super::batch::{Base, Batch, Row};
use super::super::shown::Shown;
use super::super::{AppendError, Job, Reply, next_life};
use super::asks::Asks;
use super::load;
use super::open::Known;
use super::said::{Entry, Said, Word};
use super::shelf::{Line, Shelf};
use super::snapshots::Snapshots;
use super::tail::News;
use crate::clock::boottime;

/// Bytes of JSON after which a batch takes no further append: no other call may wait for long behind it.
const BATCH_BYTES: usize = 8 << 20;

/// How often it looks whether all is as it believes, while nothing happens.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The same where nothing tells of others' events: a cluster has no connection that could wait for them.
const LOOK_OFTEN: Duration = Duration::from_millis(50);

/// After how long something that failed is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How long others' events may lack their replicas before this origin asks for them: whoever wrote them may be gone.
const SETTLE_AFTER: Duration = Duration::from_millis(500);

/// How long nothing is appended to a process that is new here: what it lost, others may put back first.
pub(super) const HEALING: Duration = Duration::from_secs(3);

/// How often another life is begun before it is given up for now.
const ATTEMPTS: usize = 8;

/// Tells whether a server said that it did nothing of it: it is full, only reads, or lets nobody write.
fn was_refused(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Refused(error) => matches!(
            error.code(),
            Some("OOM" | "READONLY" | "MISCONF" | "LOADING" | "NOREPLICAS" | "NOPERM" | "NOAUTH" | "MASTERDOWN" | "CLUSTERDOWN")
        ),
        Trouble::Denied(_) => true,
        Trouble::Away(_) | Trouble::Slow(_) => false,
    }
}

pub(super) struct Writer {
    pub(super) shelf: Arc<Shelf>,
    pub(super) shown: Arc<Shown>,
    /// Which process it believes to be there.
    pub(super) run: String,
    pub(super) turn: String,
    /// The last event that is known to be written.
    pub(super) written: Position,
    /// What is written and not shown yet.
    pub(super) pending: VecDeque<Row>,
    /// Up to where replicas have it.
    pub(super) durable: u64,
    pub(super) asks: Asks,
    /// What was sent, and nobody knows whether it was appended.
    pub(super) flight: Option<Batch>,
    /// The process changed, and this history was not found again since.
    pub(super) is_unproven: bool,
    /// Written, but replicas did not say that they have it: nothing more is appended before they do.
    pub(super) is_stuck: bool,
    pub(super) healing_until: Instant,
    pub(super) settle_at: Option<Instant>,
    /// Something has to be found out before anything else is done.
    is_unsure: bool,
    is_tailed: bool,
    why: String,
    look_at: Instant,
    retry_at: Instant,
    /// Who waits until all is shown that there was.
    catching_up: Vec<Reply<()>>,
    caught_up: VecDeque<(u64, Reply<()>)>,
    pub(super) snapshots: Snapshots,
}

impl Writer {
    pub(super) fn new(shelf: Arc<Shelf>, shown: Arc<Shown>, known: &Known) -> Self {
        let (now, written) = (Instant::now(), shown.head());
        Self {
            snapshots: Snapshots::new(&shelf, known.snapshot),
            run: shown.run(),
            shelf,
            shown,
            turn: known.turn.clone(),
            written,
            pending: VecDeque::new(),
            durable: written.seq,
            asks: Asks::default(),
            flight: None,
            is_unproven: false,
            is_stuck: false,
            healing_until: if known.is_first { now + HEALING } else { now },
            settle_at: None,
            is_unsure: false,
            is_tailed: false,
            why: String::new(),
            look_at: now,
            retry_at: now,
            catching_up: Vec::new(),
            caught_up: VecDeque::new(),
        }
    }

    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>, mut news: mpsc::Receiver<News>) {
        loop {
            let wake = self.wake(Instant::now());
            let job = tokio::select! {
                job = jobs.recv(), if self.asks.has_room() => match job {
                    Some(job) => Some(job),
                    None => return,
                },
                news = news.recv() => match news {
                    Some(news) => {
                        self.hear(news);
                        None
                    }
                    // Who hears of other origins' events is gone, and with it all that they append.
                    None => {
                        self.give_up();
                        return;
                    }
                },
                () = tokio::time::sleep_until(wake) => None,
            };
            let mut next = job;
            while let Some(job) = next {
                if let Job::Stop(reply) = job {
                    self.work().await;
                    self.give_up();
                    let _ = reply.send(Ok(()));
                    return;
                }
                self.take_job(job).await;
                next = if self.asks.has_room() { jobs.try_recv().ok() } else { None };
            }
            self.work().await;
        }
    }

    /// Nothing more is written: what is on its way may have been.
    fn give_up(&mut self) {
        let in_flight = self.flight.as_ref().map_or(0, |batch| batch.verdicts.len());
        self.asks.give_up(in_flight);
    }

    /// When there is something to do though nothing happens.
    fn wake(&self, now: Instant) -> Instant {
        let at = match self.settle_at {
            _ if self.is_unsure => self.retry_at,
            Some(settle_at) => settle_at.min(self.look_at),
            None => self.look_at,
        };
        if self.asks.is_empty() { at } else { at.min(now + RETRY / 2) }
    }

    async fn take_job(&mut self, job: Job) {
        let elsewhere = || Err(AppendError::Storage("with a shared journal the shared lease book keeps that".to_owned()));
        match job {
            Job::Append { append, reply, until } => self.asks.push(append, reply, until),
            Job::CatchUp(reply) => {
                self.catching_up.push(reply);
                self.look_at = Instant::now();
            }
            Job::NewEpoch { only_if, reply } => {
                let _ = reply.send(self.begin_epoch(only_if).await);
            }
            Job::Import(state, reply) => {
                let _ = reply.send(self.import(*state).await);
            }
            Job::Followers(_, reply) | Job::LongestLease(_, reply) => {
                let _ = reply.send(elsewhere());
            }
            Job::Stop(reply) => drop(reply),
        }
    }

    /// Takes in what the tail heard.
    fn hear(&mut self, news: News) {
        match news {
            News::Connected | News::Away => {
                self.is_tailed = matches!(news, News::Connected);
                // Whoever answers now may be another process.
                self.lose_sight("the connection to its news ended");
            }
            // What is missed now is looked for.
            _ if self.is_unsure => {}
            News::Durable(epoch, seq) if epoch == self.written.epoch => self.durable = self.durable.max(seq),
            News::Durable(..) => self.lose_sight("another life began"),
            News::Events(entries) => {
                if let Err(why) = self.take(entries) {
                    self.lose_sight(&why);
                }
            }
        }
        self.show();
    }

    async fn work(&mut self) {
        self.look_if_due().await;
        if !self.is_unsure {
            self.settle_if_due().await;
        }
        while self.may_append() {
            self.append().await;
        }
        self.expire();
        self.show();
        self.snapshots.write_if_due(&self.shelf, &self.shown);
    }

    fn may_append(&self) -> bool {
        !self.is_unsure && !self.is_stuck && self.asks.has_waiting() && Instant::now() >= self.healing_until
    }

    async fn look_if_due(&mut self) {
        let due = if self.is_unsure { self.retry_at } else { self.look_at };
        if Instant::now() < due {
            return;
        }
        let waiting = std::mem::take(&mut self.catching_up);
        let begun = boottime();
        match self.recover().await {
            Ok(()) => {
                self.shown.confirm(begun);
                if self.is_unsure && !self.why.is_empty() {
                    tracing::info!(position = %self.written, "the shared journal is as it should be");
                }
                (self.is_unsure, self.why) = (false, String::new());
                self.look_at = Instant::now() + if self.is_tailed { LOOK_EVERY } else { LOOK_OFTEN };
                self.caught_up.extend(waiting.into_iter().map(|reply| (self.written.seq, reply)));
            }
            Err(trouble) => {
                self.lose_sight(&trouble.to_string());
                self.retry_at = Instant::now() + RETRY;
                for reply in waiting {
                    let _ = reply.send(Err(AppendError::Away(trouble.to_string())));
                }
            }
        }
    }

    /// Something has to be found out first.
    pub(super) fn lose_sight(&mut self, why: &str) {
        if !self.is_unsure {
            tracing::debug!(why, "the shared journal has to be looked at");
            self.retry_at = Instant::now();
        } else if self.why != why {
            tracing::warn!("the shared journal can't be used: {why}");
        }
        (self.is_unsure, self.why) = (true, why.to_owned());
    }

    /// Appends what waits, as much as one batch takes, or takes in what others appended first.
    async fn append(&mut self) {
        let batch = {
            let state = self.shown.state();
            let base = Base::behind(self.written, &self.pending);
            Batch::decide(&state, base, self.asks.appends(), BATCH_BYTES, Timestamp::now())
        };
        if batch.rows.is_empty() {
            self.asks.settle(batch.verdicts, self.written.seq);
            return self.show();
        }
        let lines: Vec<_> = batch.rows.iter().map(Line::of).collect();
        let answer = self.shelf.append(&self.run, &self.written, &self.turn, &lines).await;
        drop(lines);
        match answer {
            Ok((said, is_durable)) if said.word == Word::Done => self.land(batch, is_durable).await,
            Ok((said, _)) => self.follow(said),
            Err(trouble) if was_refused(&trouble) => {
                // It is full until somebody makes room; all else may pass by itself.
                let is_full = matches!(&trouble, Trouble::Refused(error) if error.code() == Some("OOM"));
                let kind = if is_full { AppendError::Storage } else { AppendError::Away };
                self.asks.refuse(batch.verdicts.len(), || kind(trouble.to_string()));
                self.lose_sight(&trouble.to_string());
            }
            Err(trouble) => {
                self.flight = Some(batch);
                self.lose_sight(&trouble.to_string());
            }
        }
        // Under a storm of others' appends some of what waits may have waited too long.
        self.expire();
    }

    fn expire(&mut self) {
        let in_flight = self.flight.as_ref().map_or(0, |batch| batch.verdicts.len());
        let why = match (self.is_unsure, self.is_stuck) {
            (true, _) => self.why.as_str(),
            (false, true) => "replicas lack what was written before",
            (false, false) => "other origins append all the time",
        };
        self.asks.expire(Instant::now(), in_flight, why);
    }

    /// What was sent is written.
    async fn land(&mut self, batch: Batch, is_durable: bool) {
        self.written = batch.position;
        self.asks.settle(batch.verdicts, batch.position.seq);
        self.pending.extend(batch.rows);
        if is_durable {
            self.all_is_durable().await;
        } else {
            tracing::warn!(seq = self.written.seq, "replicas did not confirm in time; nothing more is appended before they do");
            (self.is_stuck, self.settle_at) = (true, Some(Instant::now() + RETRY));
        }
    }

    async fn all_is_durable(&mut self) {
        (self.durable, self.is_stuck) = (self.written.seq, false);
        self.show();
        if self.shelf.has_replicas()
            && let Err(trouble) = self.shelf.raise(&self.run, self.written.epoch, self.written.seq).await
        {
            // Whoever misses it asks the replicas itself.
            tracing::debug!(%trouble, "failed to tell other origins what is durable");
        }
    }

    async fn settle_if_due(&mut self) {
        if self.settle_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        match self.shelf.confirm(&self.run, self.written.epoch).await {
            Ok((said, true)) if said.word == Word::Done => self.all_is_durable().await,
            Ok((said, false)) if said.word == Word::Done => self.settle_at = Some(Instant::now() + RETRY),
            Ok(_) => self.lose_sight("another life or another process began"),
            Err(trouble) => self.lose_sight(&trouble.to_string()),
        }
    }

    /// The head is another one: takes in what is new, so that what waits can be decided on it.
    fn follow(&mut self, said: Said) {
        if said.word != Word::Here {
            return self.lose_sight("its history is another one");
        }
        let is_unchanged = said.entries.is_empty() && said.turn == self.turn;
        self.learn(&said);
        match self.take(said.entries) {
            Ok(()) if is_unchanged => self.lose_sight("events behind it are missing"),
            Ok(()) => self.show(),
            Err(why) => self.lose_sight(&why),
        }
    }

    /// Notes what an answer tells beside the events.
    pub(super) fn learn(&mut self, said: &Said) {
        said.turn.clone_into(&mut self.turn);
        self.durable = self.durable.max(said.durable);
        self.snapshots.learn(said.snapshot);
    }

    /// Takes in events that are new here, each of which must be the very next one.
    pub(super) fn take(&mut self, entries: Vec<Entry>) -> Result<(), String> {
        for entry in entries {
            if entry.epoch == self.written.epoch && entry.seq <= self.written.seq {
                continue;
            }
            let row = load::follow_on(&self.written, entry).map_err(|(seq, why)| format!("event {seq}: {why}"))?;
            self.written = Position { seq: row.event.seq, chain: row.chain, ..self.written };
            self.pending.push_back(row);
            self.land_if_this_is_it();
        }
        if self.settle_at.is_none() && self.shelf.has_replicas() && !self.pending.is_empty() {
            self.settle_at = Some(Instant::now() + SETTLE_AFTER);
        }
        Ok(())
    }

    /// What was sent without an answer is there exactly if the chain at its end is its own.
    fn land_if_this_is_it(&mut self) {
        let ends_here = self.flight.as_ref().is_some_and(|batch| batch.position.seq == self.written.seq);
        if ends_here
            && let Some(batch) = self.flight.take()
            && batch.position.chain == self.written.chain
        {
            self.asks.settle(batch.verdicts, batch.position.seq);
        }
    }

    /// Shows what is durable by now, and answers what rests on it.
    pub(super) fn show(&mut self) {
        let durable = if self.shelf.has_replicas() { self.durable } else { u64::MAX };
        let end = self.pending.partition_point(|row| row.event.seq <= durable);
        self.shown.publish(self.pending.drain(..end).collect(), boottime());
        if durable >= self.written.seq {
            (self.is_stuck, self.settle_at) = (false, None);
        }
        let shown = self.shown.head().seq;
        self.asks.pay(shown);
        // Who has left does not wait any more.
        for (seq, reply) in std::mem::take(&mut self.caught_up) {
            if seq <= shown {
                let _ = reply.send(Ok(()));
            } else if !reply.is_closed() {
                self.caught_up.push_back((seq, reply));
            }
        }
    }

    /// Returns the fold of all that was written, also of what is not shown yet.
    pub(super) fn own_state(&self) -> State {
        let mut state = self.shown.state().clone();
        for row in &self.pending {
            let position = Position { seq: row.event.seq, chain: row.chain, ..state.position };
            state.apply(&row.event, position);
        }
        state
    }

    async fn begin_epoch(&mut self, only_if: Epoch) -> Result<(), AppendError> {
        for _ in 0..ATTEMPTS {
            self.recover().await.map_err(|trouble| AppendError::Away(trouble.to_string()))?;
            if self.written.epoch != only_if {
                return Ok(());
            }
            // On exactly this head, so that nothing that another origin appended meanwhile is lost.
            let (next, expected) = (next_life(self.own_state()), self.written);
            self.begin(next, Some(&expected)).await.map_err(|trouble| AppendError::Unknown(trouble.to_string()))?;
        }
        Err(AppendError::Away("other origins append all the time".to_owned()))
    }

    async fn import(&mut self, state: State) -> Result<(), AppendError> {
        let next = next_life(state);
        for _ in 0..ATTEMPTS {
            self.recover().await.map_err(|trouble| AppendError::Away(trouble.to_string()))?;
            if self.written.epoch == next.position.epoch {
                return Ok(());
            }
            if self.written.seq > 0 {
                return Err(AppendError::NotEmpty);
            }
            let expected = self.written;
            self.begin(next.clone(), Some(&expected)).await.map_err(|trouble| AppendError::Unknown(trouble.to_string()))?;
        }
        Err(AppendError::Away("other origins change it all the time".to_owned()))
    }
}
