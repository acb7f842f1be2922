//! What the origin hears and says, and what must be so whenever it says that something is complete.

use std::time::Duration;

use origin::cores::Fit;
use wire::{Ack, Class, Epoch, Fact, Position, lease_margin};

use super::{What, World};
use crate::origin::{Completion, Feed, unknown};
use crate::plan::{MS, Time};
use crate::truth::Purge;

impl World {
    pub(super) fn follow(&mut self, at: usize, life: u64, number: u64, after: Position) {
        if !self.origin.is_up() {
            return;
        }
        match self.origin.open(at, number, after) {
            Fit::Here => self.push(true),
            fit => self.reach_edge(at, What::NoFeed { at, life, number, is_lost: fit == Fit::Lost }),
        }
    }

    pub(super) fn push(&mut self, with_heartbeats: bool) {
        for (Feed { edge: at, number, .. }, line) in self.origin.lines(with_heartbeats) {
            let life = self.edges.get(at).map_or(0, |edge| edge.life);
            self.reach_edge(at, What::Line { at, life, number, line: Box::new(line) });
        }
    }

    pub(super) fn ack(&mut self, at: usize, life: u64, number: u64, ack: Ack) {
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
    pub(super) fn append(&mut self, fact: Fact) -> Option<Position> {
        if !self.origin.is_up() || self.origin.paused_until > self.now {
            return None;
        }
        let position = self.origin.append(fact, self.now);
        let takes = self.chance.between(0, 3 * MS);
        self.after(takes, What::Durable { life: self.origin.life, seq: position.seq });
        Some(position)
    }

    pub(super) fn durable(&mut self, seq: u64) {
        self.origin.tell(seq, self.now);
        let epoch = self.origin.head().map(|head| head.epoch);
        for purge in self.truth.purges.iter_mut().filter(|purge| purge.seq <= seq && Some(purge.epoch) == epoch) {
            purge.accepted = true;
        }
        self.push(false);
        self.check_completion();
    }

    pub(super) fn origin_beats(&mut self) {
        self.push(true);
        self.check_completion();
        self.check_bound();
        self.after(self.plan.heartbeat / 2, What::OriginBeats { life: self.origin.life });
    }

    pub(super) fn start_origin(&mut self, restored: bool) {
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

    pub(super) fn is_of_this_epoch(&self, purge: &Purge) -> bool {
        self.origin.head().is_some_and(|head| head.epoch == purge.epoch)
    }

    pub(super) fn check_completion(&mut self) {
        let Some(head) = self.origin.head() else { return };
        let open = |epoch: Epoch, complete: Option<Time>| complete.is_none() && epoch == head.epoch;
        let purges: Vec<_> =
            self.truth.purges.iter().filter(|purge| open(purge.epoch, purge.complete) && !purge.is_void).cloned().collect();
        for purge in purges {
            let fact = purge.fact();
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
    pub(super) fn look_again(&mut self, seq: u64) {
        let Some(span) = self.origin.next_change(seq, self.now) else { return };
        let at = self.now + span;
        if at < self.next_look || self.next_look <= self.now {
            self.next_look = at;
            self.put(at, What::Completes { life: self.origin.life });
        }
    }

    /// L1 to L6 together: where a purge is complete, whoever holds a lease has it in force.
    pub(super) fn check_leases(&mut self, purge: &Purge) {
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
    pub(super) fn check_bound(&mut self) {
        let (Some(head), Some(since)) = (self.origin.head(), self.origin.runs_since()) else { return };
        let lease = Duration::from_micros(self.longest);
        let bound = self.origin.clock.until(2 * (lease + lease_margin(lease))) + self.plan.heartbeat;
        let open: Vec<_> = self.truth.purges.iter().filter(|purge| purge.epoch == head.epoch && !purge.is_void).cloned().collect();
        for purge in open {
            let begun = purge.appended.max(since).max(self.origin.paused_until);
            if purge.complete.is_none()
                && self.now > begun + bound
                && self.origin.completion(purge.seq, &purge.fact(), self.now) == Completion::Pending
            {
                return self.fail(format!("P2: purge {} is still pending {} ms after it was appended", purge.seq, (self.now - begun) / MS));
            }
        }
    }
}
