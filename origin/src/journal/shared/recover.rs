//! Finds out where an origin stands when it is not sure: whether the history that it knows goes on in Redis, what became of
//! a batch that got no answer, and what to do where the history does not go on.

use std::sync::Arc;

use engine::Trouble;
use tokio::time::Instant;
use wire::{Chain, Position, State};

use super::super::{StoredEvent, next_life};
use super::judge::{self, Step, judge};
use super::load::{self, LoadError};
use super::said::{Said, Word};
use super::shelf::Line;
use super::writer::{HEALING, Writer};

/// Steps that are no progress by themselves, after which it tries again later.
const STEPS: usize = 32;

/// Events that are put back at once.
const CHUNK: usize = 256;

impl Writer {
    /// Goes on until this origin knows all that there is. What it had sent without an answer is there then, or can't come
    /// any more.
    pub(super) async fn recover(&mut self) -> Result<(), Trouble> {
        let mut steps = 0;
        while steps < STEPS {
            let said = self.shelf.look(&self.run, &self.written, self.flight.is_some()).await?;
            let step = self.decide(&said);
            // Whoever follows or heals comes nearer each time.
            steps += usize::from(!matches!(step, Step::Follow | Step::Heal));
            match step {
                Step::Follow => {
                    if self.catch_up(said).await? {
                        return Ok(());
                    }
                }
                Step::Meet => self.meet(&said).await?,
                Step::Reload => self.reload().await?,
                Step::Heal => self.heal(&said).await?,
                Step::BeginWithOwn => self.begin_with_own(said.head.as_ref()).await?,
                Step::BeginWithTheirs => self.begin_with_theirs().await?,
            }
        }
        Err(Trouble::Away("it changes faster than this origin follows".to_owned()))
    }

    fn decide(&self, said: &Said) -> Step {
        let known = judge::Known {
            is_unproven: self.is_unproven,
            chain_at: &|seq| self.chain_at(seq),
            has_all_behind: &|seq| seq >= self.shown.head().seq || !self.shown.recent().starting_at(seq + 1, 1).is_empty(),
        };
        judge(&said.told(), &known)
    }

    /// Returns the chain behind an event that is known here.
    fn chain_at(&self, seq: u64) -> Option<Chain> {
        let head = self.shown.head();
        if seq == head.seq {
            return Some(head.chain);
        }
        let pending = self.pending.iter().find(|row| row.event.seq == seq).map(|row| row.chain);
        pending.or_else(|| self.shown.recent().chain_at(seq))
    }

    /// Takes what is new; tells whether that was all.
    async fn catch_up(&mut self, said: Said) -> Result<bool, Trouble> {
        self.learn(&said);
        let is_all = said.entries.is_empty();
        if let Err(why) = self.take(said.entries) {
            tracing::error!("the shared journal does not go on as it should: {why}");
            self.begin_with_theirs().await?;
            return Ok(false);
        }
        self.show();
        if said.head == Some(self.written) {
            // A fence was asked for with the look: what is not there now does not come any more.
            self.flight = None;
            self.is_unproven = false;
            self.shown.prove();
            return Ok(true);
        }
        if is_all {
            tracing::error!(position = %self.written, "the shared journal lacks events behind this one");
            self.begin_with_theirs().await?;
        }
        Ok(false)
    }

    /// Another process answers: what it knows may be less than what was acknowledged, leases among it.
    async fn meet(&mut self, said: &Said) -> Result<(), Trouble> {
        if self.run != said.actual {
            tracing::warn!(run = said.actual, "the journal's Redis is another process: what it knows is compared");
        }
        said.actual.clone_into(&mut self.run);
        self.is_unproven = true;
        self.healing_until = Instant::now() + HEALING;
        self.shown.distrust(&self.run);
        if said.head.is_some() && said.run != said.actual {
            self.shelf.adopt(&said.run, &said.actual).await?;
        }
        Ok(())
    }

    /// Puts back the next of what Redis lost and this origin still has, exactly as it was.
    async fn heal(&mut self, said: &Said) -> Result<(), Trouble> {
        let Some(head) = said.head else { return Ok(()) };
        tracing::warn!(from = head.seq + 1, to = self.written.seq, "Redis lost events that this origin has: they are put back");
        self.shown.distrust(&self.run);
        let recent: Vec<Arc<StoredEvent>> = self.shown.recent().starting_at(head.seq + 1, CHUNK);
        let mut lines: Vec<_> = recent.iter().map(|event| Line::of_stored(event)).collect();
        if lines.is_empty() {
            lines.extend(self.pending.iter().filter(|row| row.event.seq > head.seq).take(CHUNK).map(Line::of));
        }
        let (put_back, is_durable) = self.shelf.append(&self.run, &head, &said.turn, &lines).await?;
        if put_back.word == Word::Done && !is_durable {
            self.must_confirm();
        }
        Ok(())
    }

    /// What is in Redis may be on no replica.
    fn must_confirm(&mut self) {
        self.durable = self.durable.min(self.shown.head().seq.saturating_sub(1));
        (self.is_stuck, self.settle_at) = (true, Some(Instant::now()));
    }

    /// Redis holds less than this origin's state, and what is between is known nowhere event by event.
    async fn begin_with_own(&mut self, found: Option<&Position>) -> Result<(), Trouble> {
        tracing::error!(found = ?found, known = %self.written, "Redis lost events: a new epoch begins with what this origin knows");
        self.shown.distrust(&self.run);
        self.begin(next_life(self.own_state()), found).await
    }

    /// Redis went another way, which others follow already.
    async fn begin_with_theirs(&mut self) -> Result<(), Trouble> {
        tracing::error!(known = %self.written, "the shared journal lost events and went another way: a new epoch begins with what it holds");
        self.shown.distrust(&self.run);
        match load::whole(&self.shelf, &self.run).await {
            Ok(Some((state, _))) => {
                let expected = state.position;
                self.begin(next_life(state), Some(&expected)).await
            }
            Ok(None) => Ok(()),
            Err(LoadError::Trouble(trouble)) => Err(trouble),
            Err(LoadError::Damaged { seq, why }) => self.replace_damaged(seq, &why).await,
        }
    }

    /// What can't be read helps nobody; what this origin knows was acknowledged once.
    async fn replace_damaged(&mut self, seq: u64, why: &str) -> Result<(), Trouble> {
        tracing::error!("the shared journal is damaged at event {seq}: {why}");
        let said = self.shelf.load().await?;
        self.begin_with_own(said.head.as_ref()).await
    }

    /// Begins another life, if the head is exactly that. Whether it did, and what came of it, the next look tells.
    pub(super) async fn begin(&mut self, next: State, expected: Option<&Position>) -> Result<(), Trouble> {
        let position = next.position;
        let bytes = load::encode(next).await.map_err(Trouble::Away)?;
        self.shelf.begin(&self.run, expected, &position, &bytes).await?;
        Ok(())
    }

    /// Reads all anew: another life began, or too much was missed.
    async fn reload(&mut self) -> Result<(), Trouble> {
        let (state, said) = match load::whole(&self.shelf, &self.run).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => return Ok(()),
            Err(LoadError::Trouble(trouble)) => return Err(trouble),
            Err(LoadError::Damaged { seq, why }) => return self.replace_damaged(seq, &why).await,
        };
        if self.shelf.has_replicas() {
            let (confirmed, is_durable) = self.shelf.confirm(&self.run, state.position.epoch).await?;
            if confirmed.word != Word::Done || !is_durable {
                return Err(Trouble::Away("its replicas don't have all that it has".to_owned()));
            }
        }
        tracing::warn!(from = %self.written, to = %state.position, "the shared journal is read anew; followers load the snapshot");
        let in_flight = self.flight.take().map_or(0, |batch| batch.verdicts.len());
        self.asks.give_up(in_flight);
        self.pending.clear();
        (self.written, self.durable) = (state.position, state.position.seq);
        (self.is_stuck, self.settle_at) = (false, None);
        self.snapshots.forget();
        self.learn(&said);
        self.shown.replace(state);
        self.show();
        Ok(())
    }
}
