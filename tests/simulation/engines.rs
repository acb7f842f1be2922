//! The engine that several origins share, as a pure model of one Redis: what the journal's scripts do there, the lease book beside
//! it, and what is left of both where another process takes its place.

use std::time::Duration;

use origin::cores::{Arbiter, Distrust, Word};
use wire::mistake::{Mistake, makes};
use wire::{Chain, Position, State};

use crate::origin::Stored;

/// Events that stay before a snapshot, for followers that are behind it.
const KEPT: u64 = 16;

/// One process, and all that it holds.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    /// What the process calls itself.
    server: String,
    /// The process that origins agreed on, and the one under which this life of the journal was begun.
    agreed: String,
    begun: String,
    head: Position,
    /// Changes when appends that are under way must not succeed any more.
    turn: u64,
    events: Vec<Stored>,
    snapshot: State,
    /// The number of whoever wrote the snapshot, and the last one that was given out.
    fence: u64,
    fences: u64,
    /// All that was ever appended to it, whatever life it was of.
    history: Vec<Chain>,
    pub(crate) book: Arbiter,
}

/// A script's answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) word: Word,
    pub(crate) actual: String,
    pub(crate) agreed: String,
    pub(crate) begun: String,
    pub(crate) head: Position,
    pub(crate) turn: u64,
    pub(crate) entries: Vec<Stored>,
}

impl Engine {
    /// Returns one on which a journal was just founded.
    pub(crate) fn new(founding: State) -> Self {
        let (server, head) = ("s0".to_owned(), founding.position);
        let mut book = Arbiter::new(&server);
        // Nobody follows yet, so that no lease has to be waited for.
        book.set_journal(head.epoch, 0);
        let (longest, assumed) = (Duration::ZERO, Duration::ZERO);
        let _ = book.distrust(&Distrust { known: "", name: "founded", epoch: head.epoch, head: 0, longest, assumed });
        book.set_journal(head.epoch, head.seq);
        Self {
            agreed: server.clone(),
            begun: server.clone(),
            server,
            head,
            turn: 0,
            events: Vec::new(),
            snapshot: founding,
            fence: 0,
            fences: 0,
            history: Vec::new(),
            book,
        }
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn head(&self) -> Position {
        self.head
    }

    pub(crate) fn events(&self) -> &[Stored] {
        &self.events
    }

    pub(crate) fn snapshot_at(&self) -> u64 {
        self.snapshot.position.seq
    }

    /// Tells whether an event was appended to it, and not lost since.
    pub(crate) fn has(&self, chain: Chain) -> bool {
        self.history.contains(&chain)
    }

    /// Tells whether another one holds all that it holds.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.history.iter().all(|chain| other.history.contains(chain))
    }

    /// Another process goes on with what it holds.
    pub(crate) fn restart(&mut self, server: String) {
        self.book.restart(&server);
        self.server = server;
    }

    fn is_other(&self, run: &str) -> bool {
        self.server != run || self.agreed != run
    }

    fn report(&self, word: Word, entries: Vec<Stored>) -> Answer {
        let (actual, agreed, begun) = (self.server.clone(), self.agreed.clone(), self.begun.clone());
        Answer { word, actual, agreed, begun, head: self.head, turn: self.turn, entries }
    }

    fn behind(&self, seq: u64) -> Vec<Stored> {
        self.events.iter().filter(|stored| stored.event.seq > seq).cloned().collect()
    }

    /// Where a position stands beside what is here.
    fn place(&self, at: &Position) -> Word {
        if at.epoch != self.head.epoch {
            return Word::Epoch;
        }
        let fits = |is_it: bool| if is_it { Word::Here } else { Word::Other };
        if at.seq >= self.head.seq {
            return if at.seq > self.head.seq { Word::Behind } else { fits(at.chain == self.head.chain) };
        }
        match self.events.iter().find(|stored| stored.event.seq >= at.seq) {
            Some(first) if first.event.seq == at.seq => fits(first.chain == at.chain),
            Some(first) if first.event.seq == at.seq + 1 => Word::Here,
            _ => Word::Cut,
        }
    }

    /// Says what is behind a position; with a fence, an append that is still under way can't succeed any more.
    pub(crate) fn look(&mut self, run: &str, at: &Position, fence: bool) -> Answer {
        if self.is_other(run) {
            return self.report(Word::Run, Vec::new());
        }
        let word = self.place(at);
        self.turn += u64::from(fence);
        let entries = if word == Word::Here { self.behind(at.seq) } else { Vec::new() };
        self.report(word, entries)
    }

    /// Appends if the head is exactly `at`, or says what is wrong with what is there then.
    pub(crate) fn append(&mut self, run: &str, at: &Position, turn: u64, stored: &[Stored]) -> Result<Answer, String> {
        if self.is_other(run) {
            return Ok(self.report(Word::Run, Vec::new()));
        }
        if !makes(Mistake::AppendUnchecked) {
            let word = self.place(at);
            if word != Word::Here {
                return Ok(self.report(word, Vec::new()));
            }
            if self.head.seq != at.seq || self.turn != turn {
                return Ok(self.report(word, self.behind(at.seq)));
            }
        }
        for stored in stored {
            if !stored.follows(&self.head) {
                let (seq, last) = (stored.event.seq, self.head.seq);
                return Err(format!("P3: event {seq} does not follow from event {last}, behind which it was appended"));
            }
            self.head = Position { seq: stored.event.seq, chain: stored.chain, ..self.head };
            self.history.push(stored.chain);
            self.events.push(stored.clone());
        }
        self.book.set_journal(self.head.epoch, self.head.seq);
        Ok(self.report(Word::Done, Vec::new()))
    }

    /// Agrees on the process that there is now, unless somebody else did.
    pub(crate) fn adopt(&mut self, known: &str, actual: &str) {
        if self.server == actual && self.agreed == known {
            actual.clone_into(&mut self.agreed);
        }
    }

    /// Begins a life of the journal, if the head is exactly `expected`; tells whether it did.
    pub(crate) fn begin(&mut self, run: &str, expected: &Position, next: State) -> bool {
        if self.is_other(run) || self.head != *expected {
            return false;
        }
        self.events.clear();
        self.turn += 1;
        run.clone_into(&mut self.begun);
        self.head = next.position;
        self.snapshot = next;
        self.book.set_journal(self.head.epoch, self.head.seq);
        true
    }

    /// Returns the number under which the next snapshot may be written.
    pub(crate) fn next_fence(&mut self) -> u64 {
        self.fences += 1;
        self.fences
    }

    /// Replaces the snapshot, unless whoever made it is behind; tells whether it did.
    pub(crate) fn take_snapshot(&mut self, run: &str, fence: u64, state: State) -> bool {
        let at = state.position;
        if self.is_other(run) || self.head.epoch != at.epoch {
            return false;
        }
        let is_behind = fence < self.fence || at.seq < self.snapshot.position.seq || self.place(&at) != Word::Here;
        if is_behind && !makes(Mistake::SnapshotFromBehind) {
            return false;
        }
        self.events.retain(|stored| stored.event.seq + KEPT >= at.seq);
        (self.snapshot, self.fence) = (state, fence);
        true
    }

    /// Reads all: the snapshot, and what came behind it.
    pub(crate) fn whole(&self) -> Result<State, String> {
        let mut state = self.snapshot.clone();
        let first = state.position;
        for stored in self.events.iter().filter(|stored| stored.event.seq > first.seq) {
            if stored.event.seq != state.position.seq + 1 {
                return Err(format!("P3: the journal lacks what is between events {} and {}", state.position.seq, stored.event.seq));
            }
            stored.fold_into(&mut state);
        }
        if state.position == self.head {
            return Ok(state);
        }
        Err(format!("P3: the journal's snapshot at {} does not lead to its head at {}", first.seq, self.head.seq))
    }
}
