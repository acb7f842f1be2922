//! The lease book: who may rely on what it has applied, until when, and what is complete therefore.
//!
//! Rules L1 to L6. Pure: time (CLOCK_BOOTTIME) and messages come in as arguments. Granting and
//! completing happen on this one value, so they are atomic as long as one lock holds it (L5).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::{
    Ack, AckAnswer, Chain, Epoch, FollowerReceipt, FollowerState, FollowerStatus, LEASE_NONE, LiveEdge, NodeName, Position, Refused,
    RegionName, Role, Timestamp,
};

/// How long a follower without a lease stays on receipts, unless it is drained.
const RETIRED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Acks that are remembered per follower, to tell how long an event took.
const ACKS: usize = 4096;

/// Lives of one name whose leases may still run.
const LIVES: usize = 16;

/// Followers in all. Tokens are bound to names, so only a mistake comes here.
const FOLLOWERS: usize = 100_000;

/// Everything that decides leases and completion.
#[derive(Debug)]
pub(crate) struct LeaseBook {
    followers: BTreeMap<(Role, NodeName), Follower>,
    /// The highest seq that was reported complete (L2).
    complete: u64,
    /// Until then nothing is reported complete: leases of a book that was lost may still run (L5).
    quiet_until: Duration,
    /// Rises whenever the set of live edges, or what they say of themselves, changes.
    live_version: u64,
    /// Whether a follower, or a life of one, is new since the followers were last stored.
    unsaved: bool,
}

/// A follower as it is remembered over a restart of the origin: a fenced one may go on serving by its
/// routes' choice, and receipts must know of it (P7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    role: Role,
    name: NodeName,
    region: RegionName,
    applied: u64,
    /// The life that was taken out of service, where it was: it must not come back by a restart of the origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drained: Option<String>,
}

#[derive(Debug)]
struct Follower {
    ack: Ack,
    /// What its present life has acknowledged.
    applied: u64,
    /// When the origin counts its lease as ended, the margin included; `None` where it never had one.
    until: Option<Duration>,
    last_ack: Duration,
    /// (seq, when acknowledged), the oldest first.
    acks: VecDeque<(u64, Duration)>,
    /// Leases of former lives: until when they may run. They say nothing any more (L4).
    former: Vec<Duration>,
    /// Lives that were replaced: their late acks are refused.
    replaced: VecDeque<String>,
    /// Whether its present life was taken out of service: it gets no lease any more.
    drained: bool,
    /// The id of the token that its last ack came with; `None` for the file's own.
    token: Option<String>,
}

/// What an ack is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// CLOCK_BOOTTIME.
    pub(crate) now: Duration,
    /// The journal's last seq.
    pub(crate) head: u64,
    /// Whether the ack's position is of this history.
    pub(crate) fits: bool,
    /// When the first event that it has not applied was appended, where there is one.
    pub(crate) first_unapplied_at: Option<Duration>,
    /// The length of a lease.
    pub(crate) lease: Duration,
    /// What the origin adds to it (L1).
    pub(crate) margin: Duration,
}

impl LeaseBook {
    /// Returns the book of an origin that has just started with a journal up to `head`. Leases that a
    /// lost book granted may run until `quiet_until`, and all that the journal holds counts as complete.
    pub(crate) fn new(head: u64, quiet_until: Duration) -> Self {
        Self { followers: BTreeMap::new(), complete: head, quiet_until, live_version: 0, unsaved: false }
    }

    /// Takes in the followers that the origin knew before it was restarted, as fenced ones.
    pub(crate) fn remember(&mut self, remembered: Vec<Remembered>, now: Duration) {
        for known in remembered {
            let follower = Follower::of_former_times(&known, now);
            self.followers.entry((known.role, known.name)).or_insert(follower);
        }
    }

    /// Returns all followers where they must be stored before the next lease is given.
    pub(crate) fn take_unsaved(&mut self) -> Option<Vec<Remembered>> {
        std::mem::take(&mut self.unsaved).then(|| {
            let remember = |((role, name), follower): (&(Role, NodeName), &Follower)| Remembered {
                role: *role,
                name: name.clone(),
                region: follower.ack.region.clone(),
                applied: follower.applied,
                drained: follower.drained.then(|| follower.ack.life.clone()),
            };
            self.followers.iter().map(remember).collect()
        })
    }

    /// The followers could not be stored: they still must be.
    pub(crate) fn still_unsaved(&mut self) {
        self.unsaved = true;
    }

    /// Starts again for a new epoch: no lease of the life before says anything about it. Who was taken
    /// out of service stays out.
    pub(crate) fn begin_epoch(&mut self, head: u64, quiet_until: Duration) {
        let mut followers = std::mem::take(&mut self.followers);
        followers.retain(|_, follower| follower.drained);
        followers.values_mut().for_each(Follower::forget);
        let quiet_until = quiet_until.max(self.quiet_until);
        *self = Self { followers, live_version: self.live_version + 1, unsaved: true, ..Self::new(head, quiet_until) };
    }

    /// Takes the present life of an edge out of service; tells whether there is such an edge. The DNS loses
    /// it at once. Receipts lose it when its leases have ended: until then it may answer from what it
    /// holds, so what it has not applied waits for it as for any other (P2).
    pub(crate) fn drain(&mut self, name: &NodeName) -> bool {
        let Some(edge) = self.followers.get_mut(&(Role::Edge, name.clone())) else { return false };
        if !edge.drained {
            edge.drained = true;
            self.unsaved = true;
            self.live_version += 1;
        }
        true
    }

    /// Returns up to where every edge has applied all events or is fenced, and remembers that it was
    /// said, as [`Self::report_complete`] does; 0 while nothing may be said.
    pub(crate) fn report_progress(&mut self, head: u64, now: Duration) -> u64 {
        if now < self.quiet_until {
            return 0;
        }
        let reached = self.edges(now).filter_map(|edge| edge.holds_back(now)).min();
        self.complete = self.complete.max(reached.map_or(head, |reached| reached.min(head)));
        self.complete
    }

    /// Returns a number that rises whenever the live set changes.
    pub(crate) fn live_version(&self) -> u64 {
        self.live_version
    }

    /// Takes in an ack and decides about a lease.
    pub(crate) fn ack(&mut self, ack: Ack, standing: &Standing) -> AckAnswer {
        let refuse = |reason| AckAnswer { head: standing.head, lease_ms: LEASE_NONE, reason: Some(reason) };
        if !standing.fits {
            return refuse(Refused::OtherHistory);
        }
        let key = (ack.role, ack.follower.clone());
        if !self.followers.contains_key(&key) && self.followers.len() >= FOLLOWERS {
            return refuse(Refused::Retired);
        }
        let seq = ack.position.seq;
        let before = self.followers.get(&key).map(|follower| follower.shown(standing.now));
        let life_before = self.followers.get(&key).map(|follower| follower.ack.life.clone());
        self.unsaved |= life_before.as_ref() != Some(&ack.life);
        let follower = self.followers.entry(key).or_insert_with(|| Follower::new(ack.clone(), standing.now));
        if !follower.meet(ack, standing.now) {
            return refuse(Refused::Retired);
        }
        // What it says is in force there is, whether it is given another lease or not.
        follower.acknowledge(seq, standing.now);
        let answer = if follower.drained {
            refuse(Refused::Retired)
        } else if seq < self.complete {
            refuse(Refused::BelowComplete)
        } else if standing.first_unapplied_at.is_some_and(|at| standing.now.saturating_sub(at) > standing.lease) {
            refuse(Refused::Laggard)
        } else {
            follower.until = follower.until.max(Some(standing.now + standing.lease + standing.margin));
            AckAnswer { head: standing.head, lease_ms: u64::try_from(standing.lease.as_millis()).unwrap_or(u64::MAX), reason: None }
        };
        if before != Some(follower.shown(standing.now)) || answer.lease_ms == LEASE_NONE {
            self.live_version += 1;
        }
        answer
    }

    /// Notes which token a follower's ack came with.
    pub(crate) fn let_in(&mut self, who: &(Role, NodeName), token: Option<String>) {
        if let Some(follower) = self.followers.get_mut(who) {
            follower.token = token;
        }
    }

    /// Returns the followers that hold a lease by acks with this token.
    pub(crate) fn relying_on(&self, token: &str, now: Duration) -> Vec<NodeName> {
        let relying = self.followers.iter().filter(|(_, follower)| follower.is_live(now) && follower.token.as_deref() == Some(token));
        relying.map(|((_, name), _)| name.clone()).collect()
    }

    /// Decides whether every edge has applied `seq` or is fenced, and remembers that it was said.
    pub(crate) fn report_complete(&mut self, seq: u64, now: Duration) -> bool {
        let complete =
            seq <= self.complete || (now >= self.quiet_until && self.edges(now).all(|edge| edge.state(seq, now) != FollowerState::Pending));
        // What is below the head of a lost book counts as complete for leases, but may not be said
        // while leases of that book may still run.
        if complete && now >= self.quiet_until {
            self.complete = self.complete.max(seq);
            return true;
        }
        false
    }

    /// Returns when the answer of [`Self::report_complete`] may change without any message.
    pub(crate) fn next_change(&self, seq: u64, now: Duration) -> Option<Duration> {
        let ends = self.edges(now).filter(|edge| edge.state(seq, now) == FollowerState::Pending).flat_map(Follower::leases);
        ends.chain([self.quiet_until]).filter(|at| *at > now).min()
    }

    /// Returns each edge's line of a receipt for an event appended at `appended_at`.
    pub(crate) fn receipt(&self, seq: u64, appended_at: Option<Duration>, now: Duration, wall: Timestamp) -> Vec<FollowerReceipt> {
        self.edges(now).map(|edge| edge.receipt(seq, appended_at, now, wall)).collect()
    }

    /// Returns the edges that hold a lease, for the DNS.
    pub(crate) fn live(&self, now: Duration) -> Vec<LiveEdge> {
        let live = self.edges(now).filter(|edge| edge.is_live(now));
        live.map(|edge| LiveEdge {
            edge: edge.ack.follower.clone(),
            region: edge.ack.region.clone(),
            answers: edge.ack.answers.clone(),
            draining: edge.ack.draining,
            load: edge.ack.load,
        })
        .collect()
    }

    /// Returns the next moment at which a lease of an edge ends.
    pub(crate) fn next_end(&self, now: Duration) -> Option<Duration> {
        self.edges(now).filter_map(|edge| edge.until).filter(|until| *until > now).min()
    }

    /// Returns every follower as `atoll status` shows it.
    pub(crate) fn status(&self, head: u64, now: Duration) -> Vec<FollowerStatus> {
        let present = self.followers.values().filter(|follower| !follower.retired(now));
        present
            .map(|follower| {
                let left = follower.until.map_or(Duration::ZERO, |until| until.saturating_sub(now));
                FollowerStatus {
                    name: follower.ack.follower.clone(),
                    role: follower.ack.role,
                    region: if follower.ack.role == Role::Edge { follower.ack.region.to_string() } else { String::new() },
                    live: !left.is_zero(),
                    lease_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
                    applied: follower.applied,
                    lag: head.saturating_sub(follower.applied),
                    draining: follower.ack.draining || follower.drained,
                    counts: follower.ack.counts.clone(),
                }
            })
            .collect()
    }

    /// Returns the seqs that fenced edges stand at: what they may go on serving by was in force there.
    pub(crate) fn fenced_at(&self, seq: u64, now: Duration) -> Vec<(u64, Duration)> {
        let fenced = self.edges(now).filter(|edge| edge.state(seq, now) == FollowerState::Fenced);
        fenced.map(|edge| (edge.applied, edge.until.unwrap_or_default())).collect()
    }

    fn edges(&self, now: Duration) -> impl Iterator<Item = &Follower> {
        self.followers.values().filter(move |follower| follower.ack.role == Role::Edge && !follower.retired(now))
    }
}

impl Follower {
    fn new(ack: Ack, now: Duration) -> Self {
        let (acks, former, replaced) = (VecDeque::new(), Vec::new(), VecDeque::new());
        Self { ack, applied: 0, until: None, last_ack: now, acks, former, replaced, drained: false, token: None }
    }

    /// Who was known before the origin was restarted, of no life that it could ack for.
    fn of_former_times(known: &Remembered, now: Duration) -> Self {
        let ack = Ack {
            follower: known.name.clone(),
            role: known.role,
            region: known.region.clone(),
            life: known.drained.clone().unwrap_or_default(),
            protocol: wire::PROTOCOL,
            position: Position { epoch: Epoch::from_bytes([0; 8]), seq: known.applied, chain: Chain::START },
            answers: Vec::new(),
            draining: false,
            load: 0.0,
            counts: BTreeMap::new(),
        };
        Self { applied: known.applied, drained: known.drained.is_some(), ..Self::new(ack, now) }
    }

    /// Of another epoch it has applied nothing, and holds no lease.
    fn forget(&mut self) {
        self.applied = 0;
        self.until = None;
        self.former.clear();
        self.acks.clear();
    }

    /// Tells whether the ack is of the present life; a life that was never seen replaces it.
    fn meet(&mut self, ack: Ack, now: Duration) -> bool {
        if self.replaced.contains(&ack.life) {
            return false;
        }
        if ack.life != self.ack.life {
            self.former.retain(|until| *until > now);
            self.former.extend(self.until.take());
            self.replaced.push_back(std::mem::take(&mut self.ack.life));
            if self.replaced.len() > LIVES {
                self.replaced.pop_front();
            }
            self.applied = 0;
            self.acks.clear();
            self.drained = false;
        }
        self.ack = ack;
        self.last_ack = now;
        true
    }

    fn acknowledge(&mut self, seq: u64, now: Duration) {
        if seq > self.applied || self.acks.is_empty() {
            self.applied = seq.max(self.applied);
            self.acks.push_back((self.applied, now));
            if self.acks.len() > ACKS {
                self.acks.pop_front();
            }
        }
    }

    /// What the DNS is told of it.
    fn shown(&self, now: Duration) -> (bool, bool, u64, Vec<std::net::IpAddr>) {
        (self.is_live(now), self.ack.draining, self.ack.load.to_bits(), self.ack.answers.clone())
    }

    /// Whether the DNS may give it out.
    fn is_live(&self, now: Duration) -> bool {
        !self.drained && self.until.is_some_and(|until| until > now)
    }

    /// Returns the seq beyond which nothing is complete because of it, where it holds anything back: while
    /// a lease of a former life runs, nothing at all is known of it.
    fn holds_back(&self, now: Duration) -> Option<u64> {
        let runs = |until: &Duration| *until > now;
        if self.former.iter().any(runs) { Some(0) } else { self.until.as_ref().filter(|until| runs(until)).map(|_| self.applied) }
    }

    fn leases(&self) -> impl Iterator<Item = Duration> {
        self.former.iter().copied().chain(self.until)
    }

    fn retired(&self, now: Duration) -> bool {
        self.leases().all(|until| until <= now) && (self.drained || now.saturating_sub(self.last_ack) > RETIRED_AFTER)
    }

    fn state(&self, seq: u64, now: Duration) -> FollowerState {
        let former_runs = self.former.iter().any(|until| *until > now);
        let runs = self.until.is_some_and(|until| until > now);
        match (self.applied >= seq, former_runs, runs) {
            (_, true, _) | (false, false, true) => FollowerState::Pending,
            (true, false, _) => FollowerState::Applied,
            (false, false, false) => FollowerState::Fenced,
        }
    }

    fn receipt(&self, seq: u64, appended_at: Option<Duration>, now: Duration, wall: Timestamp) -> FollowerReceipt {
        let state = self.state(seq, now);
        let acked_at = self.acks.iter().find(|(acked, _)| *acked >= seq).map(|(_, at)| *at);
        // The first remembered ack may be far above `seq`: then nobody knows when it really was.
        let known = self.acks.front().is_some_and(|(first, _)| *first < seq || self.acks.len() < ACKS);
        let after = acked_at
            .zip(appended_at)
            .filter(|_| known && state == FollowerState::Applied)
            .map(|(acked, appended)| acked.saturating_sub(appended));
        let since = (state == FollowerState::Fenced).then(|| {
            let ago = now.saturating_sub(self.leases().max().unwrap_or(self.last_ack));
            Timestamp::from_millis(wall.as_millis().saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
        });
        FollowerReceipt {
            name: self.ack.follower.clone(),
            region: self.ack.region.clone(),
            state,
            after_ms: after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(5);
    const MARGIN: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn ack(name: &str, life: &str, seq: u64) -> Ack {
        Ack {
            follower: name.parse().unwrap(),
            role: Role::Edge,
            region: "fra".parse().unwrap(),
            life: life.to_owned(),
            protocol: [1, 1],
            position: Position { epoch: Epoch::from_bytes([0; 8]), seq, chain: Chain::START },
            answers: vec![],
            draining: false,
            load: 0.0,
            counts: BTreeMap::new(),
        }
    }

    fn standing(now: u64, head: u64) -> Standing {
        Standing { now: at(now), head, fits: true, first_unapplied_at: None, lease: LEASE, margin: MARGIN }
    }

    #[test]
    fn l1_the_origin_counts_a_lease_longer_than_the_follower() {
        let mut book = LeaseBook::new(0, at(0));
        assert_eq!(book.ack(ack("a", "1", 0), &standing(0, 0)).lease_ms, 5000);
        assert!(!book.report_complete(1, at(5099)));
        assert!(book.report_complete(1, at(5100)));
    }

    #[test]
    fn l2_nobody_below_what_is_complete_gets_a_lease() {
        let mut book = LeaseBook::new(0, at(0));
        assert!(book.report_complete(3, at(0)), "nobody holds anything");
        assert_eq!(book.ack(ack("a", "1", 2), &standing(1, 3)).reason, Some(Refused::BelowComplete));
        assert_eq!(book.ack(ack("a", "1", 3), &standing(2, 3)).reason, None);
    }

    #[test]
    fn l3_a_laggard_gets_no_lease() {
        let mut book = LeaseBook::new(0, at(0));
        let late = Standing { first_unapplied_at: Some(at(0)), ..standing(5001, 1) };
        assert_eq!(book.ack(ack("a", "1", 0), &late).reason, Some(Refused::Laggard));
        let still = Standing { first_unapplied_at: Some(at(1)), ..standing(5001, 1) };
        assert_eq!(book.ack(ack("a", "1", 0), &still).reason, None);
    }

    #[test]
    fn l4_an_ack_of_a_former_life_says_nothing_and_its_lease_still_counts() {
        let mut book = LeaseBook::new(0, at(0));
        book.ack(ack("a", "1", 1), &standing(0, 1));
        book.ack(ack("a", "2", 0), &standing(10, 1));
        assert_eq!(book.ack(ack("a", "1", 1), &standing(20, 1)).reason, Some(Refused::Retired));
        assert!(!book.report_complete(1, at(30)), "the new life has not applied it");
        book.ack(ack("a", "2", 1), &standing(40, 1));
        assert!(!book.report_complete(1, at(5099)), "the former life may still run");
        assert!(book.report_complete(1, at(5100)));
    }

    #[test]
    fn l5_after_a_restart_nothing_is_complete_until_old_leases_ended_and_all_counts_for_new_ones() {
        let mut book = LeaseBook::new(7, at(5100));
        assert!(!book.report_complete(7, at(5099)));
        assert_eq!(book.ack(ack("a", "1", 6), &standing(10, 7)).reason, Some(Refused::BelowComplete));
        assert_eq!(book.next_change(7, at(10)), Some(at(5100)));
        assert!(book.report_complete(7, at(5100)));
    }

    #[test]
    fn p7_who_was_known_before_a_restart_stays_on_receipts_as_fenced() {
        let mut before = LeaseBook::new(0, at(0));
        before.ack(ack("a", "1", 0), &standing(0, 0));
        let known = before.take_unsaved().unwrap();
        assert!(before.take_unsaved().is_none(), "nothing is new");
        let mut book = LeaseBook::new(3, at(5100));
        book.remember(known, at(10));
        assert!(book.report_complete(4, at(5100)));
        let receipt = book.receipt(4, None, at(5100), Timestamp::from_millis(0));
        assert_eq!(receipt.iter().map(|row| row.state).collect::<Vec<_>>(), [FollowerState::Fenced]);
        assert_eq!(book.fenced_at(4, at(5100)).len(), 1);
        book.ack(ack("a", "2", 4), &standing(5200, 4));
        assert_eq!(book.receipt(4, None, at(5300), Timestamp::from_millis(0))[0].state, FollowerState::Applied);
    }

    fn names(book: &LeaseBook, now: u64) -> (usize, usize) {
        (book.receipt(1, None, at(now), Timestamp::from_millis(0)).len(), book.live(at(now)).len())
    }

    #[test]
    fn a_drained_edge_leaves_the_dns_at_once_and_holds_up_completion_until_its_last_lease_ends() {
        let mut book = LeaseBook::new(0, at(0));
        book.ack(ack("a", "1", 0), &standing(0, 0));
        assert!(book.drain(&"a".parse().unwrap()) && !book.drain(&"b".parse().unwrap()));
        assert_eq!(names(&book, 1), (1, 0), "it may still answer from what it holds");
        assert_eq!(book.ack(ack("a", "1", 0), &standing(10, 1)).reason, Some(Refused::Retired));
        assert!(!book.report_complete(1, at(5099)), "its lease was granted before, and runs");
        assert!(book.report_complete(1, at(5100)));
        assert_eq!((names(&book, 5100), book.status(1, at(5100)).len()), ((0, 0), 0));
        assert_eq!(book.ack(ack("a", "1", 1), &standing(6000, 1)).reason, Some(Refused::Retired), "however far it has come");
    }

    #[test]
    fn who_relies_on_a_token_is_known_while_its_lease_runs() {
        let mut book = LeaseBook::new(0, at(0));
        for (name, token) in [("a", Some("follow")), ("b", Some("other")), ("c", None)] {
            book.ack(ack(name, "1", 0), &standing(0, 0));
            book.let_in(&(Role::Edge, name.parse().unwrap()), token.map(str::to_owned));
        }
        assert_eq!(book.relying_on("follow", at(10)), ["a".parse().unwrap()]);
        assert!(book.relying_on("follow", at(5100)).is_empty());
    }

    #[test]
    fn a_drained_edge_that_says_what_it_applied_is_believed() {
        let mut book = LeaseBook::new(0, at(0));
        book.ack(ack("a", "1", 0), &standing(0, 0));
        book.drain(&"a".parse().unwrap());
        book.ack(ack("a", "1", 1), &standing(10, 1));
        assert!(book.report_complete(1, at(20)));
        assert!(!book.report_complete(2, at(20)));
    }

    #[test]
    fn a_new_life_of_a_drained_edge_is_back_where_it_stands_high_enough() {
        let mut book = LeaseBook::new(0, at(0));
        book.ack(ack("a", "1", 0), &standing(0, 0));
        book.drain(&"a".parse().unwrap());
        assert!(book.report_complete(1, at(5100)));
        assert_eq!(book.ack(ack("a", "2", 0), &standing(5200, 1)).reason, Some(Refused::BelowComplete));
        assert_eq!(book.ack(ack("a", "2", 1), &standing(5300, 1)).reason, None);
        assert_eq!(names(&book, 5300), (1, 1));
        assert_eq!(book.ack(ack("a", "1", 1), &standing(5400, 1)).reason, Some(Refused::Retired));
    }

    #[test]
    fn a_drained_edge_stays_drained_over_a_restart_of_the_origin_and_a_new_epoch() {
        let mut before = LeaseBook::new(0, at(0));
        before.ack(ack("a", "1", 0), &standing(0, 0));
        before.take_unsaved();
        before.drain(&"a".parse().unwrap());
        let json = serde_json::to_string(&before.take_unsaved().unwrap()).unwrap();

        let mut book = LeaseBook::new(1, at(5100));
        book.remember(serde_json::from_str(&json).unwrap(), at(10));
        assert_eq!(names(&book, 5100), (0, 0));
        assert_eq!(book.ack(ack("a", "1", 1), &standing(5200, 1)).reason, Some(Refused::Retired));
        book.begin_epoch(0, at(10_000));
        assert_eq!(book.ack(ack("a", "1", 0), &standing(10_100, 0)).reason, Some(Refused::Retired));
        assert_eq!(book.ack(ack("a", "2", 0), &standing(10_200, 0)).reason, None);
    }

    #[test]
    fn progress_is_what_every_edge_that_may_answer_has_applied_and_is_kept_as_a_promise() {
        let mut book = LeaseBook::new(3, at(50));
        assert_eq!(book.report_progress(3, at(49)), 0, "leases of the life before may still run");
        assert_eq!(book.report_progress(3, at(50)), 3, "nobody holds anything");
        book.ack(ack("a", "1", 3), &standing(100, 5));
        book.ack(ack("b", "1", 5), &standing(100, 5));
        assert_eq!(book.report_progress(5, at(200)), 3, "one of two has applied the rest");
        book.ack(ack("a", "1", 4), &standing(300, 5));
        assert_eq!(book.report_progress(5, at(400)), 4);
        assert_eq!(book.ack(ack("c", "1", 3), &standing(500, 5)).reason, Some(Refused::BelowComplete), "L2 holds for what was said so");
        assert_eq!(book.report_progress(5, at(6000)), 5, "fenced edges hold nothing back");
        book.ack(ack("b", "2", 5), &standing(6000, 6));
        book.ack(ack("b", "3", 6), &standing(6100, 6));
        assert_eq!(book.report_progress(6, at(6200)), 5, "a lease of a former life runs");
        assert_eq!(book.report_progress(6, at(11_100)), 6);
    }

    #[test]
    fn another_history_gets_no_lease() {
        let mut book = LeaseBook::new(0, at(0));
        let foreign = Standing { fits: false, ..standing(0, 0) };
        assert_eq!(book.ack(ack("a", "1", 0), &foreign).reason, Some(Refused::OtherHistory));
        assert!(book.live(at(0)).is_empty());
    }

    #[test]
    fn a_receipt_tells_who_applied_after_how_long_and_who_is_fenced() {
        let mut book = LeaseBook::new(0, at(0));
        book.ack(ack("a", "1", 0), &standing(0, 0));
        book.ack(ack("b", "1", 0), &standing(0, 0));
        book.ack(ack("a", "1", 1), &standing(103, 1));
        let states = |book: &LeaseBook, now| {
            book.receipt(1, Some(at(100)), at(now), Timestamp::from_millis(1_000_000))
                .into_iter()
                .map(|row| (row.state, row.after_ms, row.since))
                .collect::<Vec<_>>()
        };
        assert_eq!(states(&book, 200), [(FollowerState::Applied, Some(3), None), (FollowerState::Pending, None, None)]);
        let fenced_since = Timestamp::from_millis(1_000_000 - 900);
        assert_eq!(states(&book, 6000)[1], (FollowerState::Fenced, None, Some(fenced_since)));
        assert_eq!(book.live(at(200)).len(), 2);
        assert_eq!(book.live(at(6000)).len(), 0);
    }
}
