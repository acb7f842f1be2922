//! The world: true time, what is on its way, and who gets it. Everything happens at one moment after another, by one
//! seed, and after each step the rules are checked.

mod control;
mod ending;
mod faults;
mod fleet;
mod post;
mod writers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use follow::Standing;
use wire::{Ack, AckAnswer, Epoch, FeedLine, Mode, Position, State};

use crate::chance::Chance;
use crate::clock::Clock;
use crate::edge::Edge;
use crate::engines::Engine;
use crate::named;
use crate::origin::{Config, Origin, Stored};
use crate::origins::{Call, Order, Reply};
use crate::plan::{Plan, Time};
use crate::serving::{Head, Visit, Wish};
use crate::shared::{Look, SharedEntry, SharedFound, SharedTier};
use crate::truth::{About, Truth};
use crate::upstream::Upstream;
use fleet::Fleet;

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
    /// Where several origins share an engine: a follower's call comes to one of them.
    To {
        to: usize,
        what: Box<Self>,
    },
    /// A call of an origin comes to the engine, and what that answers to the origin.
    Call {
        from: usize,
        life: u64,
        call: Box<Call>,
    },
    Reply {
        to: usize,
        life: u64,
        reply: Box<Reply>,
    },
    /// An origin hears of an event, from the process `run`.
    News {
        to: usize,
        life: u64,
        run: String,
        epoch: Epoch,
        stored: Box<Stored>,
    },
    MemberBeats {
        to: usize,
        life: u64,
    },
    MemberStarts {
        to: usize,
    },
    /// Somebody wants something appended, and tries again.
    Order(Box<Order>),
    /// A replica takes the engine's place.
    EngineFails,
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
        look: Look,
    },
    SharedAnswer {
        at: usize,
        life: u64,
        visit: Box<Visit>,
        found: SharedFound,
        look: Look,
    },
    SharedWrite {
        region: usize,
        key: usize,
        entry: SharedEntry,
        standing: Standing,
        written: Time,
        claim: Option<u64>,
    },
    /// A fetch has ended, and nothing came of it for the other edges of its region.
    SharedGiveUp {
        region: usize,
        key: usize,
        claim: u64,
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
    Member(usize),
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
            Self::To { to, .. } | Self::Reply { to, .. } | Self::News { to, .. } | Self::MemberBeats { to, .. } => Whose::Member(*to),
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

    pub(super) fn is_ack(&self) -> bool {
        match self {
            Self::Ack { .. } => true,
            Self::To { what, .. } => what.is_ack(),
            _ => false,
        }
    }

    /// Returns an ack once more.
    pub(super) fn again(&self) -> Option<Self> {
        match self {
            Self::Ack { at, life, number, ack } => Some(Self::Ack { at: *at, life: *life, number: *number, ack: ack.clone() }),
            Self::To { to, what } => what.again().map(|what| Self::To { to: *to, what: Box::new(what) }),
            _ => None,
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

/// What an edge has shown of its site.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    pub(crate) epoch: Epoch,
    /// The event that the site is as of.
    pub(crate) site: u64,
    /// What the edge had applied.
    pub(crate) applied: u64,
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
    /// The origins in place of that one, where several share an engine.
    fleet: Option<Fleet>,
    pub(crate) edges: Vec<Edge>,
    cables: Vec<Cable>,
    shared: Vec<SharedTier>,
    pub(crate) upstream: Upstream,
    pub(crate) truth: Truth,
    /// What each edge's site has shown.
    shown: Vec<Option<Shown>>,
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
        let mut apart = Chance::of(!seed);
        let last = plan.edges - 1;
        let named = |at: usize| named(&format!("e{}", if plan.has_twin && at == last { 0 } else { at }));
        let edges: Vec<_> = (0..plan.edges).map(|at| Edge::new(at, named(at), at % plan.regions, Clock::new(&mut chance))).collect();
        let tiers: Vec<_> = (0..plan.regions).map(|_| SharedTier::new(Clock::new(&mut apart))).collect();
        let clocks: Vec<_> = (0..plan.origins).map(|_| Clock::new(&mut apart)).collect();
        let fleet = (!clocks.is_empty()).then(|| Fleet::new(Engine::new(origin.founding()), clocks, plan.heartbeat));
        let mut world = Self {
            now: 0,
            queue: BinaryHeap::new(),
            coming: BTreeMap::new(),
            names: 0,
            cables: vec![Cable::default(); edges.len()],
            shown: vec![None; edges.len()],
            shared: tiers,
            fleet,
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
        match self.plan.origins {
            0 => self.at_once(What::OriginStarts { restored: false }),
            count => (0..count).for_each(|to| self.at_once(What::MemberStarts { to })),
        }
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
                Whose::Member(to) => self.member(to).map_or(0, |member| member.paused_until),
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
            What::To { to, what } => self.send_to_member(to, *what),
            What::Call { from, life, call } => self.called(from, life, *call),
            What::Reply { to, life, reply } => self.replied(to, life, *reply),
            What::News { to, life, run, epoch, stored } => self.news((to, life), &run, epoch, &stored),
            What::MemberBeats { to, life } => self.member_beats(to, life),
            What::MemberStarts { to } => self.start_member(to),
            What::Order(order) => self.order(*order),
            What::EngineFails => {
                let replica = self.fleet.as_mut().and_then(|fleet| fleet.replica.take());
                replica.into_iter().for_each(|replica| self.fail_over(replica));
            }
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
                self.move_on_if_silent(at);
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
            What::SharedRead { region, at, life, visit, look } => {
                let (now, lasts) = (self.now, self.plan.lease / 2);
                let found = self.shared.get_mut(region).map_or(SharedFound::Nothing, |tier| tier.look(visit.key(), &look, lasts, now));
                let delay = self.delay();
                self.after(delay, What::SharedAnswer { at, life, visit, found, look });
            }
            What::SharedAnswer { at, life, visit, found, look } if self.lives(at, life) => self.shared_answered(*visit, found, look),
            What::SharedGiveUp { region, key, claim } => {
                self.shared.get_mut(region).into_iter().for_each(|tier| tier.give_up(key, claim));
            }
            What::SharedWrite { region, key, entry, standing, written, claim } => {
                match self.shared.get_mut(region).map(|tier| tier.write((key, entry), &standing, written, claim)) {
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
                self.fleet.iter_mut().for_each(|fleet| fleet.cuts.retain(|(edge, _)| *edge != at));
                self.cables.get_mut(at).into_iter().for_each(|cable| *cable = Cable { last_line: cable.last_line, ..Cable::default() });
            }
            What::BackUp => self.back_up(),
            // What is for a process that is gone.
            _ => {}
        }
    }
}
