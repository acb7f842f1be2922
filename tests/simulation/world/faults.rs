//! What breaks.

use wire::Epoch;

use super::{What, World};
use crate::plan::{Fault, pick};
use crate::shared::SharedTier;

impl World {
    pub(super) fn fault(&mut self) {
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

    pub(super) fn break_it(&mut self, fault: Fault) {
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
            Fault::OriginKilled if self.plan.origins > 0 => {
                let to = self.chance.index(self.plan.origins);
                self.kill_member(to);
            }
            Fault::OriginRestored if self.plan.origins > 0 => {
                let backup = self.fleet.as_mut().and_then(|fleet| fleet.backup.take());
                backup.into_iter().for_each(|backup| self.fail_over(backup));
            }
            Fault::EngineFails => {
                // It has got nothing for a while by then.
                let pause = self.chance.between(1, lease / 2);
                if let Some(fleet) = self.fleet.as_mut().filter(|fleet| fleet.replica.is_none()) {
                    fleet.replica = Some(fleet.engine.clone());
                    self.after(pause, What::EngineFails);
                }
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
                let to = self.origin_of(at);
                if self.plan.origins > 1 && fault == Fault::Cut && self.chance.of_thousand(500) {
                    self.fleet.iter_mut().for_each(|fleet| _ = fleet.cuts.insert((at, to)));
                } else if let Some(cable) = self.cables.get_mut(at) {
                    cable.is_cut |= fault == Fault::Cut;
                    cable.feed_is_cut |= fault == Fault::FeedCut;
                }
                let pause = self.chance.between(1, 4 * lease);
                self.after(pause, What::Mend { at });
            }
            Fault::Paused => {
                let until = self.now + self.chance.between(1, 3 * lease);
                if self.plan.origins > 0 && self.chance.of_thousand(250) {
                    let to = self.chance.index(self.plan.origins);
                    let members = self.fleet.iter_mut().filter_map(|fleet| fleet.members.get_mut(to));
                    members.for_each(|member| member.paused_until = member.paused_until.max(until));
                } else if self.plan.origins == 0 && self.chance.of_thousand(250) {
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
    pub(super) fn forget_behind(&mut self, last: u64) {
        let epoch = self.origin.epoch_on_disk();
        for purge in self.truth.purges.iter_mut().filter(|purge| Some(purge.epoch) == epoch && purge.seq > last && !purge.accepted) {
            purge.is_void = true;
        }
        self.truth.configured.retain(|config| Some(config.epoch) != epoch || config.seq <= last);
    }

    pub(super) fn restore_origin(&mut self) {
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

    pub(super) fn back_up(&mut self) {
        let is_restored = self.plan.faults.iter().any(|(fault, weight)| *fault == Fault::OriginRestored && *weight > 0);
        if let Some(fleet) = self.fleet.as_mut().filter(|_| is_restored && !self.is_ending) {
            fleet.backup = Some(fleet.engine.clone());
        }
        self.origin.back_up();
        if self.chance.of_thousand(400) {
            self.origin.cut();
        }
        let region = self.chance.index(self.shared.len());
        self.shared.get_mut(region).into_iter().for_each(SharedTier::back_up);
        let pause = self.chance.between(1, 6 * self.plan.lease);
        self.after(pause, What::BackUp);
    }
}
