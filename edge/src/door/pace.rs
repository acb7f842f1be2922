//! How slow the other side may be: a least rate over a window, counted only while it is the other side
//! that everybody waits for (http.md 33).

use std::time::Duration;

use tokio::time::Instant;

/// Over what time a rate is judged.
const WINDOW: Duration = Duration::from_secs(10);

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    since: Option<Instant>,
    moved: u64,
}

impl Pace {
    /// The other side is waited for.
    pub(crate) fn waits(&mut self, now: Instant) {
        if self.since.is_none() {
            *self = Self { since: Some(now), moved: 0 };
        }
    }

    /// Bytes have moved.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.moved += bytes as u64;
    }

    /// Nothing is expected of the other side.
    pub(crate) fn rests(&mut self) {
        self.since = None;
    }

    /// Returns when it is to be judged next.
    pub(crate) fn judged_at(&self) -> Option<Instant> {
        self.since.map(|since| since + WINDOW)
    }

    /// Tells whether the other side was slower than `least` bytes a second, and begins the next window.
    pub(crate) fn is_too_slow(&mut self, now: Instant, least: u64) -> bool {
        if self.judged_at().is_none_or(|at| now < at) {
            return false;
        }
        let is_slow = self.moved < least.saturating_mul(WINDOW.as_secs());
        *self = Self { since: Some(now), moved: 0 };
        is_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_33_only_who_is_waited_for_can_be_slow() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        assert!(!pace.is_too_slow(at(100), 1), "nobody waits");
        pace.waits(at(0));
        pace.moved(5);
        pace.waits(at(5));
        assert!(!pace.is_too_slow(at(9), 1), "its time is not up");
        assert!(pace.is_too_slow(at(10), 1), "5 bytes in 10 seconds");
        pace.moved(10);
        assert!(!pace.is_too_slow(at(20), 1));
        pace.rests();
        assert!(!pace.is_too_slow(at(100), 1));
        pace.waits(at(200));
        assert_eq!(pace.judged_at(), Some(at(210)));
        assert!(!pace.is_too_slow(at(210), 0), "no least rate");
    }
}
