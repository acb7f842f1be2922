//! The lease as the hit path asks for it: two atomic loads and two clock reads, never a cached time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use wire::mistake::{Mistake, makes};
use wire::{Epoch, Position, lease_margin};

use crate::clock::{boottime, walltime};

/// Two readings of one clock that are further apart than this say nothing about what was read between them: the thread
/// did not run for a while.
const CLOSE: Duration = Duration::from_millis(1);

/// How often both clocks are read until the readings are close. On a machine that is busier still the last ones are
/// taken: what they are apart counts as a jump of the wall clock later on, which ends the lease where it is too much.
const READINGS: usize = 16;

/// What a node may rely on. Shared by its hit path and its follower.
#[derive(Debug, Default)]
pub struct Lease {
    applied: AtomicU64,
    /// The journal's last seq, as far as the origin has told.
    head: AtomicU64,
    /// CLOCK_BOOTTIME at which the lease ends or has ended; 0 where there never was one.
    until_ns: AtomicU64,
    /// Wall time minus boot time when its ack was sent, wrapping.
    offset_ns: AtomicU64,
    /// How far that may have moved since.
    tolerance_ns: AtomicU64,
    /// What `applied` is the seq of, for readers who are told of it or wait for it.
    in_force: watch::Sender<Option<Position>>,
    told: Mutex<Option<Told>>,
    /// Whether this life of the node was taken out of service: it gets no lease any more.
    retired: AtomicBool,
    /// The only history that leases are granted for, once another one was left. Held while one is granted or given up,
    /// so that neither comes in the midst of the other; who asks how the node stands does not take it.
    history: Mutex<Option<Epoch>>,
}

/// What an origin answered last: where its journal ended.
#[derive(Clone, Copy, Debug)]
struct Told {
    epoch: Epoch,
    head: u64,
    /// CLOCK_BOOTTIME at which it was asked: what had a position by then is part of the answer.
    asked: Duration,
}

/// When an ack was sent, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// CLOCK_BOOTTIME.
    pub boot: Duration,
    /// CLOCK_REALTIME.
    pub wall: Duration,
}

impl Sent {
    /// Reads both clocks, as of one moment.
    pub(crate) fn now() -> Self {
        Self::read(boottime, walltime)
    }

    /// The boot clock is read once more behind the wall clock: where this thread did not run in between, what both say
    /// is of two moments, and they are read again. The earlier one of the boot clock counts (L1).
    fn read(mut boot: impl FnMut() -> Duration, mut wall: impl FnMut() -> Duration) -> Self {
        let mut sent = Self { boot: boot(), wall: wall() };
        for _ in 0..READINGS {
            let after = boot();
            if after.saturating_sub(sent.boot) <= CLOSE {
                break;
            }
            sent = Self { boot: after, wall: wall() };
        }
        sent
    }
}

/// How a node stands at one moment: read once per request, after the request was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The last seq in force here.
    pub applied: u64,
    /// `None` while the lease holds; else for how long this node has been fenced.
    pub fenced_for: Option<Duration>,
}

impl Standing {
    /// Tells whether the node may rely on what it has applied.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.fenced_for.is_none()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Lease {
    /// Returns how the node stands now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let standing = self.standing_at(boottime(), walltime());
        if standing.holds() {
            return standing;
        }
        // Whoever is held up between the two clocks sees a jump that there was not: they are read again, close together.
        let Sent { boot, wall } = Sent::now();
        self.standing_at(boot, wall)
    }

    /// Returns how the node stands at a moment, by both clocks.
    #[must_use]
    pub fn standing_at(&self, boot: Duration, wall: Duration) -> Standing {
        let applied = self.applied.load(Ordering::Acquire);
        // Before its end is read: whoever sees the clocks of a new lease does not see the end of the one before.
        let jump = self.jump(boot, wall);
        let until = self.until_ns.load(Ordering::Acquire);
        let fenced_for = (nanos(boot) >= until || jump.is_some()).then(|| {
            if until == 0 {
                // It never had a lease in this life: nobody knows for how long it has been fenced.
                return Duration::MAX;
            }
            // While the machine was stopped its boot clock may have stood still.
            boot.saturating_sub(Duration::from_nanos(until)) + jump.unwrap_or_default()
        });
        Standing { applied, fenced_for }
    }

    /// The origin told how long its journal is.
    pub fn set_head(&self, seq: u64) {
        self.head.store(seq, Ordering::Relaxed);
    }

    /// Returns the journal's last seq, as far as the origin has told.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// Everything up to `seq` is in force here. Called after it is, never before.
    pub fn set_applied(&self, seq: u64) {
        self.applied.store(seq, Ordering::Release);
    }

    /// The same, for a place in the journal that readers may name.
    pub(crate) fn set_in_force(&self, position: Position) {
        self.set_applied(position.seq);
        self.in_force.send_replace(Some(position));
    }

    /// The journal is of another history: nothing of it is in force yet.
    pub(crate) fn set_nothing_in_force(&self) {
        self.in_force.send_replace(None);
        self.set_applied(0);
    }

    /// Returns up to where everything is in force here, once something is. Who tells others of it reads it before
    /// what is in force: it may move on in between.
    #[must_use]
    pub fn in_force(&self) -> Option<Position> {
        *self.in_force.borrow()
    }

    /// Returns the same for who waits until it has moved on.
    #[must_use]
    pub fn watch_in_force(&self) -> watch::Receiver<Option<Position>> {
        self.in_force.subscribe()
    }

    /// An origin answered what was sent at `sent`: the last seq of this life of its journal was `head`.
    pub(crate) fn set_told(&self, epoch: Epoch, head: u64, sent: Sent) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.asked <= sent.boot) {
            *told = Some(Told { epoch, head, asked: sent.boot });
        }
    }

    /// Tells whether the journal ended before `position` at a moment after `since` (CLOCK_BOOTTIME), so that nobody had
    /// come to know such a position by then. That is not known before an origin has answered something that was sent
    /// after `since`: what comes by the feed may have been on its way for long.
    #[must_use]
    pub fn is_beyond(&self, position: &Position, since: Duration) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.is_some_and(|told| told.epoch == position.epoch && told.head < position.seq && told.asked >= since)
    }

    /// Returns how far the wall clock has moved against the boot clock since the lease's ack was sent, where that is
    /// more than it may: then the machine was stopped, or somebody has set its clock.
    fn jump(&self, boot: Duration, wall: Duration) -> Option<Duration> {
        let offset = self.offset_ns.load(Ordering::Acquire);
        let tolerance = self.tolerance_ns.load(Ordering::Acquire);
        let moved = nanos(wall).wrapping_sub(nanos(boot)).wrapping_sub(offset);
        let moved = moved.min(moved.wrapping_neg());
        (moved > tolerance && !makes(Mistake::ClockJumpIgnored)).then(|| Duration::from_nanos(moved))
    }

    /// A lease was granted for an ack that was sent at `sent` (L1: it runs from there, and so does the
    /// comparison of the clocks: a machine may be stopped while the answer is on its way).
    ///
    /// It may be shorter than the one before, or its answer late: then that one runs on, by the clocks that it was
    /// granted by. One from before a jump is over, however long it was.
    ///
    /// `epoch` is that of the position that was acknowledged: an answer that comes after its history was left grants
    /// nothing.
    pub fn grant(&self, epoch: Epoch, sent: Sent, lease: Duration) {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.is_some_and(|history| history != epoch) {
            return;
        }
        let until = nanos(sent.boot + lease);
        let has_jumped = self.jump(sent.boot, sent.wall).is_some();
        if has_jumped {
            self.until_ns.store(0, Ordering::Release);
        } else if until <= self.until_ns.load(Ordering::Acquire) {
            return;
        }
        self.offset_ns.store(nanos(sent.wall).wrapping_sub(nanos(sent.boot)), Ordering::Release);
        // The other half of the margin is for clocks that run at another rate.
        self.tolerance_ns.store(nanos(lease_margin(lease) / 2), Ordering::Release);
        self.until_ns.store(until, Ordering::Release);
    }

    /// This life of the node was taken out of service.
    pub(crate) fn set_retired(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Tells whether this life of the node was taken out of service: it gets no lease until it is started anew.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Gives the lease up: this life of the node was replaced. For the next one it never had a lease, and the origin does
    /// not know that it may go on serving (P7).
    pub fn drop_lease(&self) {
        let _granting = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        self.until_ns.store(0, Ordering::Release);
    }

    /// Gives the lease up for good: what is held here is of a history that was left. From now on leases are granted for
    /// positions of `epoch` alone, whatever answers are still on their way.
    pub fn leave_history(&self, epoch: Epoch) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        *history = Some(epoch);
        self.until_ns.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(5);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn epoch(of: u8) -> Epoch {
        Epoch::from_bytes([of; 8])
    }

    #[test]
    fn l1_a_lease_runs_from_when_its_ack_was_sent() {
        let lease = Lease::default();
        assert_eq!(lease.standing_at(at(1000), at(9000)).fenced_for, Some(Duration::MAX), "nobody granted one");
        lease.grant(epoch(1), Sent { boot: at(1000), wall: at(9000) }, LEASE);
        assert!(lease.standing_at(at(5999), at(13_999)).holds());
        assert_eq!(lease.standing_at(at(6000), at(14_000)).fenced_for, Some(Duration::ZERO));
        assert_eq!(lease.standing_at(at(7000), at(15_000)).fenced_for, Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_lease_from_before_a_jump_is_over_however_long_it_was() {
        let lease = Lease::default();
        lease.grant(epoch(1), Sent { boot: at(1000), wall: at(9000) }, LEASE * 3);
        lease.grant(epoch(1), Sent { boot: at(2000), wall: at(12_000) }, LEASE);
        assert!(lease.standing_at(at(6999), at(16_999)).holds());
        assert!(!lease.standing_at(at(7000), at(17_000)).holds());
    }

    #[test]
    fn p7_the_time_that_a_machine_was_stopped_counts_as_fenced() {
        let lease = Lease::default();
        lease.grant(epoch(1), Sent { boot: at(1000), wall: at(50_000) }, LEASE);
        assert_eq!(lease.standing_at(at(2000), at(61_000)).fenced_for, Some(at(10_000)));
        assert_eq!(lease.standing_at(at(7000), at(66_000)).fenced_for, Some(at(11_000)));
    }

    #[test]
    fn in_another_history_a_node_never_had_a_lease() {
        let lease = Lease::default();
        lease.grant(epoch(1), Sent { boot: at(1000), wall: at(9000) }, LEASE);
        lease.leave_history(epoch(2));
        assert_eq!(lease.standing_at(at(2000), at(10_000)).fenced_for, Some(Duration::MAX));
    }

    #[test]
    fn an_answer_that_comes_after_its_history_was_left_grants_nothing() {
        let lease = Lease::default();
        lease.leave_history(epoch(2));
        lease.grant(epoch(1), Sent { boot: at(1000), wall: at(9000) }, LEASE);
        assert!(!lease.standing_at(at(2000), at(10_000)).holds());
        lease.grant(epoch(2), Sent { boot: at(1500), wall: at(9500) }, LEASE);
        assert!(lease.standing_at(at(2000), at(10_000)).holds());
        lease.drop_lease();
        assert_eq!(lease.standing_at(at(2000), at(10_000)).fenced_for, Some(Duration::MAX));
        lease.grant(epoch(2), Sent { boot: at(1600), wall: at(9600) }, LEASE);
        assert!(lease.standing_at(at(2000), at(10_000)).holds(), "another life of the same history");
    }

    #[test]
    fn both_clocks_are_read_as_of_one_moment() {
        // The thread does not run for a second behind its first reading, and never again for long.
        let readings = [at(1000), at(2000), at(2000) + CLOSE, at(9000)];
        let mut boot = readings.into_iter();
        let mut wall = [at(50_000), at(50_000)].into_iter();
        let sent = Sent::read(|| boot.next().unwrap(), || wall.next().unwrap());
        assert_eq!((sent.boot, sent.wall), (at(2000), at(50_000)));
        // A machine on which it never runs for long enough is not waited for.
        let mut now = Duration::ZERO;
        let mut read = 0;
        let tick = || {
            (now, read) = (now + at(2), read + 1);
            now
        };
        let sent = Sent::read(tick, || at(50_000));
        assert_eq!((sent.wall, read), (at(50_000), READINGS + 1));
        assert_eq!(sent.boot, at(2) * 17);
    }

    #[test]
    fn a_late_answer_never_shortens_a_lease() {
        let lease = Lease::default();
        lease.grant(epoch(1), Sent { boot: at(3000), wall: at(3000) }, LEASE);
        lease.grant(epoch(1), Sent { boot: at(1000), wall: at(1000) }, LEASE);
        assert!(lease.standing_at(at(7999), at(7999)).holds());
    }

    #[test]
    fn a_jump_of_the_wall_clock_either_way_ends_the_lease() {
        let lease = Lease::default();
        lease.grant(epoch(1), Sent { boot: at(1000), wall: at(50_000) }, LEASE);
        assert!(lease.standing_at(at(2000), at(51_049)).holds());
        assert!(!lease.standing_at(at(2000), at(51_051)).holds());
        assert!(!lease.standing_at(at(2000), at(50_949)).holds());
    }

    #[test]
    fn what_is_in_force_is_told_with_its_whole_position_and_given_up_with_its_history() {
        let lease = Lease::default();
        let watching = lease.watch_in_force();
        assert_eq!(lease.in_force(), None);
        let position = Position { seq: 7, ..Position::start(Epoch::from_bytes([1; 8])) };
        lease.set_in_force(position);
        assert_eq!((lease.in_force(), lease.standing_at(at(1), at(1)).applied), (Some(position), 7));
        assert!(watching.has_changed().unwrap());
        lease.set_nothing_in_force();
        assert_eq!((lease.in_force(), lease.standing_at(at(1), at(1)).applied), (None, 0));
    }

    #[test]
    fn a_position_is_beyond_the_journal_only_where_an_origin_was_asked_later_and_says_so() {
        let lease = Lease::default();
        let position = |epoch, seq| Position { seq, ..Position::start(Epoch::from_bytes([epoch; 8])) };
        let is_beyond = |seq, since| lease.is_beyond(&position(1, seq), at(since));
        lease.set_head(9);
        assert!(!is_beyond(10, 0), "what the feed brings may be old");
        lease.set_told(Epoch::from_bytes([1; 8]), 9, Sent { boot: at(1000), wall: at(1000) });
        assert!(is_beyond(10, 1000) && !is_beyond(9, 1000));
        assert!(!is_beyond(10, 1001), "it may have been written since");
        assert!(!lease.is_beyond(&position(2, 10), at(1000)), "of another history nobody knows the end");
        lease.set_told(Epoch::from_bytes([1; 8]), 8, Sent { boot: at(999), wall: at(999) });
        assert!(!is_beyond(9, 999), "a late answer is none");
    }
}
