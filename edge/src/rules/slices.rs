//! The slices in which a large representation is fetched, so that a client's range brings little more from
//! the upstream than what it asked for (http.md, 20).

use super::ranges::ByteRange;

/// Returns the whole slices in which `range` lies (http.md, 20): less than one slice more at either end, and
/// never beyond the complete length. `range` is within that already.
pub(crate) fn slice_of(range: ByteRange, slice: u64, complete: Option<u64>) -> ByteRange {
    let slice = slice.max(1);
    let first = range.first - range.first % slice;
    let last = (range.last - range.last % slice).saturating_add(slice - 1);
    let last = complete.map_or(last, |complete| last.min(complete.saturating_sub(1)));
    ByteRange { first, last: last.max(first) }
}

/// Returns the bytes of the slice with this number; nothing where it lies beyond the end.
pub(crate) fn slice_at(number: u64, slice: u64, complete: Option<u64>) -> Option<ByteRange> {
    let first = number.checked_mul(slice.max(1))?;
    let begins = complete.is_none_or(|complete| first < complete);
    begins.then(|| slice_of(ByteRange { first, last: first }, slice, complete))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> ByteRange {
        ByteRange { first, last }
    }

    #[test]
    fn rule_20_slices_enclose_a_range_and_end_with_the_whole() {
        let cases = [
            (0, 0, None, 0, 9),
            (0, 9, None, 0, 9),
            (9, 10, None, 0, 19),
            (15, 34, None, 10, 39),
            (15, 34, Some(36), 10, 35),
            (35, 35, Some(36), 30, 35),
            (10, 19, Some(20), 10, 19),
            (u64::MAX, u64::MAX, None, u64::MAX - 5, u64::MAX),
        ];
        for (first, last, complete, sliced_first, sliced_last) in cases {
            let sliced = slice_of(range(first, last), 10, complete);
            assert_eq!(sliced, range(sliced_first, sliced_last), "{first}-{last} of {complete:?}");
            assert!(sliced.length() - range(first, last).length() < 20, "less than two slices more than was asked for");
        }
        assert_eq!(slice_of(range(3, 4), 0, None), range(3, 4), "a slice is never empty");
        assert_eq!(slice_of(range(3, 4), 10, Some(0)), range(0, 0));
    }

    #[test]
    fn rule_20_slices_are_numbered_from_the_start() {
        let cases = [
            (0, None, Some((0, 9))),
            (3, None, Some((30, 39))),
            (3, Some(40), Some((30, 39))),
            (3, Some(33), Some((30, 32))),
            (3, Some(31), Some((30, 30))),
            (3, Some(30), None),
            (0, Some(0), None),
            (u64::MAX, None, None),
        ];
        for (number, complete, expected) in cases {
            let expected = expected.map(|(first, last)| range(first, last));
            assert_eq!(slice_at(number, 10, complete), expected, "{number} of {complete:?}");
        }
    }
}
