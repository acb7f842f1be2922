//! The fold on disk: a snapshot and the feed's lines behind it, so that a node that starts again is
//! never further back than it had come, and can start where no origin answers.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use wire::{FeedLine, State};

use crate::Follower;

/// Lines behind the snapshot after which a new one is written.
const LINES: usize = 2000;

/// Why the fold can't be kept.
#[derive(Debug, thiserror::Error)]
#[error("failed to keep the journal's fold in {path}: {error}")]
pub struct KeptError {
    path: PathBuf,
    error: std::io::Error,
}

/// The folder that a node keeps its fold in.
#[derive(Debug)]
pub struct Kept {
    folder: PathBuf,
    tail: File,
    lines: usize,
}

impl Kept {
    /// Opens the folder and returns the fold that it holds, where it holds one that can be read.
    ///
    /// # Errors
    /// Where the folder can't be used.
    pub fn open(folder: &Path) -> Result<(Self, Option<Follower>), KeptError> {
        let failed = |error| KeptError { path: folder.to_owned(), error };
        fs::create_dir_all(folder).map_err(failed)?;
        let (follower, lines, whole) = read(folder);
        let tail = OpenOptions::new().create(true).append(true).open(folder.join("tail.jsonl")).map_err(failed)?;
        // A line that a kill cut would be glued to the next one.
        tail.set_len(whole).map_err(failed)?;
        Ok((Self { folder: folder.to_owned(), tail, lines }, follower))
    }

    /// Keeps a line before it is put in force. It survives kill -9; what a power cut takes is asked for again.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn add(&mut self, line: &FeedLine) -> Result<(), KeptError> {
        let failed = |error| KeptError { path: self.folder.clone(), error };
        let mut text = serde_json::to_vec(line).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let before = self.tail.metadata().map_err(failed)?.len();
        if let Err(error) = self.tail.write_all(&text) {
            let _ = self.tail.set_len(before);
            return Err(failed(error));
        }
        self.lines += 1;
        Ok(())
    }

    /// Forgets what is kept: it could not be kept up to date.
    pub(crate) fn forget(&mut self) {
        let _ = fs::remove_file(self.folder.join("fold.json"));
        let _ = self.tail.set_len(0);
        // The next line tries to write the whole fold again.
        self.lines = LINES;
    }

    /// Tells whether it is time to write the fold anew.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.lines >= LINES
    }

    /// Writes the whole fold, and forgets the lines before it.
    ///
    /// # Errors
    /// Where the disk refuses; what was kept before is still there then.
    pub fn replace(&mut self, state: &State) -> Result<(), KeptError> {
        let failed = |error| KeptError { path: self.folder.clone(), error };
        let staged = self.folder.join("fold.json.new");
        let mut file = File::create(&staged).map_err(failed)?;
        let text = serde_json::to_vec(state).map_err(|error| failed(error.into()))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(staged, self.folder.join("fold.json")).map_err(failed)?;
        // Lines that are older than the fold don't follow from it, so they do no harm if this fails.
        self.tail.set_len(0).map_err(failed)?;
        self.lines = 0;
        Ok(())
    }
}

/// Reads what is there: the fold, the number of lines behind it, and the bytes of those that are whole. A
/// fold that can't be read is as good as none: the snapshot replaces it.
fn read(folder: &Path) -> (Option<Follower>, usize, u64) {
    let state = fs::read(folder.join("fold.json")).ok().and_then(|text| serde_json::from_slice::<State>(&text).ok());
    let Some(state) = state else { return (None, 0, 0) };
    let mut follower = Follower::new(state);
    let (mut count, mut whole) = (0, 0);
    if let Ok(tail) = File::open(folder.join("tail.jsonl")) {
        let mut tail = BufReader::new(tail);
        let mut text = Vec::new();
        while let Ok(length @ 1..) = tail.read_until(b'\n', &mut text) {
            // The last line may be cut, also just before its end: the next one would be glued to it.
            if text.last() != Some(&b'\n') {
                break;
            }
            let Ok(line) = serde_json::from_slice::<FeedLine>(&text) else { break };
            // Lines from before the fold don't follow from it.
            let _ = follower.take(&line);
            count += 1;
            whole += length as u64;
            text.clear();
        }
    }
    (Some(follower), count, whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Chain, Epoch};

    fn line(from: u64, to: u64) -> FeedLine {
        let (epoch, chain) = (Epoch::from_bytes([1; 8]), Chain::START);
        FeedLine { epoch, from, to, chain, head: to, events: vec![], live: None, questions: vec![] }
    }

    fn kept_seq(folder: &Path) -> Option<u64> {
        Kept::open(folder).unwrap().1.map(|follower| follower.folded().seq)
    }

    #[test]
    fn a_node_that_starts_again_stands_where_it_had_come_to() {
        let folder = tempfile::tempdir().unwrap();
        let (mut kept, none) = Kept::open(folder.path()).unwrap();
        assert!(none.is_none());
        kept.replace(&State::new(Epoch::from_bytes([1; 8]), [0; 16])).unwrap();
        kept.add(&line(0, 3)).unwrap();
        kept.add(&line(3, 4)).unwrap();
        assert_eq!(kept_seq(folder.path()), Some(4));
        fs::OpenOptions::new().append(true).open(folder.path().join("tail.jsonl")).unwrap().write_all(b"{\"epoch\":\"01").unwrap();
        assert_eq!(kept_seq(folder.path()), Some(4), "a line that was cut by a kill");
    }

    #[test]
    fn a_kill_between_fold_and_tail_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (mut kept, _) = Kept::open(folder.path()).unwrap();
        let mut state = State::new(Epoch::from_bytes([1; 8]), [0; 16]);
        kept.replace(&state).unwrap();
        kept.add(&line(0, 3)).unwrap();
        let tail = fs::read(folder.path().join("tail.jsonl")).unwrap();
        state.position.seq = 3;
        kept.replace(&state).unwrap();
        fs::write(folder.path().join("tail.jsonl"), tail).unwrap();
        assert_eq!(kept_seq(folder.path()), Some(3));
    }

    #[test]
    fn a_fold_that_cannot_be_read_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("fold.json"), b"{").unwrap();
        assert_eq!(kept_seq(folder.path()), None);
    }
}
