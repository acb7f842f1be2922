//! Repeats purges that asked for it when they are due; those that became due while no origin ran at once.
//!
//! What is to be repeated stands in the journal's fold. Each repeat is appended on the condition that none was, so that
//! there is one, however many origins there are and whenever they were stopped. [`Reserved`] keeps room for those whose
//! purges are being appended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use wire::{LONGEST_AGAIN, Owner, PendingRepeat, PendingRepeats, Room, Timestamp};

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
///
/// What a clock that was set back left too far ahead is due too, and stands behind all that is not.
fn look(repeats: &PendingRepeats, now: Timestamp) -> (Vec<PendingRepeat>, Option<Duration>) {
    let past = repeats.in_order().take_while(|repeat| repeat.due <= now);
    let too_far = repeats.in_order().rev().take_while(|repeat| repeat.due.since(now) > LONGEST_AGAIN);
    let due: Vec<_> = past.chain(too_far).take(AT_ONCE).cloned().collect();
    let sleep = match repeats.in_order().next() {
        None => None,
        Some(_) if !due.is_empty() => Some(PAUSE),
        Some(first) => Some(first.due.since(now).min(LONGEST_SLEEP)),
    };
    (due, sleep)
}

/// The room that is kept for repeats of purges which are being appended: the fold does not know of them yet.
#[derive(Debug, Default)]
pub(crate) struct Reserved(BTreeMap<Owner, Room>);

impl Reserved {
    /// Keeps room for one more repeat, where there is some. What repeats of others leave is not all for one owner: it may
    /// have half of it. A repeat that would be the only one always has room.
    pub(crate) fn reserve(&mut self, repeats: &PendingRepeats, owner: &Owner, wanted: Room) -> bool {
        let has_room = self.has_room(repeats, owner, wanted);
        if has_room {
            let kept = self.0.entry(owner.clone()).or_default();
            *kept = kept.and(wanted);
        }
        has_room
    }

    /// Tells whether there is room for one more repeat.
    pub(crate) fn has_room(&self, repeats: &PendingRepeats, owner: &Owner, wanted: Room) -> bool {
        let all = self.0.values().fold(repeats.taken(), |sum, kept| sum.and(*kept));
        let own = repeats.taken_by(owner).and(self.0.get(owner).copied().unwrap_or_default());
        let left_by_others = Room::ALL.without(all.without(own));
        all.is_none() || own.and(wanted).is_within(left_by_others.half())
    }

    /// Gives room back: the purge is in the fold, or it failed.
    pub(crate) fn release(&mut self, owner: &Owner, room: Room) {
        let left = self.0.remove(owner).unwrap_or_default().without(room);
        if !left.is_none() {
            self.0.insert(owner.clone(), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Mode, Scope};

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
        let behind_one_that_is_not_due = [(1, 10 * hour_ms), (2, hour_ms / 2), (3, 11 * hour_ms)];
        assert_eq!(looked(&behind_one_that_is_not_due, 0), (vec![3, 1], Some(PAUSE)));
        assert_eq!(looked(&behind_one_that_is_not_due, hour_ms / 2), (vec![2, 3, 1], Some(PAUSE)));
    }

    #[test]
    fn of_very_many_some_are_repeated_at_a_time() {
        let many: Vec<_> = (1..=1000).map(|seq| (seq, seq)).collect();
        assert_eq!(looked(&many, 5000).0.len(), AT_ONCE);
    }

    fn owner(name: &str) -> Owner {
        name.parse().unwrap()
    }

    fn room(repeats: usize) -> Room {
        Room { repeats, bytes: 64 * repeats }
    }

    #[test]
    fn room_is_kept_until_it_is_given_back_and_nobody_takes_what_is_kept() {
        let (mut reserved, none) = (Reserved::default(), PendingRepeats::default());
        let (own, most) = (owner("own"), Room::ALL.half());
        assert!(reserved.reserve(&none, &own, room(1)));
        assert!(reserved.reserve(&none, &own, Room { bytes: 0, repeats: most.repeats - 1 }));
        assert!(!reserved.reserve(&none, &own, room(1)), "an owner that is alone has half");
        reserved.release(&own, room(1));
        assert!(reserved.reserve(&none, &own, room(1)));
        reserved.release(&own, Room { repeats: most.repeats, bytes: 64 });
        assert!(reserved.0.is_empty());
    }

    #[test]
    fn an_owner_may_have_half_of_what_the_others_leave_and_so_another_always_finds_some() {
        let (mut reserved, none) = (Reserved::default(), PendingRepeats::default());
        let bytes = |bytes: usize| Room { repeats: 1, bytes };
        assert!(reserved.reserve(&none, &owner("a"), bytes(16 << 20)));
        assert!(!reserved.reserve(&none, &owner("b"), bytes((8 << 20) + 1)));
        assert!(reserved.reserve(&none, &owner("b"), bytes(8 << 20)));
        assert!(!reserved.reserve(&none, &owner("a"), bytes(1)));
        assert!(reserved.reserve(&none, &owner("c"), bytes(4 << 20)));
    }

    #[test]
    fn a_repeat_that_would_be_the_only_one_has_room_and_what_waits_in_the_fold_counts() {
        let (mut reserved, none) = (Reserved::default(), PendingRepeats::default());
        assert!(reserved.reserve(&none, &owner("a"), Room { repeats: 1, bytes: Room::ALL.bytes * 2 }));
        assert!(!reserved.has_room(&none, &owner("b"), room(1)));

        let many: Vec<_> = (1..=5000).map(|seq| (seq, seq)).collect();
        let waiting = repeats(&many);
        assert!(!Reserved::default().has_room(&waiting, &Owner::default(), room(1)));
        assert!(Reserved::default().has_room(&waiting, &owner("other"), room(2500)));
        assert!(!Reserved::default().has_room(&waiting, &owner("other"), room(2501)));
    }
}
