//! Decides whether something that fails is asked again: when too much of it failed not for a while, then once. Pure.

use std::time::Duration;

/// What a failure counts, and a success takes off: one failure among five calls and more is too many in the long run.
const FAILURE: u32 = 4;
const SUCCESS: u32 = 1;

/// The score from which on it is left alone: three failures in a row.
const OPEN: u32 = 3 * FAILURE;

/// For how long it is left alone, at first and at the most: it doubles each time that it was tried in vain.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// What is known of something that may fail.
#[derive(Clone, Copy, Debug, Default)]
pub struct Breaker {
    score: u32,
    /// Until when it is left alone (CLOCK_BOOTTIME).
    until: Option<Duration>,
    /// How often in a row it was left alone.
    trips: u32,
    /// Whether somebody tries whether it is well again, and until when that counts.
    probing_until: Option<Duration>,
}

impl Breaker {
    /// Tells whether it may be asked now. Behind a pause one caller may, until it has told how that went.
    pub fn may_call(&mut self, now: Duration) -> bool {
        let Some(until) = self.until else { return true };
        let is_probed = self.probing_until.is_some_and(|until| now < until);
        if now < until || is_probed {
            return false;
        }
        // Whoever was cancelled meanwhile tells nothing: the next one may try after a while.
        self.probing_until = Some(now + PAUSE.0);
        true
    }

    /// It answered; tells whether that is news: it was left alone until now.
    pub fn succeeded(&mut self) -> bool {
        if self.is_open() {
            *self = Self::default();
            return true;
        }
        self.score = self.score.saturating_sub(SUCCESS);
        false
    }

    /// It did not; tells whether that is news: it is left alone from now on.
    pub fn failed(&mut self, now: Duration) -> bool {
        let was_open = self.is_open();
        self.score = self.score.saturating_add(FAILURE).min(OPEN);
        // What was under way when it broke says nothing new.
        let is_probe = self.until.is_some_and(|until| now >= until);
        if self.score >= OPEN && (!was_open || is_probe) {
            let pause = PAUSE.0.saturating_mul(1 << self.trips.min(8)).min(PAUSE.1);
            (self.until, self.trips, self.probing_until) = (Some(now + pause), self.trips.saturating_add(1), None);
        }
        self.is_open() && !was_open
    }

    /// Tells whether it is left alone.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn broken() -> Breaker {
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| {
            breaker.failed(ms(0));
        });
        breaker
    }

    #[test]
    fn after_three_failures_in_a_row_it_is_left_alone_and_then_tried_by_one() {
        let mut breaker = Breaker::default();
        assert!(!breaker.failed(ms(0)) && !breaker.failed(ms(1)));
        assert!(breaker.may_call(ms(2)));
        assert!(breaker.failed(ms(2)));
        assert!(!breaker.may_call(ms(3)) && !breaker.may_call(ms(501)));
        assert!(breaker.may_call(ms(502)), "one may try");
        assert!(!breaker.may_call(ms(503)), "and no other");
        assert!(breaker.succeeded());
        assert!(breaker.may_call(ms(504)) && !breaker.is_open());
    }

    #[test]
    fn it_is_left_alone_for_longer_each_time_up_to_a_bound() {
        let mut breaker = broken();
        let (mut now, mut pauses) = (ms(0), Vec::new());
        for _ in 0..6 {
            let begun = now;
            while !breaker.may_call(now) {
                now += ms(100);
            }
            pauses.push((now - begun).as_millis());
            assert!(!breaker.failed(now));
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 8000]);
    }

    #[test]
    fn calls_that_were_under_way_when_it_broke_make_no_pause_longer() {
        let mut breaker = Breaker::default();
        (0..100).for_each(|_| {
            breaker.failed(ms(0));
        });
        assert!(breaker.may_call(ms(500)) && !breaker.failed(ms(500)));
        assert!(!breaker.may_call(ms(1499)) && breaker.may_call(ms(1500)));
    }

    #[test]
    fn a_failure_now_and_then_is_borne_and_one_in_two_is_not() {
        let mut seldom = Breaker::default();
        for _ in 0..100 {
            assert!(!seldom.failed(ms(0)));
            (0..4).for_each(|_| {
                seldom.succeeded();
            });
        }
        let mut often = Breaker::default();
        let opened = (0..100).any(|_| {
            often.succeeded();
            often.failed(ms(0))
        });
        assert!(opened);
    }

    #[test]
    fn whoever_tries_and_never_tells_does_not_keep_all_others_away() {
        let mut breaker = broken();
        assert!(breaker.may_call(ms(500)));
        assert!(!breaker.may_call(ms(999)) && breaker.may_call(ms(1000)));
    }
}
