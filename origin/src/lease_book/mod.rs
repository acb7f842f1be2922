//! The lease book: who may rely on what it has applied, until when, and what is complete therefore.
//!
//! Rules L1 to L6. Pure: time (CLOCK_BOOTTIME) and messages come in as arguments. Granting and
//! completing happen on this one value, so they are atomic as long as one lock holds it (L5).
//!
//! Where many origins share one book, the arbiter decides, which knows no time, and each origin's mirror of it is such a value
//! too: it counts the leases of all grants by this origin's clock, and answers what people and the DNS ask.

mod follower;
mod embedded;
mod lines;
mod arbiter;
mod mirror;
mod loaded;
mod calls;
mod shared;
mod leases;
#[cfg(test)]
mod suite;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::mistake::{Mistake, makes};
use wire::{
    Ack, AckAnswer, Epoch, FollowerReceipt, FollowerState, FollowerStatus, LEASE_NONE, LiveEdge, NodeName, Refused, RegionName, Role,
    Timestamp, lease_margin,
};

pub use arbiter::{Arbiter, Distrust};
pub(crate) use calls::Replicas;
pub(crate) use leases::{Book, Judged, Leases};
pub use lines::{Acked, Asked, Completed, Elsewhere, Entry, Grant, Held, Line, Named, Recalled, Table, Verdict, Who};
pub use mirror::{Candidate, Mirror};
pub(crate) use shared::Shared;

use follower::{Follower, Former};
use lines::News;

/// A silence whose end is stored: else a restart of the origin would count on from it.
const LONG_SILENCE: Duration = Duration::from_secs(3600);

/// Characters in the id of a life; ours have 16.
const LIFE: usize = 64;

/// Followers in all. Tokens are bound to names, so only a mistake comes here.
const FOLLOWERS: usize = 100_000;

/// Everything that decides leases and completion.
#[derive(Debug)]
pub struct LeaseBook {
    followers: BTreeMap<(Role, NodeName), Follower>,
    /// The highest seq that was reported complete (L2).
    complete: u64,
    /// Until then nothing is reported complete: leases of a book that was lost may still run (L5).
    quiet_until: Duration,
    /// Rises whenever the set of live edges, or what they say of themselves, changes.
    live_version: u64,
    /// Rises whenever a follower, or what must be remembered of one, changes.
    changed: u64,
    /// What `changed` was when the followers that are stored were read out.
    stored: u64,
    /// The latest time that it heard of.
    latest: Duration,
}

/// A follower as it is remembered over a restart of the origin: a fenced one may go on serving by its
/// routes' choice, and receipts must know of it (P7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    role: Role,
    name: NodeName,
    region: RegionName,
    /// The life of the journal that `applied` is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
    applied: u64,
    /// Its present life. Older origins did not store it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    life: Option<String>,
    /// Lives that were replaced: a late ack of one must not replace the present one after a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    replaced: Vec<String>,
    /// For how long nothing had been heard of it.
    #[serde(default)]
    silent_ms: u64,
    /// The life that was taken out of service, where it was: it must not come back by a restart of the origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drained: Option<String>,
}

impl Remembered {
    /// The same without any lease, for a book that others share; of another epoch it has applied nothing.
    pub(super) fn recalled(&self) -> Option<Recalled> {
        let drained = self.drained.is_some();
        let life = self.drained.clone().or_else(|| self.life.clone())?;
        let who = (self.role, self.name.clone());
        let news = News { region: self.region.clone(), ..News::of(&mirror::stranger(&who, &life, self.epoch?), None) };
        Some(Recalled { who, life, applied: 0, drained, news: news.written() })
    }
}

/// What an ack is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// CLOCK_BOOTTIME.
    pub now: Duration,
    /// The journal's last seq.
    pub head: u64,
    /// Whether the ack's position is of this history.
    pub fits: bool,
    /// When the first event that it has not applied was appended, where there is one.
    pub first_unapplied_at: Option<Duration>,
    /// The length of a lease.
    pub lease: Duration,
}

impl Standing {
    /// Whether an event has been left unapplied for longer than a lease (L3).
    fn is_laggard(&self) -> bool {
        self.first_unapplied_at.is_some_and(|at| self.now.saturating_sub(at) > self.lease)
    }
}

/// Until when leases may run that a lost book granted.
fn quiet_until(longest: Duration, now: Duration) -> Duration {
    if longest.is_zero() || makes(Mistake::CompleteAfterRestart) { Duration::ZERO } else { now + longest + lease_margin(longest) }
}

/// Tells whether a text can be the id of a life: visible ASCII, not too long.
pub(crate) fn is_life(text: &str) -> bool {
    (1..=LIFE).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl LeaseBook {
    /// Returns the book of an origin that has just started, with a journal up to `head`. A book that was lost may have
    /// granted leases up to the `longest` that was ever stored: until these have ended nothing is reported complete,
    /// and all that the journal holds counts as complete for new leases (L5, L6).
    #[must_use]
    pub fn after_restart(head: u64, longest: Duration, now: Duration) -> Self {
        let complete = if makes(Mistake::CompleteForgotten) { 0 } else { head };
        Self { complete, ..Self::new(head, quiet_until(longest, now)) }
    }

    fn new(head: u64, quiet_until: Duration) -> Self {
        let (followers, latest) = (BTreeMap::new(), Duration::ZERO);
        Self { followers, complete: head, quiet_until, live_version: 0, changed: 0, stored: 0, latest }
    }

    /// Takes in the followers that the origin knew before it was restarted, with a journal of `epoch` now. Each may
    /// have held a lease until the quiet period ends, and may go on serving behind it by its routes' choice (P7).
    pub fn remember(&mut self, remembered: Vec<Remembered>, epoch: Epoch, now: Duration) {
        self.latest = self.latest.max(now);
        for known in remembered {
            let mut follower = Follower::of_former_times(&known, epoch, now);
            follower.former.push(Former { until: self.quiet_until, applied: 0, grant: 0 });
            self.followers.entry((known.role, known.name)).or_insert(follower);
        }
    }

    /// Returns all followers, as another book may remember them.
    pub(crate) fn remembered(&self) -> Vec<Remembered> {
        self.followers.values().map(|follower| follower.remembered(self.latest)).collect()
    }

    /// Returns all followers where they must be stored before the next lease is given, and counts them as stored.
    pub fn take_unsaved(&mut self) -> Option<Vec<Remembered>> {
        let (version, followers) = self.unsaved()?;
        self.stored(version);
        Some(followers)
    }

    /// Returns all followers where something of them is not stored, and the version that they are of.
    pub(crate) fn unsaved(&self) -> Option<(u64, Vec<Remembered>)> {
        (self.changed > self.stored).then(|| (self.changed, self.remembered()))
    }

    /// The followers of this version are on the disk.
    pub(crate) fn stored(&mut self, version: u64) {
        self.stored = self.stored.max(version);
    }

    /// Tells whether a restart of the origin would find this follower, and the life that it is in: no other one's
    /// lease waits for the disk.
    pub(crate) fn is_saved(&self, who: &(Role, NodeName)) -> bool {
        self.followers.get(who).is_none_or(|follower| follower.changed_at <= self.stored)
    }

    /// Forgets who has been silent for so long that receipts don't name it any more. The others are to be stored
    /// again, with how long each has been silent: it goes on from there after a restart.
    pub(crate) fn tidy(&mut self, now: Duration) {
        self.latest = self.latest.max(now);
        if !self.followers.is_empty() {
            self.followers.retain(|_, follower| !follower.is_forgotten(now));
            self.changed += 1;
        }
    }

    /// Starts again for a new epoch: no ack of the life before says anything about it. Who followed that may hold a
    /// lease until the quiet period ends, and go on serving behind it (P7); who was taken out of service stays out.
    pub fn begin_epoch(&mut self, head: u64, longest: Duration, now: Duration) {
        let mut followers = std::mem::take(&mut self.followers);
        let quiet_until = quiet_until(longest, now).max(self.quiet_until);
        followers.values_mut().for_each(|follower| follower.forget(quiet_until));
        let (live_version, changed, latest) = (self.live_version + 1, self.changed + 1, self.latest.max(now));
        // What is stored of the epoch before says as much of this one, so no lease has to wait for it.
        *self = Self { followers, live_version, changed, stored: self.stored, latest, ..Self::new(head, quiet_until) };
    }

    /// Takes the present life of an edge out of service; tells whether there is such an edge. The DNS loses
    /// it at once. Receipts lose it when its leases have ended: until then it may answer from what it
    /// holds, so what it has not applied waits for it as for any other (P2).
    pub fn drain(&mut self, name: &NodeName) -> bool {
        let Some(edge) = self.followers.get_mut(&(Role::Edge, name.clone())) else { return false };
        if !edge.drained {
            edge.drained = true;
            self.changed += 1;
            self.live_version += 1;
        }
        true
    }

    /// Returns up to where every edge has applied all events or is fenced, and remembers that it was
    /// said, as [`Self::report_complete`] does; 0 while nothing may be said.
    pub fn report_progress(&mut self, head: u64, now: Duration) -> u64 {
        if now < self.quiet_until {
            return 0;
        }
        let reached = self.edges(now).filter_map(|edge| edge.holds_back(now)).min();
        self.complete = self.complete.max(reached.map_or(head, |reached| reached.min(head)));
        self.complete
    }

    /// Returns a number that rises whenever the live set changes.
    pub fn live_version(&self) -> u64 {
        self.live_version
    }

    /// Takes in an ack and decides about a lease.
    pub fn ack(&mut self, ack: Ack, standing: &Standing) -> AckAnswer {
        let refuse = |reason| AckAnswer { head: standing.head, lease_ms: LEASE_NONE, reason: Some(reason), anew: false };
        self.latest = self.latest.max(standing.now);
        if !standing.fits {
            return refuse(Refused::OtherHistory);
        }
        let key = (ack.role, ack.follower.clone());
        let is_full = !self.followers.contains_key(&key) && self.followers.len() >= FOLLOWERS;
        // A follower whose life is not known has an empty one, for which nobody may speak.
        if is_full || !is_life(&ack.life) {
            return refuse(Refused::Retired);
        }
        let seq = ack.position.seq;
        let known = self.followers.get(&key);
        let before = known.map(|follower| follower.shown(standing.now));
        let is_new = known.is_none_or(|known| known.ack.life != ack.life || known.silent(standing.now) > LONG_SILENCE);
        let follower = self.followers.entry(key).or_insert_with(|| Follower::new(ack.clone(), standing.now));
        if !follower.meet(ack, standing.now) {
            // Where the present life was taken out of service, another one must not come back in its place.
            return AckAnswer { anew: !follower.drained, ..refuse(Refused::Retired) };
        }
        if is_new {
            self.changed += 1;
            follower.changed_at = self.changed;
        }
        // What it says is in force there is, whether it is given another lease or not.
        follower.acknowledge(seq, standing.now);
        let answer = if follower.drained {
            refuse(Refused::Retired)
        } else if seq < self.complete && !makes(Mistake::LeaseBelowComplete) {
            refuse(Refused::BelowComplete)
        } else if standing.is_laggard() && !makes(Mistake::LeaseToLaggard) {
            refuse(Refused::Laggard)
        } else {
            follower.until = follower.until.max(Some(standing.now + standing.lease + lease_margin(standing.lease)));
            follower.is_end_known = true;
            AckAnswer { head: standing.head, lease_ms: millis(standing.lease), reason: None, anew: false }
        };
        if before != Some(follower.shown(standing.now)) || answer.lease_ms == LEASE_NONE {
            self.live_version += 1;
        }
        answer
    }

    /// Notes which token a follower's ack came with.
    pub fn let_in(&mut self, who: &(Role, NodeName), token: Option<String>) {
        if let Some(follower) = self.followers.get_mut(who) {
            follower.token = token;
        }
    }

    /// Returns the followers that hold a lease by acks with this token.
    pub fn relying_on(&self, token: &str, now: Duration) -> Vec<NodeName> {
        let relying = self.followers.iter().filter(|(_, follower)| follower.is_live(now) && follower.token.as_deref() == Some(token));
        relying.map(|((_, name), _)| name.clone()).collect()
    }

    /// Decides whether every edge has applied `seq` or is fenced, and remembers that it was said.
    pub fn report_complete(&mut self, seq: u64, now: Duration) -> bool {
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
    pub fn next_change(&self, seq: u64, now: Duration) -> Option<Duration> {
        let ends = self.edges(now).filter(|edge| edge.state(seq, now) == FollowerState::Pending).flat_map(Follower::leases);
        ends.chain([self.quiet_until]).filter(|at| *at > now).min()
    }

    /// Returns each edge's line of a receipt for an event appended at `appended_at`.
    pub fn receipt(&self, seq: u64, appended_at: Option<Duration>, now: Duration, wall: Timestamp) -> Vec<FollowerReceipt> {
        self.edges(now).map(|edge| edge.receipt(seq, appended_at, now, wall)).collect()
    }

    /// Returns the edges that hold a lease, for the DNS.
    pub fn live(&self, now: Duration) -> Vec<LiveEdge> {
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
    pub fn next_end(&self, now: Duration) -> Option<Duration> {
        self.edges(now).filter_map(|edge| edge.until).filter(|until| *until > now).min()
    }

    /// Returns every follower as `atoll status` shows it.
    pub fn status(&self, head: u64, now: Duration) -> Vec<FollowerStatus> {
        let present = self.followers.values().filter(|follower| !follower.retired(now));
        present
            .map(|follower| {
                let left = follower.until.map_or(Duration::ZERO, |until| until.saturating_sub(now));
                FollowerStatus {
                    name: follower.ack.follower.clone(),
                    role: follower.ack.role,
                    region: if follower.ack.role == Role::Edge { follower.ack.region.to_string() } else { String::new() },
                    live: !left.is_zero(),
                    lease_ms: millis(left),
                    applied: follower.applied,
                    lag: head.saturating_sub(follower.applied),
                    draining: follower.ack.draining || follower.drained,
                    counts: follower.ack.counts.clone(),
                }
            })
            .collect()
    }

    /// Returns the seqs that fenced edges stand at: what they may go on serving by was in force there.
    pub fn fenced_at(&self, seq: u64, now: Duration) -> Vec<(u64, Duration)> {
        let fenced = self.edges(now).filter(|edge| edge.state(seq, now) == FollowerState::Fenced);
        fenced.map(|edge| (edge.applied, edge.last_lease())).collect()
    }

    fn edges(&self, now: Duration) -> impl Iterator<Item = &Follower> {
        self.followers.values().filter(move |follower| follower.ack.role == Role::Edge && !follower.retired(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Chain, Position};

    use super::follower::{ACKS, LIVES};

    const LEASE: Duration = Duration::from_secs(5);
    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn epoch() -> Epoch {
        Epoch::from_bytes([0; 8])
    }

    fn ack(name: &str, life: &str, seq: u64) -> Ack {
        Ack {
            follower: name.parse().unwrap(),
            role: Role::Edge,
            region: "fra".parse().unwrap(),
            life: life.to_owned(),
            protocol: [1, 1],
            position: Position { epoch: epoch(), seq, chain: Chain::START },
            answers: vec![],
            draining: false,
            load: 0.0,
            counts: BTreeMap::new(),
        }
    }

    fn standing(now: u64, head: u64) -> Standing {
        Standing { now: at(now), head, fits: true, first_unapplied_at: None, lease: LEASE }
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
        book.ack(ack("a", "1", 1), &standing(0, 2));
        book.ack(ack("a", "2", 0), &standing(10, 2));
        let late = book.ack(ack("a", "1", 2), &standing(20, 2));
        assert_eq!((late.reason, late.anew), (Some(Refused::Retired), true));
        assert!(!book.report_complete(2, at(30)), "the new life has not applied it");
        book.ack(ack("a", "2", 2), &standing(40, 2));
        assert!(!book.report_complete(2, at(5099)), "the former life may still run");
        assert!(book.report_complete(2, at(5100)));
    }

    #[test]
    fn p2_a_former_life_holds_back_only_what_it_had_not_applied_itself() {
        let mut book = LeaseBook::new(0, at(0));
        book.ack(ack("a", "1", 1), &standing(0, 2));
        book.ack(ack("a", "2", 2), &standing(10, 2));
        assert!(book.report_complete(1, at(20)), "both lives have applied it");
        assert!(!book.report_complete(2, at(20)) && book.report_complete(2, at(5100)));
    }

    #[test]
    fn l5_after_a_restart_nothing_is_complete_until_old_leases_ended_and_all_counts_for_new_ones() {
        let mut book = LeaseBook::after_restart(7, LEASE, at(0));
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
        let mut book = LeaseBook::after_restart(3, LEASE, at(0));
        book.remember(known, epoch(), at(10));
        assert!(book.report_complete(4, at(5100)));
        let receipt = book.receipt(4, None, at(5100), Timestamp::from_millis(0));
        assert_eq!(receipt.iter().map(|row| row.state).collect::<Vec<_>>(), [FollowerState::Fenced]);
        assert_eq!(book.fenced_at(4, at(5100)).len(), 1);
        book.ack(ack("a", "2", 4), &standing(5200, 4));
        assert_eq!(book.receipt(4, None, at(5300), Timestamp::from_millis(0))[0].state, FollowerState::Applied);
    }

    #[test]
    fn p7_who_followed_before_may_have_held_a_lease_until_the_quiet_period_ends() {
        let mut before = LeaseBook::new(0, at(0));
        before.ack(ack("a", "1", 7), &standing(0, 7));
        let known = before.take_unsaved().unwrap();
        let at_end = |epoch| {
            let mut book = LeaseBook::after_restart(7, LEASE, at(1000));
            book.remember(known.clone(), epoch, at(1000));
            assert!(!book.report_complete(8, at(6049)) && book.live(at(1000)).is_empty());
            book.fenced_at(8, at(6100))
        };
        assert_eq!(at_end(epoch()), [(7, at(6100))], "it counts as fenced from there on, not for as long as the machine runs");
        assert_eq!(at_end(Epoch::from_bytes([1; 8])), [(0, at(6100))], "of another epoch it has applied nothing");
        before.begin_epoch(7, LEASE, at(2000));
        assert_eq!(before.receipt(7, None, at(7100), Timestamp::from_millis(0))[0].state, FollowerState::Fenced);
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
        let refused = book.ack(ack("a", "1", 0), &standing(10, 1));
        assert_eq!((refused.reason, refused.anew), (Some(Refused::Retired), false), "nor would a new name for the same process be right");
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

        let mut book = LeaseBook::after_restart(1, LEASE, at(0));
        book.remember(serde_json::from_str(&json).unwrap(), epoch(), at(10));
        assert_eq!(names(&book, 5100), (0, 0));
        assert_eq!(book.ack(ack("a", "1", 1), &standing(5200, 1)).reason, Some(Refused::Retired));
        book.begin_epoch(0, LEASE, at(10_000));
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

    fn wall() -> Timestamp {
        Timestamp::from_millis(1_000_000_000_000)
    }

    /// Starts an origin anew on what the one before stored.
    fn restarted(before: &mut LeaseBook, head: u64, now: Duration) -> LeaseBook {
        let json = serde_json::to_string(&before.take_unsaved().unwrap()).unwrap();
        let mut book = LeaseBook::after_restart(head, LEASE, now);
        book.remember(serde_json::from_str(&json).unwrap(), epoch(), now);
        book
    }

    #[test]
    fn only_who_is_new_waits_for_the_disk() {
        let who = |name: &str| (Role::Edge, name.parse().unwrap());
        let mut book = LeaseBook::new(0, at(0));
        book.ack(ack("a", "1", 0), &standing(0, 0));
        assert!(!book.is_saved(&who("a")));
        let (version, list) = book.unsaved().unwrap();
        book.ack(ack("b", "1", 0), &standing(1, 0));
        book.stored(version);
        assert_eq!((list.len(), book.is_saved(&who("a")), book.is_saved(&who("b"))), (1, true, false));
        book.ack(ack("a", "1", 0), &standing(2, 0));
        assert!(book.is_saved(&who("a")), "nothing of it is new");
        book.ack(ack("a", "2", 0), &standing(3, 0));
        assert!(!book.is_saved(&who("a")), "its life is");
        let (version, _) = book.unsaved().unwrap();
        book.stored(version);
        book.begin_epoch(0, LEASE, at(4));
        assert!(book.is_saved(&who("a")) && book.is_saved(&who("b")) && book.unsaved().is_some());
    }

    #[test]
    fn a_receipt_says_after_how_long_only_where_an_ack_before_tells_that_it_was_not_applied_yet() {
        let mut book = LeaseBook::new(0, at(0));
        let after = |book: &LeaseBook, seq| book.receipt(seq, Some(at(1000)), at(3_600_500), wall())[0].after_ms;
        book.ack(ack("a", "1", 1), &standing(900, 1));
        book.ack(ack("a", "1", 2), &standing(1003, 2));
        assert_eq!((after(&book, 1), after(&book, 2)), (None, Some(3)));
        book.ack(ack("a", "2", 2), &standing(3_600_000, 2));
        assert_eq!(after(&book, 2), None, "it was started an hour after the event");
        book.ack(ack("a", "2", 3), &standing(3_600_001, 3));
        assert_eq!(after(&book, 3), Some(3_599_001));
        for seq in 4..10 + ACKS as u64 {
            book.ack(ack("a", "2", seq), &standing(3_600_002, seq));
        }
        assert_eq!(after(&book, 5), None, "its ack is no longer remembered");
    }

    #[test]
    fn a_silence_goes_on_over_a_restart_and_nobody_invents_its_beginning() {
        let hour = Duration::from_secs(3600);
        let mut before = LeaseBook::new(0, at(0));
        before.ack(ack("a", "1", 0), &standing(0, 0));
        before.take_unsaved();
        before.tidy(hour * 23);
        let mut book = restarted(&mut before, 0, at(0));
        let row = book.receipt(1, None, at(6000), wall()).remove(0);
        assert_eq!((row.state, row.since), (FollowerState::Fenced, None));
        book.take_unsaved();
        book.tidy(hour);
        assert_eq!(book.receipt(1, None, hour, wall()).len(), 1, "24 hours, not more");
        book.tidy(hour + at(1));
        assert_eq!((book.receipt(1, None, hour, wall()).len(), book.followers.len()), (0, 0));
        assert_eq!(book.take_unsaved(), Some(vec![]), "nor does it come back");
    }

    #[test]
    fn who_is_heard_again_after_a_long_silence_is_stored_anew() {
        let mut book = LeaseBook::new(0, at(0));
        book.ack(ack("a", "1", 0), &standing(0, 0));
        book.take_unsaved();
        book.ack(ack("a", "1", 0), &standing(3_600_000, 0));
        assert_eq!(book.take_unsaved(), None);
        book.ack(ack("a", "1", 0), &standing(7_200_001, 0));
        assert_eq!(book.take_unsaved().map(|list| list[0].silent_ms), Some(0));
    }

    #[test]
    fn a_late_ack_of_a_former_life_does_not_replace_the_present_one_after_a_restart() {
        let mut before = LeaseBook::new(0, at(0));
        before.ack(ack("a", "1", 0), &standing(0, 0));
        before.ack(ack("a", "2", 0), &standing(1, 0));
        let mut book = restarted(&mut before, 0, at(0));
        let late = book.ack(ack("a", "1", 0), &standing(10, 0));
        assert_eq!((late.reason, late.anew), (Some(Refused::Retired), true));
        assert_eq!(book.ack(ack("a", "2", 0), &standing(11, 0)).reason, None);
        assert!(book.take_unsaved().is_none(), "nothing of it is new");
    }

    #[test]
    fn no_other_process_takes_the_place_of_one_that_was_drained_unless_it_is_started_anew() {
        let mut before = LeaseBook::new(0, at(0));
        before.ack(ack("a", "1", 0), &standing(0, 0));
        before.ack(ack("a", "2", 0), &standing(1, 0));
        before.drain(&"a".parse().unwrap());
        let answer = |book: &mut LeaseBook, life| {
            let answer = book.ack(ack("a", life, 0), &standing(10, 0));
            (answer.reason, answer.anew)
        };
        let stays_out = (Some(Refused::Retired), false);
        assert_eq!((answer(&mut before, "1"), answer(&mut before, "2")), (stays_out, stays_out));
        let mut book = restarted(&mut before, 0, at(0));
        assert_eq!((answer(&mut book, "1"), answer(&mut book, "2")), (stays_out, stays_out));
        book.tidy(Duration::from_secs(48 * 3600));
        assert_eq!((book.followers.len(), names(&book, 48 * 3_600_000).0), (1, 0), "it is remembered for longer than it is shown");
        assert_eq!(answer(&mut book, "3"), (None, false));
    }

    #[test]
    fn a_list_of_an_older_origin_is_read_and_nobody_speaks_for_a_life_that_is_not_known() {
        let old = r#"[{"role":"edge","name":"a","region":"fra","applied":3},
            {"role":"edge","name":"b","region":"fra","applied":3,"drained":"1"}]"#;
        let mut book = LeaseBook::after_restart(3, LEASE, at(0));
        book.remember(serde_json::from_str(old).unwrap(), epoch(), at(0));
        let reason = |book: &mut LeaseBook, name, life| book.ack(ack(name, life, 3), &standing(10, 3)).reason;
        assert_eq!(reason(&mut book, "a", ""), Some(Refused::Retired));
        assert_eq!((reason(&mut book, "a", "1"), reason(&mut book, "b", "1")), (None, Some(Refused::Retired)));
    }

    #[test]
    fn leases_of_former_lives_are_bounded_and_none_of_them_is_forgotten() {
        let mut book = LeaseBook::new(0, at(0));
        let lives = 3 * LIVES as u64;
        for life in 0..=lives {
            book.ack(ack("a", &life.to_string(), 1 + life), &standing(life, 1 + lives));
        }
        let edge = book.followers.values().next().unwrap();
        assert_eq!((edge.former.len(), edge.replaced.len()), (LIVES, LIVES));
        assert_eq!(book.report_progress(1 + lives, at(100)), 1, "the first of them holds a lease");
        assert!(!book.report_complete(2, at(5099)));
        assert_eq!(book.report_progress(1 + lives, at(5100 + lives)), 1 + lives);
    }
}
