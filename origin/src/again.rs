//! Repeats purges that asked for it when they are due; those that became due while no origin ran at once.
//!
//! What is to be repeated stands in the journal's fold. Each repeat is appended on the condition that none was, so that
//! there is one, however many origins there are and whenever they were stopped.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use wire::{LONGEST_AGAIN, PendingRepeat, PendingRepeats, Timestamp};

use crate::core::Core;
use crate::fault::Fault;

/// Repeats that are appended side by side: they share a write to the disk.
const AT_ONCE: usize = 256;

/// The longest sleep before a repeat that is to come: the wall clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The pause after repeats that could not be appended.
const PAUSE: Duration = Duration::from_secs(1);

/// Repeats until the origin stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut heads = core.journal.watch_head();
    loop {
        let sleep = match repeat_due(&core).await {
            Ok(sleep) => sleep,
            Err(fault) => {
                tracing::warn!(%fault, "failed to repeat purges; trying again");
                Some(PAUSE)
            }
        };
        // Where nothing is to be repeated, only an event can change that.
        let sleep = async {
            match sleep {
                Some(sleep) => tokio::time::sleep(sleep).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            changed = heads.changed() => if changed.is_err() { return },
            () = sleep => {}
        }
    }
}

/// Repeats what is due, and tells how long to sleep if nothing is appended meanwhile.
async fn repeat_due(core: &Core) -> Result<Option<Duration>, Fault> {
    let (due, sleep) = {
        let state = core.journal.state();
        state.control.as_ref().map(|control| look(&control.repeats, Timestamp::now())).unwrap_or_default()
    };
    let appends = due.iter().map(|repeat| core.append("origin", vec![repeat.fact()], vec![repeat.if_unchanged()]));
    for appended in join_all(appends).await {
        match appended {
            Ok(_) => {
                core.metrics.purge_repeats.inc();
            }
            // Another origin was faster.
            Err(Fault::Conflict(_)) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(sleep)
}

/// Returns what is due, and how long to sleep after it was done: what was appended wakes.
fn look(repeats: &PendingRepeats, now: Timestamp) -> (Vec<PendingRepeat>, Option<Duration>) {
    let due: Vec<_> = repeats.in_order().take_while(|repeat| until(repeat.due, now).is_zero()).take(AT_ONCE).cloned().collect();
    let sleep = match repeats.in_order().next() {
        None => None,
        Some(_) if !due.is_empty() => Some(PAUSE),
        Some(first) => Some(until(first.due, now).min(LONGEST_SLEEP)),
    };
    (due, sleep)
}

/// Returns how long a repeat has. One that is further ahead than any may be put off is due: the wall clock was set back.
fn until(due: Timestamp, now: Timestamp) -> Duration {
    Some(due.since(now)).filter(|left| *left <= LONGEST_AGAIN).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Mode, Owner, Scope};

    fn repeats(due_ms: &[(u64, u64)]) -> PendingRepeats {
        let scopes: Arc<[Scope]> = vec![Scope::All].into();
        let repeat = |&(seq, due_ms): &(u64, u64)| {
            let (due, owner, scopes) = (Timestamp::from_millis(due_ms), Owner::default(), Arc::clone(&scopes));
            PendingRepeat { seq, due, owner, mode: Mode::Hard, scopes }
        };
        due_ms.iter().map(repeat).collect::<Vec<_>>().into()
    }

    fn looked(due_ms: &[(u64, u64)], now_ms: u64) -> (Vec<u64>, Option<Duration>) {
        let (due, sleep) = look(&repeats(due_ms), Timestamp::from_millis(now_ms));
        (due.iter().map(|repeat| repeat.seq).collect(), sleep)
    }

    #[test]
    fn what_is_due_is_repeated_and_what_is_not_is_slept_for() {
        let ms = Duration::from_millis;
        assert_eq!(looked(&[], 1000), (vec![], None));
        assert_eq!(looked(&[(1, 1500), (2, 1250)], 1000), (vec![], Some(ms(250))));
        assert_eq!(looked(&[(1, 1500), (2, 1250)], 1250), (vec![2], Some(PAUSE)));
        assert_eq!(looked(&[(1, 1500), (2, 1250)], 9_000_000), (vec![2, 1], Some(PAUSE)), "an origin that was away");
        assert_eq!(looked(&[(1, 100_000)], 1000), (vec![], Some(LONGEST_SLEEP)), "the clock may be set meanwhile");
    }

    #[test]
    fn a_clock_that_was_set_back_puts_no_repeat_off_for_more_than_an_hour() {
        let hour_ms = 3_600_000;
        assert_eq!(looked(&[(1, 10 * hour_ms)], 9 * hour_ms), (vec![], Some(LONGEST_SLEEP)));
        assert_eq!(looked(&[(1, 10 * hour_ms)], 9 * hour_ms - 1), (vec![1], Some(PAUSE)));
    }

    #[test]
    fn of_very_many_some_are_repeated_at_a_time() {
        let many: Vec<_> = (1..=1000).map(|seq| (seq, seq)).collect();
        assert_eq!(looked(&many, 5000).0.len(), AT_ONCE);
    }
}
