//! A machine's clocks: they run a little fast or slow, and the boot clock of a machine that is frozen stands still.

use std::time::Duration;

use crate::chance::Chance;
use crate::plan::{MS, Time};

/// How far a clock's rate may be off, in a million: less than half of the margin's hundredth.
const DRIFT: u64 = 2_000;

/// The clocks of one machine.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    started: Time,
    /// Of a million.
    rate: u64,
    wall_offset: Time,
    /// For how long its boot clock has stood still.
    frozen: Time,
}

impl Clock {
    pub(crate) fn new(chance: &mut Chance) -> Self {
        Self {
            started: 0,
            rate: 1_000_000 - DRIFT + chance.between(0, 2 * DRIFT),
            wall_offset: chance.between(1, 1_000_000) * MS,
            frozen: 0,
        }
    }

    fn run(&self, now: Time) -> Time {
        (now - self.started) * self.rate / 1_000_000
    }

    /// CLOCK_BOOTTIME.
    pub(crate) fn boot(&self, now: Time) -> Duration {
        Duration::from_micros(1_000_000 + self.run(now).saturating_sub(self.frozen))
    }

    /// CLOCK_REALTIME.
    pub(crate) fn wall(&self, now: Time) -> Duration {
        Duration::from_micros(self.wall_offset + self.run(now))
    }

    /// The boot clock stands still for so long.
    pub(crate) fn freeze(&mut self, span: Time) {
        self.frozen += span;
    }

    /// Returns how long it takes in true time until the boot clock has gone on by `span`.
    pub(crate) fn until(&self, span: Duration) -> Time {
        Time::try_from(span.as_micros()).unwrap_or(Time::MAX / 4) * 1_000_000 / self.rate + 1
    }
}
