//! The clocks that a lease is held by.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Returns the time since the machine was started (CLOCK_BOOTTIME), suspended time included.
#[must_use]
pub fn boottime() -> Duration {
    read(ClockId::Boottime)
}

/// Returns wall-clock time since 1970.
pub(crate) fn walltime() -> Duration {
    read(ClockId::Realtime)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
