//! What the system knows of a process, and how this one asks for room.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The clock in which /proc counts: 100 ticks a second, to programs on every Linux that this runs on.
const TICK_MS: u64 = 10;

/// Returns the processor time that a process has used, its own and the system's for it.
pub(crate) fn cpu_time(process: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The program's name stands in brackets, and may hold anything. The fields behind it count from the third.
    let (_, fields) = stat.rsplit_once(')').context("the process has no name")?;
    let user_and_system = fields.split_whitespace().skip(14 - 3).take(2);
    let ticks = user_and_system.map(str::parse::<u64>).sum::<Result<u64, std::num::ParseIntError>>()?;
    Ok(Duration::from_millis(ticks * TICK_MS))
}

/// Returns which share of one core was used, as people read it.
pub(crate) fn share_of_core(used: Duration, span: Duration) -> f64 {
    used.as_secs_f64() / span.as_secs_f64().max(f64::EPSILON)
}

/// Asks for as many open files as the system lets this process have: each connection is one.
pub(crate) fn raise_open_files() {
    let limits = getrlimit(Resource::Nofile);
    if limits.current < limits.maximum {
        // Where it is refused, connections beyond the limit fail, and say so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum });
    }
}
