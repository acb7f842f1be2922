//! The world: true time, what is on its way, and who gets it. Everything happens at one moment after another, by one
//! seed, and after each step the rules are checked.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use follow::Standing;
use origin::cores::Fit;
use wire::mistake::{Mistake, makes};
use wire::{Ack, AckAnswer, Alias, Class, Digest, Epoch, Fact, FeedLine, Mode, Owner, Position, Scope, State, lease_margin};

use crate::chance::Chance;
use crate::clock::Clock;
use crate::edge::{Deed, Edge};
use crate::named;
use crate::origin::{Completion, Config, Feed, Origin, unknown};
use crate::plan::{Fault, KEYS, MS, Plan, Time, Write, pick};
use crate::serving::{Address, Head, Visit, Wish};
use crate::shared::{SharedEntry, SharedTier};
use crate::truth::{About, Configured, Purge, Truth};
use crate::upstream::Upstream;

/// What happens at a moment.
#[derive(Debug)]
pub(crate) enum What {
    /// A follower's call comes to the origin.
    Follow {
        at: usize,
        life: u64,
        number: u64,
        after: Position,
    },
    Snapshot {
        at: usize,
        life: u64,
        number: u64,
    },
    Ack {
        at: usize,
        life: u64,
        number: u64,
        ack: Box<Ack>,
    },
    /// What was appended is durable, and may be told.
    Durable {
        life: u64,
        seq: u64,
    },
    OriginBeats {
        life: u64,
    },
    Completes {
        life: u64,
    },
    OriginStarts {
        restored: bool,
    },
    /// The origin's answers and lines come to an edge.
    Line {
        at: usize,
        life: u64,
        number: u64,
        line: Box<FeedLine>,
    },
    NoFeed {
        at: usize,
        life: u64,
        number: u64,
        is_lost: bool,
    },
    Loaded {
        at: usize,
        life: u64,
        number: u64,
        state: Box<State>,
    },
    AckAnswered {
        at: usize,
        life: u64,
        number: u64,
        answer: AckAnswer,
    },
    /// An edge's own moments.
    Beat {
        at: usize,
        life: u64,
    },
    Purges {
        at: usize,
        life: u64,
    },
    Applied {
        at: usize,
        life: u64,
    },
    EdgeStarts {
        at: usize,
    },
    /// Readers and the caches behind them.
    Read {
        at: usize,
        key: usize,
        wish: Wish,
        came: Time,
    },
    Reader,
    SharedRead {
        region: usize,
        at: usize,
        life: u64,
        visit: Box<Visit>,
        tombstone: u64,
        generation: u64,
    },
    SharedAnswer {
        at: usize,
        life: u64,
        visit: Box<Visit>,
        found: Option<SharedEntry>,
        tombstone: u64,
        generation: u64,
    },
    SharedWrite {
        region: usize,
        key: usize,
        entry: SharedEntry,
        standing: Standing,
    },
    SharedRemove {
        region: usize,
        key: usize,
    },
    Upstream {
        at: usize,
        life: u64,
        fill: u64,
        key: usize,
        known: Option<u64>,
        back: Time,
    },
    Fetched {
        at: usize,
        life: u64,
        fill: u64,
        version: Option<u64>,
    },
    FetchFailed {
        at: usize,
        life: u64,
        fill: u64,
    },
    FillEnds {
        at: usize,
        life: u64,
        fill: u64,
        id: u64,
    },
    Head {
        at: usize,
        life: u64,
        head: Box<Head>,
    },
    UnsafeWrites {
        at: usize,
        life: u64,
        key: usize,
    },
    UnsafeAnswered {
        at: usize,
        life: u64,
        key: usize,
        written: Time,
        has_answer: bool,
    },
    Announce {
        at: usize,
        life: u64,
        key: usize,
    },
    Announced {
        at: usize,
        life: u64,
        key: usize,
        seq: u64,
    },
    /// Somebody writes, or something breaks, or is mended.
    Write,
    Purge {
        mode: Mode,
        about: About,
        is_unknown: bool,
    },
    Fault,
    Mend {
        at: usize,
    },
    BackUp,
}

/// Who gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Origin,
    Edge(usize),
    Nobody,
}

impl What {
    fn whose(&self) -> Whose {
        match self {
            Self::Follow { .. }
            | Self::Snapshot { .. }
            | Self::Ack { .. }
            | Self::Durable { .. }
            | Self::OriginBeats { .. }
            | Self::Completes { .. }
            | Self::Announce { .. } => Whose::Origin,
            Self::Line { at, .. }
            | Self::NoFeed { at, .. }
            | Self::Loaded { at, .. }
            | Self::AckAnswered { at, .. }
            | Self::Beat { at, .. }
            | Self::Purges { at, .. }
            | Self::Applied { at, .. }
            | Self::Read { at, .. }
            | Self::SharedAnswer { at, .. }
            | Self::Fetched { at, .. }
            | Self::FetchFailed { at, .. }
            | Self::FillEnds { at, .. }
            | Self::Head { at, .. }
            | Self::UnsafeAnswered { at, .. }
            | Self::Announced { at, .. } => Whose::Edge(*at),
            _ => Whose::Nobody,
        }
    }
}

/// How an edge and the origin are connected.
#[derive(Clone, Copy, Debug, Default)]
struct Cable {
    is_cut: bool,
    feed_is_cut: bool,
    /// When the last line that is under way will have come: a connection keeps its order.
    last_line: Time,
}

/// The world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) chance: Chance,
    pub(crate) now: Time,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    coming: BTreeMap<u64, What>,
    names: u64,
    origin: Origin,
    pub(crate) edges: Vec<Edge>,
    cables: Vec<Cable>,
    shared: Vec<SharedTier>,
    pub(crate) upstream: Upstream,
    pub(crate) truth: Truth,
    /// What each edge's site has shown.
    shown: Vec<Option<(Epoch, u64)>>,
    config: Config,
    is_ending: bool,
    must_declare: bool,
    /// When completion is looked at next.
    next_look: Time,
    /// The longest lease that was ever configured.
    longest: Time,
    /// The first rule that was broken.
    pub(crate) broken: Option<String>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    history: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, with_history: bool) -> Self {
        let mut chance = Chance::of(seed);
        let plan = Plan::of(&mut chance);
        let epoch = Epoch::from_bytes(chance.bytes());
        let origin = Origin::new(Clock::new(&mut chance), epoch, chance.bytes(), plan.lease);
        let last = plan.edges - 1;
        let named = |at: usize| named(&format!("e{}", if plan.has_twin && at == last { 0 } else { at }));
        let edges: Vec<_> = (0..plan.edges).map(|at| Edge::new(at, named(at), at % plan.regions, Clock::new(&mut chance))).collect();
        let mut world = Self {
            now: 0,
            queue: BinaryHeap::new(),
            coming: BTreeMap::new(),
            names: 0,
            cables: vec![Cable::default(); edges.len()],
            shown: vec![None; edges.len()],
            shared: (0..plan.regions).map(|_| SharedTier::default()).collect(),
            upstream: Upstream::new(plan.lag),
            truth: Truth { is_uncertain: plan.has_twin, ..Truth::default() },
            config: origin.config(),
            origin,
            edges,
            longest: plan.lease,
            plan,
            chance,
            is_ending: false,
            must_declare: false,
            next_look: Time::MAX,
            broken: None,
            counts: BTreeMap::new(),
            history: with_history.then(Vec::new),
        };
        world.open();
        world
    }

    fn open(&mut self) {
        self.at_once(What::OriginStarts { restored: false });
        for at in 0..self.edges.len() {
            self.at_once(What::EdgeStarts { at });
        }
        self.at_once(What::Write);
        self.after(self.plan.lease, What::Fault);
        self.after(self.plan.lease / 2, What::BackUp);
        self.next_read();
    }

    /// Lives until the end, or until a rule is broken.
    pub(crate) fn run(&mut self) {
        while self.broken.is_none()
            && let Some(Reverse((time, name))) = self.queue.pop()
        {
            let Some(what) = self.coming.remove(&name) else { continue };
            let paused_until = match what.whose() {
                Whose::Origin => self.origin.paused_until,
                Whose::Edge(at) => self.edges.get(at).map_or(0, |edge| edge.paused_until),
                Whose::Nobody => 0,
            };
            if paused_until > time {
                self.put(paused_until, what);
                continue;
            }
            self.now = time;
            if !self.is_ending && time > self.plan.lasts {
                self.heal();
            }
            if self.is_over() {
                return self.close();
            }
            self.happen(what);
        }
    }

    pub(crate) fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn put(&mut self, time: Time, what: What) {
        let name = self.name();
        self.queue.push(Reverse((time, name)));
        self.coming.insert(name, what);
    }

    pub(crate) fn after(&mut self, span: Time, what: What) {
        self.put(self.now + span, what);
    }

    fn at_once(&mut self, what: What) {
        self.after(0, what);
    }

    pub(crate) fn delay(&mut self) -> Time {
        let slowest = self.plan.slowest;
        self.chance.between(1, slowest)
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(crate) fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            history.push(format!("{:>10.3} ms  {}", Duration::from_micros(self.now).as_secs_f64() * 1000.0, what()));
        }
    }

    pub(crate) fn fail(&mut self, wrong: String) {
        self.tell(|| format!("BROKEN  {wrong}"));
        self.broken.get_or_insert(wrong);
    }

    pub(crate) fn history(&self) -> &[String] {
        self.history.as_deref().unwrap_or_default()
    }

    fn lives(&self, at: usize, life: u64) -> bool {
        self.edges.get(at).is_some_and(|edge| edge.life == life && edge.process.is_some())
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Follow { at, life, number, after } => self.follow(at, life, number, after),
            What::Snapshot { at, life, number } => {
                if let Some(state) = self.origin.snapshot() {
                    self.reach_edge(at, What::Loaded { at, life, number, state: Box::new(state) });
                }
            }
            What::Ack { at, life, number, ack } => self.ack(at, life, number, *ack),
            What::Durable { life, seq } if life == self.origin.life && self.origin.is_up() => self.durable(seq),
            What::OriginBeats { life } if life == self.origin.life && self.origin.is_up() => self.origin_beats(),
            What::Completes { life } if life == self.origin.life && self.origin.is_up() => {
                self.next_look = Time::MAX;
                self.check_completion();
            }
            What::Durable { .. } | What::OriginBeats { .. } | What::Completes { .. } => {}
            What::OriginStarts { restored } => self.start_origin(restored),
            What::Line { at, life, number, line } if self.lives(at, life) => self.line(at, number, *line),
            What::NoFeed { at, life, number, is_lost } if self.lives(at, life) => self.no_feed(at, number, is_lost),
            What::Loaded { at, life, number, state } if self.lives(at, life) => {
                self.tell(|| format!("edge {at} gets the snapshot at {}", state.position.seq));
                self.on_edge(at, |edge, _| edge.load(number, *state));
            }
            What::AckAnswered { at, life, number, answer } if self.lives(at, life) => {
                self.tell(|| format!("edge {at} hears of its ack {number}: {} ms {:?}", answer.lease_ms, answer.reason));
                self.on_edge(at, |edge, now| edge.answered(number, &answer, now));
            }
            What::Beat { at, life } if self.lives(at, life) => {
                let heartbeat = self.plan.heartbeat;
                self.on_edge(at, |edge, now| edge.beat(now, heartbeat));
                self.after(heartbeat, What::Beat { at, life });
            }
            What::Purges { at, life } if self.lives(at, life) => {
                self.edges.get_mut(at).into_iter().for_each(Edge::apply_purges);
            }
            What::Applied { at, life } if self.lives(at, life) => {
                self.on_edge(at, |edge, now| edge.applied(now));
                self.forget_announced(at);
                let position = self.edges.get(at).map(|edge| edge.standing(self.now).applied);
                self.tell(|| format!("edge {at} has in force {position:?}"));
            }
            What::EdgeStarts { at } => self.start_edge(at),
            What::Read { at, key, wish, came } => {
                self.read(at, key, wish, came);
            }
            What::Reader => self.next_read(),
            What::SharedRead { region, at, life, visit, tombstone, generation } => {
                let found = self.shared.get(region).and_then(|tier| tier.read(visit.key()));
                let delay = self.delay();
                self.after(delay, What::SharedAnswer { at, life, visit, found, tombstone, generation });
            }
            What::SharedAnswer { at, life, visit, found, tombstone, generation } if self.lives(at, life) => {
                self.shared_answered(*visit, found, tombstone, generation);
            }
            What::SharedWrite { region, key, entry, standing } => {
                match self.shared.get_mut(region).map(|tier| tier.write(key, entry, &standing)) {
                    Some(Err(wrong)) => self.fail(wrong),
                    Some(Ok(true)) => self.count("a write to the shared tier"),
                    _ => {}
                }
            }
            What::SharedRemove { region, key } => self.shared.get_mut(region).into_iter().for_each(|tier| tier.remove(key)),
            What::Upstream { at, life, fill, key, known, back } => {
                let version = self.upstream.read(key, self.now, &mut self.chance);
                let version = (known != Some(version)).then_some(version);
                if self.chance.of_thousand(self.plan.failing) {
                    self.after(back, What::FetchFailed { at, life, fill });
                } else {
                    self.after(back, What::Fetched { at, life, fill, version });
                }
            }
            What::Fetched { at, life, fill, version } if self.lives(at, life) => self.fetched(at, fill, version),
            What::FetchFailed { at, life, fill } if self.lives(at, life) => self.fetch_failed(at, fill),
            What::FillEnds { at, life, fill, id } if self.lives(at, life) => self.fill_ends(at, fill, id),
            What::Head { at, life, head } if self.lives(at, life) => self.head_answered(at, *head),
            What::UnsafeWrites { at, life, key } => self.unsafe_writes(at, life, key),
            What::UnsafeAnswered { at, life, key, written, has_answer } if self.lives(at, life) => {
                self.unsafe_answered(at, key, written, has_answer);
            }
            What::Announce { at, life, key } => self.take_announcement(at, life, key),
            What::Announced { at, life, key, seq } if self.lives(at, life) => self.announced(at, key, seq),
            What::Write => self.write(),
            What::Purge { mode, about, is_unknown } => self.purge(mode, about, is_unknown),
            What::Fault => self.fault(),
            What::Mend { at } => {
                self.tell(|| format!("edge {at}'s cable is mended"));
                self.cables.get_mut(at).into_iter().for_each(|cable| *cable = Cable { last_line: cable.last_line, ..Cable::default() });
            }
            What::BackUp => self.back_up(),
            // What is for a process that is gone.
            _ => {}
        }
    }

    // ---- what goes over a cable ----

    fn reach_edge(&mut self, at: usize, what: What) {
        let Some(cable) = self.cables.get(at).copied() else { return };
        let is_feed = matches!(what, What::Line { .. });
        if cable.is_cut || (is_feed && cable.feed_is_cut) {
            return;
        }
        self.send(at, what, is_feed);
    }

    fn reach_origin(&mut self, at: usize, what: What) {
        if self.cables.get(at).is_some_and(|cable| cable.is_cut) {
            return;
        }
        self.send(at, what, false);
    }

    /// Messages may be lost, late or doubled; those of a feed keep their order as long as it lasts.
    fn send(&mut self, at: usize, what: What, is_feed: bool) {
        if self.chance.of_thousand(self.plan.lost) && !self.is_ending {
            return;
        }
        let mut delay = self.delay();
        if self.chance.of_thousand(self.plan.late) && !self.is_ending {
            delay += self.chance.between(0, 3 * self.plan.lease);
        }
        let mut time = self.now + delay;
        if is_feed && let Some(cable) = self.cables.get_mut(at) {
            time = time.max(cable.last_line + 1);
            cable.last_line = time;
        }
        if let What::Ack { at, life, number, ack } = &what
            && self.chance.of_thousand(self.plan.doubled)
        {
            let later = time + self.chance.between(0, 2 * self.plan.lease);
            self.put(later, What::Ack { at: *at, life: *life, number: *number, ack: ack.clone() });
        }
        self.put(time, what);
    }

    fn on_edge(&mut self, at: usize, act: impl FnOnce(&mut Edge, Time) -> Vec<Deed>) {
        let now = self.now;
        let Some(edge) = self.edges.get_mut(at) else { return };
        let deeds = act(edge, now);
        let life = edge.life;
        for deed in deeds {
            match deed {
                Deed::Ack(number, ack) => {
                    self.tell(|| format!("edge {at} acknowledges {} ({number})", ack.position.seq));
                    self.reach_origin(at, What::Ack { at, life, number, ack });
                }
                Deed::Follow(number, after) => self.reach_origin(at, What::Follow { at, life, number, after }),
                Deed::LoadSnapshot(number) => self.reach_origin(at, What::Snapshot { at, life, number }),
                Deed::Apply => self.apply(at, life),
            }
        }
    }

    fn apply(&mut self, at: usize, life: u64) {
        let mut takes = self.chance.between(0, 2 * MS);
        if self.chance.of_thousand(self.plan.laggard) && !self.is_ending {
            takes = self.chance.between(0, 5 * self.plan.lease);
            // Whatever holds up the rest, purges need not wait for it.
            if self.chance.of_thousand(500) {
                self.after(takes / 8, What::Purges { at, life });
            }
        }
        self.after(takes, What::Applied { at, life });
    }

    fn line(&mut self, at: usize, number: u64, line: FeedLine) {
        let fails = self.chance.of_thousand(10);
        if fails {
            // What its disk held is older than what it showed, so it is forgotten.
            self.shown.get_mut(at).into_iter().for_each(|shown| *shown = None);
        }
        if self.chance.of_thousand(400) {
            self.edges.get_mut(at).into_iter().for_each(Edge::sync);
        }
        self.on_edge(at, |edge, now| edge.hear(number, line, fails, now));
    }

    fn no_feed(&mut self, at: usize, number: u64, is_lost: bool) {
        let feeds = self.edges.get(at).and_then(|edge| edge.process.as_ref()).is_some_and(|process| process.feed == Some(number));
        if feeds {
            self.on_edge(at, |edge, now| {
                edge.process.iter_mut().for_each(|process| process.feed = None);
                // What the journal lost it hears of by an ack, and begins a new epoch.
                if is_lost && !makes(Mistake::OlderSnapshot) { Vec::new() } else { edge.ask_snapshot(now) }
            });
        }
    }

    // ---- the origin ----

    fn follow(&mut self, at: usize, life: u64, number: u64, after: Position) {
        if !self.origin.is_up() {
            return;
        }
        match self.origin.open(at, number, after) {
            Fit::Here => self.push(true),
            fit => self.reach_edge(at, What::NoFeed { at, life, number, is_lost: fit == Fit::Lost }),
        }
    }

    fn push(&mut self, with_heartbeats: bool) {
        for (Feed { edge: at, number, .. }, line) in self.origin.lines(with_heartbeats) {
            let life = self.edges.get(at).map_or(0, |edge| edge.life);
            self.reach_edge(at, What::Line { at, life, number, line: Box::new(line) });
        }
    }

    fn ack(&mut self, at: usize, life: u64, number: u64, ack: Ack) {
        let anew = (Epoch::from_bytes(self.chance.bytes()), self.chance.bytes());
        let before = self.origin.head();
        let seq = ack.position.seq;
        let Some(answer) = self.origin.ack(ack, self.now, anew) else { return };
        self.tell(|| format!("the origin takes the ack {number} of edge {at} at {seq}: {} ms {:?}", answer.lease_ms, answer.reason));
        if before.map(|head| head.epoch) != self.origin.head().map(|head| head.epoch) {
            self.tell(|| "the journal lost its end: a new epoch begins".to_owned());
            self.count("a new epoch by a follower's position");
        }
        self.reach_edge(at, What::AckAnswered { at, life, number, answer });
        self.check_completion();
    }

    /// Appends to the journal; the origin hears of it once it is durable.
    fn append(&mut self, fact: Fact) -> Option<Position> {
        if !self.origin.is_up() || self.origin.paused_until > self.now {
            return None;
        }
        let position = self.origin.append(fact, self.now);
        let takes = self.chance.between(0, 3 * MS);
        self.after(takes, What::Durable { life: self.origin.life, seq: position.seq });
        Some(position)
    }

    fn durable(&mut self, seq: u64) {
        self.origin.tell(seq, self.now);
        let epoch = self.origin.head().map(|head| head.epoch);
        for purge in self.truth.purges.iter_mut().filter(|purge| purge.seq <= seq && Some(purge.epoch) == epoch) {
            purge.accepted = true;
        }
        self.push(false);
        self.check_completion();
    }

    fn origin_beats(&mut self) {
        self.push(true);
        self.check_completion();
        self.check_bound();
        self.after(self.plan.heartbeat / 2, What::OriginBeats { life: self.origin.life });
    }

    fn start_origin(&mut self, restored: bool) {
        let is_declared = restored && (self.chance.of_thousand(500) || self.must_declare);
        let anew = is_declared.then(|| (Epoch::from_bytes(self.chance.bytes()), self.chance.bytes()));
        self.origin.start(self.now, anew);
        self.tell(|| format!("the origin starts{}", if is_declared { " with a new epoch" } else { "" }));
        self.config = self.origin.config();
        for purge in &self.truth.purges {
            if purge.accepted
                && !purge.is_void
                && !is_declared
                && !self.origin.holds(purge.epoch, purge.seq)
                && self.is_of_this_epoch(purge)
            {
                let wrong = format!("P3: purge {} was accepted, and the journal does not hold it", purge.seq);
                return self.fail(wrong);
            }
        }
        self.at_once(What::OriginBeats { life: self.origin.life });
    }

    fn is_of_this_epoch(&self, purge: &Purge) -> bool {
        self.origin.head().is_some_and(|head| head.epoch == purge.epoch)
    }

    fn check_completion(&mut self) {
        let Some(head) = self.origin.head() else { return };
        let open = |epoch: Epoch, complete: Option<Time>| complete.is_none() && epoch == head.epoch;
        let purges: Vec<_> =
            self.truth.purges.iter().filter(|purge| open(purge.epoch, purge.complete) && !purge.is_void).cloned().collect();
        for purge in purges {
            let fact = fact_of(&purge);
            if self.origin.completion(purge.seq, &fact, self.now) == Completion::Complete {
                self.tell(|| format!("purge {} is complete", purge.seq));
                self.count("a purge that is complete");
                let now = self.now;
                self.truth.purge(purge.epoch, purge.seq).into_iter().for_each(|purge| purge.complete = Some(now));
                self.check_leases(&purge);
            } else {
                self.look_again(purge.seq);
            }
        }
        for at in 0..self.truth.configured.len() {
            let Some(config) = self.truth.configured.get(at).copied().filter(|config| open(config.epoch, config.complete)) else {
                continue;
            };
            if self.origin.completion(config.seq, &unknown(Class::Config), self.now) == Completion::Complete {
                self.tell(|| format!("configuration {} is complete", config.seq));
                let now = self.now;
                self.truth.configured.get_mut(at).into_iter().for_each(|config| config.complete = Some(now));
            }
        }
    }

    /// A lease may end, and an event be complete, without any message.
    fn look_again(&mut self, seq: u64) {
        let Some(span) = self.origin.next_change(seq, self.now) else { return };
        let at = self.now + span;
        if at < self.next_look || self.next_look <= self.now {
            self.next_look = at;
            self.put(at, What::Completes { life: self.origin.life });
        }
    }

    /// L1 to L6 together: where a purge is complete, whoever holds a lease has it in force.
    fn check_leases(&mut self, purge: &Purge) {
        if self.truth.ambiguous.contains(&purge.epoch) {
            return;
        }
        for at in 0..self.edges.len() {
            let Some(edge) = self.edges.get(at) else { continue };
            let Some(view) = edge.process.as_ref().and_then(|process| process.view.as_ref()) else { continue };
            let standing = edge.standing(self.now);
            if standing.holds() && (view.epoch != purge.epoch || standing.applied < purge.seq) {
                return self.fail(format!("L: purge {} is complete, and edge {at} holds a lease at {}", purge.seq, standing.applied));
            }
        }
    }

    /// P2: two leases and the margins, from the append or the origin's last start on.
    fn check_bound(&mut self) {
        let (Some(head), Some(since)) = (self.origin.head(), self.origin.runs_since()) else { return };
        let lease = Duration::from_micros(self.longest);
        let bound = self.origin.clock.until(2 * (lease + lease_margin(lease))) + self.plan.heartbeat;
        let open: Vec<_> = self.truth.purges.iter().filter(|purge| purge.epoch == head.epoch && !purge.is_void).cloned().collect();
        for purge in open {
            let begun = purge.appended.max(since).max(self.origin.paused_until);
            if purge.complete.is_none()
                && self.now > begun + bound
                && self.origin.completion(purge.seq, &fact_of(&purge), self.now) == Completion::Pending
            {
                return self.fail(format!("P2: purge {} is still pending {} ms after it was appended", purge.seq, (self.now - begun) / MS));
            }
        }
    }

    // ---- an edge ----

    fn start_edge(&mut self, at: usize) {
        if self.edges.get(at).is_some_and(|edge| edge.process.is_some()) {
            return;
        }
        self.tell(|| format!("edge {at} starts"));
        self.on_edge(at, |edge, now| edge.start(now));
        let life = self.edges.get(at).map_or(0, |edge| edge.life);
        self.after(self.plan.heartbeat, What::Beat { at, life });
    }

    fn kill_edge(&mut self, at: usize, fault: Fault) {
        let untold = self.untold(at);
        let life = self.edges.get(at).map_or(0, |edge| edge.life);
        for write in self.truth.answered.iter_mut().filter(|write| write.edge == at && write.life == life && untold.contains(&write.key)) {
            write.is_owed = false;
        }
        self.origin.close(at);
        self.edges.get_mut(at).into_iter().for_each(|edge| edge.kill(fault));
        if fault != Fault::EdgeKilled {
            self.shown.get_mut(at).into_iter().for_each(|shown| *shown = None);
        }
    }

    /// P6: an edge never goes back to an older event of its history.
    pub(crate) fn show_site(&mut self, at: usize, (epoch, seq): (Epoch, u64)) {
        let Some(shown) = self.shown.get_mut(at) else { return };
        let before = *shown;
        *shown = Some((epoch, seq));
        if before.is_some_and(|(known, before)| known == epoch && before > seq) {
            self.fail(format!("P6: edge {at} shows the site as of event {seq}, and has shown a later one"));
        }
    }

    // ---- readers ----

    fn next_read(&mut self) {
        let pause = self.chance.between(1, 2 * self.plan.between_reads);
        let (at, key) = (self.chance.index(self.edges.len()), self.chance.index(KEYS));
        let wish = match self.chance.between(0, 19) {
            0 | 1 => Wish::Reload,
            2 => Wish::Head,
            _ => Wish::Any,
        };
        self.after(pause, What::Read { at, key, wish, came: self.now + pause });
        self.after(pause, What::Reader);
    }

    // ---- writers ----

    fn write(&mut self) {
        if self.is_ending {
            return;
        }
        let writes = self.plan.writes.clone();
        if let Some(write) = pick(&mut self.chance, &writes) {
            self.begin_write(write);
        }
        let pause = self.chance.between(1, 2 * self.plan.between_writes);
        self.after(pause, What::Write);
    }

    fn begin_write(&mut self, write: Write) {
        let key = self.chance.index(KEYS);
        match write {
            Write::Hard | Write::Soft | Write::Unknown => {
                let about = [About::Key(key), About::Key(key), About::Tag(key % 2), About::All][self.chance.index(4)];
                let about = if write == Write::Unknown { About::All } else { about };
                for key in (0..KEYS).filter(|key| about.touches(*key)) {
                    self.upstream.write(key, self.now);
                }
                let mode = if write == Write::Soft { Mode::Soft } else { Mode::Hard };
                let pause = self.delay();
                self.after(pause, What::Purge { mode, about, is_unknown: write == Write::Unknown });
            }
            Write::Unsafe => {
                let at = self.chance.index(self.edges.len());
                let life = self.edges.get(at).map_or(0, |edge| edge.life);
                let delay = self.delay();
                self.after(delay, What::UnsafeWrites { at, life, key });
            }
            Write::Settings => self.configure(Config { settings: self.config.settings + 1, ..self.config }),
            Write::Lease => {
                let lease = self.plan.lease * [1, 2, 4, 8][self.chance.index(4)] / 4;
                let is_lazy = self.chance.of_thousand(500);
                self.configure(Config { lease, is_lazy, ..self.config });
            }
            Write::Publish => {
                let version = Digest::of(&self.now.to_be_bytes());
                self.append(Fact::AliasMoved { site: named("www"), alias: Alias::production(), version, back: false });
            }
            Write::UnknownConfig => {
                if let Some(position) = self.append(unknown(Class::Config)) {
                    self.tell(|| format!("configuration {} is appended, which nobody understands", position.seq));
                    let configured = Configured { epoch: position.epoch, seq: position.seq, settings: None, complete: None };
                    self.truth.configured.push(configured);
                }
            }
        }
    }

    fn configure(&mut self, config: Config) {
        let config = Config { number: config.number + 1, ..config };
        if let Some(position) = self.append(Fact::ConfigChanged { number: config.number, network: config.written() }) {
            self.tell(|| format!("configuration {} is appended: {config:?}", position.seq));
            self.config = config;
            self.longest = self.longest.max(config.lease);
            let settings = Some(config.settings);
            self.truth.configured.push(Configured { epoch: position.epoch, seq: position.seq, settings, complete: None });
        }
    }

    fn purge(&mut self, mode: Mode, about: About, is_unknown: bool) {
        let purge = Purge {
            epoch: Epoch::from_bytes([0; 8]),
            seq: 0,
            appended: self.now,
            mode,
            about,
            complete: None,
            accepted: false,
            is_void: false,
        };
        let fact = if is_unknown { unknown(Class::Purge) } else { fact_of(&purge) };
        if let Some(position) = self.append(fact) {
            self.tell(|| format!("{mode:?} purge {} of {about:?} is appended", position.seq));
            self.truth.purges.push(Purge { epoch: position.epoch, seq: position.seq, ..purge });
        } else {
            // Its sender tries again.
            let pause = self.plan.heartbeat;
            self.after(pause, What::Purge { mode, about, is_unknown });
        }
    }

    fn unsafe_writes(&mut self, at: usize, life: u64, key: usize) {
        self.upstream.write(key, self.now);
        let written = self.now;
        let slowest = self.plan.slowest_fetch;
        let (delay, has_answer) = (self.chance.between(1, slowest), !self.chance.of_thousand(100));
        self.after(delay, What::UnsafeAnswered { at, life, key, written, has_answer });
    }

    pub(crate) fn announce(&mut self, at: usize, life: u64, key: usize) {
        let delay = self.delay();
        self.after(delay, What::Announce { at, life, key });
    }

    fn take_announcement(&mut self, at: usize, life: u64, key: usize) {
        let is_cut = self.cables.get(at).is_some_and(|cable| cable.is_cut);
        let purge = Purge {
            epoch: Epoch::from_bytes([0; 8]),
            seq: 0,
            appended: self.now,
            mode: Mode::Hard,
            about: About::Key(key),
            complete: None,
            accepted: false,
            is_void: false,
        };
        let position = if is_cut { None } else { self.append(fact_of(&purge)) };
        if let Some(position) = position {
            self.tell(|| format!("purge {} of key {key} is appended for edge {at}", position.seq));
            self.truth.purges.push(Purge { epoch: position.epoch, seq: position.seq, ..purge });
            let delay = self.delay();
            self.after(delay, What::Announced { at, life, key, seq: position.seq });
        } else if self.lives(at, life) {
            let pause = self.plan.heartbeat;
            self.after(pause, What::Announce { at, life, key });
        }
    }

    // ---- what breaks ----

    fn fault(&mut self) {
        if self.is_ending {
            return;
        }
        let faults = self.plan.faults.clone();
        if let Some(fault) = pick(&mut self.chance, &faults) {
            self.break_it(fault);
        }
        let pause = self.chance.between(1, 2 * self.plan.between_faults);
        self.after(pause, What::Fault);
    }

    fn break_it(&mut self, fault: Fault) {
        let at = self.chance.index(self.edges.len());
        let lease = self.plan.lease;
        self.tell(|| format!("fault: {fault:?}, edge {at} where it is one"));
        self.count("a fault");
        match fault {
            Fault::EdgeKilled | Fault::EdgeLost | Fault::PowerCut => {
                self.kill_edge(at, fault);
                let pause = self.chance.between(1, 2 * lease);
                self.after(pause, What::EdgeStarts { at });
            }
            Fault::OriginKilled if self.origin.is_up() => {
                let loses = self.chance.of_thousand(500);
                let last = self.origin.kill(loses);
                self.forget_behind(last);
                let pause = self.chance.between(1, lease);
                self.after(pause, What::OriginStarts { restored: false });
            }
            Fault::OriginRestored if self.origin.is_up() => self.restore_origin(),
            Fault::OriginKilled | Fault::OriginRestored => {}
            Fault::Cut | Fault::FeedCut => {
                if let Some(cable) = self.cables.get_mut(at) {
                    cable.is_cut |= fault == Fault::Cut;
                    cable.feed_is_cut |= fault == Fault::FeedCut;
                }
                let pause = self.chance.between(1, 4 * lease);
                self.after(pause, What::Mend { at });
            }
            Fault::Paused => {
                let until = self.now + self.chance.between(1, 3 * lease);
                if self.chance.of_thousand(250) {
                    self.origin.paused_until = self.origin.paused_until.max(until);
                } else if let Some(edge) = self.edges.get_mut(at) {
                    edge.paused_until = edge.paused_until.max(until);
                }
            }
            Fault::Frozen => {
                let span = self.chance.between(1, 3 * lease);
                if let Some(edge) = self.edges.get_mut(at) {
                    edge.paused_until = edge.paused_until.max(self.now + span);
                    edge.clock.freeze(span);
                }
            }
            Fault::SharedLoses => {
                let region = self.chance.index(self.shared.len());
                if let Some(tier) = self.shared.get_mut(region) {
                    tier.lose_some(&mut self.chance);
                }
            }
            Fault::SharedRestored => {
                let region = self.chance.index(self.shared.len());
                self.shared.get_mut(region).into_iter().for_each(SharedTier::restore);
            }
        }
    }

    /// What was appended and never durable, nobody was told of.
    fn forget_behind(&mut self, last: u64) {
        let epoch = self.origin.epoch_on_disk();
        for purge in self.truth.purges.iter_mut().filter(|purge| Some(purge.epoch) == epoch && purge.seq > last && !purge.accepted) {
            purge.is_void = true;
        }
        self.truth.configured.retain(|config| Some(config.epoch) != epoch || config.seq <= last);
    }

    fn restore_origin(&mut self) {
        let epoch = self.origin.head().map(|head| head.epoch);
        self.origin.kill(false);
        let last = self.origin.restore();
        // Nothing shows that a copy of a former epoch is one: who restores it has to say so.
        self.must_declare = self.origin.epoch_on_disk() != epoch;
        self.truth.ambiguous.extend(epoch);
        self.truth.is_uncertain = true;
        // What it no longer holds was taken away by whoever restored it.
        for purge in self.truth.purges.iter_mut().filter(|purge| Some(purge.epoch) != epoch || purge.seq > last) {
            purge.is_void = true;
        }
        for config in self.truth.configured.iter_mut().filter(|config| Some(config.epoch) != epoch || config.seq > last) {
            config.complete = None;
            config.epoch = Epoch::from_bytes([0; 8]);
        }
        for write in &mut self.truth.answered {
            write.is_owed = false;
        }
        self.count("a restored journal");
        let pause = self.chance.between(1, self.plan.lease);
        self.after(pause, What::OriginStarts { restored: true });
    }

    fn back_up(&mut self) {
        self.origin.back_up();
        if self.chance.of_thousand(400) {
            self.origin.cut();
        }
        let region = self.chance.index(self.shared.len());
        self.shared.get_mut(region).into_iter().for_each(SharedTier::back_up);
        let pause = self.chance.between(1, 6 * self.plan.lease);
        self.after(pause, What::BackUp);
    }

    // ---- the end ----

    fn heal(&mut self) {
        self.is_ending = true;
        self.tell(|| "all is healed".to_owned());
        for at in 0..self.edges.len() {
            self.happen(What::Mend { at });
        }
    }

    fn is_over(&mut self) -> bool {
        let lease = self.plan.lease;
        // Long enough for every pause, restart, lag and lease to end.
        let settles = self.plan.lasts + 14 * lease + 4 * self.plan.slowest_fetch;
        if self.now > settles && self.truth.settled.is_none() {
            self.truth.settled = Some(self.now);
        }
        self.now > settles + 2 * lease
    }

    /// What must be so once all was healed: every purge is complete, and every edge answers from its cache.
    fn close(&mut self) {
        let Some(head) = self.origin.head() else { return self.fail("the origin is not up at the end".to_owned()) };
        let is_stuck = self.truth.configured.iter().any(|config| config.settings.is_none());
        let open = self.truth.purges.iter().find(|purge| purge.epoch == head.epoch && purge.complete.is_none() && !purge.is_void);
        if let Some(purge) = open.filter(|_| !is_stuck) {
            let seq = purge.seq;
            return self.fail(format!("P2: purge {seq} is not complete long after all was healed"));
        }
        for at in 0..self.edges.len() {
            let standing = self.edges.get(at).map(|edge| edge.standing(self.now));
            // Where messages take nearly as long as a lease, it ends now and then.
            let lately = Duration::from_micros(2 * self.plan.lease);
            let follows = |standing: Standing| standing.applied == head.seq && standing.fenced_for.is_none_or(|span| span < lately);
            if !is_stuck && !self.plan.has_twin && !standing.is_some_and(follows) {
                return self.fail(format!("edge {at} holds no lease at {} long after all was healed: {standing:?}", head.seq));
            }
        }
    }
}

/// Returns a purge as the journal has it.
fn fact_of(purge: &Purge) -> Fact {
    let scope = match purge.about {
        About::Key(key) => {
            let Address { host, target, .. } = Address::of(key);
            Scope::Url(wire::UrlScope { host, target })
        }
        About::Tag(tag) => Scope::Tag(named(&format!("t{tag}"))),
        About::All => Scope::All,
    };
    Fact::purged(Owner::default(), purge.mode, vec![scope])
}
