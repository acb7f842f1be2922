//! Whether an upstream is in trouble. While it is, who has something stale to answer with does not wait for
//! it: one request a second finds out whether it is back.

use std::time::Duration;

use super::lookup::Trouble;

/// Failures in a row that are no accident any more.
const TROUBLE: u32 = 5;

/// How often an upstream in trouble is asked by those who could do without.
const PROBE: Duration = Duration::from_secs(1);

/// What is known of one upstream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Health {
    failures: u32,
    last: Option<Trouble>,
    probed_at: Option<Duration>,
}

impl Health {
    /// An answer came that is no complaint about itself.
    pub(crate) fn answered(&mut self) {
        *self = Self::default();
    }

    /// No answer came, or one that says that there is trouble.
    pub(crate) fn failed(&mut self, trouble: Trouble) {
        self.failures = self.failures.saturating_add(1);
        self.last = Some(trouble);
    }

    /// Returns what it last failed in: a status by which it says so, unless it was silence.
    pub(crate) fn trouble(&self) -> Trouble {
        self.last.unwrap_or(Trouble::Status)
    }

    /// Tells whether who could do without the upstream may ask it now.
    pub(crate) fn may_probe(&mut self, now: Duration) -> bool {
        if self.failures < TROUBLE {
            return true;
        }
        let is_due = self.probed_at.is_none_or(|last| now.saturating_sub(last) >= PROBE);
        if is_due {
            self.probed_at = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_21_an_upstream_in_trouble_is_probed_once_a_second() {
        let at = Duration::from_millis;
        let mut health = Health::default();
        for _ in 0..TROUBLE {
            assert!(health.may_probe(at(0)) && health.may_probe(at(0)), "an accident changes nothing");
            health.failed(Trouble::Silence);
        }
        assert!(health.may_probe(at(100)) && !health.may_probe(at(200)) && !health.may_probe(at(1099)));
        assert!(health.may_probe(at(1100)) && !health.may_probe(at(1200)));
        health.answered();
        assert!(health.may_probe(at(1200)) && health.may_probe(at(1200)));
    }
}
