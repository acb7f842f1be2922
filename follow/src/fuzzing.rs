//! The door for the fuzz target of kept folds in `fuzz/`: a node starts on whatever its disk gives back, and what it then
//! keeps can be read again.
//!
//! In tests the same door sees a few hundred folders from a fixed seed.

use std::fs;
use std::path::Path;

use wire::{Chain, Epoch, FeedLine, State};

use crate::Kept;

/// Opens a folder whose fold is what stands before the first NUL, or a good one where nothing does, and whose tail is
/// what stands behind it; then keeps a line more.
///
/// The folder is to be an empty one of the caller's.
pub fn kept(folder: &Path, bytes: &[u8]) {
    let at = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let (fold, tail) = bytes.split_at(at);
    let good = serde_json::to_vec(&State::new(Epoch::from_bytes([1; 8]), [0; 16])).unwrap_or_default();
    let fold = if fold.is_empty() { good.as_slice() } else { fold };
    let is_written = fs::write(folder.join("fold.json"), fold).is_ok();
    if !is_written || fs::write(folder.join("tail.jsonl"), tail.get(1..).unwrap_or_default()).is_err() {
        return;
    }
    let Ok((mut kept, Some(follower))) = Kept::open(folder) else { return };
    let here = follower.folded();
    let Some(next) = here.seq.checked_add(1) else { return };
    let (chain, events, questions) = (Chain::START, Vec::new(), Vec::new());
    let line = FeedLine { epoch: here.epoch, from: here.seq, to: next, chain, head: next, events, live: None, questions };
    assert!(kept.add(&line).is_ok(), "a line can't be kept");
    drop(kept);
    let again = Kept::open(folder).ok().and_then(|(_, follower)| follower);
    let seq = again.map(|follower| follower.folded().seq);
    assert!(seq == Some(next), "a line was kept behind {here}, but {seq:?} is the last one read");
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};
    use proptest::test_runner::RngSeed;

    use super::*;

    fn line(from: u64, to: u64) -> Vec<u8> {
        let epoch = Epoch::from_bytes([1; 8]);
        let (chain, events, questions) = (Chain::START, Vec::new(), Vec::new());
        let line = FeedLine { epoch, from, to, chain, head: to, events, live: None, questions };
        let mut text = serde_json::to_vec(&line).unwrap();
        text.push(b'\n');
        text
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let lines = vec![line(0, 1), line(1, 2), line(2, 9), line(0, 0), b"\n".to_vec(), b"{}\n".to_vec(), b"{\"epoch\":".to_vec()];
        let changes = vec((any::<Index>(), any::<u8>()), 0..3);
        let bent = (vec(select(lines), 0..6), changes).prop_map(|(lines, changes)| {
            let mut tail = [vec![0], lines.concat()].concat();
            for (at, byte) in changes {
                // The first byte says that the fold is a good one.
                let at = at.index(tail.len()).max(1);
                if let Some(place) = tail.get_mut(at) {
                    *place = byte;
                }
            }
            tail
        });
        prop_oneof![1 => vec(any::<u8>(), 0..64), 4 => bent]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 256, failure_persistence: None, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default()
        })]

        #[test]
        fn no_bytes_on_disk_make_a_start_panic(bytes in bytes()) {
            let folder = tempfile::tempdir().unwrap();
            kept(folder.path(), &bytes);
        }
    }

    #[test]
    fn a_line_that_a_kill_cut_just_before_its_end_is_not_glued_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let whole = [vec![0], line(0, 1)].concat();
        kept(folder.path(), whole.strip_suffix(b"\n").unwrap());
    }
}
