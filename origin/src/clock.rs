//! The clock that leases are counted by: it goes on while the machine sleeps and never jumps.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Returns the time since the machine was started (CLOCK_BOOTTIME), suspended time included.
#[must_use]
pub(crate) fn boottime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
