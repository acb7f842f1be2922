//! A failure that lasts: it is told when it begins, then every minute at most, and once more when it is over.

use std::time::Duration;

/// How long a failure that was told is not told again.
const EVERY: Duration = Duration::from_secs(60);

/// What is known of a failure while it lasts. Pure: the time comes in.
#[derive(Debug, Default)]
pub struct Trouble {
    /// When it began, and when it was told last.
    lasting: Option<(Duration, Duration)>,
}

impl Trouble {
    /// Takes in that it failed (again), and decides whether to say so.
    #[must_use]
    pub fn failed(&mut self, now: Duration) -> bool {
        match &mut self.lasting {
            None => {
                self.lasting = Some((now, now));
                true
            }
            Some((_, told)) if now.saturating_sub(*told) >= EVERY => {
                *told = now;
                true
            }
            Some(_) => false,
        }
    }

    /// Takes in that it works; returns for how long it did not, where it had failed.
    #[must_use]
    pub fn over(&mut self, now: Duration) -> Option<Duration> {
        self.lasting.take().map(|(began, _)| now.saturating_sub(began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn a_failure_that_lasts_is_told_once_a_minute_and_when_it_is_over() {
        let mut trouble = Trouble::default();
        assert_eq!(trouble.over(at(1)), None, "nothing had failed");
        let told: Vec<u64> = (10..200).filter(|s| trouble.failed(at(*s))).collect();
        assert_eq!(told, [10, 70, 130, 190]);
        assert_eq!(trouble.over(at(200)), Some(at(190)));
        assert_eq!(trouble.over(at(201)), None);
        assert!(trouble.failed(at(202)), "another failure is news");
    }
}
