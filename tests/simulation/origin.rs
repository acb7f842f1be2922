//! The origin: a journal on its disk, a process that may be killed at any moment, and the shell around its pure parts
//! as `origin/src/core.rs` has it.

use std::collections::BTreeMap;
use std::time::Duration;

use config::Network;
use origin::cores::{Fit, LeaseBook, Remembered, Standing, fit, may_serve};
use wire::mistake::{Mistake, makes};
use wire::{Ack, AckAnswer, Chain, Class, Epoch, Event, Fact, FeedLine, Position, PurgeTable, Refused, Role, State, Timestamp};

use crate::clock::Clock;
use crate::plan::Time;

/// Slots of purge tables: few, so that scopes that share one are met as well.
pub(crate) const SLOTS: usize = 16;

/// Events that stay behind a cut.
const KEPT: u64 = 3;

/// An event on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) event: Event,
    pub(crate) chain: Chain,
}

impl Stored {
    /// Puts an event behind what the chain before it is of.
    pub(crate) fn behind(before: Chain, event: Event) -> Self {
        let chain = before.then(&serde_json::to_vec(&event).unwrap_or_default());
        Self { event, chain }
    }

    /// Tells whether it is the very next one behind a position.
    pub(crate) fn follows(&self, at: &Position) -> bool {
        let json = || serde_json::to_vec(&self.event).unwrap_or_default();
        self.event.seq == at.seq + 1 && self.chain == at.chain.then(&json())
    }

    /// Folds the event as an origin does that understands it: one of a newer version may.
    pub(crate) fn fold_into(&self, state: &mut State) {
        state.apply(&self.event, Position { seq: self.event.seq, chain: self.chain, ..state.position });
        let network = state.config.as_mut().and_then(|config| config.network.as_object_mut());
        if let (Fact::Unknown { class: Class::Config, .. }, Some(network)) = (&self.event.fact, network) {
            network.insert(NEWER.to_owned(), true.into());
        }
    }
}

/// What a configuration says that only a newer version understands.
pub(crate) const NEWER: &str = "newer";

/// What survives a kill.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// The fold before the first event.
    base: State,
    events: Vec<Stored>,
    longest: Duration,
    followers: Vec<Remembered>,
}

/// One follower's open feed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feed {
    pub(crate) edge: usize,
    pub(crate) number: u64,
    pub(crate) at: Position,
}

/// What dies with the process.
#[derive(Debug)]
struct Process {
    /// The fold of what was told.
    state: State,
    book: LeaseBook,
    /// When each event was appended, or found at the start.
    appended: BTreeMap<u64, Duration>,
    feeds: BTreeMap<usize, Feed>,
    /// Since when it runs, in true time.
    since: Time,
}

/// What a network's configuration says that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) number: u64,
    pub(crate) settings: u64,
    pub(crate) lease: Time,
    /// Whether the last key's route goes on serving while its edge is fenced.
    pub(crate) is_lazy: bool,
    /// The seq that brought it.
    pub(crate) seq: u64,
}

/// The hosts of the strict route and of the lazy one.
pub(crate) const HOSTS: [&str; 2] = ["strict", "lazy"];

/// For how many leases a lazy route goes on serving.
pub(crate) const LAZY_LEASES: u64 = 3;

/// How the completion of an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completion {
    Pending,
    /// A fenced edge may go on serving by its route's choice.
    Partial,
    Complete,
}

/// The origin.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) clock: Clock,
    pub(crate) life: u64,
    pub(crate) paused_until: Time,
    disk: Disk,
    backup: Disk,
    process: Option<Process>,
    networks: BTreeMap<(bool, Time), Network>,
}

impl Origin {
    pub(crate) fn new(clock: Clock, epoch: Epoch, key: [u8; 16], lease: Time) -> Self {
        let mut base = State::new(epoch, key);
        base.purges = PurgeTable::sized(key, SLOTS);
        let first = Fact::ConfigChanged { number: 1, network: Config { number: 1, settings: 1, lease, is_lazy: true, seq: 1 }.written() };
        let event = Event { seq: 1, at: Timestamp::from_millis(0), actor: "sim".to_owned(), fact: first };
        base.apply(&event, Position { seq: 1, chain: base.position.chain.then(b"first"), ..base.position });
        let disk = Disk { base, events: Vec::new(), longest: Duration::ZERO, followers: Vec::new() };
        Self { clock, life: 0, paused_until: 0, backup: disk.clone(), disk, process: None, networks: BTreeMap::new() }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Returns the fold that everything begins with.
    pub(crate) fn founding(&self) -> State {
        self.disk.base.clone()
    }

    /// Starts the process on what its disk holds (L5, L6).
    pub(crate) fn start(&mut self, now: Time, new_epoch: Option<(Epoch, [u8; 16])>) {
        self.life += 1;
        if let Some((epoch, key)) = new_epoch {
            self.disk.begin_epoch(epoch, key);
        }
        let boot = self.clock.boot(now);
        let mut state = self.disk.base.clone();
        let mut appended = BTreeMap::new();
        for stored in &self.disk.events {
            stored.fold_into(&mut state);
            appended.insert(stored.event.seq, boot);
        }
        let lease = Duration::from_micros(Config::of(&state).lease);
        let longest = if makes(Mistake::NewLeaseLength) { lease } else { self.disk.longest };
        let mut book = LeaseBook::after_restart(state.position.seq, longest, boot);
        book.remember(self.disk.followers.clone(), state.position.epoch, boot);
        self.process = Some(Process { state, book, appended, feeds: BTreeMap::new(), since: now });
    }

    /// Kills the process. What was not durable yet may be lost with it; returns the last seq that is there.
    pub(crate) fn kill(&mut self, loses: bool) -> u64 {
        if let Some(process) = self.process.take()
            && loses
        {
            self.disk.events.retain(|stored| stored.event.seq <= process.state.position.seq);
        }
        self.disk.last().seq
    }

    /// Cuts the journal behind a snapshot.
    pub(crate) fn cut(&mut self) {
        let Some(process) = &self.process else { return };
        let last = process.state.position.seq.saturating_sub(KEPT);
        let kept = self.disk.events.iter().position(|stored| stored.event.seq > last).unwrap_or(0);
        let cut: Vec<_> = self.disk.events.drain(..kept).collect();
        cut.iter().for_each(|stored| stored.fold_into(&mut self.disk.base));
    }

    /// Returns the next moment at which an event may become complete without any message, as a span from now.
    pub(crate) fn next_change(&self, seq: u64, now: Time) -> Option<Time> {
        let boot = self.clock.boot(now);
        let next = self.process.as_ref()?.book.next_change(seq, boot)?;
        Some(self.clock.until(next.saturating_sub(boot)))
    }

    pub(crate) fn back_up(&mut self) {
        self.backup = self.disk.clone();
    }

    pub(crate) fn epoch_on_disk(&self) -> Option<Epoch> {
        Some(self.disk.base.position.epoch)
    }

    /// Puts the older copy in the disk's place, and returns the last seq that it holds.
    pub(crate) fn restore(&mut self) -> u64 {
        // The longest lease that may run is not of the journal: whoever restores one waits for the leases to end.
        let longest = self.disk.longest.max(self.backup.longest);
        self.disk = Disk { longest, ..self.backup.clone() };
        self.disk.events.last().map_or(self.disk.base.position.seq, |stored| stored.event.seq)
    }

    pub(crate) fn config(&self) -> Config {
        self.process.as_ref().map_or_else(|| Config::of(&self.disk.base), |process| Config::of(&process.state))
    }

    pub(crate) fn head(&self) -> Option<Position> {
        self.process.as_ref().map(|process| process.state.position)
    }

    pub(crate) fn holds(&self, epoch: Epoch, seq: u64) -> bool {
        let first = self.disk.base.position;
        first.epoch == epoch && (seq <= first.seq || self.disk.events.iter().any(|stored| stored.event.seq == seq))
    }

    /// Writes an event to the disk and returns its position. Nobody hears of it before [`Self::tell`].
    pub(crate) fn append(&mut self, fact: Fact, now: Time) -> Position {
        let last = self.disk.last();
        let event = Event { seq: last.seq + 1, at: Timestamp::from_millis(now / 1000), actor: "sim".to_owned(), fact };
        let stored = Stored::behind(last.chain, event);
        let position = Position { seq: stored.event.seq, chain: stored.chain, ..last };
        self.disk.events.push(stored);
        position
    }

    /// Folds what is durable up to `seq`.
    pub(crate) fn tell(&mut self, seq: u64, now: Time) {
        let boot = self.clock.boot(now);
        let Some(process) = &mut self.process else { return };
        let after = process.state.position.seq;
        for stored in self.disk.events.iter().filter(|stored| stored.event.seq > after && stored.event.seq <= seq) {
            stored.fold_into(&mut process.state);
            process.appended.insert(stored.event.seq, boot);
        }
    }

    /// A follower asks for the feed; it gets it where its position is here.
    pub(crate) fn open(&mut self, edge: usize, number: u64, after: Position) -> Fit {
        let fit = self.fit(&after);
        if let Some(process) = &mut self.process
            && fit == Fit::Here
        {
            process.feeds.insert(edge, Feed { edge, number, at: after });
        }
        fit
    }

    pub(crate) fn close(&mut self, edge: usize) {
        if let Some(process) = &mut self.process {
            process.feeds.remove(&edge);
        }
    }

    fn fit(&self, shown: &Position) -> Fit {
        let Some(process) = &self.process else { return Fit::OtherEpoch };
        let chain_at = |seq| {
            let base = self.disk.base.position;
            let stored = self.disk.events.iter().find(|stored| stored.event.seq == seq).map(|stored| stored.chain);
            stored.or_else(|| (base.seq == seq).then_some(base.chain))
        };
        fit(&process.state.position, shown, chain_at)
    }

    /// Returns the next line of each open feed; a heartbeat where it has nothing new.
    pub(crate) fn lines(&mut self, with_heartbeats: bool) -> Vec<(Feed, FeedLine)> {
        let Some(process) = &mut self.process else { return Vec::new() };
        let head = process.state.position;
        let mut lines = Vec::new();
        let cut = self.disk.base.position.seq;
        process.feeds.retain(|_, feed| feed.at.epoch == head.epoch && feed.at.seq >= cut);
        for feed in process.feeds.values_mut().filter(|feed| with_heartbeats || feed.at.seq < head.seq) {
            let behind = self.disk.events.iter().filter(|stored| stored.event.seq > feed.at.seq && stored.event.seq <= head.seq);
            let mine = behind.filter(|stored| stored.event.fact.class().is_for(Role::Edge));
            let line = FeedLine {
                epoch: head.epoch,
                from: feed.at.seq,
                to: head.seq,
                chain: head.chain,
                head: head.seq,
                events: mine.map(|stored| stored.event.clone()).collect(),
                live: None,
                questions: Vec::new(),
            };
            feed.at = head;
            lines.push((*feed, line));
        }
        lines
    }

    pub(crate) fn snapshot(&self) -> Option<State> {
        self.process.as_ref().map(|process| process.state.for_role(Role::Edge))
    }

    /// Takes in an ack as `Core::ack` does. `anew` names the next epoch, should one begin.
    pub(crate) fn ack(&mut self, ack: Ack, now: Time, anew: (Epoch, [u8; 16])) -> Option<AckAnswer> {
        let boot = self.clock.boot(now);
        let lease = Duration::from_micros(self.config().lease);
        self.process.as_ref()?;
        // L6: stored before it is granted.
        self.disk.longest = self.disk.longest.max(lease);
        let fits = self.fit(&ack.position);
        if fits == Fit::Lost {
            // The journal lost its end.
            self.begin_epoch(anew, boot);
        }
        let process = self.process.as_mut()?;
        let head = process.state.position;
        let fits = matches!(fits, Fit::Here | Fit::Cut) && ack.position.epoch == head.epoch;
        let next = ack.position.seq + 1;
        let first_unapplied_at = (next <= head.seq).then(|| process.appended.get(&next).copied().unwrap_or_default());
        let standing = Standing { now: boot, head: head.seq, fits, first_unapplied_at, lease };
        let answer = process.book.ack(ack, &standing);
        if let Some(followers) = process.book.take_unsaved() {
            self.disk.followers = followers;
        }
        debug_assert!(answer.lease_ms > 0 || answer.reason != Some(Refused::OtherHistory) || !fits);
        Some(answer)
    }

    fn begin_epoch(&mut self, (epoch, key): (Epoch, [u8; 16]), boot: Duration) {
        let Some(process) = &mut self.process else { return };
        self.disk.begin_epoch(epoch, key);
        process.state = self.disk.base.clone();
        process.book.begin_epoch(process.state.position.seq, self.disk.longest, boot);
        process.appended.clear();
    }

    /// Tells how the completion of an event of this epoch stands, as a receipt says it.
    pub(crate) fn completion(&mut self, seq: u64, fact: &Fact, now: Time) -> Completion {
        let boot = self.clock.boot(now);
        let Some(process) = &mut self.process else { return Completion::Pending };
        if seq > process.state.position.seq || !process.book.report_complete(seq, boot) {
            return Completion::Pending;
        }
        for (applied, until) in process.book.fenced_at(seq, boot) {
            let fenced_for = boot.saturating_sub(until);
            for config in configs_since(&process.state, applied) {
                let network = self.networks.entry((config.is_lazy, config.lease)).or_insert_with(|| config.network());
                if !may_serve(fact, network, fenced_for).is_empty() {
                    return Completion::Partial;
                }
            }
        }
        Completion::Complete
    }

    /// Returns for how long it has run in this life.
    pub(crate) fn runs_since(&self) -> Option<Time> {
        self.process.as_ref().map(|process| process.since)
    }
}

impl Disk {
    fn last(&self) -> Position {
        let base = self.base.position;
        self.events.last().map_or(base, |stored| Position { seq: stored.event.seq, chain: stored.chain, ..base })
    }

    /// As the journal's file does it: the fold stays, the events go, and nothing is left to purge.
    fn begin_epoch(&mut self, epoch: Epoch, key: [u8; 16]) {
        for stored in std::mem::take(&mut self.events) {
            stored.fold_into(&mut self.base);
        }
        self.base.position.epoch = epoch;
        self.base.purges = PurgeTable::sized(key, SLOTS);
    }
}

pub(crate) fn configs_since(state: &State, applied: u64) -> Vec<Config> {
    let configs = state.control.as_ref().map_or(&[][..], |control| control.configs.as_slice());
    let first = configs.iter().rposition(|version| version.seq <= applied).unwrap_or(0);
    configs.get(first..).unwrap_or_default().iter().map(Config::read).collect()
}

impl Config {
    pub(crate) fn of(state: &State) -> Self {
        state.config.as_ref().map_or(Self { number: 0, settings: 0, lease: 0, is_lazy: false, seq: 0 }, Self::read)
    }

    fn read(version: &wire::ConfigVersion) -> Self {
        let number = |name| version.network.get(name).and_then(serde_json::Value::as_u64).unwrap_or_default();
        let (settings, lease, is_lazy) = (number("settings"), number("lease"), number("is_lazy") == 1);
        Self { number: version.number, settings, lease, is_lazy, seq: version.seq }
    }

    /// Returns it as an event holds it.
    pub(crate) fn written(&self) -> serde_json::Value {
        serde_json::json!({ "settings": self.settings, "lease": self.lease, "is_lazy": u64::from(self.is_lazy) })
    }

    #[expect(clippy::expect_used, reason = "it is written here")]
    pub(crate) fn network(&self) -> Network {
        let serve_for = format!("{}ms", LAZY_LEASES * self.lease / 1000);
        let lazy = if self.is_lazy { serde_json::json!({ "serve_for": serve_for }) } else { "revalidate".into() };
        let route = |host: &str, when_fenced: serde_json::Value| serde_json::json!({ "hosts": [host], "upstream": "u", "when_fenced": when_fenced });
        Network::from_json(&serde_json::json!({
            "upstreams": { "u": { "servers": ["http://127.0.0.1:1"] } },
            "routes": { "strict": route(HOSTS[0], "revalidate".into()), "lazy": route(HOSTS[1], lazy) },
        }))
        .expect("the simulation's configuration is right")
    }
}

/// Makes an event's fact of a class that only a newer version understands.
pub(crate) fn unknown(class: Class) -> Fact {
    Fact::Unknown { kind: "Newer".to_owned(), class, v: 9, rest: serde_json::Map::new() }
}
