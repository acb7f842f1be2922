//! An edge as a follower: what its process holds, what its disk keeps, and the shell around the pure parts as
//! `follow/src/run.rs` and `edge/src/applied.rs` have it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use config::WhenFenced;
use edge::cores::InForce;
use follow::{Follower, Lease, Refusal, Sent, Standing, drops_all, may_load};
use wire::mistake::{Mistake, makes};
use wire::{Ack, AckAnswer, Class, Epoch, Event, Fact, FeedLine, NodeName, Position, PurgeTable, Refused, Role, State};

use crate::clock::Clock;
use crate::named;
use crate::origin::{Config, LAZY_LEASES, NEWER};
use crate::plan::{Fault, MS, Time};
use crate::serving::Serving;

/// How long an edge waits for a snapshot.
const SNAPSHOT_TIMEOUT: Time = 1500 * MS;

/// What an edge has put in force.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) purges: PurgeTable,
    pub(crate) epoch: Epoch,
    pub(crate) generation: u64,
    pub(crate) config: Config,
    /// The seq of the event that its site shows.
    pub(crate) site: u64,
}

impl View {
    fn of(state: &State, generation: u64) -> Self {
        let site = state.sites.values().flat_map(|site| site.aliases.values()).map(|alias| alias.seq).max();
        Self { purges: state.purges.clone(), epoch: state.position.epoch, generation, config: Config::of(state), site: site.unwrap_or(0) }
    }

    pub(crate) fn in_force(&self) -> InForce<'_> {
        InForce { purges: &self.purges, generation: self.generation }
    }
}

/// What is being put in force.
#[derive(Debug)]
enum Applying {
    Load { state: Box<State>, drop_all: bool },
    Line { events: Vec<Event>, heard: bool },
}

/// What dies with the process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) lease: Lease,
    follower: Option<Follower>,
    /// What was last in force here.
    last: Option<Position>,
    pub(crate) view: Option<View>,
    generation: u64,
    /// The feed that is read, and when something came on it last.
    pub(crate) feed: Option<u64>,
    pub(crate) heard_at: Time,
    lines: VecDeque<FeedLine>,
    applying: Option<Applying>,
    acking: Option<Acking>,
    acks: u64,
    acks_again: bool,
    /// How often it took a new life, since another one was heard after it.
    reborn: u64,
    /// Whether the history before was left for one that has not come into force yet.
    has_left: bool,
    /// Until when a snapshot is waited for.
    asked_until: Time,
    /// Both clocks as they were read at the last heartbeat.
    cached: Sent,
    pub(crate) serving: Serving,
}

#[derive(Clone, Copy, Debug)]
struct Acking {
    number: u64,
    epoch: Epoch,
    sent: Sent,
    until: Time,
}

/// What the world is to do for an edge.
#[derive(Debug)]
pub(crate) enum Deed {
    /// Send an ack.
    Ack(u64, Box<Ack>),
    /// Open a feed.
    Follow(u64, Position),
    /// Ask for the snapshot.
    LoadSnapshot(u64),
    /// What is being put in force takes a while.
    Apply,
}

/// An edge.
#[derive(Debug)]
pub(crate) struct Edge {
    number: usize,
    pub(crate) name: NodeName,
    pub(crate) region: usize,
    /// The origin that it asks, where there are several.
    pub(crate) origin: usize,
    pub(crate) clock: Clock,
    pub(crate) life: u64,
    pub(crate) paused_until: Time,
    /// The fold that its disk keeps, and what of it has reached the platters.
    disk: Option<State>,
    synced: Option<State>,
    pub(crate) process: Option<Process>,
    feeds: u64,
    snapshots: u64,
}

impl Edge {
    pub(crate) fn new(number: usize, name: NodeName, region: usize, clock: Clock) -> Self {
        let origin = number;
        Self {
            number,
            name,
            region,
            origin,
            clock,
            life: 0,
            paused_until: 0,
            disk: None,
            synced: None,
            process: None,
            feeds: 0,
            snapshots: 0,
        }
    }

    fn now(&self, now: Time) -> Sent {
        Sent { boot: self.clock.boot(now), wall: self.clock.wall(now) }
    }

    /// Starts the process, with the fold that its disk kept.
    pub(crate) fn start(&mut self, now: Time) -> Vec<Deed> {
        self.life += 1;
        let clocks = self.now(now);
        let mut process = Process {
            lease: Lease::default(),
            follower: None,
            last: None,
            view: None,
            generation: 0,
            feed: None,
            heard_at: now,
            lines: VecDeque::new(),
            applying: None,
            acking: None,
            acks: 0,
            acks_again: false,
            reborn: 0,
            has_left: false,
            asked_until: 0,
            cached: clocks,
            serving: Serving::new(),
        };
        if let Some(mut state) = self.disk.clone() {
            if makes(Mistake::TableForgotten) {
                state.purges = PurgeTable::sized([7; 16], 16);
            }
            process.begin_with(state, false);
            process.applied();
        }
        self.process = Some(process);
        self.follow(now)
    }

    /// Kills the process; what it kept on its disk stays, or not.
    pub(crate) fn kill(&mut self, fault: Fault) {
        self.process = None;
        match fault {
            Fault::EdgeLost => self.disk = None,
            Fault::PowerCut => self.disk = self.synced.clone(),
            _ => {}
        }
    }

    /// All that was written reaches the platters.
    pub(crate) fn sync(&mut self) {
        self.synced = self.disk.clone();
    }

    /// Returns how the node stands: by its clocks now, never by a time that was read before.
    pub(crate) fn standing(&self, now: Time) -> Standing {
        let clocks = self.now(now);
        let Some(process) = &self.process else { return Standing { applied: 0, fenced_for: Some(Duration::MAX) } };
        let clocks = if makes(Mistake::CachedClock) { process.cached } else { clocks };
        process.lease.standing_at(clocks.boot, clocks.wall)
    }

    /// Begins to read the feed, or asks for the snapshot where there is nothing to begin with.
    pub(crate) fn follow(&mut self, now: Time) -> Vec<Deed> {
        let Some(process) = &mut self.process else { return Vec::new() };
        if matches!(process.applying, Some(Applying::Load { .. })) {
            return Vec::new();
        }
        process.feed = None;
        process.lines.clear();
        process.heard_at = now;
        let Some(follower) = &process.follower else { return self.ask_snapshot(now) };
        self.feeds += 1;
        process.feed = Some(self.feeds);
        vec![Deed::Follow(self.feeds, follower.folded())]
    }

    /// A line of the feed came. `fails` is whether the disk refuses it.
    pub(crate) fn hear(&mut self, number: u64, line: FeedLine, fails: bool, now: Time) -> Vec<Deed> {
        let Some(process) = &mut self.process else { return Vec::new() };
        if process.feed != Some(number) {
            return Vec::new();
        }
        process.heard_at = now;
        process.lines.push_back(line);
        self.take_lines(fails, now)
    }

    fn take_lines(&mut self, fails: bool, now: Time) -> Vec<Deed> {
        loop {
            let Some(process) = &mut self.process else { return Vec::new() };
            if process.applying.is_some() {
                return Vec::new();
            }
            let Some(line) = process.lines.pop_front() else { return Vec::new() };
            process.lease.set_head(line.head);
            let Some(follower) = &mut process.follower else { return Vec::new() };
            match follower.take(&line) {
                Ok(()) => {}
                Err(Refusal::OtherHistory | Refusal::Behind(_)) => return self.ask_snapshot(now),
                Err(Refusal::Gap { .. }) => return self.follow(now),
                // It is asked for again and again, and never taken.
                Err(Refusal::UnknownConfig(_)) => {
                    process.feed = None;
                    return Vec::new();
                }
            }
            if line.to > line.from {
                self.disk = (!fails).then(|| follower.state().clone());
                process.applying = Some(Applying::Line { events: line.events, heard: false });
                return vec![Deed::Apply];
            }
        }
    }

    /// Asks for the snapshot, unless it has asked lately. What an earlier call brings is nothing any more.
    pub(crate) fn ask_snapshot(&mut self, now: Time) -> Vec<Deed> {
        let Some(process) = &mut self.process else { return Vec::new() };
        process.feed = None;
        if process.asked_until > now {
            return Vec::new();
        }
        process.asked_until = now + SNAPSHOT_TIMEOUT;
        self.snapshots += 1;
        vec![Deed::LoadSnapshot(self.snapshots)]
    }

    /// A snapshot came.
    pub(crate) fn load(&mut self, number: u64, state: State) -> Vec<Deed> {
        let is_awaited = number == self.snapshots;
        let Some(process) = &mut self.process else { return Vec::new() };
        if is_awaited {
            process.asked_until = 0;
        }
        if !is_awaited
            || process.feed.is_some()
            || process.applying.is_some()
            || process.last.is_some_and(|last| may_load(&last, &state).is_err())
        {
            return Vec::new();
        }
        let is_newer = state.config.as_ref().is_some_and(|config| config.network.get(NEWER).is_some());
        if is_newer && !makes(Mistake::UnknownConfigAcknowledged) {
            return Vec::new();
        }
        let drop_all = drops_all(process.last.as_ref(), &state);
        if process.last.is_some_and(|last| last.epoch != state.position.epoch) || process.has_left {
            process.lease.leave_history(state.position.epoch);
            process.lease.set_applied(0);
            process.has_left = true;
        }
        self.disk = Some(state.clone());
        process.begin_with(state, drop_all);
        vec![Deed::Apply]
    }

    /// Purges wait for nothing else: they may be in force before the rest of their line is.
    pub(crate) fn apply_purges(&mut self) {
        if let Some(Process { applying: Some(Applying::Line { events, heard }), view: Some(view), .. }) = &mut self.process {
            events.iter().for_each(|event| view.purges.hear(event));
            *heard = true;
        }
    }

    /// What was being put in force is.
    pub(crate) fn applied(&mut self, now: Time) -> Vec<Deed> {
        let Some(process) = &mut self.process else { return Vec::new() };
        let was_load = matches!(process.applying, Some(Applying::Load { .. }));
        process.applied();
        let mut deeds = self.ack(now);
        deeds.extend(if was_load { self.follow(now) } else { self.take_lines(false, now) });
        deeds
    }

    /// Sends an ack, or another one behind the one that is under way.
    pub(crate) fn ack(&mut self, now: Time) -> Vec<Deed> {
        let clocks = self.now(now);
        let life = self.life;
        let Some(process) = &mut self.process else { return Vec::new() };
        let Some(position) = process.follower.as_ref().and_then(Follower::in_force) else { return Vec::new() };
        let lease = process.view.as_ref().map_or(1_000_000, |view| view.config.lease);
        if process.acking.is_some_and(|acking| acking.until > now) {
            process.acks_again = true;
            return Vec::new();
        }
        process.acks += 1;
        process.acks_again = false;
        process.acking = Some(Acking { number: process.acks, epoch: position.epoch, sent: clocks, until: now + 2 * lease });
        let ack = Ack {
            follower: self.name.clone(),
            role: Role::Edge,
            region: named(&format!("r{}", self.region)),
            life: format!("{}.{life}.{}", self.number, process.reborn),
            protocol: wire::PROTOCOL,
            position,
            answers: Vec::new(),
            draining: false,
            load: 0.0,
            counts: BTreeMap::new(),
        };
        vec![Deed::Ack(process.acks, Box::new(ack))]
    }

    /// An ack was answered.
    pub(crate) fn answered(&mut self, number: u64, answer: &AckAnswer, now: Time) -> Vec<Deed> {
        let clocks = self.now(now);
        let Some(process) = &mut self.process else { return Vec::new() };
        let Some(acking) = process.acking.filter(|acking| acking.number == number && acking.until > now) else { return Vec::new() };
        process.acking = None;
        if answer.lease_ms > 0 {
            let sent = if makes(Mistake::LeaseFromAnswer) { clocks } else { acking.sent };
            process.lease.grant(acking.epoch, sent, Duration::from_millis(answer.lease_ms));
        }
        if answer.anew {
            process.reborn += 1;
            process.lease.drop_lease();
        }
        let again = process.acks_again;
        let mut deeds = if answer.reason == Some(Refused::OtherHistory) { self.ask_snapshot(now) } else { Vec::new() };
        if again {
            deeds.extend(self.ack(now));
        }
        deeds
    }

    /// Tells whether nothing was heard for long of the origin that it asks.
    pub(crate) fn is_silent(&self, now: Time, heartbeat: Time) -> bool {
        self.process.as_ref().is_some_and(|process| process.is_silent(now, heartbeat))
    }

    /// A heartbeat: an ack, and a new feed where nothing was heard for long.
    pub(crate) fn beat(&mut self, now: Time, heartbeat: Time) -> Vec<Deed> {
        let clocks = self.now(now);
        let Some(process) = &mut self.process else { return Vec::new() };
        process.cached = clocks;
        let is_silent = process.is_silent(now, heartbeat);
        let mut deeds = self.ack(now);
        if is_silent {
            deeds.extend(self.follow(now));
        }
        deeds
    }

    /// Returns what a fenced edge does with a key, by the configuration in force here.
    pub(crate) fn when_fenced(&self, key: usize) -> WhenFenced {
        match self.process.as_ref().and_then(|process| process.view.as_ref()) {
            Some(view) if view.config.is_lazy && crate::serving::is_lazy(key) => {
                WhenFenced::ServeFor(Duration::from_millis(LAZY_LEASES * view.config.lease / 1000))
            }
            _ => WhenFenced::Revalidate,
        }
    }
}

impl Process {
    fn is_silent(&self, now: Time, heartbeat: Time) -> bool {
        self.feed.is_none() || now > self.heard_at + 3 * heartbeat
    }

    fn begin_with(&mut self, state: State, drop_all: bool) {
        self.follower = None;
        self.feed = None;
        self.lines.clear();
        self.applying = Some(Applying::Load { state: Box::new(state), drop_all });
    }

    fn applied(&mut self) {
        match self.applying.take() {
            Some(Applying::Load { state, drop_all }) => {
                self.generation += u64::from(drop_all);
                self.view = Some(View::of(&state, self.generation));
                if drop_all {
                    self.serving.forget_all();
                }
                self.follower = Some(Follower::new(*state));
            }
            Some(Applying::Line { events, heard }) => {
                if let Some(view) = &mut self.view {
                    for event in &events {
                        if !heard {
                            view.purges.hear(event);
                        }
                        if let Fact::AliasMoved { .. } = event.fact {
                            view.site = event.seq;
                        }
                    }
                    if let Some(follower) = self.follower.as_ref()
                        && events.iter().any(|event| event.fact.class() == Class::Config)
                    {
                        view.config = Config::of(follower.state());
                    }
                }
            }
            None => return,
        }
        if let Some(follower) = &mut self.follower {
            follower.set_in_force();
            self.has_left = false;
            self.last = follower.in_force();
            self.lease.set_applied(follower.folded().seq);
        }
    }
}
