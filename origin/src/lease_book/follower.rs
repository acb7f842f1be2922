//! One follower as the lease book knows it: what its present life has acknowledged, and which leases may still run.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use wire::mistake::{Mistake, makes};
use wire::{Ack, Chain, Epoch, FollowerReceipt, FollowerState, Position, Timestamp};

use super::{Remembered, millis};

/// How long a follower without a lease stays on receipts, unless it is drained.
const RETIRED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How long one that was drained and is silent is remembered, so that the life that was taken out stays out.
const DRAINED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// Acks that are remembered per follower, to tell how long an event took.
pub(super) const ACKS: usize = 512;

/// Lives of one name that were replaced, and those of them whose leases may still run.
pub(super) const LIVES: usize = 16;

#[derive(Debug)]
pub(super) struct Follower {
    pub(super) ack: Ack,
    /// What its present life has acknowledged.
    pub(super) applied: u64,
    /// When the origin counts its lease as ended, the margin included; `None` where it never had one.
    pub(super) until: Option<Duration>,
    pub(super) last_ack: Duration,
    /// For how long it had been silent already when this origin was started.
    pub(super) silent_before: Duration,
    /// Until when it may have held a lease that is not kept here any more: of a former life, or of a book before this one.
    pub(super) leased_until: Duration,
    /// Whether the end of its last lease is known, and not only until when it may have held one.
    pub(super) is_end_known: bool,
    /// (seq, when acknowledged), the oldest first.
    pub(super) acks: VecDeque<(u64, Duration)>,
    /// Leases of former lives that may still run.
    pub(super) former: Vec<Former>,
    /// Lives that were replaced: their late acks are refused.
    pub(super) replaced: VecDeque<String>,
    /// Whether its present life was taken out of service: it gets no lease any more.
    pub(super) drained: bool,
    /// The id of the token that its last ack came with; `None` for the file's own.
    pub(super) token: Option<String>,
    /// What the book's `changed` was when it last became new: a follower, a life of one, or one that was long silent.
    pub(super) changed_at: u64,
    /// The number of its last grant in a book that origins share; 0 where it had none there.
    pub(super) grant: u64,
    /// Whether that book still counts it: nobody's clock has shown yet that it has ended.
    pub(super) is_counted: bool,
    /// When it last said something of itself that all origins heard.
    pub(super) news_at: Option<Duration>,
}

/// The lease of a former life. It says nothing about the present one (L4), and counts for what its own life had applied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Former {
    pub(super) until: Duration,
    pub(super) applied: u64,
    /// Its number in a book that origins share, which counts it until somebody's clock shows that it has ended; else 0.
    pub(super) grant: u64,
}

impl Follower {
    pub(super) fn new(ack: Ack, now: Duration) -> Self {
        Self {
            ack,
            applied: 0,
            until: None,
            last_ack: now,
            silent_before: Duration::ZERO,
            leased_until: now,
            is_end_known: true,
            acks: VecDeque::new(),
            former: Vec::new(),
            replaced: VecDeque::new(),
            drained: false,
            token: None,
            changed_at: 0,
            grant: 0,
            is_counted: false,
            news_at: None,
        }
    }

    /// Who was known before the origin was restarted.
    pub(super) fn of_former_times(known: &Remembered, epoch: Epoch, now: Duration) -> Self {
        let applied = if known.epoch == Some(epoch) { known.applied } else { 0 };
        let ack = Ack {
            follower: known.name.clone(),
            role: known.role,
            region: known.region.clone(),
            life: known.drained.as_ref().or(known.life.as_ref()).cloned().unwrap_or_default(),
            protocol: wire::PROTOCOL,
            position: Position { epoch, seq: applied, chain: Chain::START },
            answers: Vec::new(),
            draining: false,
            load: 0.0,
            counts: BTreeMap::new(),
        };
        Self {
            applied,
            drained: known.drained.is_some(),
            silent_before: Duration::from_millis(known.silent_ms),
            is_end_known: false,
            replaced: known.replaced.iter().rev().take(LIVES).rev().cloned().collect(),
            ..Self::new(ack, now)
        }
    }

    /// What is stored of it.
    pub(super) fn remembered(&self, now: Duration) -> Remembered {
        let life = &self.ack.life;
        Remembered {
            role: self.ack.role,
            name: self.ack.follower.clone(),
            region: self.ack.region.clone(),
            epoch: Some(self.ack.position.epoch),
            applied: self.applied,
            life: (!life.is_empty()).then(|| life.clone()),
            replaced: self.replaced.iter().cloned().collect(),
            silent_ms: millis(self.silent(now)),
            drained: self.drained.then(|| life.clone()),
        }
    }

    /// Of another epoch it has applied nothing. A lease of the one before may run until `quiet_until`.
    pub(super) fn forget(&mut self, quiet_until: Duration) {
        self.applied = 0;
        self.until = None;
        self.former = vec![Former { until: quiet_until, applied: 0, grant: 0 }];
        self.is_end_known = false;
        self.acks.clear();
    }

    /// Tells whether the ack is of the present life; a life that was never seen replaces it.
    pub(super) fn meet(&mut self, ack: Ack, now: Duration) -> bool {
        if makes(Mistake::AckOfFormerLife) {
            self.hear(ack, now);
            return true;
        }
        if self.replaced.contains(&ack.life) {
            return false;
        }
        if ack.life != self.ack.life {
            self.end_life(now);
        }
        self.hear(ack, now);
        true
    }

    /// Another life is to take the place of the present one, whose lease may still run.
    pub(super) fn end_life(&mut self, now: Duration) {
        let applied = self.applied;
        let grant = if std::mem::take(&mut self.is_counted) { self.grant } else { 0 };
        self.leased_until = self.last_lease();
        // One that a shared book counts is told to it when it has ended, and forgotten with it.
        self.former.retain(|former| former.until > now || former.grant > 0);
        let until = self.until.take().filter(|_| !makes(Mistake::FormerLeaseForgotten));
        self.former.extend(until.map(|until| Former { until, applied, grant }));
        self.bound_former();
        let life = std::mem::take(&mut self.ack.life);
        self.replaced.extend((!life.is_empty()).then_some(life));
        if self.replaced.len() > LIVES {
            self.replaced.pop_front();
        }
        self.applied = 0;
        self.acks.clear();
        self.drained = false;
        self.grant = 0;
    }

    pub(super) fn hear(&mut self, ack: Ack, now: Duration) {
        self.ack = ack;
        self.last_ack = now;
        self.silent_before = Duration::ZERO;
    }

    /// Of too many former lives the oldest count as one, which holds back what any of them does.
    pub(super) fn bound_former(&mut self) {
        // Those that a shared book counts are bounded there, and each must be told to it when it has ended.
        if self.former.iter().any(|former| former.grant > 0) {
            return;
        }
        while self.former.len() > LIVES {
            let oldest = self.former.remove(0);
            if let Some(next) = self.former.first_mut() {
                *next = Former { until: next.until.max(oldest.until), applied: next.applied.min(oldest.applied), ..*next };
            }
        }
    }

    /// Returns for how long nothing has been heard of it, while an origin ran.
    pub(super) fn silent(&self, now: Duration) -> Duration {
        now.saturating_sub(self.last_ack) + self.silent_before
    }

    pub(super) fn acknowledge(&mut self, seq: u64, now: Duration) {
        if seq > self.applied || self.acks.is_empty() {
            self.applied = seq.max(self.applied);
            self.acks.push_back((self.applied, now));
            if self.acks.len() > ACKS {
                self.acks.pop_front();
            }
        }
    }

    /// What the DNS is told of it.
    pub(super) fn shown(&self, now: Duration) -> (bool, bool, u64, Vec<std::net::IpAddr>) {
        (self.is_live(now), self.ack.draining, self.ack.load.to_bits(), self.ack.answers.clone())
    }

    /// Whether the DNS may give it out.
    pub(super) fn is_live(&self, now: Duration) -> bool {
        !self.drained && self.until.is_some_and(|until| until > now)
    }

    /// Returns the seq beyond which nothing is complete because of it, where it holds anything back.
    pub(super) fn holds_back(&self, now: Duration) -> Option<u64> {
        let former = self.former.iter().filter(|former| former.until > now).map(|former| former.applied);
        let present = self.until.filter(|until| *until > now).map(|_| self.applied);
        former.chain(present).min()
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = Duration> {
        self.former.iter().map(|former| former.until).chain(self.until)
    }

    /// Returns when its last lease ended or will, at the latest.
    pub(super) fn last_lease(&self) -> Duration {
        self.leases().max().unwrap_or_default().max(self.leased_until)
    }

    pub(super) fn retired(&self, now: Duration) -> bool {
        self.leases().all(|until| until <= now) && (self.drained || self.silent(now) > RETIRED_AFTER)
    }

    /// Whether nothing of it matters any more.
    pub(super) fn is_forgotten(&self, now: Duration) -> bool {
        let after = if self.drained { DRAINED_FOR } else { RETIRED_AFTER };
        self.retired(now) && self.silent(now) > after
    }

    pub(super) fn state(&self, seq: u64, now: Duration) -> FollowerState {
        match (self.holds_back(now), self.applied >= seq) {
            (Some(reached), _) if reached < seq => FollowerState::Pending,
            (_, true) => FollowerState::Applied,
            (_, false) => FollowerState::Fenced,
        }
    }

    pub(super) fn receipt(&self, seq: u64, appended_at: Option<Duration>, now: Duration, wall: Timestamp) -> FollowerReceipt {
        let state = self.state(seq, now);
        // Only an ack that comes after another one below `seq` tells when it was applied: the first one of a life, or
        // the first that is remembered, may have come long after.
        let at = self.acks.partition_point(|(acked, _)| *acked < seq);
        let acked_at = (at > 0).then(|| self.acks.get(at)).flatten().map(|(_, acked_at)| *acked_at);
        let after =
            acked_at.zip(appended_at).filter(|_| state == FollowerState::Applied).map(|(acked, appended)| acked.saturating_sub(appended));
        let since = (state == FollowerState::Fenced && self.is_end_known).then(|| {
            let ago = now.saturating_sub(self.last_lease());
            Timestamp::from_millis(wall.as_millis().saturating_sub(millis(ago)))
        });
        FollowerReceipt { name: self.ack.follower.clone(), region: self.ack.region.clone(), state, after_ms: after.map(millis), since }
    }
}
