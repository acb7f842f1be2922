//! The judgements at the end of a drill: pure functions from what was recorded to what is wrong with it. Nothing to judge
//! is wrong too: a drill that checked nothing proves nothing.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use wire::{Event, Fact, FollowerState, Receipt, ReceiptState, Scope};

use super::record::{Call, Reads};
use crate::world::truth::tag;

/// What seeing a receipt from here may take beside the bound, on a machine that is busy with the drill itself.
const SLACK: Duration = Duration::from_secs(1);

/// Sums up what is wrong with several: how many, and the first in full.
fn sum_up(what: &str, wrong: &[String]) -> Vec<String> {
    wrong.first().map(|first| format!("{} {what}, the first: {first}", wrong.len())).into_iter().collect()
}

/// No read fell below what was promised, and there were reads that could have.
pub(crate) fn of_reads(reads: &Reads) -> Vec<String> {
    let mut wrong = Vec::new();
    if reads.faults > 0 {
        wrong.push(format!("{} reads brought what they must not: {}", reads.faults, reads.examples.join("; ")));
    }
    if reads.binding == 0 {
        wrong.push("no read began after a purge had completed: nothing was checked".to_owned());
    }
    if reads.hits == 0 {
        wrong.push("no read was answered from a cache: nothing was checked".to_owned());
    }
    wrong
}

/// No read failed at an edge that ran all the time, and no answer took longer than `most`.
pub(crate) fn of_answers(reads: &Reads, excused: Option<usize>, most: Duration) -> Vec<String> {
    let mut wrong = Vec::new();
    let failed = reads.failed_at.iter().enumerate().filter(|(edge, _)| Some(*edge) != excused);
    let failed: u64 = failed.map(|(_, failed)| failed).sum();
    if failed > 0 {
        wrong.push(format!("{failed} reads failed at edges that ran all the time"));
    }
    if reads.slowest > most {
        wrong.push(format!("an answer took {:.1?}, and none may take more than {most:.1?}", reads.slowest));
    }
    wrong
}

/// No edge answered without a lease.
pub(crate) fn of_leases(reads: &Reads) -> Vec<String> {
    let fenced = (reads.fenced > 0).then(|| format!("{} answers came from edges that had lost their lease", reads.fenced));
    fenced.into_iter().collect()
}

/// Every accepted call was settled as complete, within the bound.
pub(crate) fn of_receipts(calls: &[Call], restarts: &[Instant], bound: Duration) -> Vec<String> {
    let mut wrong = Vec::new();
    for call in calls {
        match &call.settled {
            None => wrong.push(format!("purge {} never got a receipt", call.seq)),
            Some((_, receipt)) if receipt.state != ReceiptState::Complete => {
                wrong.push(format!("purge {} is {:?} ({})", call.seq, receipt.state, receipt.may_serve.join(", ")));
            }
            Some((_, receipt)) if receipt.seq != call.seq => {
                wrong.push(format!("the receipt of purge {} is that of {}", call.seq, receipt.seq));
            }
            Some((_, receipt)) if receipt.followers.iter().any(|row| row.state == FollowerState::Pending) => {
                wrong.push(format!("purge {} is complete by a receipt in which an edge is pending", call.seq));
            }
            Some(_) => {
                let took = call.took(restarts).unwrap_or_default();
                if took > bound + SLACK {
                    wrong.push(format!("purge {} completed after {took:.1?}, the bound is {bound:.1?}", call.seq));
                }
            }
        }
    }
    let mut said = sum_up("receipts are not as they must be", &wrong);
    if calls.is_empty() {
        said.push("no purge was accepted: nothing was checked".to_owned());
    }
    said
}

/// The journal holds every call that was accepted, with its tags.
pub(crate) fn of_journal(calls: &[Call], journal: &[Event]) -> Vec<String> {
    let by_seq: BTreeMap<u64, &Event> = journal.iter().map(|event| (event.seq, event)).collect();
    let lost = calls.iter().filter_map(|call| {
        let scopes = match by_seq.get(&call.seq).map(|event| &event.fact) {
            Some(Fact::Purged { scopes, .. }) => scopes,
            Some(_) => return Some(format!("event {} was accepted as a purge, and is none", call.seq)),
            None => return Some(format!("purge {} was accepted, and is not in the journal", call.seq)),
        };
        let tags: HashSet<&str> =
            scopes.iter().filter_map(|scope| if let Scope::Tag(tag) = scope { Some(tag.as_str()) } else { None }).collect();
        let missing = call.demands.iter().find(|(key, _)| !tags.contains(tag(*key).as_str()));
        missing.map(|(key, _)| format!("purge {} was accepted with tag {}, and is in the journal without it", call.seq, tag(*key)))
    });
    sum_up("accepted purges are lost", &lost.collect::<Vec<_>>())
}

/// Receipts of purges that were accepted from `from` on and settled by `to`, while one edge was cut off or held still, call
/// exactly that edge fenced: it can't have applied them.
pub(crate) fn of_fenced(calls: &[Call], (from, to): (Instant, Instant), name: &str) -> (usize, Vec<String>) {
    let within = calls.iter().filter(|call| call.accepted >= from).filter_map(|call| call.settled.as_ref());
    let receipts: Vec<&Receipt> = within.filter(|(settled, _)| *settled <= to).map(|(_, receipt)| receipt).collect();
    let state_of = |receipt: &Receipt| receipt.followers.iter().find(|row| row.name.as_str() == name).map(|row| row.state);
    let wrong = receipts.iter().filter(|receipt| state_of(receipt) != Some(FollowerState::Fenced));
    let wrong: Vec<_> = wrong.map(|receipt| format!("purge {} calls {name} {:?}", receipt.seq, state_of(receipt))).collect();
    let mut said = sum_up(&format!("receipts do not call {name} fenced, which could not hear of them"), &wrong);
    if receipts.is_empty() {
        said.push(format!("no purge completed while {name} was away: nothing was checked"));
    }
    (receipts.len(), said)
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::super::forged::receipt;
    use super::*;
    use wire::{Mode, Owner, Timestamp};

    const BOUND: Duration = Duration::from_secs(10);

    fn call(seq: u64, after: Duration, state: ReceiptState, rows: &[(&str, FollowerState)]) -> Call {
        let accepted = Instant::now();
        Call { seq, demands: vec![(3, 2)], accepted, settled: Some((accepted + after, receipt(seq, state, rows).unwrap())) }
    }

    fn purged(seq: u64, tag: &str) -> Event {
        let fact = Fact::purged(Owner::default(), Mode::Hard, vec![Scope::Tag(tag.parse().unwrap())]);
        Event { seq, at: Timestamp::from_millis(0), actor: "admin".to_owned(), fact }
    }

    #[test]
    fn a_receipt_that_is_late_pending_partial_or_missing_is_named() {
        let good = call(1, BOUND, ReceiptState::Complete, &[("a", FollowerState::Fenced)]);
        assert!(of_receipts(from_ref(&good), &[], BOUND).is_empty());
        let bad = [
            call(2, BOUND * 2, ReceiptState::Complete, &[("a", FollowerState::Fenced)]),
            call(3, BOUND, ReceiptState::Partial, &[("a", FollowerState::Fenced)]),
            call(4, BOUND, ReceiptState::Complete, &[("a", FollowerState::Pending)]),
            Call { settled: None, ..good.clone() },
            Call { seq: 9, ..good },
        ];
        for call in bad {
            assert_eq!(of_receipts(from_ref(&call), &[], BOUND).len(), 1, "{call:?}");
        }
        assert_eq!(of_receipts(&[], &[], BOUND).len(), 1);
    }

    #[test]
    fn an_accepted_purge_that_the_journal_lacks_or_has_with_other_tags_is_named() {
        let accepted = [call(4, BOUND, ReceiptState::Complete, &[])];
        assert!(of_journal(&accepted, &[purged(4, "k-3")]).is_empty());
        for journal in [vec![], vec![purged(5, "k-3")], vec![purged(4, "k-4")]] {
            assert_eq!(of_journal(&accepted, &journal).len(), 1, "{journal:?}");
        }
    }

    #[test]
    fn a_receipt_that_says_applied_of_an_edge_that_was_cut_off_is_named() {
        let begun = Instant::now();
        let span = (begun, begun + BOUND * 2);
        let fenced = call(4, BOUND, ReceiptState::Complete, &[("a", FollowerState::Fenced)]);
        let applied = call(5, BOUND, ReceiptState::Complete, &[("a", FollowerState::Applied)]);
        assert_eq!(of_fenced(from_ref(&fenced), span, "a"), (1, vec![]));
        assert_eq!(of_fenced(&[fenced, applied], span, "a").1.len(), 1);
        assert_eq!(of_fenced(&[], span, "a").1.len(), 1);
    }

    #[test]
    fn a_read_that_failed_is_named_unless_its_edge_was_away_and_so_is_an_answer_that_took_too_long() {
        let reads = Reads { failed_at: vec![0, 0, 2], slowest: Duration::from_millis(900), ..Reads::default() };
        assert!(of_answers(&reads, Some(2), Duration::from_secs(1)).is_empty());
        assert_eq!(of_answers(&reads, Some(1), Duration::from_secs(1)).len(), 1);
        assert_eq!(of_answers(&reads, None, Duration::from_millis(800)).len(), 2);
    }

    #[test]
    fn reads_that_could_not_have_failed_prove_nothing() {
        let good = Reads { all: 9, binding: 5, hits: 3, ..Reads::default() };
        assert!(of_reads(&good).is_empty());
        for bad in [Reads { binding: 0, ..good.clone() }, Reads { hits: 0, ..good.clone() }, Reads { faults: 1, ..good }] {
            assert_eq!(of_reads(&bad).len(), 1, "{bad:?}");
        }
    }
}
