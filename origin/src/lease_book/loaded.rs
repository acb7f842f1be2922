//! How a mirror takes in the whole book: at the start, where it fell behind the log, and where a run or an epoch has ended.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use wire::mistake::{Mistake, makes};
use wire::{Chain, Epoch, Position, Role};

use super::follower::{Follower, Former};
use super::lines::{Grant, Named, Table};
use super::mirror::{Mirror, end, stranger};
use super::quiet_until;

/// How the followers of the whole book are taken in.
struct Loading {
    /// Whether numbers of grants mean others than before, and leases may run that the book does not know.
    is_anew: bool,
    is_other_epoch: bool,
    /// Until when nothing is complete.
    quiet: Duration,
    epoch: Epoch,
    now: Duration,
}

impl Mirror {
    /// Takes in the whole book, which was read before `now`. Of another run or epoch than before, or at the start, leases may run
    /// that are not in it: then nothing is complete until the longest that there may be has ended, and that is no shorter than
    /// `assumed` (L5, L6). At the start the book itself says how long those of the run before were.
    pub fn load(&mut self, table: Table, assumed: Duration, now: Duration) {
        let is_other_epoch = self.epoch != Some(table.epoch);
        let is_other_run = self.run != table.run && !makes(Mistake::RunUnheeded);
        let is_anew = is_other_epoch || is_other_run;
        let assumed = if self.run.is_empty() { Duration::ZERO } else { assumed };
        let longest = if is_anew { table.longest.max(self.longest).max(assumed) } else { table.longest };
        let quiet = if is_anew { quiet_until(longest, now).max(self.book.quiet_until) } else { self.book.quiet_until };
        let loading = Loading { is_anew, is_other_epoch, quiet, epoch: table.epoch, now };
        let mut known = std::mem::take(&mut self.book.followers);
        for named in table.named {
            let before = known.remove(&named.who);
            self.book.followers.insert(named.who.clone(), loading.follower(named, before));
        }
        self.lost.clear();
        if is_anew {
            // What the book lost with its run is put back; until then it is known here alone.
            self.lost = known.keys().cloned().collect();
            known.values_mut().for_each(|follower| loading.hold(follower));
            self.book.followers.extend(known);
        }
        // What was made complete in this epoch stays so, whatever the book has lost.
        self.book.complete = if is_other_epoch { table.complete } else { self.book.complete.max(table.complete) };
        self.book.quiet_until = quiet;
        self.book.latest = self.book.latest.max(now);
        self.book.live_version += 1;
        (self.run, self.epoch, self.log) = (table.run, Some(table.epoch), table.log);
        (self.grants, self.longest, self.longest_at) = (table.grants, longest, now);
    }
}

impl Loading {
    fn follower(&self, named: Named, before: Option<Follower>) -> Follower {
        let ends: BTreeMap<u64, Duration> =
            before.iter().filter(|_| !self.is_anew).flat_map(Follower::counted).map(|(grant, _, until)| (grant, until)).collect();
        let end_of = |grant: Grant| ends.get(&grant.number).copied().unwrap_or_else(|| end(grant.lease, self.now));
        let is_same_life = before.as_ref().is_some_and(|before| before.ack.life == named.life);
        let mut follower = before.unwrap_or_else(|| Follower::new(stranger(&named.who, &named.life, self.epoch), self.now));
        if !is_same_life || self.is_other_epoch || follower.news_at.is_none() {
            self.begin(&mut follower, &named);
        }
        follower.applied = follower.applied.max(named.applied);
        follower.ack.position = Position { epoch: self.epoch, seq: follower.applied, chain: Chain::START };
        // When it came so far is not known.
        follower.acks = VecDeque::from([(follower.applied, self.now)]);
        (follower.grant, follower.is_counted, follower.drained) = (named.grant.number, named.is_counted, named.drained);
        if named.is_counted {
            follower.until = Some(end_of(named.grant));
        } else if named.who.0 == Role::Edge && !self.is_anew {
            // Somebody's clock has shown that it has ended.
            follower.until = follower.until.map(|until| until.min(self.now));
        }
        let held = named.former.iter().map(|held| Former { until: end_of(held.grant), applied: held.applied, grant: held.grant.number });
        follower.former = self.uncounted(&follower).into_iter().chain(held).collect();
        follower.replaced = named.replaced.into();
        follower
    }

    /// A life begins of which nothing is known but what the book says.
    fn begin(&self, follower: &mut Follower, named: &Named) {
        follower.leased_until = follower.last_lease().max(self.now);
        (follower.until, follower.applied, follower.is_end_known) = (None, 0, false);
        follower.ack.life.clone_from(&named.life);
        follower.hear_news(&named.news, self.now);
        // It may have changed since: the next ack says it again.
        follower.news_at = None;
    }

    /// Returns the leases that may run and that the book does not count.
    fn uncounted(&self, follower: &Follower) -> Vec<Former> {
        if self.is_anew {
            return vec![Former { until: self.quiet, applied: 0, grant: 0 }];
        }
        follower.former.iter().filter(|former| former.grant == 0 && former.until > self.now).copied().collect()
    }

    /// A follower that the book has lost may hold a lease of the run before, like all others.
    fn hold(&self, follower: &mut Follower) {
        if self.is_other_epoch {
            follower.applied = 0;
        }
        (follower.grant, follower.is_counted) = (0, false);
        follower.former = self.uncounted(follower);
    }
}
