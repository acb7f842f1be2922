//! Decides whether something that failed is asked again: after a few failures in a row not for a while, then once. Pure.

use std::time::Duration;

/// Failures in a row after which it is left alone.
const FAILURES: u32 = 3;

/// For how long, at first and at the most: it doubles with each failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// What is known of something that may fail.
#[derive(Clone, Copy, Debug, Default)]
pub struct Breaker {
    failures: u32,
    /// Until when it is left alone (CLOCK_BOOTTIME).
    until: Option<Duration>,
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

    /// It answered.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It did not; tells whether that is news: it is left alone from now on.
    pub fn failed(&mut self, now: Duration) -> bool {
        self.failures = self.failures.saturating_add(1);
        let Some(beyond) = self.failures.checked_sub(FAILURES) else { return false };
        // Those that were under way when it broke don't make the pause longer.
        if self.until.is_none_or(|until| now >= until) {
            let pause = PAUSE.0.saturating_mul(1 << beyond.min(8)).min(PAUSE.1);
            self.until = Some(now + pause);
        }
        self.probing_until = None;
        beyond == 0
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

    #[test]
    fn after_three_failures_in_a_row_it_is_left_alone_and_then_tried_by_one() {
        let mut breaker = Breaker::default();
        assert!(!breaker.failed(ms(0)) && !breaker.failed(ms(1)));
        assert!(breaker.may_call(ms(2)));
        assert!(breaker.failed(ms(2)));
        assert!(!breaker.may_call(ms(3)) && !breaker.may_call(ms(501)));
        assert!(breaker.may_call(ms(502)), "one may try");
        assert!(!breaker.may_call(ms(503)), "and no other");
        breaker.succeeded();
        assert!(breaker.may_call(ms(504)) && !breaker.is_open());
    }

    #[test]
    fn it_is_left_alone_for_longer_each_time_up_to_a_bound() {
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| {
            breaker.failed(ms(0));
        });
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
    fn failures_of_calls_that_were_under_way_do_not_make_the_pause_longer() {
        let mut breaker = Breaker::default();
        (0..100).for_each(|_| {
            breaker.failed(ms(0));
        });
        assert!(breaker.may_call(ms(500)));
    }

    #[test]
    fn a_success_between_failures_begins_the_count_anew() {
        let mut breaker = Breaker::default();
        for _ in 0..10 {
            breaker.failed(ms(0));
            breaker.failed(ms(0));
            breaker.succeeded();
        }
        assert!(breaker.may_call(ms(0)));
    }

    #[test]
    fn whoever_tries_and_never_tells_does_not_keep_all_others_away() {
        let mut breaker = Breaker::default();
        (0..3).for_each(|_| {
            breaker.failed(ms(0));
        });
        assert!(breaker.may_call(ms(500)));
        assert!(!breaker.may_call(ms(999)) && breaker.may_call(ms(1000)));
    }
}
