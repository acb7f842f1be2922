//! The end of a world: all is healed, and what must be so then.

use std::time::Duration;

use follow::Standing;

use super::{What, World};

impl World {
    pub(super) fn heal(&mut self) {
        self.is_ending = true;
        self.tell(|| "all is healed".to_owned());
        for at in 0..self.edges.len() {
            self.happen(What::Mend { at });
        }
    }

    pub(super) fn is_over(&mut self) -> bool {
        let lease = self.plan.lease;
        // Several origins have to agree on what is left before they wait for leases.
        let agreeing = if self.fleet.is_some() { 6 * lease } else { 0 };
        // Long enough for every pause, restart, lag and lease to end.
        let settles = self.plan.lasts + 14 * lease + 4 * self.plan.slowest_fetch + agreeing;
        if self.now > settles && self.truth.settled.is_none() {
            self.truth.settled = Some(self.now);
        }
        self.now > settles + 2 * lease
    }

    /// What must be so once all was healed: every purge is complete, and every edge answers from its cache.
    pub(super) fn close(&mut self) {
        let head = self.fleet.as_ref().map_or_else(|| self.origin.head(), |fleet| Some(fleet.engine.head()));
        let Some(head) = head else { return self.fail("the origin is not up at the end".to_owned()) };
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
