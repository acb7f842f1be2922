//! The pieces of one representation as they come together (RFC 9110, 15.3.7.3; RFC 9111, 3.3 and 3.4).
//!
//! That they are of one representation is for [`super::content_range::combine_allowed`] to say before they
//! come here.

use bytes::Bytes;

use super::ranges::ByteRange;

/// Runs of bytes with gaps between them. Beyond it the smallest is dropped: who asks for a byte here and a
/// byte there all over a large representation must not make a list of it.
const MAX_RUNS: usize = 64;

/// Neighbours that together are no longer than this become one buffer, so that a run of small pieces does not
/// cost a buffer for each, while a large one is never copied.
const SMALL: usize = 64 << 10;

/// What a run takes beside its bytes.
const RUN_COST: usize = 64;

/// What a buffer takes beside its bytes.
const CHUNK_COST: usize = 96;

/// What came can't be of one representation: it says different things about its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contradiction;

/// What is held of one representation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    complete: Option<u64>,
    /// In order, with a gap between any two.
    runs: Vec<Run>,
}

impl Parts {
    /// Returns nothing yet, of so many bytes where that is known.
    pub(crate) fn new(complete: Option<u64>) -> Self {
        Self { complete, runs: Vec::new() }
    }

    /// Returns the length of the whole, where it is known.
    pub(crate) fn complete(&self) -> Option<u64> {
        self.complete
    }

    /// Takes in what an answer says about the length of the whole.
    pub(crate) fn learn(&mut self, complete: Option<u64>) -> Result<(), Contradiction> {
        let Some(said) = complete else { return Ok(()) };
        if self.complete.is_some_and(|known| known != said) || self.end() > said {
            return Err(Contradiction);
        }
        self.complete = Some(said);
        Ok(())
    }

    /// Takes in the bytes from `start` on; what is held of them already stays.
    pub(crate) fn insert(&mut self, start: u64, bytes: Bytes) -> Result<(), Contradiction> {
        let end = start.checked_add(bytes.len() as u64).filter(|end| *end <= self.complete.unwrap_or(u64::MAX)).ok_or(Contradiction)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let from = self.runs.partition_point(|run| run.end() < start);
        let to = self.runs.partition_point(|run| run.start <= end);
        let merged = merge(start, &bytes, self.runs.drain(from..to));
        self.runs.insert(from, merged);
        self.keep_few();
        Ok(())
    }

    /// Tells whether all bytes of `range` are held.
    pub(crate) fn covers(&self, range: ByteRange) -> bool {
        self.run_with(range).is_some()
    }

    /// Returns the bytes of `range` in order; nothing where one of them is missing.
    pub(crate) fn read(&self, range: ByteRange) -> Option<Vec<Bytes>> {
        self.run_with(range).map(|run| run.read(range))
    }

    /// Returns the smallest range to fetch after which all of `range` is held; nothing where it is.
    ///
    /// It is one range, so what is held in the midst of it comes again.
    pub(crate) fn missing(&self, range: ByteRange) -> Option<ByteRange> {
        let first = self.run_at(range.first).map_or(range.first, Run::end);
        if first > range.last {
            return None;
        }
        let last = self.run_at(range.last).map_or(range.last, |run| run.start.saturating_sub(1));
        Some(ByteRange { first, last })
    }

    /// Tells whether the whole is held, so that it is a 200 from now on (RFC 9110, 15.3.7.3).
    pub(crate) fn is_whole(&self) -> bool {
        match self.complete {
            None => false,
            Some(0) => true,
            Some(complete) => self.covers(ByteRange { first: 0, last: complete - 1 }),
        }
    }

    /// Returns the bytes of memory that it takes.
    pub(crate) fn weight(&self) -> usize {
        self.runs.iter().map(Run::weight).sum()
    }

    /// Where the last byte that is held ends.
    fn end(&self) -> u64 {
        self.runs.last().map_or(0, Run::end)
    }

    fn run_at(&self, at: u64) -> Option<&Run> {
        let next = self.runs.partition_point(|run| run.end() <= at);
        self.runs.get(next).filter(|run| run.start <= at)
    }

    fn run_with(&self, range: ByteRange) -> Option<&Run> {
        self.run_at(range.first).filter(|run| range.last < run.end())
    }

    fn keep_few(&mut self) {
        if self.runs.len() <= MAX_RUNS {
            return;
        }
        let smallest = self.runs.iter().enumerate().min_by_key(|(_, run)| run.length).map(|(at, _)| at);
        if let Some(at) = smallest {
            self.runs.remove(at);
        }
    }
}

/// Bytes without a gap, in the buffers that they came in.
#[derive(Clone, Debug)]
struct Run {
    start: u64,
    length: u64,
    chunks: Vec<Bytes>,
}

impl Run {
    fn end(&self) -> u64 {
        self.start + self.length
    }

    fn push(&mut self, chunk: Bytes) {
        self.length += chunk.len() as u64;
        match self.chunks.last_mut() {
            Some(last) if last.len() + chunk.len() <= SMALL => *last = join(last, &chunk),
            _ => self.chunks.push(chunk),
        }
    }

    fn read(&self, range: ByteRange) -> Vec<Bytes> {
        let mut found = Vec::new();
        let mut at = self.start;
        for chunk in &self.chunks {
            let next = at + chunk.len() as u64;
            let (from, to) = (range.first.max(at), range.last.saturating_add(1).min(next));
            if from < to {
                found.push(cut(chunk, from - at, to - at));
            }
            at = next;
        }
        found
    }

    fn weight(&self) -> usize {
        RUN_COST + self.chunks.iter().map(|chunk| CHUNK_COST + chunk.len()).sum::<usize>()
    }
}

/// Makes one run of new bytes and of all the runs that they touch; new are only the bytes between these.
fn merge(start: u64, bytes: &Bytes, touched: impl Iterator<Item = Run>) -> Run {
    let end = start + bytes.len() as u64;
    let mut merged = Run { start, length: 0, chunks: Vec::new() };
    let mut at = start;
    for run in touched {
        if at < run.start {
            merged.push(take(bytes, at - start, run.start - start));
        }
        merged.start = merged.start.min(run.start);
        at = run.end();
        run.chunks.into_iter().for_each(|chunk| merged.push(chunk));
    }
    if at < end {
        merged.push(take(bytes, at - start, end - start));
    }
    merged
}

fn join(one: &[u8], other: &[u8]) -> Bytes {
    Bytes::from([one, other].concat())
}

/// What is cut from a buffer keeps all of it in memory: where that is more than twice what is wanted, a copy
/// takes less.
fn take(bytes: &Bytes, from: u64, to: u64) -> Bytes {
    let wanted = cut(bytes, from, to);
    if wanted.len() < bytes.len() / 2 { Bytes::copy_from_slice(&wanted) } else { wanted }
}

/// The bytes from `from` up to `to`, none of them copied.
fn cut(bytes: &Bytes, from: u64, to: u64) -> Bytes {
    let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(within(from)..within(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> ByteRange {
        ByteRange { first, last }
    }

    fn size(at: u64) -> usize {
        usize::try_from(at).unwrap()
    }

    /// The bytes of the representation that all tests are about: no two places within 251 look alike.
    fn bytes(first: u64, end: u64) -> Bytes {
        (first..end).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    fn joined(chunks: &[Bytes]) -> Vec<u8> {
        chunks.concat()
    }

    /// Parts with these pieces, each from its first byte up to its end.
    fn parts(complete: Option<u64>, pieces: &[(u64, u64)]) -> Parts {
        let mut parts = Parts::new(complete);
        for (first, end) in pieces {
            parts.insert(*first, bytes(*first, *end)).unwrap();
        }
        parts
    }

    #[test]
    fn rule_19_a_stored_part_serves_what_lies_within_it() {
        let parts = parts(Some(100), &[(10, 20), (30, 40)]);
        for (first, last, is_held) in [
            (10, 19, true),
            (12, 12, true),
            (19, 19, true),
            (30, 39, true),
            (9, 10, false),
            (19, 20, false),
            (10, 39, false),
            (50, 60, false),
        ] {
            assert_eq!(parts.covers(range(first, last)), is_held, "{first}-{last}");
            let found = parts.read(range(first, last)).map(|chunks| joined(&chunks));
            assert_eq!(found, is_held.then(|| bytes(first, last + 1).to_vec()), "{first}-{last}");
        }
    }

    #[test]
    fn rule_19_only_what_is_missing_is_fetched() {
        let parts = parts(Some(100), &[(10, 20), (30, 40), (60, 70)]);
        let cases = [
            (10, 19, None),
            (0, 5, Some((0, 5))),
            (0, 9, Some((0, 9))),
            (0, 10, Some((0, 9))),
            (0, 15, Some((0, 9))),
            (15, 25, Some((20, 25))),
            (15, 35, Some((20, 29))),
            (25, 35, Some((25, 29))),
            (5, 45, Some((5, 45))),
            (15, 65, Some((20, 59))),
            (0, 99, Some((0, 99))),
            (70, 99, Some((70, 99))),
            (69, 99, Some((70, 99))),
        ];
        for (first, last, missing) in cases {
            let expected = missing.map(|(first, last)| range(first, last));
            assert_eq!(parts.missing(range(first, last)), expected, "{first}-{last}");
        }
        assert_eq!(Parts::default().missing(range(0, 0)), Some(range(0, 0)));
    }

    #[test]
    fn rule_19_pieces_in_any_order_make_the_whole() {
        let pieces = [(0, 10), (10, 20), (20, 30)];
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for order in orders {
            let pieces: Vec<_> = order.iter().filter_map(|at| pieces.get(*at).copied()).collect();
            let parts = parts(Some(30), &pieces);
            assert!(parts.is_whole() && parts.runs.len() == 1, "{order:?}");
            assert_eq!(joined(&parts.read(range(0, 29)).unwrap()), bytes(0, 30), "{order:?}");
        }
    }

    #[test]
    fn rule_19_what_is_held_is_whole_only_when_its_length_is_known() {
        let mut found = parts(None, &[(0, 30)]);
        assert!(!found.is_whole());
        assert_eq!(found.learn(Some(30)), Ok(()));
        assert!(found.is_whole());
        assert_eq!(found.complete(), Some(30));
        assert!(!parts(Some(31), &[(0, 30)]).is_whole());
        assert!(!parts(Some(30), &[(0, 10), (11, 30)]).is_whole());
        assert!(Parts::new(Some(0)).is_whole() && !Parts::new(None).is_whole());
    }

    #[test]
    fn rule_19_lengths_that_contradict_each_other_are_refused() {
        let mut found = parts(Some(30), &[(0, 10)]);
        assert_eq!(found.learn(None), Ok(()));
        assert_eq!(found.learn(Some(30)), Ok(()));
        assert_eq!(found.learn(Some(31)), Err(Contradiction));
        assert_eq!(found.insert(25, bytes(25, 31)), Err(Contradiction));
        assert_eq!(found.insert(25, bytes(25, 30)), Ok(()));
        assert_eq!(found.insert(30, Bytes::new()), Ok(()));
        assert_eq!(parts(None, &[(0, 10)]).learn(Some(9)), Err(Contradiction));
        assert_eq!(Parts::default().insert(u64::MAX, bytes(0, 1)), Err(Contradiction));
        assert_eq!(Parts::default().insert(u64::MAX - 1, bytes(0, 1)), Ok(()));
        let after = found.read(range(25, 29)).map(|chunks| joined(&chunks));
        assert_eq!(after, Some(bytes(25, 30).to_vec()), "what was refused has changed nothing");
    }

    #[test]
    fn rule_19_large_pieces_are_not_copied_and_small_ones_do_not_cost_a_buffer_each() {
        let large = bytes(0, 200_000);
        let mut found = Parts::new(None);
        found.insert(0, large.slice(..100_000)).unwrap();
        found.insert(100_000, large.slice(100_000..)).unwrap();
        let chunks = found.read(range(0, 199_999)).unwrap();
        assert_eq!(chunks.iter().map(|chunk| chunk.as_ptr()).collect::<Vec<_>>(), [large.as_ptr(), large.as_ptr().wrapping_add(100_000)]);
        let across = found.read(range(99_999, 100_000)).unwrap();
        assert_eq!(across.iter().map(Bytes::len).collect::<Vec<_>>(), [1, 1]);

        let mut small = Parts::new(None);
        for at in 0..2000 {
            small.insert(at, bytes(at, at + 1)).unwrap();
        }
        assert_eq!(small.read(range(0, 1999)).unwrap(), [bytes(0, 2000)]);
        assert!(small.weight() < 2200, "{}", small.weight());
    }

    #[test]
    fn rule_19_a_little_of_a_large_piece_does_not_keep_all_of_it() {
        let mut found = parts(None, &[(0, 100_000)]);
        let overlapping = bytes(0, 100_010);
        found.insert(0, overlapping.clone()).unwrap();
        let tail = found.read(range(100_000, 100_009)).unwrap();
        assert_eq!(tail, [bytes(100_000, 100_010)]);
        assert_ne!(tail.first().map(|tail| tail.as_ptr()), Some(overlapping.as_ptr().wrapping_add(100_000)));
        assert!(found.weight() >= 100_010 && found.weight() < 101_000);
    }

    #[test]
    fn rule_19_runs_are_bounded_and_the_smallest_goes() {
        let mut found = Parts::new(None);
        for at in 0..64 {
            found.insert(at * 10, bytes(at * 10, at * 10 + 2)).unwrap();
        }
        assert_eq!(found.runs.len(), MAX_RUNS);
        found.insert(5000, bytes(5000, 5001)).unwrap();
        assert_eq!(found.runs.len(), MAX_RUNS);
        assert!(!found.covers(range(5000, 5000)), "the smallest is the one that came");
        found.insert(6000, bytes(6000, 6003)).unwrap();
        assert!(found.covers(range(6000, 6002)) && found.runs.len() == MAX_RUNS);
        found.insert(0, bytes(0, 6003)).unwrap();
        assert_eq!(found.runs.len(), 1);
        assert_eq!(joined(&found.read(range(0, 6002)).unwrap()), bytes(0, 6003));
    }

    /// Every answer after every insertion, compared with a table of single bytes.
    #[test]
    fn rule_19_parts_agree_with_a_table_of_bytes() {
        const LENGTH: u64 = 40;
        let mut seed = 1_u64;
        let mut draw = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..20 {
            let (mut parts, mut held) = (Parts::new(Some(LENGTH)), vec![false; size(LENGTH)]);
            for _ in 0..12 {
                let first = draw(LENGTH);
                let end = (first + draw(8)).min(LENGTH);
                parts.insert(first, bytes(first, end)).unwrap();
                held.iter_mut().take(size(end)).skip(size(first)).for_each(|held| *held = true);
                for (first, last) in (0..LENGTH).flat_map(|first| (first..LENGTH).map(move |last| (first, last))) {
                    let gaps: Vec<_> = (first..=last).filter(|at| !held.get(size(*at)).unwrap()).collect();
                    let missing = gaps.first().zip(gaps.last()).map(|(first, last)| range(*first, *last));
                    assert_eq!(parts.missing(range(first, last)), missing, "{first}-{last} of {held:?}");
                    let found = parts.read(range(first, last)).map(|chunks| joined(&chunks));
                    assert_eq!(found, missing.is_none().then(|| bytes(first, last + 1).to_vec()));
                }
                assert_eq!(parts.is_whole(), held.iter().all(|held| *held));
                assert!(parts.runs.is_sorted_by(|before, after| before.end() < after.start));
            }
        }
    }
}
