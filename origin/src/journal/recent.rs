//! What of the journal's end is kept in memory: the newest events for the feeds, and when each was appended, which is
//! known for longer than the events are kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use wire::Chain;

use super::{KEPT, StoredEvent};

/// Events that are kept for the feeds; older ones are read from the file.
const EVENTS: usize = 16_384;

/// Bytes of their JSON: one event may have a megabyte.
const BYTES: usize = 64 << 20;

/// Batches whose time is remembered: at 800 a second for longer than any lease, so that nobody counts as a laggard (L3)
/// since its event is not among the recent ones any more.
const TIMES: usize = 1 << 18;

/// Chains that are remembered, as many as events stay readable: they tell for long whether a shorter history is the
/// beginning of this one. No more, since a position that fits must be one behind which all can be read.
const CHAINS: usize = 100_000;

const _: () = assert!(CHAINS as u64 <= KEPT);

/// The newest events, in order and without gaps.
#[derive(Debug, Default)]
pub(super) struct Recent {
    events: VecDeque<Arc<StoredEvent>>,
    bytes: usize,
    /// (first seq, when it was appended) of each batch, the oldest first.
    times: VecDeque<(u64, Duration)>,
    /// The chain behind each of the last events, and the seq of the last one.
    chains: VecDeque<Chain>,
    newest: u64,
}

impl Recent {
    /// Takes in the next batch, and lets go of what is too much.
    pub(super) fn extend(&mut self, batch: Vec<Arc<StoredEvent>>, at: Duration) {
        self.times.extend(batch.first().map(|first| (first.seq, at)));
        if self.times.len() > TIMES {
            self.times.pop_front();
        }
        self.note_chains(&batch);
        self.bytes += batch.iter().map(|event| event.json.len()).sum::<usize>();
        self.events.extend(batch);
        while self.events.len() > EVENTS || self.bytes > BYTES {
            let Some(oldest) = self.events.pop_front() else { return };
            self.bytes -= oldest.json.len();
        }
    }

    fn note_chains(&mut self, batch: &[Arc<StoredEvent>]) {
        self.chains.extend(batch.iter().map(|event| event.chain));
        self.newest = batch.last().map_or(self.newest, |last| last.seq);
        let beyond = self.chains.len().saturating_sub(CHAINS);
        self.chains.drain(..beyond);
    }

    /// Returns the chain behind an event, where it is remembered.
    pub(super) fn chain_at(&self, seq: u64) -> Option<Chain> {
        let back = usize::try_from(self.newest.checked_sub(seq)?).ok()?;
        self.chains.get(self.chains.len().checked_sub(back + 1)?).copied()
    }

    /// Forgets all: another life of the journal begins.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns up to `most` events from `seq` on; none where it is not among them.
    pub(super) fn starting_at(&self, seq: u64, most: usize) -> Vec<Arc<StoredEvent>> {
        let first = self.events.front().map_or(u64::MAX, |event| event.seq);
        let skip = seq.checked_sub(first).and_then(|skip| usize::try_from(skip).ok());
        skip.map_or_else(Vec::new, |skip| self.events.iter().skip(skip).take(most).cloned().collect())
    }

    /// Returns when an event that there is was appended, where that is still known.
    pub(super) fn appended_at(&self, seq: u64) -> Option<Duration> {
        let behind = self.times.partition_point(|(first, _)| *first <= seq);
        self.times.get(behind.checked_sub(1)?).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Class;

    fn batch(seqs: std::ops::Range<u64>, bytes: usize) -> Vec<Arc<StoredEvent>> {
        let event = |seq| StoredEvent { seq, chain: Chain::START, class: Class::Purge, json: "x".repeat(bytes).into() };
        seqs.map(|seq| Arc::new(event(seq))).collect()
    }

    fn seqs(recent: &Recent, from: u64) -> Vec<u64> {
        recent.starting_at(from, 3).iter().map(|event| event.seq).collect()
    }

    #[test]
    fn large_events_go_early_and_when_they_were_appended_stays_known() {
        let mut recent = Recent::default();
        for seq in 1..=70 {
            recent.extend(batch(seq..seq + 1, 1 << 20), Duration::from_secs(seq));
        }
        assert_eq!((seqs(&recent, 6), seqs(&recent, 7), seqs(&recent, 70)), (vec![], vec![7, 8, 9], vec![70]));
        assert_eq!((recent.events.len(), recent.bytes), (64, 64 << 20));
        assert_eq!((recent.appended_at(1), recent.appended_at(70)), (Some(Duration::from_secs(1)), Some(Duration::from_secs(70))));
    }

    #[test]
    fn events_of_one_batch_share_its_time_and_what_came_before_this_process_has_none() {
        let mut recent = Recent::default();
        recent.extend(batch(5..8, 1), Duration::from_secs(1));
        recent.extend(batch(8..9, 1), Duration::from_secs(2));
        let at = [4, 5, 7, 8].map(|seq| recent.appended_at(seq).map(|at| at.as_secs()));
        assert_eq!(at, [None, Some(1), Some(1), Some(2)]);
        recent.clear();
        assert_eq!((recent.appended_at(5), seqs(&recent, 5)), (None, vec![]));
    }

    #[test]
    fn chains_are_remembered_for_longer_than_events() {
        let mut recent = Recent::default();
        assert_eq!(recent.chain_at(0), None);
        for seq in 5..=70 {
            recent.extend(batch(seq..seq + 1, 2 << 20), Duration::from_secs(seq));
        }
        assert_eq!((seqs(&recent, 5), recent.chain_at(4), recent.chain_at(71)), (vec![], None, None));
        assert_eq!((recent.chain_at(5), recent.chain_at(70)), (Some(Chain::START), Some(Chain::START)));
        recent.clear();
        assert_eq!(recent.chain_at(70), None);
    }

    #[test]
    fn an_event_larger_than_all_the_room_is_read_from_the_file() {
        let mut recent = Recent::default();
        recent.extend(batch(1..2, BYTES + 1), Duration::from_secs(1));
        assert_eq!((seqs(&recent, 1), recent.bytes), (vec![], 0));
        recent.extend(batch(2..3, 1), Duration::from_secs(2));
        assert_eq!((seqs(&recent, 1), seqs(&recent, 2)), (vec![], vec![2]));
    }
}
