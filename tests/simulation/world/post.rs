//! What goes over a cable: messages that are lost, late or doubled, and what an edge does with those that come.

use wire::FeedLine;
use wire::mistake::{Mistake, makes};

use super::{Shown, What, World};
use crate::edge::{Deed, Edge};
use crate::plan::{Fault, MS, Time};

impl World {
    pub(super) fn reach_edge(&mut self, at: usize, what: What) {
        let Some(cable) = self.cables.get(at).copied() else { return };
        let is_feed = matches!(what, What::Line { .. });
        if cable.is_cut || (is_feed && cable.feed_is_cut) {
            return;
        }
        self.send(at, what, is_feed);
    }

    pub(super) fn reach_origin(&mut self, at: usize, what: What) {
        if self.cables.get(at).is_some_and(|cable| cable.is_cut) {
            return;
        }
        if self.fleet.is_some() {
            return self.ask_origin(at, what);
        }
        self.send(at, what, false);
    }

    /// Messages may be lost, late or doubled; those of a feed keep their order as long as it lasts.
    pub(super) fn send(&mut self, at: usize, what: What, is_feed: bool) {
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
        if what.is_ack()
            && self.chance.of_thousand(self.plan.doubled)
            && let Some(again) = what.again()
        {
            let later = time + self.chance.between(0, 2 * self.plan.lease);
            self.put(later, again);
        }
        self.put(time, what);
    }

    pub(super) fn on_edge(&mut self, at: usize, act: impl FnOnce(&mut Edge, Time) -> Vec<Deed>) {
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

    pub(super) fn apply(&mut self, at: usize, life: u64) {
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

    pub(super) fn line(&mut self, at: usize, number: u64, line: FeedLine) {
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

    pub(super) fn no_feed(&mut self, at: usize, number: u64, is_lost: bool) {
        let feeds = self.edges.get(at).and_then(|edge| edge.process.as_ref()).is_some_and(|process| process.feed == Some(number));
        if feeds {
            self.on_edge(at, |edge, now| {
                edge.process.iter_mut().for_each(|process| process.feed = None);
                // What the journal lost it hears of by an ack, and begins a new epoch.
                if is_lost && !makes(Mistake::OlderSnapshot) { Vec::new() } else { edge.ask_snapshot(now) }
            });
        }
    }

    pub(super) fn start_edge(&mut self, at: usize) {
        if self.edges.get(at).is_some_and(|edge| edge.process.is_some()) {
            return;
        }
        self.tell(|| format!("edge {at} starts"));
        self.on_edge(at, |edge, now| edge.start(now));
        let life = self.edges.get(at).map_or(0, |edge| edge.life);
        self.after(self.plan.heartbeat, What::Beat { at, life });
    }

    pub(super) fn kill_edge(&mut self, at: usize, fault: Fault) {
        let untold = self.untold(at);
        let life = self.edges.get(at).map_or(0, |edge| edge.life);
        for write in self.truth.answered.iter_mut().filter(|write| write.edge == at && write.life == life && untold.contains(&write.key)) {
            write.is_owed = false;
        }
        self.origin.close(at);
        self.fleet.iter_mut().flat_map(|fleet| &mut fleet.members).for_each(|member| member.close(at));
        self.edges.get_mut(at).into_iter().for_each(|edge| edge.kill(fault));
        // What it begins with again is what it had written, which may be less than what it had applied.
        let keeps_site = fault == Fault::EdgeKilled;
        self.shown
            .get_mut(at)
            .into_iter()
            .for_each(|shown| *shown = shown.filter(|_| keeps_site).map(|shown| Shown { applied: 0, ..shown }));
    }

    /// P6: an edge never goes back to an older event of its history.
    pub(crate) fn show_site(&mut self, at: usize, mut now: Shown) {
        // Where a journal lost events, others may have taken their places under the same epoch: that is another history, in which
        // the site may be as of an earlier event. What was applied goes back in none.
        let is_ambiguous = self.truth.ambiguous.contains(&now.epoch);
        let Some(shown) = self.shown.get_mut(at) else { return };
        let before = shown.filter(|before| before.epoch == now.epoch);
        // While it finds out which history it is on, nothing counts as in force.
        if now.applied == 0 {
            now.applied = before.map_or(0, |before| before.applied);
        }
        *shown = Some(now);
        let goes_back = |before: Shown| if is_ambiguous { before.applied > now.applied } else { before.site > now.site };
        if before.is_some_and(goes_back) {
            self.fail(format!("P6: edge {at} shows the site as of event {} at {}, and has shown {before:?}", now.site, now.applied));
        }
    }
}
