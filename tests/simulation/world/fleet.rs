//! Several origins on one engine: who asks whom, what comes back when, and what must be so whenever one of them says that
//! something is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use config::Network;
use origin::cores::{Fit, Verdict, Word};
use wire::{Ack, AckAnswer, Chain, Class, Epoch, Fact, Position, Refused};

use super::{What, World};
use crate::clock::Clock;
use crate::engines::{Answer, Engine};
use crate::origin::{Completion, Config, Feed, Stored, unknown};
use crate::origins::{Call, Heard, Member, Order, Reply};
use crate::plan::{MS, Time};
use crate::truth::{Configured, Purge};

/// What an event is in the truth.
#[derive(Clone, Copy, Debug)]
enum Mark {
    Purge(usize),
    Config(usize),
}

/// The origins, and the engine that they share.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(super) engine: Engine,
    pub(super) members: Vec<Member>,
    /// A copy of the engine from some time ago, and one that is to take its place.
    pub(super) backup: Option<Engine>,
    pub(super) replica: Option<Engine>,
    servers: u64,
    marks: Vec<(Chain, Mark)>,
    /// Which edge can't reach which origin.
    pub(super) cuts: BTreeSet<(usize, usize)>,
    networks: BTreeMap<(bool, Time), Network>,
}

impl Fleet {
    pub(super) fn new(engine: Engine, clocks: Vec<Clock>, healing: Time) -> Self {
        let members = clocks.into_iter().enumerate().map(|(number, clock)| Member::new(number, clock, healing)).collect();
        let (networks, cuts) = (BTreeMap::new(), BTreeSet::new());
        Self { engine, members, backup: None, replica: None, servers: 0, marks: Vec::new(), cuts, networks }
    }
}

impl World {
    /// The longest lease that may run: an engine that loses the configuration of a longer one may lose it together with the grants
    /// by it, so that no origin that is left knows of either.
    fn assumed(&self) -> Duration {
        Duration::from_micros(self.longest)
    }

    /// Returns which origin an edge asks at the moment.
    pub(super) fn origin_of(&self, at: usize) -> usize {
        let count = self.fleet.as_ref().map_or(1, |fleet| fleet.members.len());
        self.edges.get(at).map_or(0, |edge| edge.origin) % count.max(1)
    }

    fn is_cut_from(&self, at: usize, to: usize) -> bool {
        self.fleet.as_ref().is_some_and(|fleet| fleet.cuts.contains(&(at, to)))
    }

    pub(super) fn member(&self, to: usize) -> Option<&Member> {
        self.fleet.as_ref()?.members.get(to)
    }

    fn tell_edge(&mut self, from: usize, at: usize, what: What) {
        if !self.is_cut_from(at, from) {
            self.reach_edge(at, what);
        }
    }

    /// A follower's call leaves for the origin that it asks at the moment.
    pub(super) fn ask_origin(&mut self, at: usize, what: What) {
        let to = self.origin_of(at);
        if !self.is_cut_from(at, to) {
            self.send(at, What::To { to, what: Box::new(what) }, false);
        }
    }

    /// Whoever hears nothing asks the next origin.
    pub(super) fn move_on_if_silent(&mut self, at: usize) {
        let (now, heartbeat) = (self.now, self.plan.heartbeat);
        let count = self.fleet.as_ref().map_or(0, |fleet| fleet.members.len());
        if let Some(edge) = self.edges.get_mut(at).filter(|edge| count > 1 && edge.is_silent(now, heartbeat)) {
            edge.origin = (edge.origin + 1) % count;
            let to = edge.origin;
            self.tell(|| format!("edge {at} asks origin {to} from now on"));
            self.count("a move to another origin");
        }
    }

    /// A follower's call comes to an origin.
    pub(super) fn send_to_member(&mut self, to: usize, what: What) {
        if !self.member(to).is_some_and(Member::is_up) {
            return;
        }
        match what {
            What::Follow { at, life, number, after } => self.follow_member(to, (at, life, number), after),
            What::Snapshot { at, life, number } => {
                if let Some(state) = self.member(to).and_then(Member::snapshot) {
                    self.tell_edge(to, at, What::Loaded { at, life, number, state: Box::new(state) });
                }
            }
            What::Ack { at, life, number, ack } => self.ack_member(to, (at, life, number), *ack),
            _ => {}
        }
    }

    fn follow_member(&mut self, to: usize, (at, life, number): (usize, u64, u64), after: Position) {
        let (now, assumed) = (self.now, self.assumed());
        let Some(fleet) = &mut self.fleet else { return };
        let Some(member) = fleet.members.get_mut(to) else { return };
        let fit = member.fit(&after, &mut fleet.engine, &mut self.chance, assumed, now);
        if fit == Fit::Here {
            member.open(at, number, after);
        } else {
            self.tell_edge(to, at, What::NoFeed { at, life, number, is_lost: fit == Fit::Lost });
        }
        self.attend(to);
        self.push_from(to, true);
    }

    fn ack_member(&mut self, to: usize, (at, life, number): (usize, u64, u64), ack: Ack) {
        let (now, assumed, seq) = (self.now, self.assumed(), ack.position.seq);
        let Some(fleet) = &mut self.fleet else { return };
        let Some(member) = fleet.members.get_mut(to) else { return };
        let heard = member.ack((at, life, number), ack, (&mut fleet.engine, &mut self.chance), assumed, now);
        self.tell(|| format!("origin {to} hears the ack {number} of edge {at} at {seq}: {heard:?}"));
        match heard {
            Heard::Answer(answer) => self.tell_edge(to, at, What::AckAnswered { at, life, number, answer }),
            Heard::Ask(call) => self.call(to, *call),
            Heard::Nothing => {}
        }
        self.attend(to);
    }

    fn call(&mut self, from: usize, call: Call) {
        let life = self.member(from).map_or(0, |member| member.life);
        let delay = self.delay() / 2;
        self.after(delay, What::Call { from, life, call: Box::new(call) });
    }

    fn reply(&mut self, to: usize, life: u64, reply: Reply) {
        let delay = self.delay() / 2;
        self.after(delay, What::Reply { to, life, reply: Box::new(reply) });
    }

    /// A call comes to the engine, which does it at once.
    pub(super) fn called(&mut self, from: usize, life: u64, call: Call) {
        let Some(fleet) = &mut self.fleet else { return };
        let engine = &mut fleet.engine;
        match call {
            Call::Append { number, run, at, turn, stored, order } => {
                let position = Position { seq: stored.event.seq, chain: stored.chain, ..at };
                match engine.append(&run, &at, turn, std::slice::from_ref(&*stored)) {
                    Ok(answer) => {
                        if answer.word == Word::Done {
                            self.appended(&order, position);
                            self.announce_event(&run, position.epoch, &stored);
                        }
                        self.answer_append(from, life, number, answer);
                    }
                    Err(wrong) => self.fail(wrong),
                }
            }
            Call::Ack { edge, life: of, number, run, epoch, asked } => {
                let lease = asked.lease;
                let reply = match engine.book.ack(&run, epoch, &[asked]) {
                    Ok(acked) => acked.verdicts.first().copied().map(|verdict| (acked.head, verdict)),
                    Err(_) => None,
                };
                let acked = |(head, verdict)| Reply::Acked { edge, life: of, number, lease, head, verdict };
                self.reply(from, life, reply.map_or(Reply::Elsewhere, acked));
            }
            Call::Complete(candidate) => {
                let reply = match engine.book.complete(&candidate.run, candidate.epoch, candidate.seq, &candidate.ended) {
                    Ok(Some(_)) => Reply::Completed,
                    Ok(None) => return self.count("a completion that the book refused"),
                    Err(_) => Reply::Elsewhere,
                };
                self.reply(from, life, reply);
            }
            Call::Snapshot { run, fence, state } => {
                let is_taken = engine.take_snapshot(&run, fence, *state);
                let wrong = if is_taken { engine.whole().err() } else { None };
                self.count(if is_taken { "a snapshot of a shared journal" } else { "a snapshot that came too late" });
                wrong.into_iter().for_each(|wrong| self.fail(wrong));
            }
        }
    }

    /// Whoever asked may not hear of it: it has to find out then.
    fn answer_append(&mut self, to: usize, life: u64, number: u64, answer: Answer) {
        if !self.chance.of_thousand(self.plan.lost) || self.is_ending {
            self.reply(to, life, Reply::Appended { number, answer });
        }
    }

    /// All origins hear of an event.
    fn announce_event(&mut self, run: &str, epoch: Epoch, stored: &Stored) {
        let lives: Vec<_> = self.fleet.iter().flat_map(|fleet| &fleet.members).map(|member| member.life).collect();
        for (to, life) in lives.into_iter().enumerate() {
            let delay = self.delay();
            let run = run.to_owned();
            self.after(delay, What::News { to, life, run, epoch, stored: Box::new(stored.clone()) });
        }
    }

    /// What was appended is so from now on.
    fn appended(&mut self, order: &Order, position: Position) {
        let Position { epoch, seq, chain } = position;
        self.tell(|| format!("event {seq} is appended: {order:?}"));
        let mark = match order {
            Order::Purge { purge, .. } => {
                self.truth.purges.push(Purge { epoch, seq, appended: self.now, ..purge.clone() });
                Some(Mark::Purge(self.truth.purges.len() - 1))
            }
            Order::Settings | Order::Lease { .. } | Order::UnknownConfig => {
                let config = self.fleet.as_ref().and_then(|fleet| fleet.engine.whole().ok()).map(|state| Config::of(&state));
                self.longest = self.longest.max(config.map_or(0, |config| config.lease));
                let settings = config.map(|config| config.settings).filter(|_| !matches!(order, Order::UnknownConfig));
                self.truth.configured.push(Configured { epoch, seq, settings, complete: None });
                Some(Mark::Config(self.truth.configured.len() - 1))
            }
            Order::Publish => None,
        };
        self.fleet.iter_mut().for_each(|fleet| fleet.marks.extend(mark.map(|mark| (chain, mark))));
    }

    /// The engine's answer comes to an origin.
    pub(super) fn replied(&mut self, to: usize, life: u64, reply: Reply) {
        let (now, assumed) = (self.now, self.assumed());
        let Some(fleet) = &mut self.fleet else { return };
        let Some(member) = fleet.members.get_mut(to).filter(|member| member.life == life && member.is_up()) else { return };
        let mut is_unsure = false;
        match reply {
            Reply::Appended { number, answer } => is_unsure = member.appended(number, &answer, now),
            Reply::Acked { edge, life, number, lease, head, verdict } => {
                let head = head.max(member.head().map_or(0, |head| head.seq));
                let answer = answer(lease, head, verdict);
                self.tell_edge(to, edge, What::AckAnswered { at: edge, life, number, answer });
            }
            // Up to where, and who is fenced by that and may go on serving, the log alone tells (P7).
            Reply::Completed => member.read_book(&mut fleet.engine, assumed, now),
            Reply::Elsewhere => is_unsure = true,
        }
        if is_unsure {
            self.recover(to, assumed);
        }
        self.attend(to);
    }

    fn recover(&mut self, to: usize, assumed: Duration) {
        let now = self.now;
        let Some(fleet) = &mut self.fleet else { return };
        if let Some(member) = fleet.members.get_mut(to).filter(|member| !member.is_waiting(now)) {
            member.recover(&mut fleet.engine, &mut self.chance, assumed, now);
        }
    }

    /// An origin hears of an event.
    pub(super) fn news(&mut self, (to, life): (usize, u64), run: &str, epoch: Epoch, stored: &Stored) {
        let (now, assumed) = (self.now, self.assumed());
        let Some(fleet) = &mut self.fleet else { return };
        let Some(member) = fleet.members.get_mut(to).filter(|member| member.life == life && member.is_up()) else { return };
        // What a former process said is not heard behind what this one said.
        if member.deaf_until > now || member.run() != run {
            return;
        }
        if member.hear(epoch, stored, now) {
            self.recover(to, assumed);
        }
        self.attend(to);
    }

    /// An origin looks at the engine, as it does now and then, unless it is held up.
    pub(super) fn member_beats(&mut self, to: usize, life: u64) {
        let (now, assumed) = (self.now, self.assumed());
        if !self.member(to).is_some_and(|member| member.life == life && member.is_up()) {
            return;
        }
        if self.chance.of_thousand(self.plan.tardy) && !self.is_ending {
            let until = now + self.chance.between(0, 3 * self.plan.lease);
            self.fleet.iter_mut().filter_map(|fleet| fleet.members.get_mut(to)).for_each(|member| member.deaf_until = until);
        }
        if self.is_ending || self.member(to).is_some_and(|member| member.deaf_until <= now) {
            self.recover(to, assumed);
            let Some(fleet) = &mut self.fleet else { return };
            if let Some(member) = fleet.members.get_mut(to) {
                member.read_book(&mut fleet.engine, assumed, now);
            }
        }
        self.work(to);
        self.attend(to);
        self.push_from(to, true);
        self.after(self.plan.heartbeat / 2, What::MemberBeats { to, life });
    }

    /// What an origin does by itself: has made complete what may be, and writes a snapshot.
    fn work(&mut self, to: usize) {
        let now = self.now;
        if let Some(candidate) = self.member(to).and_then(|member| member.candidate(now)) {
            self.call(to, Call::Complete(candidate));
        }
        let Some(fleet) = &mut self.fleet else { return };
        let Some(snapshot) = fleet.members.get_mut(to).and_then(|member| member.next_snapshot(&mut fleet.engine)) else { return };
        // It has megabytes, and whoever writes it may stand still meanwhile.
        let slow = if self.chance.of_thousand(200) { 6 * self.plan.lease } else { 10 * MS };
        let (delay, life) = (self.chance.between(0, slow), self.member(to).map_or(0, |member| member.life));
        self.after(delay, What::Call { from: to, life, call: Box::new(snapshot) });
    }

    /// Does what follows from what an origin has done.
    fn attend(&mut self, to: usize) {
        let now = self.now;
        let Some(fleet) = &mut self.fleet else { return };
        let Some(member) = fleet.members.get_mut(to) else { return };
        let done = std::mem::take(&mut member.done);
        let next = member.next_append(now);
        done.wrong.into_iter().for_each(|wrong| self.fail(wrong));
        done.put_back.into_iter().for_each(|chain| self.put_back(chain));
        done.happened.into_iter().for_each(|what| {
            self.tell(|| format!("origin {to}: {what}"));
            self.count(what);
        });
        done.landed.into_iter().for_each(|(order, position)| self.landed(&order, position));
        if let Some(call) = next {
            self.call(to, call);
        }
        self.push_from(to, false);
        self.check_shared_completion(to);
    }

    fn landed(&mut self, order: &Order, position: Position) {
        let Order::Purge { of, .. } = order else { return };
        if let Some(Mark::Purge(index)) = self.marked(position.chain)
            && let Some(purge) = self.truth.purges.get_mut(index)
        {
            purge.accepted = true;
        }
        if let Some((at, life, key)) = *of {
            let delay = self.delay();
            self.after(delay, What::Announced { at, life, key, seq: position.seq });
        }
    }

    fn marked(&self, chain: Chain) -> Option<Mark> {
        self.fleet.as_ref()?.marks.iter().find(|(of, _)| *of == chain).map(|(_, mark)| *mark)
    }

    /// What was lost is there again. That it was complete nobody knows any more.
    fn put_back(&mut self, chain: Chain) {
        if let Some(Mark::Purge(index)) = self.marked(chain)
            && let Some(purge) = self.truth.purges.get_mut(index)
        {
            (purge.is_void, purge.complete) = (false, None);
        }
    }

    fn push_from(&mut self, to: usize, with_heartbeats: bool) {
        let Some(member) = self.fleet.as_mut().and_then(|fleet| fleet.members.get_mut(to)) else { return };
        for (Feed { edge: at, number, .. }, line) in member.lines(with_heartbeats) {
            let life = self.edges.get(at).map_or(0, |edge| edge.life);
            self.tell_edge(to, at, What::Line { at, life, number, line: Box::new(line) });
        }
    }

    /// Somebody wants something appended, by one of the origins.
    pub(super) fn order(&mut self, order: Order) {
        let count = self.fleet.as_ref().map_or(0, |fleet| fleet.members.len());
        let (to, now) = (self.chance.index(count), self.now);
        let member = self.fleet.as_mut().and_then(|fleet| fleet.members.get_mut(to));
        if let Some(member) = member.filter(|member| member.is_up() && member.paused_until <= now) {
            member.take_order(order);
            self.attend(to);
        } else {
            self.order_again(order);
        }
    }

    /// Whoever sent a purge tries again, be it at another origin.
    pub(super) fn order_again(&mut self, order: Order) {
        if matches!(order, Order::Purge { .. }) {
            self.after(self.plan.heartbeat, What::Order(Box::new(order)));
        }
    }

    pub(super) fn start_member(&mut self, to: usize) {
        let (now, assumed) = (self.now, self.assumed());
        let Some(fleet) = &mut self.fleet else { return };
        let Some(member) = fleet.members.get_mut(to).filter(|member| !member.is_up()) else { return };
        member.start(&mut fleet.engine, assumed, now);
        let life = member.life;
        self.tell(|| format!("origin {to} starts"));
        self.attend(to);
        self.at_once(What::MemberBeats { to, life });
    }

    pub(super) fn kill_member(&mut self, to: usize) {
        let member = self.fleet.as_mut().and_then(|fleet| fleet.members.get_mut(to));
        let orders = member.map(Member::kill).unwrap_or_default();
        orders.into_iter().for_each(|order| self.order_again(order));
        let pause = self.chance.between(1, self.plan.lease);
        self.after(pause, What::MemberStarts { to });
    }

    /// Another process of the engine goes on with less than the one before had, grants and what was complete among it. What it lost
    /// may be put back by an origin that knows it; until then nobody answers for it.
    pub(super) fn fail_over(&mut self, copy: Engine) {
        let Some(fleet) = &mut self.fleet else { return };
        fleet.servers += 1;
        let mut next = copy;
        next.restart(format!("s{}", fleet.servers));
        let before = std::mem::replace(&mut fleet.engine, next);
        let engine = &fleet.engine;
        let loses_events = !before.is_within(engine);
        if loses_events {
            self.truth.ambiguous.extend([before.head().epoch, engine.head().epoch]);
        }
        for (_, mark) in fleet.marks.iter().filter(|(chain, _)| !engine.has(*chain)) {
            match *mark {
                Mark::Purge(index) => self.truth.purges.get_mut(index).into_iter().for_each(|purge| purge.is_void = true),
                Mark::Config(index) => self.truth.configured.get_mut(index).into_iter().for_each(|config| {
                    config.complete = None;
                    config.epoch = Epoch::from_bytes([0; 8]);
                }),
            }
        }
        self.truth.is_uncertain = true;
        for write in &mut self.truth.answered {
            write.is_owed = false;
        }
        self.tell(|| format!("another process takes the engine's place{}", if loses_events { ", and lacks events" } else { "" }));
        self.count(if loses_events { "an engine that lost events" } else { "an engine that lost grants" });
    }

    /// Looks what an origin says is complete. One that has not heard yet that another process took the engine's place says what
    /// that one knew.
    fn check_shared_completion(&mut self, to: usize) {
        let now = self.now;
        let Some(member) = self.member(to) else { return };
        let is_up_to_date = self.fleet.as_ref().is_some_and(|fleet| fleet.engine.server() == member.run());
        let (said, Some(head)) = (member.said(now), member.head()) else { return };
        if !is_up_to_date || said == 0 {
            return;
        }
        let is_open = |epoch: Epoch, seq: u64, complete: Option<Time>| epoch == head.epoch && seq <= said && complete.is_none();
        let open = |purge: &Purge| is_open(purge.epoch, purge.seq, purge.complete) && !purge.is_void;
        let purges = self.truth.purges.iter().enumerate().filter(|(_, purge)| open(purge));
        let purges: Vec<(usize, Purge)> = purges.map(|(index, purge)| (index, purge.clone())).collect();
        for (index, purge) in &purges {
            if self.is_complete(to, purge.seq, &purge.fact()) {
                self.tell(|| format!("origin {to} says that purge {} is complete", purge.seq));
                self.count("a purge that is complete by a shared book");
                self.truth.purges.get_mut(*index).into_iter().for_each(|purge| purge.complete = Some(now));
                self.check_shared_leases(purge);
            }
        }
        for index in 0..self.truth.configured.len() {
            let Some(config) = self.truth.configured.get(index).copied() else { continue };
            if is_open(config.epoch, config.seq, config.complete) && self.is_complete(to, config.seq, &unknown(Class::Config)) {
                self.truth.configured.get_mut(index).into_iter().for_each(|config| config.complete = Some(now));
            }
        }
    }

    fn is_complete(&mut self, to: usize, seq: u64, fact: &Fact) -> bool {
        let now = self.now;
        let Some(Fleet { members, networks, .. }) = &mut self.fleet else { return false };
        members.get(to).is_some_and(|member| member.completion(seq, fact, networks, now) == Completion::Complete)
    }

    /// L1 to L6 together, as far as an edge is of the same life of the journal: one of a later life has dropped all that it held.
    fn check_shared_leases(&mut self, purge: &Purge) {
        if self.truth.ambiguous.contains(&purge.epoch) {
            return;
        }
        for at in 0..self.edges.len() {
            let Some(edge) = self.edges.get(at) else { continue };
            let Some(view) = edge.process.as_ref().and_then(|process| process.view.as_ref()) else { continue };
            let standing = edge.standing(self.now);
            if standing.holds() && view.epoch == purge.epoch && standing.applied < purge.seq {
                return self.fail(format!("L: purge {} is complete, and edge {at} holds a lease at {}", purge.seq, standing.applied));
            }
        }
    }
}

/// Returns what a follower hears of the book's verdict.
fn answer(lease: Duration, head: u64, verdict: Verdict) -> AckAnswer {
    let refuse = |reason, anew| AckAnswer { head, lease_ms: 0, reason: Some(reason), anew };
    match verdict {
        Verdict::Granted(_) => AckAnswer { head, lease_ms: u64::try_from(lease.as_millis()).unwrap_or(0), reason: None, anew: false },
        Verdict::BelowComplete => refuse(Refused::BelowComplete, false),
        Verdict::Laggard => refuse(Refused::Laggard, false),
        Verdict::Retired { anew } => refuse(Refused::Retired, anew),
    }
}
