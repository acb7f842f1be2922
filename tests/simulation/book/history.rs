//! One history: a book, the origins that share it, edges that ask them, and messages on their way.

use std::collections::BTreeMap;
use std::time::Duration;

use origin::cores::{Arbiter, Asked, Candidate, Completed, Distrust, Elsewhere, Mirror, Verdict, Who};
use wire::{Chain, Epoch, Position, Role};

use crate::chance::Chance;

/// True time, in milliseconds.
type Time = u64;

/// The lengths that a lease may have.
const LEASES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];

/// How far a clock's rate may be off, in a million: less than half of the margin's hundredth.
const DRIFT: u64 = 3_000;

/// Two of the longest leases with their margins, and one more for origins that have just begun to count.
const BOUND: Time = 3 * (5000 + 5000 / 100 + 50) + 1000;

/// Steps before everything is well again.
const STEPS: u64 = 600;

/// A machine's clock.
#[derive(Clone, Copy, Debug)]
struct Clock {
    offset: u64,
    /// Of a million.
    rate: u64,
}

impl Clock {
    fn new(chance: &mut Chance) -> Self {
        Self { offset: chance.between(1, 1_000_000), rate: 1_000_000 - DRIFT + chance.between(0, 2 * DRIFT) }
    }

    fn at(self, now: Time) -> Duration {
        Duration::from_micros(self.offset * 1000 + now * self.rate / 1000)
    }
}

#[derive(Debug)]
struct Origin {
    clock: Clock,
    mirror: Mirror,
    /// The journal as far as it has come here, and when each event did.
    head: Position,
    seen: BTreeMap<u64, Duration>,
    lease: Duration,
    paused_until: Time,
    /// Which process it is: what was asked in the name of another is not answered.
    life: u64,
}

#[derive(Debug)]
struct Edge {
    who: Who,
    clock: Clock,
    life: u64,
    epoch: Epoch,
    applied: u64,
    until: Duration,
}

#[derive(Debug)]
enum Message {
    Ack { edge: usize, life: u64, position: Position, sent: Duration, origin: (usize, u64) },
    Lease { edge: usize, life: u64, epoch: Epoch, sent: Duration, lease: Duration },
    Complete { origin: (usize, u64), candidate: Candidate },
}

/// A world with one history.
#[derive(Debug)]
pub(crate) struct World {
    chance: Chance,
    now: Time,
    book: Arbiter,
    /// The book as it was at an earlier time.
    older: Option<Arbiter>,
    servers: u64,
    journal: Position,
    epochs: u8,
    /// The highest seq that was made complete in this epoch.
    complete: u64,
    lease: Duration,
    origins: Vec<Origin>,
    edges: Vec<Edge>,
    messages: Vec<(Time, Message)>,
    /// The longest pause between two steps, and the longest that a message takes.
    pace: Time,
    slowest: Time,
    pub(crate) happened: BTreeMap<&'static str, u64>,
}

#[expect(clippy::expect_used, reason = "the names are written here")]
fn named(name: &str) -> Who {
    (Role::Edge, name.parse().expect("a node's name"))
}

fn at(epoch: u8, seq: u64) -> Position {
    Position { epoch: Epoch::from_bytes([epoch; 8]), seq, chain: Chain::START }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Chance::of(seed);
        let mut book = Arbiter::new("server0");
        book.set_journal(at(1, 0).epoch, 0);
        let edges = ["a", "b", "c", "d"].into_iter().take(1 + chance.index(4));
        let edges = edges.map(|name| Edge {
            who: named(name),
            clock: Clock::new(&mut chance),
            life: 0,
            epoch: at(1, 0).epoch,
            applied: 0,
            until: Duration::ZERO,
        });
        let edges = edges.collect();
        let mut world = Self {
            now: 0,
            book,
            older: None,
            servers: 0,
            journal: at(1, 0),
            epochs: 1,
            complete: 0,
            lease: LEASES[0],
            origins: Vec::new(),
            edges,
            messages: Vec::new(),
            pace: [5, 50, 300, 1200][chance.index(4)],
            slowest: [5, 200, 4000, 9000][chance.index(4)],
            happened: BTreeMap::new(),
            chance,
        };
        for _ in 0..world.chance.between(1, 3) {
            let origin = world.new_origin(0);
            world.origins.push(origin);
        }
        (0..world.origins.len()).for_each(|origin| world.load(origin));
        world
    }

    fn new_origin(&mut self, life: u64) -> Origin {
        let (clock, mirror) = (Clock::new(&mut self.chance), Mirror::new());
        Origin { clock, mirror, head: self.journal, seen: BTreeMap::new(), lease: self.lease, paused_until: 0, life }
    }

    fn count(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    /// Lives through the history; returns the first rule that was broken.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        for step in 0..STEPS {
            self.now += self.chance.between(1, self.pace);
            self.check().map_err(|wrong| format!("step {step}: {wrong}"))?;
            self.step();
        }
        self.heal()
    }

    /// P1: no edge that holds a lease by its own count is below what was made complete.
    fn check(&self) -> Result<(), String> {
        for edge in self.edges.iter().filter(|edge| self.complete > 0 && edge.clock.at(self.now) < edge.until) {
            if edge.epoch != self.journal.epoch || edge.applied < self.complete {
                return Err(format!("{:?} relies on {} while {} is complete", edge.who, edge.applied, self.complete));
            }
        }
        Ok(())
    }

    fn step(&mut self) {
        let (edge, origin) = (self.chance.index(self.edges.len()), self.chance.index(self.origins.len()));
        match self.chance.between(0, 999) {
            0..80 => self.append(),
            80..300 => self.read(origin),
            300..420 => self.apply(edge),
            420..600 => self.ask(edge, origin),
            600..630 => self.edge_restarts(edge),
            630..640 => self.origin_restarts(origin),
            640..655 => self.origins[origin].paused_until = self.now + self.chance.between(0, 20_000),
            655..660 => self.older = Some(self.book.clone()),
            660..664 => self.book_restarts(),
            664..667 => self.epoch_ends(),
            667..672 => self.lease = LEASES[self.chance.index(LEASES.len())],
            672..720 => self.try_completing(origin),
            _ => self.deliver(),
        }
    }

    fn append(&mut self) {
        self.journal.seq += 1;
        self.book.set_journal(self.journal.epoch, self.journal.seq);
    }

    /// An origin reads some of the journal and of the log.
    fn read(&mut self, origin: usize) {
        let some = 1 + self.chance.index(3);
        self.read_journal(origin);
        if self.origins[origin].paused_until <= self.now {
            self.read_log(origin, some);
        }
    }

    fn read_journal(&mut self, index: usize) {
        let (journal, lease) = (self.journal, self.lease);
        let seq = if self.chance.of_thousand(700) { journal.seq } else { self.chance.between(0, journal.seq) };
        let origin = &mut self.origins[index];
        let now = origin.clock.at(self.now);
        let seq = if origin.head.epoch == journal.epoch { seq.max(origin.head.seq) } else { journal.seq };
        for seen in origin.head.seq + 1..=seq {
            origin.seen.insert(seen, now);
        }
        (origin.head, origin.lease) = (Position { seq, ..journal }, lease);
        if origin.mirror.epoch() != Some(origin.head.epoch) {
            self.load(index);
        }
    }

    fn read_log(&mut self, index: usize, most: usize) {
        let entries = self.book.entries(self.origins[index].mirror.log(), most);
        let origin = &mut self.origins[index];
        let now = origin.clock.at(self.now);
        // Where nothing comes, the book is looked at: it may be another one.
        let is_other = entries.is_empty() && self.book.load().is_none_or(|table| table.run != origin.mirror.run());
        if is_other || !entries.iter().all(|entry| origin.mirror.learn(entry, now)) {
            self.load(index);
        }
    }

    /// As the shell around the mirror does it.
    fn load(&mut self, index: usize) {
        self.count("reloaded");
        for _ in 0..4 {
            let origin = &mut self.origins[index];
            let head = origin.head;
            let Some(table) = self.book.load() else {
                let name = format!("{index}.{}", self.chance.number());
                let longest = origin.mirror.longest().max(origin.lease);
                let known = origin.mirror.run().to_owned();
                let why = Distrust { known: &known, name: &name, epoch: head.epoch, head: head.seq, longest, assumed: LEASES[1] };
                let _ = self.book.distrust(&why);
                continue;
            };
            if table.epoch != head.epoch && !matches!(self.book.begin_epoch(&table.run, head.epoch, head.seq), Err(Elsewhere::Epoch(_))) {
                continue;
            }
            let (run, epoch) = (table.run.clone(), table.epoch);
            origin.mirror.load(table, origin.lease, origin.clock.at(self.now));
            let _ = self.book.recall(&run, epoch, &origin.mirror.lost());
            return;
        }
    }

    /// An edge puts more of the journal in force, or leaves an epoch that has ended.
    fn apply(&mut self, index: usize) {
        let journal = self.journal;
        let edge = &mut self.edges[index];
        if edge.epoch != journal.epoch {
            (edge.epoch, edge.applied, edge.until) = (journal.epoch, journal.seq, Duration::ZERO);
        } else if journal.seq > edge.applied {
            edge.applied = self.chance.between(edge.applied, journal.seq);
        }
    }

    fn ask(&mut self, index: usize, origin: usize) {
        let edge = &self.edges[index];
        let position = Position { epoch: edge.epoch, seq: edge.applied, chain: Chain::START };
        let (life, sent, origin) = (edge.life, edge.clock.at(self.now), (origin, self.origins[origin].life));
        self.send(Message::Ack { edge: index, life, position, sent, origin });
    }

    fn send(&mut self, message: Message) {
        let slowest = if self.chance.of_thousand(800) { 20 } else { self.slowest };
        let at = self.now + self.chance.between(1, slowest);
        self.messages.push((at, message));
    }

    fn edge_restarts(&mut self, index: usize) {
        let keeps = self.chance.of_thousand(500);
        let journal = self.journal;
        let edge = &mut self.edges[index];
        (edge.life, edge.until) = (edge.life + 1, Duration::ZERO);
        if !keeps && edge.epoch == journal.epoch {
            edge.applied = self.chance.between(0, edge.applied);
        }
    }

    fn origin_restarts(&mut self, index: usize) {
        let life = self.origins[index].life + 1;
        self.origins[index] = Origin { clock: self.origins[index].clock, ..self.new_origin(life) };
        self.load(index);
    }

    /// The book's process is replaced by one that has lost what it knew last, or nothing.
    fn book_restarts(&mut self) {
        self.count("lost");
        if let Some(older) = self.older.take() {
            self.book = older;
        }
        self.servers += 1;
        self.book.restart(&format!("server{}", self.servers));
        self.book.set_journal(self.journal.epoch, self.journal.seq);
    }

    fn epoch_ends(&mut self) {
        self.count("an epoch");
        self.epochs = self.epochs.wrapping_add(1);
        self.journal = at(self.epochs, self.journal.seq);
        self.complete = 0;
        self.book.set_journal(self.journal.epoch, self.journal.seq);
    }

    fn try_completing(&mut self, index: usize) {
        let origin = &self.origins[index];
        let life = origin.life;
        if let Some(candidate) = origin.mirror.candidate(&origin.head, origin.clock.at(self.now)) {
            self.send(Message::Complete { origin: (index, life), candidate });
        }
    }

    fn deliver(&mut self) {
        let due: Vec<usize> = (0..self.messages.len()).filter(|at| self.messages[*at].0 <= self.now).collect();
        if !due.is_empty() {
            let (_, message) = self.messages.swap_remove(due[self.chance.index(due.len())]);
            self.receive(message);
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Ack { edge, life, position, sent, origin } => self.hear(edge, life, position, sent, origin),
            Message::Lease { edge, life, epoch, sent, lease } => {
                let edge = &mut self.edges[edge];
                if edge.life == life && edge.epoch == epoch {
                    edge.until = edge.until.max(sent + lease);
                }
            }
            Message::Complete { origin, candidate } => self.make_complete(origin, candidate),
        }
    }

    /// An ack comes to its origin, which asks the book at once.
    fn hear(&mut self, edge: usize, life: u64, position: Position, sent: Duration, (index, origin_life): (usize, u64)) {
        let origin = &self.origins[index];
        if origin.life != origin_life || position.epoch != origin.head.epoch {
            return;
        }
        let (lease, run) = (origin.lease, origin.mirror.run().to_owned());
        let unapplied = (position.seq < origin.head.seq).then(|| origin.seen.get(&(position.seq + 1)).copied().unwrap_or_default());
        let is_laggard = unapplied.is_some_and(|seen| origin.clock.at(self.now).saturating_sub(seen) > lease);
        let who = self.edges[edge].who.clone();
        let asked = Asked { who, life: life.to_string(), seq: position.seq, lease, is_laggard, news: String::new() };
        match self.book.ack(&run, position.epoch, &[asked]) {
            Ok(acked) if matches!(acked.verdicts[..], [Verdict::Granted(_)]) => {
                self.count("granted");
                self.send(Message::Lease { edge, life, epoch: position.epoch, sent, lease });
            }
            Ok(_) => self.count("refused"),
            Err(_) => self.load(index),
        }
    }

    fn make_complete(&mut self, origin: (usize, u64), candidate: Candidate) {
        match self.book.complete(&candidate.run, candidate.epoch, candidate.seq, &candidate.ended) {
            Ok(Some(Completed { seq, .. })) => {
                if candidate.epoch == self.journal.epoch {
                    self.complete = self.complete.max(seq);
                }
                self.count("completed");
                if !candidate.ended.is_empty() {
                    self.count("completed over an ended lease");
                }
            }
            Ok(None) => self.count("completion refused"),
            Err(_) if self.origins[origin.0].life == origin.1 => self.load(origin.0),
            Err(_) => {}
        }
    }

    /// P2: everything is well again but the edges: the first leaves what comes now unapplied and goes on asking, the last is cut off.
    fn heal(&mut self) -> Result<(), String> {
        self.append();
        let last = self.edges.len() - 1;
        // A run or an epoch is noticed now, and acks are on their way: that starts the two leases of the bound anew.
        let bound = self.now + BOUND + self.slowest;
        self.origins.iter_mut().for_each(|origin| origin.paused_until = 0);
        while self.now < bound {
            self.now += 20;
            self.check().map_err(|wrong| format!("while healing: {wrong}"))?;
            for index in 0..self.origins.len() {
                self.follow(index);
            }
            for edge in 0..last.max(1) {
                self.catch_up(edge);
                let origin = self.chance.index(self.origins.len());
                self.ask(edge, origin);
            }
            let due: Vec<_> = self.messages.extract_if(.., |(at, _)| *at <= self.now).collect();
            due.into_iter().for_each(|(_, message)| self.receive(message));
        }
        self.is_well()
    }

    fn catch_up(&mut self, index: usize) {
        let journal = self.journal;
        let edge = &mut self.edges[index];
        if edge.epoch != journal.epoch {
            (edge.epoch, edge.applied, edge.until) = (journal.epoch, journal.seq - 1, Duration::ZERO);
        }
        if index > 0 {
            edge.applied = journal.seq;
        }
    }

    fn follow(&mut self, index: usize) {
        let (journal, lease) = (self.journal, self.lease);
        let origin = &mut self.origins[index];
        let now = origin.clock.at(self.now);
        for seen in origin.head.seq + 1..=journal.seq {
            origin.seen.insert(seen, now);
        }
        (origin.head, origin.lease) = (journal, lease);
        if origin.mirror.epoch() != Some(journal.epoch) {
            self.load(index);
        }
        self.read_log(index, usize::MAX);
        self.try_completing(index);
    }

    fn is_well(&mut self) -> Result<(), String> {
        for index in 0..self.origins.len() {
            self.read_log(index, usize::MAX);
            let origin = &self.origins[index];
            let said = origin.mirror.said(self.journal.epoch, origin.clock.at(self.now));
            if said < self.journal.seq {
                return Err(format!("origin {index} says {said} is complete, not {}", self.journal.seq));
            }
            if origin.mirror.counted() != self.book.counted() {
                return Err(format!("origin {index} counts {:?}, the book {:?}", origin.mirror.counted(), self.book.counted()));
            }
        }
        Ok(())
    }
}
