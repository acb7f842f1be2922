//! How much callers may ask for. How much each token may purge is a bucket per token that fills at the token's rate, with
//! time as an argument; the rest are counts of what is under way.
//!
//! A bucket is one moment, that at which it is full again. Who takes more than a whole bucket holds takes it from a full
//! one, which is in debt then: whatever is asked for comes through once, and on average nobody exceeds the rate.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::again::Reserved;

/// How long a token that rested may purge ahead of its rate: a bucket holds what comes in this time.
pub(crate) const BURST: Duration = Duration::from_secs(5);

/// Buckets: as many as there may be tokens. Beyond it the fullest is forgotten.
const MOST: usize = 10_000;

/// Large bodies that are read at a time: each is in memory as a whole, and once more when it is parsed.
const LARGE_BODIES: usize = 8;

/// Calls that wait for a receipt at a time: each holds its event, and looks again with every ack.
const WAITERS: usize = 1000;

/// What callers may still ask for.
#[derive(Debug)]
pub(crate) struct Limits {
    rates: Mutex<Rates>,
    room: Mutex<Reserved>,
    /// A permit for each large body that may be read.
    pub(crate) large_bodies: Semaphore,
    /// A permit for each call that may wait for a receipt.
    pub(crate) waiters: Semaphore,
}

impl Default for Limits {
    fn default() -> Self {
        let (large_bodies, waiters) = (Semaphore::new(LARGE_BODIES), Semaphore::new(WAITERS));
        Self { rates: Mutex::default(), room: Mutex::default(), large_bodies, waiters }
    }
}

impl Limits {
    /// Returns what each token may still purge.
    pub(crate) fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the room that is kept for repeats.
    pub(crate) fn room(&self) -> MutexGuard<'_, Reserved> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one token has left.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// Takes out so many scopes at `rate` a second, or tells in how long it could.
    fn take(&mut self, scopes: u64, rate: u64, now: Duration) -> Result<(), Duration> {
        let cost = time_for(scopes, rate);
        let missing = self.full_at.saturating_sub(now);
        let may_miss = BURST.saturating_sub(cost);
        if missing > may_miss {
            return Err(missing - may_miss);
        }
        self.full_at = now + missing + cost;
        Ok(())
    }

    /// Puts back what was taken out in vain.
    fn give_back(&mut self, scopes: u64, rate: u64) {
        self.full_at = self.full_at.saturating_sub(time_for(scopes, rate));
    }
}

/// Returns in what time so many scopes come in.
fn time_for(scopes: u64, rate: u64) -> Duration {
    Duration::from_nanos(scopes.saturating_mul(1_000_000_000) / rate.max(1))
}

/// What each token has left.
#[derive(Debug, Default)]
pub(crate) struct Rates(BTreeMap<String, Bucket>);

impl Rates {
    /// Takes so many scopes out of a token's bucket, or tells in how long it could.
    pub(crate) fn take(&mut self, token: &str, scopes: u64, rate: u64, now: Duration) -> Result<(), Duration> {
        if let Some(bucket) = self.0.get_mut(token) {
            return bucket.take(scopes, rate, now);
        }
        if self.0.len() >= MOST {
            self.make_room(now);
        }
        self.0.entry(token.to_owned()).or_default().take(scopes, rate, now)
    }

    /// Puts back what was taken out of a token's bucket in vain.
    pub(crate) fn give_back(&mut self, token: &str, scopes: u64, rate: u64) {
        if let Some(bucket) = self.0.get_mut(token) {
            bucket.give_back(scopes, rate);
        }
    }

    /// A full bucket is as good as none.
    fn make_room(&mut self, now: Duration) {
        self.0.retain(|_, bucket| bucket.full_at > now);
        if self.0.len() >= MOST
            && let Some(fullest) = self.0.iter().min_by_key(|(_, bucket)| bucket.full_at).map(|(token, _)| token.clone())
        {
            self.0.remove(&fullest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_token_that_rested_may_purge_a_burst_and_then_goes_by_its_rate() {
        let mut bucket = Bucket::default();
        let now = ms(1_000_000);
        for (at, scopes, outcome) in [
            (now, 400, Ok(())),
            (now, 100, Ok(())),
            (now, 1, Err(ms(10))),
            (now, 100, Err(ms(1000))),
            (now + ms(9), 1, Err(ms(1))),
            (now + ms(10), 1, Ok(())),
            (now + ms(10), 1, Err(ms(10))),
            // It never holds more than a burst, however long it rests.
            (now + ms(1_000_000), 500, Ok(())),
            (now + ms(1_000_000), 1, Err(ms(10))),
        ] {
            assert_eq!(bucket.take(scopes, 100, at), outcome, "{scopes} at {at:?}");
        }
    }

    #[test]
    fn a_purge_larger_than_a_burst_waits_for_a_full_bucket_and_leaves_it_in_debt() {
        let (mut bucket, now) = (Bucket::default(), ms(1_000_000));
        for (at, scopes, outcome) in [
            (now, 1, Ok(())),
            // A burst at 10 a second is 50 scopes.
            (now, 1000, Err(ms(100))),
            (now + ms(100), 1000, Ok(())),
            (now + ms(100), 1, Err(ms(95_100))),
            (now + ms(95_200), 1, Ok(())),
        ] {
            assert_eq!(bucket.take(scopes, 10, at), outcome, "{scopes} at {at:?}");
        }
    }

    #[test]
    fn what_is_refused_costs_nothing_and_each_token_has_a_bucket_of_its_own() {
        let (mut rates, now) = (Rates::default(), ms(1_000_000));
        rates.take("a", 500, 100, now).unwrap();
        for _ in 0..3 {
            assert_eq!(rates.take("a", 100, 100, now), Err(ms(1000)));
        }
        assert_eq!(rates.take("b", 500, 100, now), Ok(()));
        assert_eq!(rates.take("a", 100, 100, now + ms(1000)), Ok(()));
    }

    #[test]
    fn what_was_taken_in_vain_is_put_back_and_fills_no_bucket_beyond_its_rim() {
        let (mut rates, now) = (Rates::default(), ms(1_000_000));
        rates.take("a", 500, 100, now).unwrap();
        rates.give_back("a", 499, 100);
        assert_eq!(rates.take("a", 500, 100, now), Err(ms(10)), "one of them counts");
        assert_eq!(rates.take("a", 499, 100, now), Ok(()));
        rates.give_back("a", 10_000, 100);
        rates.give_back("nobody", 10_000, 100);
        assert_eq!(rates.take("a", 500, 100, now), Ok(()));
        assert_eq!(rates.take("a", 1, 100, now), Err(ms(10)));
    }

    #[test]
    fn buckets_are_bounded_and_those_that_are_full_go_first() {
        let (mut rates, now) = (Rates::default(), ms(1_000_000));
        for token in 0..MOST {
            rates.take(&token.to_string(), 1, 1, now + ms(1)).unwrap();
        }
        rates.take("0", 4, 1, now + ms(1)).unwrap();
        rates.take("one more", 1, 1, now + ms(2)).unwrap();
        assert_eq!(rates.0.len(), MOST);
        assert_eq!(rates.take("0", 1, 1, now + ms(2)), Err(ms(999)), "a bucket that owes is kept");
        rates.take("later", 1, 1, now + ms(4000)).unwrap();
        assert_eq!(rates.0.len(), 2, "those that were full again are forgotten");
    }
}
