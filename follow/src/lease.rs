//! The lease as the hit path asks for it: two atomic loads and two clock reads, never a cached time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{boottime, walltime};

/// How far wall time may move against boot time before the machine counts as having been stopped:
/// one hundredth of a lease and 50 ms, as the origin's margin (L1).
fn margin(lease: Duration) -> Duration {
    lease / 100 + Duration::from_millis(50)
}

/// What a node may rely on. Shared by its hit path and its follower.
#[derive(Debug, Default)]
pub struct Lease {
    applied: AtomicU64,
    /// The journal's last seq, as far as the origin has told.
    head: AtomicU64,
    /// CLOCK_BOOTTIME at which the lease ends; 0 for none.
    until_ns: AtomicU64,
    /// CLOCK_BOOTTIME at which the last one ended or will end, for `when_fenced = { serve_for }`.
    last_until_ns: AtomicU64,
    /// Wall time minus boot time when the lease was granted, wrapping.
    offset_ns: AtomicU64,
    margin_ns: AtomicU64,
}

/// When an ack was sent, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    boot: Duration,
    wall: Duration,
}

impl Sent {
    /// Reads both clocks.
    pub(crate) fn now() -> Self {
        Self { boot: boottime(), wall: walltime() }
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
        self.standing_at(boottime(), walltime())
    }

    fn standing_at(&self, boot: Duration, wall: Duration) -> Standing {
        let applied = self.applied.load(Ordering::Acquire);
        let until = self.until_ns.load(Ordering::Acquire);
        let moved = nanos(wall).wrapping_sub(nanos(boot)).wrapping_sub(self.offset_ns.load(Ordering::Relaxed));
        let jumped = moved.min(moved.wrapping_neg()) > self.margin_ns.load(Ordering::Relaxed);
        let fenced_for = (nanos(boot) >= until || jumped).then(|| {
            match self.last_until_ns.load(Ordering::Relaxed) {
                // It never had a lease in this life: nobody knows for how long it has been fenced.
                0 => Duration::MAX,
                ended => boot.saturating_sub(Duration::from_nanos(ended)),
            }
        });
        Standing { applied, fenced_for }
    }

    /// The origin told how long its journal is.
    pub(crate) fn set_head(&self, seq: u64) {
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

    /// A lease was granted for an ack that was sent at `sent` (L1: it runs from there, and so does the
    /// comparison of the clocks: a machine may be stopped while the answer is on its way).
    pub(crate) fn grant(&self, sent: Sent, lease: Duration) {
        let until = nanos(sent.boot + lease);
        self.offset_ns.store(nanos(sent.wall).wrapping_sub(nanos(sent.boot)), Ordering::Relaxed);
        self.margin_ns.store(nanos(margin(lease)), Ordering::Relaxed);
        self.last_until_ns.fetch_max(until, Ordering::Relaxed);
        self.until_ns.fetch_max(until, Ordering::AcqRel);
    }

    /// Gives the lease up: what is held here fits no history any more.
    pub(crate) fn drop_lease(&self) {
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

    #[test]
    fn l1_a_lease_runs_from_when_its_ack_was_sent() {
        let lease = Lease::default();
        assert_eq!(lease.standing_at(at(1000), at(9000)).fenced_for, Some(Duration::MAX), "nobody granted one");
        lease.grant(Sent { boot: at(1000), wall: at(9000) }, LEASE);
        assert!(lease.standing_at(at(5999), at(13_999)).holds());
        assert_eq!(lease.standing_at(at(6000), at(14_000)).fenced_for, Some(Duration::ZERO));
        assert_eq!(lease.standing_at(at(7000), at(15_000)).fenced_for, Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_late_answer_never_shortens_a_lease() {
        let lease = Lease::default();
        lease.grant(Sent { boot: at(3000), wall: at(3000) }, LEASE);
        lease.grant(Sent { boot: at(1000), wall: at(1000) }, LEASE);
        assert!(lease.standing_at(at(7999), at(7999)).holds());
    }

    #[test]
    fn a_jump_of_the_wall_clock_either_way_ends_the_lease() {
        let lease = Lease::default();
        lease.grant(Sent { boot: at(1000), wall: at(50_000) }, LEASE);
        assert!(lease.standing_at(at(2000), at(51_090)).holds());
        assert!(!lease.standing_at(at(2000), at(51_150)).holds());
        assert!(!lease.standing_at(at(2000), at(50_850)).holds());
    }
}
